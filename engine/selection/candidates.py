"""The candidates of a batch, as many as it takes: where many are duplicates, more than were asked for."""

import math
from typing import NamedTuple

import numpy as np

from engine.campaign.folder import Campaign
from engine.config.options import SelectConfig
from engine.errors import ConfigError
from engine.pool.metadata import read_strata
from engine.selection.batch import Batch, Pools, Rules, ShortageError, make_batch
from engine.selection.draws import ControlDraws, draw, draw_control
from engine.selection.parts import Progress
from engine.selection.reduction import Counted, Wanted, gather
from engine.selection.sources import Source, with_draws
from engine.storage.location import Location
from engine.tables.score_reader import num_latents_of
from engine.tables.selections import row_schema

LEAST_WITHOUT_SIGNAL = 10_000
"""Without a signal the batch is spread over a sample of the pool, which has at least so many, if there are."""
METHOD_WITHOUT_SIGNAL = {"random": "none", "diversity": "k_center"}
_NEED_TAKEN = ("k_center", "facility", "mini_batches")


REASONS = {
    "none": "lowest labelled-logit",
    "gumbel": "lowest labelled-logit, with Gumbel noise",
    "clusters": "lowest labelled-logit left in its cluster",
    "k_center": "farthest in latent space from what is labelled or picked",
    "facility": "stands best for candidates that nothing stood for",
    "mini_batches": "lowest labelled-logit after learning from the picks before",
    "random": "random, for want of a signal",
    "diversity": "spread over the latents, for want of a signal",
}
"""By the method, or by what is done without a signal."""


class Ground(NamedTuple):
    """What there is to choose from: the folder of the scores and its files, what can be picked in each, the seed of the
    round, and what is done for want of a signal, None where there is one."""

    folder: Location
    sources: list[Source]
    counted: Counted
    seed: int
    fallback: str | None


def choose_batch(campaign: Campaign, ground: Ground, on_progress: Progress) -> Batch:
    """The batch, among the lowest logits or, without a signal, among a random sample.

    Raises:
        ConfigError: fewer items than the budget can be picked, or fewer without their duplicates.
        InputError: a scores file cannot be read.
    """
    options, total = campaign.config.select, ground.counted.num_eligible
    if options.budget > total:
        raise ConfigError(
            f"select.budget={options.budget}: only {total} items are neither labelled, quarantined nor picked before; "
            f"lower it: --set select.budget={total}"
        )
    method = METHOD_WITHOUT_SIGNAL[ground.fallback] if ground.fallback else options.diversity
    control = _draw_control(campaign, ground)
    reason = REASONS[ground.fallback or method]
    rules = Rules(options, method, reason, not ground.fallback, control.quotas, ground.seed, campaign.config.salt)
    size = num_candidates(options, ground.fallback)
    while True:
        size = min(size, total)
        pools = _gather(ground, control, size, rules, on_progress)
        try:
            return make_batch(pools, rules)
        except ShortageError as shortage:
            if size == total:
                raise ConfigError(
                    f"select.budget={options.budget}: of the {total} items left only {shortage.num_left} are no "
                    f"duplicates; lower it: --set select.budget={shortage.num_left}, raise select.duplicate_cosine, "
                    "or look for the same bytes alone: --set select.duplicates=exact"
                ) from shortage
            size *= 2


def num_candidates(options: SelectConfig, fallback: str | None) -> int:
    """How many candidates are asked for at first."""
    size = math.ceil(options.oversample * options.budget)
    return max(size, LEAST_WITHOUT_SIGNAL) if fallback == "diversity" else size


def _draw_control(campaign: Campaign, ground: Ground) -> ControlDraws:
    options = campaign.config.select
    strata = read_strata(campaign.home, options.stratify) if options.stratify else {}
    stratum_F = [strata.get(source.entry["shard"], "") for source in ground.sources]
    size = math.floor(options.control_fraction * options.budget + 0.5)
    return draw_control(ground.counted.eligible_F, stratum_F, size, np.random.default_rng([ground.seed, 1]))


def _gather(ground: Ground, control: ControlDraws, size: int, rules: Rules, on_progress: Progress) -> Pools:
    schema = row_schema(num_latents_of(ground.folder, ground.sources[0].entry))
    has_taken = rules.options.duplicates != "off" or rules.method in _NEED_TAKEN
    num_lowest = size if rules.is_by_logit else 0
    wanted = Wanted(ground.counted.bound(num_lowest), num_lowest, schema, has_taken)
    sample = draw(ground.counted.eligible_F, size - num_lowest, np.random.default_rng([ground.seed, 2]))
    drawn_from = with_draws(ground.sources, [control.draws, sample])
    found = gather(ground.folder, drawn_from, ground.counted, wanted, on_progress)
    drawn, num_control = found.drawn.drop_columns(["draw"]), len(control.strata)
    candidates = found.lowest if rules.is_by_logit else drawn.slice(num_control)
    return Pools(candidates, found.taken, drawn.slice(0, num_control), control.strata)
