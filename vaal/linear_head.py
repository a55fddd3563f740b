"""The task learner T on embeddings: a linear head, fitted at once, its penalty and temperature by cross-validation.

Shape suffixes: N items, D dimensions of an embedding, C classes.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from vaal.calibration import mean_loss, rescale, temperature_factor
from vaal.logistic import Logistic, linear

NUM_FOLDS = 3
PENALTIES = (0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
"""Of which one is chosen, in units of the mean variance of an input; the strongest first."""
ROUGH = 1e-4
"""Tolerance of fits that only choose."""


class LinearHead(nn.Module):
    """Logits of embeddings as one linear layer; its features are the embeddings themselves."""

    def __init__(self, length: int, num_classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(length, num_classes)

    def features(self, x_ND: Tensor) -> Tensor:
        """The embeddings (N, D)."""
        return x_ND

    def forward(self, x_ND: Tensor) -> Tensor:
        """Logits (N, C)."""
        logits_NC: Tensor = self.head(x_ND)
        return logits_NC


class FittedHead(NamedTuple):
    """A head, the share of items whose class is right where the head is fitted on other folds (None with fewer than two
    items of some class), and the penalty that was chosen."""

    head: LinearHead
    held_out_accuracy: float | None
    penalty: float


class CrossFitted(NamedTuple):
    """K regressions, each of the items of all folds but one: weights (K, C, E), as of `Logistic`, and their penalty. Of
    the items left out: the mean cross-entropy in nats, what logits are multiplied by to be calibrated, and the share
    whose class is right."""

    weight_KCE: Tensor
    penalty: float
    loss: float
    factor: float
    accuracy: float


def fit_linear_head(
    x_ND: Tensor, label_N: Tensor, num_classes: int, seed: int, fold_N: Tensor | None = None
) -> FittedHead:
    """The calibrated linear head of all items. On the device of `x_ND`, in eval mode; the same for the same items.

    `x_ND` should have one scale for all dimensions, the embeddings' own: dimensions of little variance made equal to
    the others are noise to a head (CIFAR-10 embeddings, 1,000 labels: accuracy 0.605, and 0.583 with every dimension
    scaled alone). The penalty has the lowest cross-entropy over NUM_FOLDS folds with the classes spread evenly, or
    over those of `fold_N` (N,) int64, which keep items together that are alike.

    Raises ValueError if there is no item, fewer than two classes, or an input that is not finite.
    """
    variance = mean_variance(x_ND)
    fold_N = _stratified_folds(label_N, seed) if fold_N is None else fold_N
    logistic = Logistic(x_ND.float(), label_N, num_classes)
    chosen = None if fold_N is None else cross_fitted(logistic, fold_N, variance)
    penalty = PENALTIES[0] if chosen is None else chosen.penalty
    start_KCE = None if chosen is None else chosen.weight_KCE.mean(dim=0, keepdim=True)
    layer = all_classes(logistic.layer(logistic.fit(penalty * variance, tolerance=ROUGH, start_KCE=start_KCE)[0]))
    rescale(layer, 1.0 if chosen is None else chosen.factor)
    head = LinearHead(x_ND.shape[1], num_classes).to(x_ND.device)
    head.head.load_state_dict(layer.state_dict())
    return FittedHead(head.eval(), chosen and chosen.accuracy, penalty)


def fit_label_head(x_ND: Tensor, answer_NC: Tensor, seed: int, fold_N: Tensor | None = None) -> FittedHead:
    """As `fit_linear_head`, for items that each have several labels or none: a regression for each label, with its own
    penalty and temperature. `answer_NC` is 0 or 1.

    The accuracy is the share of answers, yes or no for each label, that are right where the head is fitted on other
    folds; the penalty is the mean. Raises ValueError if there is no item, or an input that is not finite.
    """
    variance = mean_variance(x_ND)
    if fold_N is None and len(x_ND) >= NUM_FOLDS:
        order_N = torch.from_numpy(np.random.default_rng((seed, 7)).permutation(len(x_ND)))
        fold_N = (order_N % NUM_FOLDS).to(x_ND.device)
    logistic, parts, accuracies, penalties = Logistic(x_ND.float(), answer_NC[:, 0].long(), 2), [], [], []
    for label_N in answer_NC.long().T:
        # The coordinates of the inputs serve all labels.
        logistic.label_N = label_N.to(x_ND.device)
        chosen = None if fold_N is None else cross_fitted(logistic, fold_N, variance)
        penalties.append(PENALTIES[0] if chosen is None else chosen.penalty)
        layer = logistic.layer(logistic.fit(penalties[-1] * variance, tolerance=ROUGH)[0])
        rescale(layer, 1.0 if chosen is None else chosen.factor)
        parts.append(layer)
        accuracies.append(None if chosen is None else chosen.accuracy)
    head = LinearHead(x_ND.shape[1], len(parts)).to(x_ND.device)
    with torch.no_grad():
        head.head.weight.copy_(torch.cat([layer.weight for layer in parts]))
        head.head.bias.copy_(torch.cat([layer.bias for layer in parts]))
    known = [accuracy for accuracy in accuracies if accuracy is not None]
    accuracy = sum(known) / len(known) if known else None
    return FittedHead(head.eval(), accuracy, sum(penalties) / len(penalties))


def mean_variance(x_ND: Tensor) -> float:
    """The variance of an input, mean over the inputs: the unit of penalties. 1 where all inputs are constant."""
    return float(x_ND.double().var(dim=0, correction=0).mean()) or 1.0


def cross_fitted(logistic: Logistic, fold_N: Tensor, variance: float) -> CrossFitted:
    """Regressions of the items of all folds but one, with the penalty that has the lowest cross-entropy on the items
    left out.

    Args:
        fold_N: int64, from 0 to K - 1; each has an item, and K is 2 or more.
        variance: `mean_variance` of the inputs.
    """
    best, weight_KCE = None, None
    for penalty in PENALTIES:
        # From the weights of the penalty before, of the same fold.
        weight_KCE = logistic.fit(penalty * variance, _others(fold_N), tolerance=ROUGH, start_KCE=weight_KCE)
        logit_NC, label_N = held_out(logistic, weight_KCE, fold_N), logistic.label_N
        loss = mean_loss(logit_NC, label_N)
        if best is not None and loss >= best.loss:
            # The loss falls and then rises with a weaker penalty, whose fits take longest.
            break
        accuracy = float((logit_NC.argmax(dim=1) == label_N).double().mean())
        best = CrossFitted(weight_KCE, penalty, loss, temperature_factor(logit_NC, label_N), accuracy)
    assert best is not None
    return best


def held_out(logistic: Logistic, weight_KCE: Tensor, fold_N: Tensor) -> Tensor:
    """Logits (N, classes) of each item by the regression of the items in other folds, float64."""
    parts = [(fold_N == number, weight_CE) for number, weight_CE in enumerate(weight_KCE)]
    logits = [logistic.logits(weight_CE, is_own_N).double() for is_own_N, weight_CE in parts]
    order = torch.cat([is_own_N.nonzero()[:, 0] for is_own_N, _ in parts]).argsort()
    logit_NC = torch.cat(logits)[order]
    return logit_NC if logit_NC.shape[1] > 1 else torch.cat([-logit_NC, logit_NC], dim=1) / 2


def _others(fold_N: Tensor) -> Tensor:
    """The weights (N, K) of regressions of which each is on the items of all folds but one."""
    return (fold_N[:, None] != torch.arange(int(fold_N.max()) + 1, device=fold_N.device)).double()


def all_classes(layer: nn.Linear) -> nn.Linear:
    """A layer with an output for each class; of one output for two classes, half of it for each."""
    if layer.out_features > 1:
        return layer
    weight_CD, bias_C = (torch.cat([-part, part]) / 2 for part in (layer.weight, layer.bias))
    return linear(weight_CD, bias_C, layer.weight.dtype)


def _stratified_folds(label_N: Tensor, seed: int) -> Tensor | None:
    """The fold of each item, the items of every class dealt in turn; None if no class has two items."""
    label = label_N.cpu().numpy()
    if not len(label) or np.bincount(label).max() < 2 or len(np.unique(label)) < 2:
        return None
    order = np.lexsort((np.random.default_rng((seed, 7)).permutation(len(label)), label))
    fold_N = np.empty(len(label), np.int64)
    fold_N[order] = np.arange(len(label)) % NUM_FOLDS
    return torch.from_numpy(fold_N).to(label_N.device)
