"""Expected error reduction: how much the label of an image will lower the variance of the predictions for the pool.

Shape suffixes: B batch, L labelled items, R items of a sample of the pool, D components of the task learner's features,
E one more, a constant 1 for the bias.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from vaal.acquisition.reference import Reference
from vaal.acquisition.view import View

PENALTY = 1.0
"""lambda: what is known before any label is worth one labelled item in each direction of average variance."""


def fit_look_ahead(reference: Reference) -> dict[str, Tensor]:
    """The pool's mean features (D,), and matrices (E, E) float32 whose products with an item's features give both parts
    of its score: |gain h|^2 = h^T A^-1 S A^-1 h and |leverage h|^2 = h^T A^-1 h. O((L + R) E^2 + E^3), float64 inside.
    """
    middle_D = reference.feature_RD.double().mean(dim=0)
    scale = float((reference.feature_RD.double() - middle_D).square().mean().sqrt()) or 1.0
    labelled_LE, pool_RE = (
        F.pad((feature.double() - middle_D) / scale, (0, 1), value=1.0)
        for feature in (reference.feature_LD, reference.feature_RD)
    )
    known_EE = PENALTY * torch.eye(pool_RE.shape[1], dtype=torch.float64) + labelled_LE.T @ labelled_LE
    half_EE = torch.linalg.inv(torch.linalg.cholesky(known_EE))
    variance_E, turn_EE = torch.linalg.eigh(pool_RE.T @ pool_RE / len(pool_RE))
    root_EE = variance_E.clamp_min(0).sqrt()[:, None] * turn_EE.T
    # The items of a batch are then scaled by the matrices.
    scale_E = F.pad(middle_D.new_full(middle_D.shape, 1 / scale), (0, 1), value=1.0)
    matrices = {"gain_EE": root_EE @ half_EE.T @ half_EE * scale_E, "leverage_EE": half_EE * scale_E}
    return {"middle_D": middle_D.float()} | {name: matrix.float() for name, matrix in matrices.items()}


def expected_error_reduction(view: View) -> Tensor:
    """Minus the drop of the mean predictive variance over the pool if the item is labelled (B,), float32: V-optimal
    look-ahead (Yu, Bi and Tresp 2006, ICML, transductive experimental design) on a linear model with squared loss.

    With A = lambda + the sum of h h^T over the labelled items, S = the mean of h h^T over a sample of the pool, and
    a noise of variance 1, the drop is exactly h^T A^-1 S A^-1 h / (1 + h^T A^-1 h). It needs no label of any class.
    Features h are `View.pooled` (of a map its mean), centred and scaled by two numbers of the sample, and a constant 1.
    It seeks outliers.
    """
    fitted = view.summary("expected_error_reduction")
    feature_BE = F.pad(view.pooled - fitted["middle_D"], (0, 1), value=1.0)
    gain_B, leverage_B = ((feature_BE @ fitted[name].T).square().sum(dim=1) for name in ("gain_EE", "leverage_EE"))
    return -gain_B / (1 + leverage_B)
