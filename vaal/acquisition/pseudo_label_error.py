"""Pseudo-label error: how probable it is that the task learner's own label of an image is wrong (experimental).

A task learner's confidence has one meaning for all classes. How often a label is right also depends on which label it
is, and heads that did not see an item tell this from the labels that there are. Labels (sigmoid) have no predicted
class: for them it is not defined.

Shape suffixes: B batch, N parts of the labelled items, D components of the features, C classes, E inputs of
the regression of errors, P answers of an item, F folds.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from vaal.acquisition.reference import Reference
from vaal.acquisition.view import View
from vaal.linear_head import cross_fitted, held_out, mean_variance
from vaal.logistic import Logistic

DEVIATION = 0.5
"""What the slope and the offsets are expected to differ from 1 and 0 before any label, as a standard deviation: about
40 items of a class count as much."""
MOST_STEPS = 50
SMALLEST_GRADIENT = 1e-6


def fit_confusion(reference: Reference) -> dict[str, Tensor]:
    """The `slope` () and the `offset_C` (C,), float32, with which a label c is right with the probability
    sigmoid(slope z + offset_c), z the log odds of its own confidence.

    Linear heads, each fitted without one fold and calibrated together, predict the parts of that fold. A logistic
    regression of which predictions are right on z, and on which class they are, gives the slope, an offset that all
    classes share, and one of each (Platt 1999, with classes), most probable under normal distributions about 1 and 0.
    With fewer than two folds or classes they are 1 and 0.
    """
    num_classes = reference.logit_LC.shape[1]
    log_p_NC = _held_out_log_p(reference, num_classes)
    if log_p_NC is None:
        return {"slope": torch.ones(()), "offset_C": torch.zeros(num_classes)}
    odds_N, predicted_N = (part[:, 0] for part in log_odds(log_p_NC[:, :, None]))
    x_NE = torch.cat([odds_N[:, None], torch.ones_like(odds_N)[:, None], F.one_hot(predicted_N, num_classes)], dim=1)
    weight_E = _most_probable(x_NE, (predicted_N == reference.answer_N).double())
    return {"slope": weight_E[0].float(), "offset_C": (weight_E[1] + weight_E[2:]).float()}


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
    logistic = Logistic(x_ND, answer_N, num_classes)
    heads = cross_fitted(logistic, fold_N, mean_variance(x_ND))
    return (heads.factor * held_out(logistic, heads.weight_KCE, fold_N)).log_softmax(dim=1)


def _most_probable(x_NE: Tensor, is_right_N: Tensor) -> Tensor:
    """The weights (E,) of the regression, of which the first is expected to be 1 and the others 0, by Newton's method,
    whose steps are halved until the loss falls."""
    expected_E = F.one_hot(torch.tensor(0), x_NE.shape[1]).double()

    def loss(weight_E: Tensor) -> Tensor:
        fit = F.binary_cross_entropy_with_logits(x_NE @ weight_E, is_right_N, reduction="sum")
        return fit + 0.5 * (weight_E - expected_E).square().sum() / DEVIATION**2

    weight_E = expected_E
    for _ in range(MOST_STEPS):
        p_N = (x_NE @ weight_E).sigmoid()
        slope_E = x_NE.T @ (p_N - is_right_N) + (weight_E - expected_E) / DEVIATION**2
        if slope_E.abs().max() < SMALLEST_GRADIENT:
            break
        curvature_EE = x_NE.T @ ((p_N * (1 - p_N))[:, None] * x_NE) + torch.eye(len(slope_E)) / DEVIATION**2
        step_E = torch.linalg.solve(curvature_EE, slope_E)
        while loss(weight_E - step_E) > loss(weight_E) and step_E.abs().max() > SMALLEST_GRADIENT:
            step_E = step_E / 2
        weight_E = weight_E - step_E
    return weight_E
