"""Draws of a network by its own dropout (arXiv 1506.02142), each one function of its input.

A mask is random by the seed, the number of the draw, and the name of the layer: never by the batch or the place in it.
Everything else stays in eval mode, and nothing of the network is changed.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from vaal.task.model import Task

_WHOLE_CHANNELS = (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)


def has_dropout(network: nn.Module) -> bool:
    """Whether the network has a module Dropout, Dropout1d, Dropout2d or Dropout3d that drops something.

    Others are never drawn: `torch.nn.functional.dropout` in a forward, the dropout of attention, stochastic depth,
    alpha dropout.
    """
    return any(True for _ in _dropouts(network))


@torch.no_grad()
def check_dropout(task: Task, x_B: Tensor) -> None:
    """Check on 2 or more items, in eval mode, that the network of a task learner can be drawn by its dropout.

    Raises ValueError if it has no dropout module, if two draws give the same logits, or if the draw of an item depends
    on its batch-mates.
    """
    _require_dropout(task.network)

    def draw(x_B: Tensor, number: int) -> Tensor:
        with drawn(task.network, seed=0, number=number):
            logit_B: Tensor = task(x_B)
        return logit_B

    first_B = draw(x_B, 0)
    if torch.equal(first_B, draw(x_B, 1)):
        raise ValueError(
            "two draws of the task learner's dropout give the same logits: its dropout modules are not on the way from "
            "the input to the logits"
        )
    if not torch.allclose(first_B[1:], draw(x_B[1:], 0), rtol=1e-3, atol=1e-4):
        raise ValueError(
            "a draw of the task learner's dropout depends on the other items of a batch: a dropout module sees an "
            "input whose first dimension is not the batch"
        )


@contextmanager
def drawn(network: nn.Module, seed: int, number: int) -> Iterator[None]:
    """Within it, the network, in eval mode, is its draw of this number.

    Of Dropout each value of an item has a bit of its own, of Dropout1d, 2d and 3d each channel. Raises ValueError if
    the network has no dropout module.
    """
    _require_dropout(network)
    handles = [
        module.register_forward_hook(_masking((seed, number, *name.encode()), module.p))
        for name, module in _dropouts(network)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def random_mask(key: tuple[int, ...], rate: float, shape: tuple[int, ...]) -> Tensor:
    """0 with the probability `rate`, else 1 / (1 - rate); float32, on the CPU, by the key and the shape alone."""
    generator = torch.Generator().manual_seed(_hashed(key))
    return (torch.rand(shape, generator=generator) >= rate) / max(1 - rate, torch.finfo(torch.float32).tiny)


def _hashed(key: tuple[int, ...]) -> int:
    """32 bits, of which a generator of torch is made on a CPU: FNV-1a, over words instead of bytes."""
    value = 0x811C9DC5
    for word in key:
        value = (value ^ word) * 0x01000193 & 0xFFFFFFFF
    return value


def _masking(key: tuple[int, ...], rate: float) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    def mask(module: nn.Module, _: tuple[Tensor, ...], output_B: Tensor) -> Tensor:
        shape = tuple(output_B.shape[1:])
        if isinstance(module, _WHOLE_CHANNELS):
            shape = (shape[0], *(1 for _ in shape[1:]))
        return output_B * random_mask(key, rate, shape).to(output_B)

    return mask


def _dropouts(network: nn.Module) -> Iterator[tuple[str, nn.Dropout]]:
    for name, module in network.named_modules():
        if isinstance(module, (nn.Dropout, *_WHOLE_CHANNELS)) and module.p > 0:
            yield name, module  # type: ignore[misc]


def _require_dropout(network: nn.Module) -> None:
    if not has_dropout(network):
        raise ValueError(
            "the task learner's network has no dropout module (torch.nn.Dropout, Dropout1d, Dropout2d, Dropout3d) with "
            "p above 0; dropout of the features before its head needs none: score.dropout=features"
        )
