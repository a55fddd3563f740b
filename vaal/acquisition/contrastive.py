"""Contrastive active learning: images whose answers differ from those of the labelled images that look like them.

Shape suffixes: B batch, L labelled items, C outputs, K values of an answer, P answers of an item, N neighbours.
"""

from torch import Tensor

from vaal.acquisition.neighbours import fixed, kept, nearest
from vaal.acquisition.reference import Reference
from vaal.acquisition.view import View
from vaal.task.model import log_probabilities

NEIGHBOURS = 10


def fit_contrastive(reference: Reference) -> dict[str, Tensor]:
    """The labelled items, at most `MOST_LABELLED`, for `nearest`, and their logits (L, C)."""
    place_L = kept(len(reference.feature_LD), reference.settings.seed)
    return fixed(reference.feature_LD[place_L]) | {"logit_LC": reference.logit_LC[place_L]}


def contrastive(view: View) -> Tensor:
    """Minus the mean divergence KL(p(x_l) || p(x)) of an item x over its 10 nearest labelled items x_l (B,), float32
    (CAL, Margatina et al. 2021, arXiv 2109.03764, algorithm 1).

    Near is by Euclidean distance of `View.pooled`, as it is. A map is compared by the mean of its logits over the
    places. Labels have a divergence each, of yes and no: see `View.reduced`.
    """
    items, kind = view.summary("contrastive"), view.task.kind
    logit_BC = view.logits.flatten(2).mean(dim=2) if view.logits.ndim > 2 else view.logits
    _, number_BN = nearest(view.pooled, items, NEIGHBOURS)
    log_p_BKP = log_probabilities(kind, logit_BC)
    log_q_NBKP = log_probabilities(kind, items["logit_LC"][number_BN.T].flatten(0, 1)).view(-1, *log_p_BKP.shape)
    divergence_NBP = (log_q_NBKP.exp() * (log_q_NBKP - log_p_BKP)).sum(dim=2)
    return view.reduced(-divergence_NBP.mean(dim=0))
