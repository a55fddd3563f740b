"""Pseudo-label error: how probable it is that the task learner's own label of an image is wrong (experimental).

A task learner's confidence has one meaning for all classes. How often a label is right also depends on which label it
is, and heads that did not see an item tell this from the labels that there are. Labels (sigmoid) have no predicted
class: for them it is not defined.

Shape suffixes: B batch, N parts of the labelled items, D components of the features, C classes, P answers of an item, F
folds.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from vaal.acquisition.reference import Reference
from vaal.acquisition.view import View
from vaal.calibration import temperature_factor
from vaal.linear_head import ROUGH, fit_linear_head
from vaal.logistic import Logistic, fit_logistic

PSEUDO_COUNT = 10.0
"""For each class that is predicted, the weight of the confidence as it stands, in items."""
LOOSE = 0.1
"""Penalty of the weights of the error's regression, in items: for classes that are never predicted."""


def fit_confusion(reference: Reference) -> dict[str, Tensor]:
    """The `slope` () and the `offset_C` (C,), float32, with which a label c is right with the probability
    sigmoid(slope z + offset_c), z the log odds of its own confidence.

    Linear heads, each fitted without one fold and calibrated together, predict the parts of that fold. A regression of
    which predictions are right on z and the predicted class gives slope and offsets (Platt 1999, with an offset for
    each class). Pseudo-items that are right as often as their confidence says keep both near 1 and 0, so that few
    labels change little. With fewer than two folds or classes they are 1 and 0.
    """
    num_classes, answer_N = reference.logit_LC.shape[1], reference.answer_N
    log_p_NC = _held_out_log_p(reference, num_classes)
    if log_p_NC is None:
        return {"slope": torch.ones(()), "offset_C": torch.zeros(num_classes)}
    odds_N, predicted_N = (part[:, 0] for part in log_odds(log_p_NC[:, :, None]))
    x_ND = torch.cat([odds_N[:, None], F.one_hot(predicted_N, num_classes)], dim=1)
    is_right_N, one_N = (predicted_N == answer_N).long(), torch.ones_like(predicted_N)
    pseudo_N = PSEUDO_COUNT / predicted_N.bincount(minlength=num_classes)[predicted_N]
    weight_N = torch.cat([one_N, pseudo_N * odds_N.sigmoid(), pseudo_N * (-odds_N).sigmoid()])
    label_N = torch.cat([is_right_N, one_N, 1 - one_N])
    layer = fit_logistic(x_ND.repeat(3, 1), label_N, 2, LOOSE / float(weight_N.sum()), weight_N)
    weight_D, bias = layer.weight.detach()[0].float(), layer.bias.detach()[0].float()
    return {"slope": weight_D[0].clone(), "offset_C": weight_D[1:] + bias}


def pseudo_label_error(view: View) -> Tensor:
    """Minus the probability that the task learner's label is wrong (B,), float32: see `fit_confusion`; of the pixels of
    a map see `View.reduced`."""
    fitted = view.summary("pseudo_label_error")
    odds_BP, predicted_BP = log_odds(view.log_p)
    return view.reduced(-torch.sigmoid(-(fitted["slope"] * odds_BP + fitted["offset_C"][predicted_BP])))


def log_odds(log_p_BCP: Tensor) -> tuple[Tensor, Tensor]:
    """The log odds ln(p / (1 - p)) of the most probable class (B, P), exact near 1, and its number (B, P), int64."""
    first = log_p_BCP.max(dim=1, keepdim=True)
    others_BP = log_p_BCP.scatter(1, first.indices, -torch.inf).logsumexp(dim=1)
    return first.values[:, 0] - others_BP, first.indices[:, 0]


def _held_out_log_p(reference: Reference, num_classes: int) -> Tensor | None:
    """Calibrated log probabilities (N, C), float64, of each part by a linear head of the other folds; None where there
    are fewer than two folds or classes."""
    x_ND, answer_N = reference.part_ND, reference.answer_N
    folds, fold_N = torch.unique(reference.part_fold_N, return_inverse=True)
    if len(folds) < 2 or (answer_N == answer_N[0]).all():
        return None
    penalty = fit_linear_head(x_ND, answer_N, num_classes, reference.settings.seed, fold_N).penalty
    logistic, variance = Logistic(x_ND, answer_N, num_classes), float(x_ND.double().var(dim=0, correction=0).mean())
    others_NF = (fold_N[:, None] != torch.arange(len(folds))).double()
    logit_NC = torch.empty(len(x_ND), num_classes, dtype=torch.float64)
    for number, weight_CE in enumerate(logistic.fit(penalty * (variance or 1.0), others_NF, tolerance=ROUGH)):
        is_own_N = fold_N == number
        own_NC = logistic.logits(weight_CE, is_own_N).double()
        logit_NC[is_own_N] = own_NC if num_classes > 2 else torch.cat([-own_NC, own_NC], dim=1) / 2
    return (temperature_factor(logit_NC, answer_N) * logit_NC).log_softmax(dim=1)
