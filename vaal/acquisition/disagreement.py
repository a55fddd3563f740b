"""Several answers to the same questions, of draws of one task learner or of members of a committee, as sums: what is
kept does not grow with their number.

All that is asked of them is negated, so that the lowest are the answers on which the draws disagree most.

Shape suffixes: B batch, T draws, K values of an answer, P answers of an item.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Draws(NamedTuple):
    """T answers to each question: means over them of the probabilities (B, K, P), of their squared distance from an
    origin (B, K, P), and of sum p ln p (B, P), in nats; the share of them that votes for each value (B, K, P); and the
    origin (B, K, P)."""

    mean_BKP: Tensor
    square_BKP: Tensor
    negentropy_BP: Tensor
    vote_BKP: Tensor
    origin_BKP: Tensor

    @property
    def predictive_negentropy(self) -> Tensor:
        """Minus the entropy of the mean probabilities in nats (B, P), at most 0."""
        return torch.xlogy(self.mean_BKP, self.mean_BKP).sum(dim=1)

    @property
    def agreement(self) -> Tensor:
        """Minus the mean Kullback-Leibler divergence of the draws from their mean, in nats (B, P), at most 0: the mean
        of the entropies less the entropy of the mean (arXiv 1112.5745)."""
        # Rounding makes it positive where the draws agree.
        return (self.predictive_negentropy - self.negentropy_BP).clamp_max(0)

    @property
    def deviation(self) -> Tensor:
        """The standard deviation of a probability over the draws (B, K, P), with T in its denominator."""
        variance_BKP = self.square_BKP - (self.mean_BKP - self.origin_BKP).square()
        return variance_BKP.clamp_min(0).sqrt()

    @property
    def modal_vote(self) -> Tensor:
        """The share of votes for the most frequent value, less 1 (B, P): from 1/K - 1 to 0."""
        return self.vote_BKP.amax(dim=1) - 1


class Sums:
    """Sums over draws that come one block after another. There is at least one."""

    def __init__(self) -> None:
        self._count, self._parts = 0, list[Tensor]()

    def add(self, log_p_BTKP: Tensor) -> None:
        """Take the log probabilities of a block of T draws, float32."""
        p_BTKP = log_p_BTKP.exp()
        if not self._count:
            self._origin_B1KP = p_BTKP[:, :1].clone()
        voted_BTP = log_p_BTKP.argmax(dim=2)
        found = [
            p_BTKP.sum(dim=1),
            # Around one of the draws: squares around 0 lose a small deviation to rounding.
            (p_BTKP - self._origin_B1KP).square_().sum(dim=1),
            (p_BTKP * log_p_BTKP).sum(dim=(1, 2)),
            torch.zeros_like(p_BTKP[:, 0]).scatter_add_(1, voted_BTP, torch.ones_like(p_BTKP[:, :, 0])),
        ]
        self._parts = [old + new for old, new in zip(self._parts, found, strict=True)] if self._parts else found
        self._count += p_BTKP.shape[1]

    @property
    def draws(self) -> Draws:
        """What the draws so far come to."""
        mean_BKP, square_BKP, negentropy_BP, vote_BKP = (part / self._count for part in self._parts)
        return Draws(mean_BKP, square_BKP, negentropy_BP, vote_BKP, self._origin_B1KP[:, 0])
