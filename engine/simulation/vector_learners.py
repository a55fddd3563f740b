"""Task models of vectors: each is fitted in about a second.

Shape suffixes: N labelled vectors, M vectors of the test set, D components, C classes.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

Vectors = NDArray[np.float32]
Numbers = NDArray[np.int64]

INVERSE_PENALTY = 0.03
"""C of scikit-learn's logistic regression."""
HIDDEN, STEPS, BATCH, LEARNING_RATE, WEIGHT_DECAY = 256, 400, 128, 2e-3, 0.5
NEIGHBOURS = 5


def linear(train_ND: Vectors, label_N: Numbers, test_MD: Vectors, num_classes: int, seed: int) -> Numbers:  # noqa: ARG001
    """A logistic regression."""
    from sklearn.linear_model import LogisticRegression

    if len(np.unique(label_N)) < 2:
        return np.full(len(test_MD), label_N[0])
    # A convex problem: there are no initial weights that matter.
    model = LogisticRegression(C=INVERSE_PENALTY, max_iter=200, tol=1e-3).fit(train_ND, label_N)
    found: Numbers = model.predict(test_MD).astype(np.int64)
    return found


def mlp(train_ND: Vectors, label_N: Numbers, test_MD: Vectors, num_classes: int, seed: int) -> Numbers:
    """One hidden layer, AdamW with a cosine schedule, and a fixed number of steps whatever the number of labels."""
    generator = torch.Generator().manual_seed(seed)
    length = train_ND.shape[1]
    model = nn.Sequential(nn.Linear(length, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, num_classes))
    for layer in model:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu", generator=generator)
            nn.init.zeros_(layer.bias)
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    x_ND, y_N = torch.from_numpy(train_ND), torch.from_numpy(label_N)
    for _ in range(STEPS):
        place_B = torch.randint(len(y_N), (min(BATCH, len(y_N)),), generator=generator)
        loss = functional.cross_entropy(model(x_ND[place_B]), y_N[place_B])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    with torch.inference_mode():
        found: Numbers = model(torch.from_numpy(test_MD)).argmax(dim=1).numpy()
    return found


def knn(train_ND: Vectors, label_N: Numbers, test_MD: Vectors, num_classes: int, seed: int) -> Numbers:  # noqa: ARG001
    """The class of most of the five nearest; of equally many the one whose nearest is nearer."""
    k = min(NEIGHBOURS, len(label_N))
    found = np.empty(len(test_MD), np.int64)
    norm_N = (train_ND**2).sum(axis=1)
    for begin in range(0, len(test_MD), 1000):
        gap_BN = norm_N - 2 * test_MD[begin : begin + 1000] @ train_ND.T
        near_Bk = torch.from_numpy(gap_BN).topk(k, dim=1, largest=False, sorted=True).indices.numpy()
        label_Bk = label_N[near_Bk]
        # A vote counts a little more the nearer it is, which decides among equal numbers alone.
        votes_BC = np.zeros((len(label_Bk), num_classes))
        for place in range(k):
            votes_BC[np.arange(len(label_Bk)), label_Bk[:, place]] += 1 + 0.01 / (1 + place)
        found[begin : begin + 1000] = votes_BC.argmax(axis=1)
    return found
