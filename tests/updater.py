"""An updater of one process, in plain PyTorch."""

from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

ModuleT = TypeVar("ModuleT", bound=nn.Module)


class OptimizerUpdater(Generic[ModuleT]):
    """A module and its optimizer as `vaal.step.Updater`; a step follows every `accumulation` losses."""

    def __init__(
        self, module: ModuleT, optimizer: torch.optim.Optimizer, accumulation: int = 1, clipping: float = 0.0
    ) -> None:
        self.module = module
        self._optimizer = optimizer
        self._accumulation, self._clipping = accumulation, clipping
        self._applied = 0

    def __call__(self, *inputs: Tensor) -> Any:
        return self.module(*inputs)

    def apply(self, loss: Tensor) -> None:
        torch.autograd.backward(loss / self._accumulation)
        self._applied += 1
        if self._applied % self._accumulation == 0:
            if self._clipping:
                nn.utils.clip_grad_norm_(self.module.parameters(), self._clipping)
            self._optimizer.step()
            self._optimizer.zero_grad()
