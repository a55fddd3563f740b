"""The task models: what their own optimiser and derivatives give is what torch's give."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from engine.simulation import learners
from engine.simulation.learners import HIDDEN, LEARNING_RATE, STEPS, WEIGHT_DECAY, predict


def test_the_perceptron_is_the_one_that_autograd_and_adamw_train() -> None:
    rng = np.random.default_rng(0)
    centre_CD = rng.normal(size=(4, 24))
    label_N = rng.integers(4, size=900)
    x_ND = (centre_CD[label_N] + 2 * rng.normal(size=(900, 24))).astype(np.float32)
    found_M = predict("mlp", x_ND[:300], label_N[:300], x_ND[300:], 4, seed=3)
    generator = torch.Generator().manual_seed(3)
    model = nn.Sequential(nn.Linear(24, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 4))
    for layer in (model[0], model[2]):
        nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu", generator=generator)
        nn.init.zeros_(layer.bias)
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    x_tensor, y_tensor = torch.from_numpy(x_ND), torch.from_numpy(label_N)
    for _ in range(STEPS):
        place_B = torch.randint(300, (learners.BATCH,), generator=generator)
        loss = functional.cross_entropy(model(x_tensor[place_B]), y_tensor[place_B])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    expected_M = model(x_tensor[300:]).argmax(dim=1).numpy()
    # Sums in another order round otherwise; hardly any class depends on that.
    assert (found_M == expected_M).mean() > 0.99
    assert (found_M == label_N[300:]).mean() > 0.6
