"""The task models whose accuracy is measured. On vectors each is fitted in about a second.

Shape suffixes: N labelled vectors, M vectors of the test set, B a batch, D components, H hidden units, C classes.
"""

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
from torch import Tensor, nn

from engine.simulation.small_learner import small
from engine.simulation.worlds import Items

Vectors = NDArray[np.float32]
Numbers = NDArray[np.int64]

INVERSE_PENALTY = 0.03
"""C of scikit-learn's logistic regression."""
HIDDEN, STEPS, BATCH, LEARNING_RATE, WEIGHT_DECAY = 256, 400, 128, 2e-3, 0.5
BETAS, EPSILON = (0.9, 0.999), 1e-8
NEIGHBOURS = 5


def predict(task: str, train: Items, label_N: Numbers, test: Items, num_classes: int, seed: int) -> Numbers:
    """The class (M,) int64 that a task model gives to each item of the test set, the same for a seed on any machine of
    a kind. Initial weights depend on the seed alone, not on the labels.

    Raises KeyError for an unknown task.
    """
    with threadpool_limits(1):
        if task == "small":
            return small(train.pixel_NSSC, label_N, test.pixel_NSSC, num_classes, seed)
        return LEARNERS[task](train.vector_ND, label_N, test.vector_ND, num_classes, seed)


def _linear(train_ND: Vectors, label_N: Numbers, test_MD: Vectors, num_classes: int, seed: int) -> Numbers:  # noqa: ARG001
    from sklearn.linear_model import LogisticRegression

    if len(np.unique(label_N)) < 2:
        return np.full(len(test_MD), label_N[0])
    # A convex problem: there are no initial weights that matter.
    model = LogisticRegression(C=INVERSE_PENALTY, max_iter=200, tol=1e-3).fit(train_ND, label_N)
    found: Numbers = model.predict(test_MD).astype(np.int64)
    return found


def _mlp(train_ND: Vectors, label_N: Numbers, test_MD: Vectors, num_classes: int, seed: int) -> Numbers:
    """One hidden layer, AdamW with a cosine schedule, and a fixed number of steps whatever the number of labels.

    With its derivatives written down and its optimiser's state in one vector, it takes half of the time that autograd
    and torch.optim take.
    """
    generator = torch.Generator().manual_seed(seed)
    first_HD = torch.empty(HIDDEN, train_ND.shape[1])
    second_CH = torch.empty(num_classes, HIDDEN)
    for weight in (first_HD, second_CH):
        nn.init.kaiming_uniform_(weight, nonlinearity="relu", generator=generator)
    parameters = torch.cat([first_HD.flatten(), torch.zeros(HIDDEN), second_CH.flatten(), torch.zeros(num_classes)])
    gradient = torch.empty_like(parameters)
    shapes = first_HD.shape, (HIDDEN,), second_CH.shape, (num_classes,)
    parts, slopes = (_views(values, shapes) for values in (parameters, gradient))
    x_ND, y_N = torch.from_numpy(train_ND), torch.from_numpy(label_N)
    optimiser = _AdamW(parameters)
    with torch.inference_mode():
        for step in range(STEPS):
            place_B = torch.randint(len(y_N), (min(BATCH, len(y_N)),), generator=generator)
            _backward(parts, slopes, x_ND[place_B], y_N[place_B])
            optimiser.step(gradient, LEARNING_RATE * (1 + math.cos(math.pi * step / STEPS)) / 2)
        hidden_MH = torch.addmm(parts[1], torch.from_numpy(test_MD), parts[0].T).relu_()
        found: Numbers = torch.addmm(parts[3], hidden_MH, parts[2].T).argmax(dim=1).numpy()
    return found


def _views(values: Tensor, shapes: Iterable[Sequence[int]]) -> list[Tensor]:
    """Parts of a vector, one after another, in these shapes."""
    sizes = [math.prod(shape) for shape in shapes]
    return [part.view(*shape) for part, shape in zip(torch.split(values, sizes), shapes, strict=True)]


def _backward(parts: list[Tensor], slopes: list[Tensor], x_BD: Tensor, y_B: Tensor) -> None:
    """Write the derivatives of the mean cross-entropy by the weights and biases of both layers to `slopes`."""
    hidden_BH = torch.addmm(parts[1], x_BD, parts[0].T).relu_()
    residual_BC = torch.addmm(parts[3], hidden_BH, parts[2].T).softmax(dim=1)
    residual_BC[torch.arange(len(y_B)), y_B] -= 1
    residual_BC /= len(y_B)
    torch.mm(residual_BC.T, hidden_BH, out=slopes[2])
    torch.sum(residual_BC, dim=0, out=slopes[3])
    residual_BH = (residual_BC @ parts[2]).mul_(hidden_BH > 0)
    torch.mm(residual_BH.T, x_BD, out=slopes[0])
    torch.sum(residual_BH, dim=0, out=slopes[1])


class _AdamW:
    """Adam with decoupled weight decay (arXiv 1711.05101) on one vector, as torch.optim.AdamW does it."""

    def __init__(self, parameters: Tensor) -> None:
        self.parameters, self.count = parameters, 0
        self.mean, self.square = torch.zeros_like(parameters), torch.zeros_like(parameters)

    def step(self, gradient: Tensor, rate: float) -> None:
        self.count += 1
        self.parameters.mul_(1 - rate * WEIGHT_DECAY)
        self.mean.lerp_(gradient, 1 - BETAS[0])
        self.square.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        size = (self.square / (1 - BETAS[1] ** self.count)).sqrt_().add_(EPSILON)
        self.parameters.addcdiv_(self.mean, size, value=-rate / (1 - BETAS[0] ** self.count))


def _knn(train_ND: Vectors, label_N: Numbers, test_MD: Vectors, num_classes: int, seed: int) -> Numbers:  # noqa: ARG001
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


LEARNERS: dict[str, Callable[[Vectors, Numbers, Vectors, int, int], Numbers]] = {
    "linear": _linear,
    "mlp": _mlp,
    "knn": _knn,
}
