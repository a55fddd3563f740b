"""What several draws or members of a task learner disagree on, from all their probabilities at once.

Shape suffixes: T draws, B batch, P answers of an item, K values of an answer.
"""

import torch
from torch import Tensor

from vaal.task.kinds import Kind


def probabilities(kind: Kind, logit: Tensor) -> Tensor:
    """The probabilities of an item's answers (B, P, K), float64, straight from their definition."""
    if kind == "labels":
        yes = logit.double().sigmoid()
        return torch.stack([1 - yes, yes], dim=2)
    return logit.double().flatten(2).softmax(dim=1).transpose(1, 2) if logit.ndim > 2 else softmax(logit)


def softmax(logit: Tensor) -> Tensor:
    return logit.double().softmax(dim=1)[:, None]


def by_definition(p_TBPK: Tensor) -> dict[str, Tensor]:
    """The columns (B,) from stacked probabilities."""
    mean_BPK = p_TBPK.mean(dim=0)
    entropy_BP, mean_entropy_BP = (-(p * p.log()).sum(dim=-1) for p in (mean_BPK, p_TBPK))
    votes_TBP = p_TBPK.argmax(dim=-1)
    modal_BP = torch.stack([(votes_TBP == k).double().mean(dim=0) for k in range(p_TBPK.shape[-1])]).amax(dim=0)
    quantities = {
        "bald": entropy_BP - mean_entropy_BP.mean(dim=0),
        "predictive_entropy": entropy_BP,
        "variation_ratio": 1 - modal_BP,
        "mean_std": p_TBPK.std(dim=0, correction=0).mean(dim=-1),
    }
    return {name: -values_BP.mean(dim=1) for name, values_BP in quantities.items()}
