"""What acquisition functions are fitted to, before the pool streams by.

Shape suffixes: L labelled items, R items of a random sample of the pool, N parts of the labelled items, D components of
the task learner's features, C its outputs.
"""

from typing import NamedTuple

from torch import Tensor

from vaal.acquisition.view import Settings
from vaal.task.model import Task


class Reference(NamedTuple):
    """What the task learner makes of what is labelled, and of a random sample of the pool; float32, on the CPU.

    Features are those of `View.pooled`; logits are divided by the temperature; of maps their mean over the places.
    `fold_L` are folds (L,) int64 that keep groups together. Parts are what a head answers for: the items themselves, or
    of masks a sample of their pixels, with features (N, D), answers, and the folds of their items. Answers are classes
    (N,) int64, or for labels (N, C) float32 of 0 and 1. `num_pool` counts the items that the sample stands for.
    """

    task: Task
    feature_LD: Tensor
    logit_LC: Tensor
    fold_L: Tensor
    part_ND: Tensor
    answer_N: Tensor
    part_fold_N: Tensor
    feature_RD: Tensor
    num_pool: int
    settings: Settings
