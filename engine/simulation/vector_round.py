"""Training and scoring of a round on vectors in memory: the discriminators, the task learner and the centres.

Shape suffixes: N items of the pool, L labelled ones, D components, Z latent units, C classes.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from engine.campaign.folder import Campaign
from engine.models.centring import make_centres
from engine.pool.identity import fold_of
from vaal.centres import Centres
from vaal.signal import Diagnosis, diagnose

MOST_LATENTS = 128


class Trained(NamedTuple):
    """What a round's training and scoring give: the columns of the scores beside the latents, (N,) each; the latents
    (N, Z) float16; the centres; the diagnosis; further entries of the train manifest."""

    columns: dict[str, NDArray[Any]]
    latent_NZ: NDArray[np.float16]
    centres: Centres | None
    diagnosis: Diagnosis
    details: dict[str, Any]


def train_and_score(
    campaign: Campaign,
    names: list[tuple[str, str]],
    vector_ND: NDArray[np.float32],
    place_L: NDArray[np.intp],
    label_L: NDArray[np.int64],
) -> Trained:
    """Train on what is labelled and score the whole pool, as a round does with train.method=features on embeddings."""
    config, number = campaign.config, campaign.round
    num_folds = max(2, config.train.folds)
    fold_N = np.array([fold_of(shard, key, num_folds, number) for shard, key in names])
    is_labelled_N = np.zeros(len(names), np.bool_)
    is_labelled_N[place_L] = True
    with threadpool_limits(1):
        logit_N = _logits(vector_ND, is_labelled_N, fold_N, num_folds)
        columns: dict[str, NDArray[Any]] = {"logit": logit_N}
        if "margin" in config.score.acquisition:
            columns |= _margins(vector_ND, place_L, label_L)
        latent_NZ = vector_ND[:, :MOST_LATENTS].astype(np.float16)
        seed = config.train.seed + number
        # Only the completion reads clusters.
        is_needed = config.select.diversity == "completion"
        sample_NZ = torch.from_numpy(latent_NZ[~is_labelled_N])
        centres = make_centres(sample_NZ, 2 * config.select.budget, seed) if is_needed else None
        if centres is not None:
            cluster_N, distance_N = centres.of(torch.from_numpy(latent_NZ))
            columns |= {"cluster": cluster_N.numpy(), "distance": distance_N.numpy()}
    parts = (torch.from_numpy(logit_N[is_labelled_N]), torch.from_numpy(logit_N[~is_labelled_N]))
    share = config.select.budget / max(1, len(parts[1]))
    diagnosis = diagnose(*parts, None, is_cross_fitted=True, picked_share=min(1.0, share))
    return Trained(columns, latent_NZ, centres, diagnosis, {})


def _logits(
    vector_ND: NDArray[np.float32], is_labelled_N: NDArray[np.bool_], fold_N: NDArray[np.int64], num_folds: int
) -> NDArray[np.float32]:
    from sklearn.linear_model import LogisticRegression

    logit_N = np.zeros(len(vector_ND), np.float32)
    for fold in range(num_folds):
        is_own_N = fold_N == fold
        if len(np.unique(is_labelled_N[~is_own_N])) < 2:
            continue
        model = LogisticRegression(C=0.01, class_weight="balanced", tol=1e-3)
        model.fit(vector_ND[~is_own_N], is_labelled_N[~is_own_N])
        logit_N[is_own_N] = model.decision_function(vector_ND[is_own_N])
    return logit_N


def _margins(
    vector_ND: NDArray[np.float32], place_L: NDArray[np.intp], label_L: NDArray[np.int64]
) -> dict[str, NDArray[Any]]:
    from sklearn.linear_model import LogisticRegression

    if len(np.unique(label_L)) < 2:
        return {"margin": np.ones(len(vector_ND), np.float32), "predicted": np.zeros(len(vector_ND), np.int32)}
    model = LogisticRegression(C=0.03, tol=1e-3).fit(vector_ND[place_L], label_L)
    probability_NC = model.predict_proba(vector_ND)
    top_N2 = -np.partition(-probability_NC, 1, axis=1)[:, :2]
    margin_N = (top_N2[:, 0] - top_N2[:, 1]).astype(np.float32)
    return {"margin": margin_N, "predicted": probability_NC.argmax(axis=1).astype(np.int32)}
