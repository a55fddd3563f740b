"""What is picked when training found no signal, and the logits therefore mean nothing."""

from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine.campaign import Campaign
from engine.diagnosis import has_signal, interval_of
from engine.errors import NotAcceptableError
from engine.identity import draw_of
from vaal.diversity.k_center import k_center_greedy

CANDIDATES_PER_PICK = 10
LEAST_CANDIDATES = 10_000
MOST_CENTERS = 10_000
"""Items already taken that the choice keeps away from; where there are more, this many are drawn."""


def method_without_signal(campaign: Campaign, trained: dict[str, Any]) -> Literal["diversity", "random"] | None:
    """How to pick without a signal; None when the train manifest has one.

    Raises:
        NotAcceptableError: there is none, and select.when_no_signal is refuse.
    """
    method = campaign.config.select.when_no_signal
    if has_signal(trained):
        return None
    if method == "refuse":
        raise NotAcceptableError(
            f"{campaign.stage('train')}: no signal, {interval_of(trained)}: the labelled images cannot be told "
            "from the rest; label other images, or pick without a signal: --set select.when_no_signal=diversity"
        )
    return method


def with_draws(table: pa.Table, seed: int) -> pa.Table:
    """The items with their random numbers as one more column."""
    names = zip(table["shard"].to_pylist(), table["key"].to_pylist(), strict=True)
    return table.append_column("draw", pa.array([draw_of(shard, key, seed) for shard, key in names], pa.uint64()))


def first_drawn(table: pa.Table, size: int) -> pa.Table:
    """The rows with the lowest draws, in their order: a uniform sample, and the same however the pool is cut."""
    return table.sort_by([(name, "ascending") for name in ("draw", "shard", "key")]).slice(0, size)


def num_candidates_for(budget: int) -> int:
    """How many items a diverse choice is made from."""
    return max(CANDIDATES_PER_PICK * budget, LEAST_CANDIDATES)


def most_spread(candidates: pa.Table, taken: pa.Table, budget: int) -> pa.Table:
    """The candidates that k-center picks by their latents, in the order of choice, away from those already taken."""
    return candidates.take(pa.array(k_center_greedy(_latents(candidates), _latents(taken), budget)))


def _latents(table: pa.Table) -> NDArray[np.float32]:
    num_latents = table.schema.field("latent").type.list_size
    flat: NDArray[np.float16] = table["latent"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return flat.astype(np.float32).reshape(-1, num_latents)
