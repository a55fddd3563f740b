"""What a committee disagrees on: linear heads on the task learner's features, each fitted without one fold of what is
labelled, or whole networks that were trained apart (`member_`), which cost a forward pass each.

Each score is of an answer; `View.reduced` makes one of several.

Shape suffixes: B batch, N parts of the labelled items, D components of the features, C outputs, M members of the
committee, E outputs of all of them, K values of an answer, P answers of an item.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from vaal.acquisition.disagreement import Draws, Sums
from vaal.acquisition.reference import Reference
from vaal.acquisition.view import View
from vaal.linear_head import all_classes, cross_fitted, mean_variance
from vaal.logistic import Logistic
from vaal.task.kinds import Kind
from vaal.task.model import log_probabilities

_FITTED = ("vote_entropy", "consensus_kl", "ensemble_varr")
"""The names under which the same heads are kept."""
_PARTS = ("weight", "bias")


def vote_entropy(view: View) -> Tensor:
    """Minus the entropy of the votes in nats (B,), from -ln K to 0 (Dagan and Engelson 1995)."""
    return view.reduced(_vote_negentropy(view.once(_head_draws)))


def consensus_kl(view: View) -> Tensor:
    """Minus the mean Kullback-Leibler divergence of the members from their mean in nats (B,), at most 0 (McCallum and
    Nigam 1998)."""
    return view.reduced(view.once(_head_draws).agreement)


def ensemble_varr(view: View) -> Tensor:
    """Minus the share of members that do not vote for the most frequent value (B,) (Beluch et al. 2018, equation 6)."""
    return view.reduced(view.once(_head_draws).modal_vote)


def member_vote_entropy(view: View) -> Tensor:
    """As `vote_entropy`, of the task learner's networks. Raises ValueError if there is one only."""
    return view.reduced(_vote_negentropy(view.once(_member_draws)))


def member_consensus_kl(view: View) -> Tensor:
    """As `consensus_kl`, of the task learner's networks. Raises ValueError if there is one only."""
    return view.reduced(view.once(_member_draws).agreement)


def member_ensemble_varr(view: View) -> Tensor:
    """As `ensemble_varr`, of the task learner's networks. Raises ValueError if there is one only."""
    return view.reduced(view.once(_member_draws).modal_vote)


def fit_heads(reference: Reference) -> dict[str, Tensor]:
    """A linear head for each fold, fitted to the parts in all others: `weight` (M, C, D) and `bias` (M, C), float32.

    Logistic regressions, multinomial for classes and one for each of several labels. Penalty and temperature have the
    lowest cross-entropy on the folds left out. Raises ValueError if there are fewer than two folds.
    """
    folds, fold_N = torch.unique(reference.part_fold_N, return_inverse=True)
    if len(folds) < 2:
        raise ValueError(
            f"{', '.join(_FITTED)} need labelled items in 2 folds or more, for a head each; there are {len(folds)}"
        )
    kind, answer_N, part_ND = reference.task.kind, reference.answer_N, reference.part_ND.float()
    variance = mean_variance(part_ND)
    if kind != "labels":
        return _heads(Logistic(part_ND, answer_N, reference.logit_LC.shape[1]), fold_N, variance, kind)
    answer_CN = answer_N.long().T
    logistic, heads = Logistic(part_ND, answer_CN[0], 2), list[dict[str, Tensor]]()
    for label_N in answer_CN:
        # The coordinates of the inputs serve all labels.
        logistic.label_N = label_N
        heads.append(_heads(logistic, fold_N, variance, kind))
    return {name: torch.cat([head[name] for head in heads], dim=1) for name in heads[0]}


def _heads(logistic: Logistic, fold_N: Tensor, variance: float, kind: Kind) -> dict[str, Tensor]:
    fitted = cross_fitted(logistic, fold_N, variance)
    layers = [logistic.layer(weight_CE) for weight_CE in fitted.weight_KCE]
    # Of two classes each has an output, of a label yes alone.
    layers = layers if kind == "labels" else [all_classes(layer) for layer in layers]
    weight_MCD, bias_MC = (torch.stack([getattr(layer, name).detach() for layer in layers]) for name in _PARTS)
    return {"weight": fitted.factor * weight_MCD, "bias": fitted.factor * bias_MC}


@torch.no_grad()
def _head_draws(view: View) -> Draws:
    heads = view.summary(next(name for name in _FITTED if name in view.networks.summaries))
    weight_ED, bias_E = (heads[name].flatten(0, 1) for name in _PARTS)
    with torch.autocast(weight_ED.device.type, enabled=False):
        if view.task.kind == "segmentation":
            logit_BEP = weight_ED @ view.features.flatten(2) + bias_E[:, None]
        else:
            logit_BEP = F.linear(view.pooled, weight_ED, bias_E)
    num_members, num_outputs = heads["bias"].shape
    logit = logit_BEP.reshape(-1, num_outputs, *logit_BEP.shape[2:])
    log_p = log_probabilities(view.task.kind, logit)
    sums = Sums()
    sums.add(log_p.reshape(-1, num_members, *log_p.shape[1:]))
    return sums.draws


@torch.no_grad()
def _member_draws(view: View) -> Draws:
    task, sums = view.task, Sums()
    if len(task.networks) < 2:
        raise ValueError("a committee needs 2 networks or more; give the task learner the weights of further ones")
    sums.add(view.log_p[:, None])
    for member in task.networks[1:]:
        logit = task.head(member.features(view.task_x_B), member)
        sums.add(log_probabilities(task.kind, logit)[:, None])
    return sums.draws


def _vote_negentropy(draws: Draws) -> Tensor:
    return torch.xlogy(draws.vote_BKP, draws.vote_BKP).sum(dim=1)
