"""Distances from fixed items by the task learner's features, `View.pooled`: of a map its mean over the places.

Shape suffixes: B batch, L labelled items, R items of a sample of the pool, N fixed items, D components of the features,
K neighbours.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from vaal.acquisition.reference import Reference
from vaal.acquisition.view import View

NEIGHBOURS = 20
ITSELF = 1e-4
"""Distance of features of length 1 below which an item of the sample is taken for the item itself."""
MOST_LABELLED = 10_000
"""Labelled items that are kept, drawn by the seed where there are more: each costs as much as D weights."""
BLOCK_ITEMS = 4096
"""Fixed items whose distances from a batch are held at a time."""
SPARE = 8
"""Further neighbours whose distances are computed from differences."""


def fit_typicality(reference: Reference) -> dict[str, Tensor]:
    """The sample of the pool, for `nearest`."""
    return fixed(F.normalize(reference.feature_RD, dim=1))


def typicality(view: View) -> Tensor:
    """Minus the typicality of an item (B,), float32: 1 / (the mean distance to its 20 nearest of a sample of the pool +
    1e-5) (TypiClust, Hacohen, Dekel and Weinshall 2022, arXiv 2202.02794, section 3.2; 1e-5 is of the authors' code).

    Distances are Euclidean, of features of length 1. The sample may hold the item itself: the nearest is left out if it
    is nearer than ITSELF, as an exact duplicate would be. A small sample gives as many neighbours as it has, less one.
    """
    distance_BK, _ = nearest(F.normalize(view.pooled, dim=1), view.summary("typicality"), NEIGHBOURS + 1)
    is_itself_B = distance_BK[:, :1] < ITSELF
    others_BK = torch.where(is_itself_B, distance_BK[:, 1:], distance_BK[:, :-1])
    return -1 / (others_BK.sum(dim=1) / max(1, others_BK.shape[1]) + 1e-5)


def fit_core_set(reference: Reference) -> dict[str, Tensor]:
    """The labelled items, at most MOST_LABELLED, for `nearest`."""
    return fixed(reference.feature_LD[kept(len(reference.feature_LD), reference.settings.seed)])


def core_set(view: View) -> Tensor:
    """Minus the distance to the nearest labelled item (B,), float32: what the core-set's greedy choice takes first
    (Sener and Savarese 2018, arXiv 1708.00489, algorithm 1). Euclidean, of the features as they are."""
    return -nearest(view.pooled, view.summary("core_set"), 1)[0][:, 0]


def kept(num_labelled: int, seed: int) -> Tensor:
    """The places of at most MOST_LABELLED labelled items, int64, ascending; a random sample where there are more."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(num_labelled, generator=generator)[:MOST_LABELLED].sort().values


def fixed(feature_ND: Tensor) -> dict[str, Tensor]:
    """What `nearest` needs of fixed items: their mean, the items about it, and their squared norms, float32.

    Raises ValueError if there is none.
    """
    if not len(feature_ND):
        raise ValueError("there is no item to be near to")
    middle_D = feature_ND.mean(dim=0)
    moved_ND = feature_ND - middle_D
    return {"middle_D": middle_D, "moved_ND": moved_ND, "squared_N": moved_ND.square().sum(dim=1)}


def nearest(feature_BD: Tensor, items: dict[str, Tensor], count: int) -> tuple[Tensor, Tensor]:
    """The Euclidean distances (B, K), ascending, and the numbers (B, K), int64, of the `count` nearest fixed items, or
    of all where there are fewer.

    Matrix products find them, and the distances are from differences, because products are blind below some thousandth
    of the norms. O(B N D) time; memory for B (BLOCK_ITEMS + count D) numbers.
    """
    moved_BD, rough, numbers = feature_BD - items["middle_D"], list[Tensor](), list[Tensor]()
    for begin in range(0, len(items["squared_N"]), BLOCK_ITEMS):
        block = slice(begin, begin + BLOCK_ITEMS)
        # Less the item's own squared norm, which is the same for all.
        rough_BN = torch.addmm(items["squared_N"][block], moved_BD, items["moved_ND"][block].T, alpha=-2)
        found = rough_BN.topk(min(count + SPARE, rough_BN.shape[1]), dim=1, largest=False)
        rough.append(found.values)
        numbers.append(found.indices + begin)
    rough_BK, number_BK = torch.cat(rough, dim=1), torch.cat(numbers, dim=1)
    place_BK = rough_BK.topk(min(count + SPARE, rough_BK.shape[1]), dim=1, largest=False).indices
    number_BK = number_BK.gather(1, place_BK)
    exact_BK = (moved_BD[:, None] - items["moved_ND"][number_BK]).norm(dim=2)
    exact = exact_BK.topk(min(count, exact_BK.shape[1]), dim=1, largest=False)
    return exact.values, number_BK.gather(1, exact.indices)
