"""Uncertainty of the task learner's answer from one forward pass.

Each is of an answer; `View.reduced` makes one score of several. The lowest scores are those of the most uncertain.

Shape suffixes: B batch, K values of an answer, P answers of an item.
"""

import torch
from torch import Tensor

from vaal.acquisition.view import View


def least_confidence(view: View) -> Tensor:
    """Probability of the most likely value, from 1/K to 1 (B,) (Lewis and Gale 1994)."""
    return view.reduced(view.once(_top_two)[:, 0].exp())


def margin(view: View) -> Tensor:
    """Probability of the most likely value minus that of the second, from 0 (undecided) to 1 (B,) (Scheffer, Decomain
    and Wrobel 2001)."""
    top_B2P = view.once(_top_two).exp()
    return view.reduced(top_B2P[:, 0] - top_B2P[:, 1])


def ratio(view: View) -> Tensor:
    """Minus the probability of the second value over that of the most likely, from -1 (undecided) to 0 (B,).

    Of more than two values its order is another one than that of the margin. It tells sure answers apart where the
    margin of float32 is 1 for all of them.
    """
    top_B2P = view.once(_top_two)
    return view.reduced(-(top_B2P[:, 1] - top_B2P[:, 0]).exp())


def entropy(view: View) -> Tensor:
    """Minus the entropy of the answer in nats, from -ln K (undecided) to 0 (B,) (Shannon 1948)."""
    return view.reduced((view.log_p.exp() * view.log_p).sum(dim=1))


def _top_two(view: View) -> Tensor:
    """The log probabilities of the two most likely values (B, 2, P), the first one first."""
    top_B2P: Tensor = torch.topk(view.log_p, 2, dim=1).values
    return top_B2P
