"""Training and scoring of a round on embeddings in memory, by what the workers of a cluster call.

Shape suffixes: N items of the pool, L labelled ones, D components, Z latent units.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from engine.campaign.folder import Campaign
from engine.config.toml import override
from engine.models.diagnosis import not_trained
from engine.models.fitting import MOST_FITTED, Seen, fit
from engine.models.front import MOST_MEASURED, Front
from engine.models.summaries import Described, fit_summaries
from engine.pool.identity import draws_of, fold_of
from engine.scoring.scorer import Scorer, Scores
from engine.training.plan import shares_outside
from vaal.assembly import Networks
from vaal.centres import Centres
from vaal.refit import Cached
from vaal.signal import Diagnosis, diagnose
from vaal.standardise import Standardiser


class Trained(NamedTuple):
    """What a round's training and scoring give: the networks; the scores of all items; the centres; the diagnosis;
    further entries of the train manifest."""

    networks: Networks
    scores: Scores
    centres: Centres | None
    diagnosis: Diagnosis
    details: dict[str, Any]


@torch.no_grad()
def train_and_score(
    campaign: Campaign,
    names: list[tuple[str, str]],
    vector_ND: NDArray[np.float32],
    place_L: NDArray[np.intp],
    labels: Sequence[str],
) -> Trained:
    """Train on what is labelled and score the whole pool, as a round with train.method=features does.

    Raises ConfigError if all that is labelled is in one fold.
    """
    config, number = campaign.config, campaign.round
    listed = config.score.acquisition
    if config.needs_method and "vaal" not in listed:
        # The diagnosis asks for logits, also where what ranks does not.
        config = override(config, {"score.acquisition": [*listed, "vaal"]}, "simulation")
    fold_N = np.array([fold_of(shard, key, config.train.folds, number) for shard, key in names])
    if config.needs_method:
        shares_outside(fold_N[place_L], config.train.folds)
    is_labelled_N = np.zeros(len(names), np.bool_)
    is_labelled_N[place_L] = True
    rest = np.flatnonzero(~is_labelled_N)
    seed = config.train.seed + (number << 32)
    with threadpool_limits(1):
        measured = _sample(names, rest, MOST_MEASURED, seed)
        front = Front(torch.device("cpu"), Standardiser.fit(torch.from_numpy(vector_ND[measured])))
        x_NZ, fold = front(vector_ND), torch.from_numpy(fold_N)
        places = place_L, _sample(names, rest, MOST_FITTED, seed)
        labelled, unlabelled = (Seen(x_NZ[place], Cached(x_NZ[place], fold[place])) for place in places)
        fitted = fit(config, number, labelled, unlabelled, labels, len(rest))
        networks = Networks(discriminators=fitted.discriminators, task=fitted.head, embedding=front.standardiser)
        if fitted.head is not None:
            described = Described(labelled.latent_NZ, labels, labelled.cached, unlabelled.latent_NZ, len(rest))
            summaries = fit_summaries(config, fitted.head, fitted.task["task"]["classes"], described)
            networks = networks._replace(summaries=summaries)
        networks = networks.ready()
        scorer = Scorer(config, networks, front, fitted.centres)
        identity_N = draws_of(names, config.train.seed).view(np.int64) if scorer.asks_identity else None
        scores = scorer(vector_ND, fold_N, identity_N)
    if not config.needs_method:
        none = torch.empty(0)
        return Trained(
            networks, scores, fitted.centres, diagnose(none, none, None), {**fitted.task, **not_trained(len(place_L))}
        )
    logit = torch.from_numpy(scores.columns["logit"])
    parts = logit[torch.from_numpy(is_labelled_N)], logit[torch.from_numpy(~is_labelled_N)]
    share = min(1.0, config.select.budget / max(1, len(rest)))
    diagnosis = diagnose(*parts, None, is_cross_fitted=True, picked_share=share)
    return Trained(networks, scores, fitted.centres, diagnosis, fitted.task)


def _sample(names: list[tuple[str, str]], rest: NDArray[np.intp], most: int, seed: int) -> NDArray[np.intp]:
    """The places of about `most` unlabelled items, as `engine.training.batches.unlabelled_images` draws them."""
    if len(rest) <= most:
        return rest
    share = most / len(rest)
    return rest[draws_of((names[place] for place in rest.tolist()), seed) < share * 2**64]
