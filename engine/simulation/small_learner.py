"""The task model `small`: a small convolutional network on pixels, trained from nothing with flips and crops.

Shape suffixes: N labelled images, M images of the test set, B batch, S image side in pixels, C channels.
"""

from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from vaal.networks import initialise

WIDTHS = (32, 64, 128, 128)
"""Channels of the convolutions; the two in the middle halve the image."""
STEPS, BATCH, LEARNING_RATE, WEIGHT_DECAY = 300, 64, 1e-2, 0.05
"""The steps are the same whatever the number of labels; AdamW, one cycle of the learning rate."""
TEST_BATCH = 500
CROP = 8
"""A crop moves the image by up to an eighth of its side."""


def small(
    train_NSSC: NDArray[np.uint8], label_N: NDArray[np.int64], test_MSSC: NDArray[np.uint8], num_classes: int, seed: int
) -> NDArray[np.int64]:
    """The class (M,) int64 that the network gives to each image of the test set.

    Initial weights depend on the seed, the number of classes and of channels alone.
    """
    generator = torch.Generator().manual_seed(seed)
    model = _network(train_NSSC.shape[3], num_classes, seed)
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=STEPS)
    y_N, model = torch.from_numpy(label_N), model.train()
    for _ in range(STEPS):
        place_B = torch.randint(len(y_N), (BATCH,), generator=generator)
        x_BCSS = _moved(_scaled(train_NSSC[place_B.numpy()]), generator)
        loss = functional.cross_entropy(model(x_BCSS), y_N[place_B])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    model.eval()
    with torch.inference_mode():
        parts = [
            model(_scaled(test_MSSC[place : place + TEST_BATCH])).argmax(dim=1)
            for place in range(0, len(test_MSSC), TEST_BATCH)
        ]
        found: NDArray[np.int64] = torch.cat(parts).numpy()
    return found


def _network(channels: int, num_classes: int, seed: int) -> nn.Module:
    layers: list[nn.Module] = []
    for number, (inputs, outputs) in enumerate(pairwise((channels, *WIDTHS))):
        stride = 2 if number in (1, 2) else 1
        layers += [nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    output = nn.Linear(WIDTHS[-1], num_classes)
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), output)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        initialise(model, linear=[output])
    return model.to(memory_format=torch.channels_last)


def _scaled(pixel_BSSC: NDArray[np.uint8]) -> Tensor:
    """Images (B, C, S, S) from -1 to 1."""
    return torch.from_numpy(pixel_BSSC).permute(0, 3, 1, 2).float() / 127.5 - 1


def _moved(x_BCSS: Tensor, generator: torch.Generator) -> Tensor:
    """Each image moved by up to an eighth of its side, and every second one mirrored left to right."""
    side = x_BCSS.shape[-1]
    most = side // CROP
    padded = functional.pad(x_BCSS, (most, most, most, most))
    shift_B2 = torch.randint(2 * most + 1, (len(x_BCSS), 2), generator=generator)
    flip_B = torch.rand(len(x_BCSS), generator=generator) < 0.5
    row_BS = shift_B2[:, :1] + torch.arange(side)
    column_BS = shift_B2[:, 1:] + torch.arange(side)
    column_BS = torch.where(flip_B[:, None], column_BS.flip(1), column_BS)
    image_B = torch.arange(len(x_BCSS))[:, None, None]
    # The indices come first: (B, S, S, C).
    return padded.permute(0, 2, 3, 1)[image_B, row_BS[:, :, None], column_BS[:, None, :]].permute(0, 3, 1, 2)
