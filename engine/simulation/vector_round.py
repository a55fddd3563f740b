"""Training and scoring of a round on vectors in memory, by the functions that the stages use on embeddings with
train.method=features.

Shape suffixes: N items of the pool, L labelled ones, D components, Z latent units, C classes.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.campaign.folder import Campaign
from engine.models.centring import make_centres
from engine.pool.identity import fold_of
from vaal.centres import Centres
from vaal.linear_head import fit_linear_head
from vaal.refit import Cached, refit
from vaal.signal import Diagnosis, diagnose
from vaal.standardise import Standardiser

MOST_CACHED = 20_000


class Trained(NamedTuple):
    """What a round's training and scoring give: the columns of the scores beside the latents, (N,) each; the latents
    (N, Z) float16; the centres; the diagnosis; further entries of the train manifest."""

    columns: dict[str, NDArray[Any]]
    latent_NZ: NDArray[np.float16]
    centres: Centres | None
    diagnosis: Diagnosis
    details: dict[str, Any]


@torch.no_grad()
def train_and_score(
    campaign: Campaign,
    names: list[tuple[str, str]],
    vector_ND: NDArray[np.float32],
    place_L: NDArray[np.intp],
    label_L: NDArray[np.int64],
) -> Trained:
    """Train on what is labelled, and score the whole pool."""
    config, number = campaign.config, campaign.round
    num_folds = config.train.folds
    fold_N = torch.tensor([fold_of(shard, key, num_folds, number) for shard, key in names])
    is_labelled_N = torch.zeros(len(names), dtype=torch.bool)
    is_labelled_N[torch.from_numpy(place_L)] = True
    seen_ND = torch.from_numpy(vector_ND)
    sample_U = _sample(is_labelled_N, config.train.seed + number)
    standardiser = Standardiser.fit(seen_ND[sample_U])
    x_ND = standardiser(seen_ND)
    pools = (Cached(x_ND[place], fold_N[place]) for place in (torch.from_numpy(place_L), sample_U))
    discriminators = refit(*pools, num_folds)
    logit_N = discriminators(x_ND).gather(1, fold_N[:, None]).squeeze(1)
    columns: dict[str, NDArray[Any]] = {"logit": logit_N.numpy()}
    if "margin" in config.score.acquisition:
        columns |= _margins(x_ND, place_L, label_L, config.train.seed)
    latent_NZ = standardiser.latents(x_ND)
    # Only the completion reads clusters.
    is_needed = config.select.diversity == "completion"
    seed = config.train.seed + (number << 32)
    centres = make_centres(latent_NZ[sample_U], 2 * config.select.budget, seed) if is_needed else None
    if centres is not None:
        cluster_N, distance_N = centres.of(latent_NZ)
        columns |= {"cluster": cluster_N.numpy(), "distance": distance_N.numpy()}
    share = min(1.0, config.select.budget / max(1, len(names) - len(place_L)))
    parts = logit_N[is_labelled_N], logit_N[~is_labelled_N]
    diagnosis = diagnose(*parts, None, is_cross_fitted=num_folds > 1, picked_share=share)
    return Trained(columns, latent_NZ.half().numpy(), centres, diagnosis, {})


def _sample(is_labelled_N: Tensor, seed: int) -> Tensor:
    """The places of at most MOST_CACHED unlabelled items, ascending."""
    place_U = torch.nonzero(~is_labelled_N)[:, 0]
    chosen = np.random.default_rng([seed, 12]).permutation(len(place_U))[:MOST_CACHED]
    return place_U[torch.from_numpy(np.sort(chosen))]


def _margins(
    x_ND: Tensor, place_L: NDArray[np.intp], label_L: NDArray[np.int64], seed: int
) -> dict[str, NDArray[Any]]:
    """The columns of the task learner: those of score.acquisition=margin."""
    classes, number_L = np.unique(label_L, return_inverse=True)
    if len(classes) < 2:
        return {"margin": np.ones(len(x_ND), np.float32), "predicted": np.zeros(len(x_ND), np.int32)}
    fitted = fit_linear_head(x_ND[torch.from_numpy(place_L)], torch.from_numpy(number_L), len(classes), seed)
    top_N2, class_N2 = fitted.head(x_ND).softmax(dim=1).topk(2, dim=1)
    return {"margin": (top_N2[:, 0] - top_N2[:, 1]).numpy(), "predicted": class_N2[:, 0].to(torch.int32).numpy()}
