"""Placeholder."""

import torch
from torch import Tensor, nn


class Standardiser(nn.Module):
    def __init__(self, length: int) -> None:
        super().__init__()
        self.length = length
        self.register_buffer("mean_D", torch.zeros(length))
        self.register_buffer("std_D", torch.ones(length))

    @classmethod
    def fit(cls, x_ND: Tensor) -> "Standardiser":
        made = cls(x_ND.shape[1])
        made.mean_D.copy_(x_ND.mean(0))
        made.std_D.copy_(x_ND.std(0).clamp_min(1e-6))
        return made

    @classmethod
    def of(cls, state: dict[str, Tensor]) -> "Standardiser":
        made = cls(len(state["mean_D"]))
        made.load_state_dict(state)
        return made

    def forward(self, x_ND: Tensor) -> Tensor:
        return (x_ND - self.mean_D) / self.std_D

    def latents(self, z_ND: Tensor) -> Tensor:
        return z_ND[:, :128]
