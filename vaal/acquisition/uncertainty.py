"""Uncertainty of the task learner's answer from one forward pass.

Each is of an answer; `View.reduced` makes one score of several.
"""

from torch import Tensor

from vaal.acquisition.view import View


def margin(view: View) -> Tensor:
    """Probability of the most likely value minus that of the second, from 0 (undecided) to 1 (B,) (Scheffer, Decomain
    and Wrobel 2001)."""
    top_B2P = view.log_p.exp().topk(2, dim=1).values
    return view.reduced(top_B2P[:, 0] - top_B2P[:, 1])
