"""What draws of the task learner by dropout disagree on (arXiv 1506.02142; 1703.02910): of the features before its
head, or of the whole network (`network_`), which costs a forward pass a draw.

A draw's mask is one for all items, so that it is one function of the item. Each score is of an answer; `View.reduced`
makes one of several.

Shape suffixes: B batch, D components of the features, C outputs, T draws, E outputs of all draws, K values of an
answer, P answers of an item.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaal.acquisition.disagreement import Draws, Sums
from vaal.acquisition.dropout import drawn, random_mask
from vaal.acquisition.view import View
from vaal.task.model import log_probabilities

BLOCK_VALUES = 1 << 20
"""Masked weights, or logits, that are held at a time."""


def bald(view: View) -> Tensor:
    """Minus the mutual information of the answer and the draw in nats (B,), at most 0 (arXiv 1112.5745, equation 2)."""
    return view.reduced(view.once(_feature_draws).agreement)


def predictive_entropy(view: View) -> Tensor:
    """Minus the entropy of the mean probabilities in nats (B,) (arXiv 1703.02910, section 4)."""
    return view.reduced(view.once(_feature_draws).predictive_negentropy)


def variation_ratio(view: View) -> Tensor:
    """Minus the share of draws that do not vote for the most frequent value (B,) (arXiv 1703.02910, section 4)."""
    return view.reduced(view.once(_feature_draws).modal_vote)


def mean_std(view: View) -> Tensor:
    """Minus the standard deviation of a probability over the draws, mean over the values (B,) (arXiv 1703.02910,
    section 4)."""
    return view.reduced(-view.once(_feature_draws).deviation.mean(dim=1))


def network_bald(view: View) -> Tensor:
    """As `bald`, of draws of the whole network. Raises ValueError if it has no dropout module."""
    return view.reduced(view.once(_network_draws).agreement)


def network_predictive_entropy(view: View) -> Tensor:
    """As `predictive_entropy`, of draws of the whole network. Raises ValueError if it has no dropout module."""
    return view.reduced(view.once(_network_draws).predictive_negentropy)


def network_variation_ratio(view: View) -> Tensor:
    """As `variation_ratio`, of draws of the whole network. Raises ValueError if it has no dropout module."""
    return view.reduced(view.once(_network_draws).modal_vote)


def network_mean_std(view: View) -> Tensor:
    """As `mean_std`, of draws of the whole network. Raises ValueError if it has no dropout module."""
    return view.reduced(-view.once(_network_draws).deviation.mean(dim=1))


def feature_masks(view: View) -> Tensor:
    """What the features are multiplied by in each draw (T, D), float32, on their device."""
    seed, rate, shape = view.settings.seed, view.settings.dropout_rate, (view.settings.passes, view.features.shape[1])
    return random_mask((seed, *b"features"), rate, shape).to(view.features.device)


@torch.no_grad()
def _feature_draws(view: View) -> Draws:
    linear, mask_TD, sums = view.task.linear, feature_masks(view), Sums()
    if linear is not None and view.features.ndim == 2:
        for start in range(0, len(mask_TD), _block_draws(view, linear)):
            sums.add(_linear_block(view, linear, mask_TD[start : start + _block_draws(view, linear)]))
        return sums.draws
    for mask_D in mask_TD:
        masked = view.features * mask_D.view(-1, *(1 for _ in view.features.shape[2:]))
        sums.add(log_probabilities(view.task.kind, view.task.head(masked))[:, None])
    return sums.draws


def _block_draws(view: View, linear: nn.Linear) -> int:
    return max(1, BLOCK_VALUES // (linear.out_features * max(view.features.shape)))


def _linear_block(view: View, linear: nn.Linear, mask_TD: Tensor) -> Tensor:
    """The log probabilities (B, T, K, P) of a block of draws. Masks go to the weights, which are fewer than the
    features of a batch, and all draws are one product."""
    weight_ED = (mask_TD[:, None] * linear.weight).flatten(0, 1)
    with torch.autocast(weight_ED.device.type, enabled=False):
        logit_TCB = F.linear(weight_ED, view.features).view(len(mask_TD), linear.out_features, -1)
    if linear.bias is not None:
        logit_TCB = logit_TCB + linear.bias[:, None]
    # As a map whose places are the items: over few values in the last dimension a softmax takes ten times as long.
    log_p = log_probabilities(view.task.kind, logit_TCB / view.task.temperature).movedim(-1, 0).contiguous()
    return log_p.view(*log_p.shape[:3], -1)


@torch.no_grad()
def _network_draws(view: View) -> Draws:
    sums = Sums()
    for number in range(view.settings.passes):
        with drawn(view.task.network, view.settings.seed, number):
            logit = view.task(view.task_x_B)
        sums.add(log_probabilities(view.task.kind, logit)[:, None])
    return sums.draws
