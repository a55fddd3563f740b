"""The candidates of a batch. Where too many of them are duplicates, more are collected."""

import math
from collections import Counter
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.campaign.folder import Campaign
from engine.config.options import SelectConfig
from engine.errors import ConfigError
from engine.pool.metadata import read_strata
from engine.selection.batch import Batch, Pools, Rules, ShortageError, make_batch
from engine.selection.draws import ControlDraws, draw, draw_control
from engine.selection.duplicates import likeness_of
from engine.selection.parts import Share
from engine.selection.reduction import FirstPass, RowQuery, gather
from engine.selection.sources import Source, with_draws, without
from engine.storage.location import Location
from engine.tables.score_reader import num_latents_of
from engine.tables.selections import SAMPLE_COLUMNS, SAMPLE_SIZE, row_schema
from vaal.diversity import DIVERSIFIERS, WITHOUT_SIGNAL, reason_for
from vaal.duplicates.likeness import SAMPLE_SIZE as LIKENESS_SAMPLE

LEAST_WITHOUT_SIGNAL = 10_000
"""Without a signal the batch is spread over a sample of the pool, with at least this many items where there are."""


class Eligible(NamedTuple):
    """The items to choose from: the folder of the scores and its files, what can be picked in each, the seed of the
    round, the fallback without a signal, None where there is one, and the images that are known: see `known_images`."""

    folder: Location
    sources: list[Source]
    counts: FirstPass
    seed: int
    fallback: str | None
    known: pa.Table


def choose_batch(campaign: Campaign, eligible: Eligible, on_progress: Share) -> Batch:
    """Choose the batch among the lowest logits or, without a signal, in a random sample.

    Raises:
        ConfigError: fewer items than the budget can be picked, or fewer are left without duplicates.
        InputError: a scores file cannot be read.
    """
    options, total = campaign.config.select, eligible.counts.num_eligible
    if options.budget > total:
        raise ConfigError(
            f"select.budget={options.budget}: only {total} items are neither labelled, quarantined nor picked before; "
            f"lower it: --set select.budget={total}"
        )
    method = WITHOUT_SIGNAL[eligible.fallback].diversity if eligible.fallback else options.diversity
    control = _draw_control(campaign, eligible)
    reason = reason_for(eligible.fallback, options.diversity)
    salt, cosine = campaign.config.salt, options.duplicate_cosine
    rules = Rules(options, method, reason, not eligible.fallback, control.quotas, eligible.seed, salt, cosine)
    size = num_candidates(options, eligible.fallback)
    while True:
        size = min(size, total)
        pools = _gather(eligible, control, size, rules, on_progress)
        is_near = options.duplicates == "near"
        likeness = likeness_of(pools.candidates, pools.sample, cosine, eligible.seed) if is_near else None
        counted = cosine if likeness and likeness.counts else None
        try:
            return make_batch(pools, rules._replace(cosine=counted))._replace(likeness=likeness)
        except ShortageError as shortage:
            if size == total:
                raise ConfigError(
                    f"select.budget={options.budget}: only {shortage.num_left} of the {total} items left are not "
                    f"duplicates; lower it: --set select.budget={shortage.num_left}, raise select.duplicate_cosine, "
                    "or compare bytes alone: --set select.duplicates=exact"
                ) from shortage
            size *= 2


def num_candidates(options: SelectConfig, fallback: str | None) -> int:
    """The number of candidates of the first try."""
    size = math.ceil(options.oversample * options.budget)
    return max(size, LEAST_WITHOUT_SIGNAL) if fallback == "diversity" else size


def _draw_control(campaign: Campaign, eligible: Eligible) -> ControlDraws:
    options = campaign.config.select
    strata = read_strata(campaign.home, options.stratify) if options.stratify else {}
    stratum_F = [strata.get(source.record.shard, "") for source in eligible.sources]
    size = math.floor(options.control_fraction * options.budget + 0.5)
    return draw_control(eligible.counts.eligible_F, stratum_F, size, np.random.default_rng([eligible.seed, 1]))


def _gather(eligible: Eligible, control: ControlDraws, size: int, rules: Rules, on_progress: Share) -> Pools:
    schema = row_schema(num_latents_of(eligible.folder, eligible.sources[0].record))
    has_taken = rules.options.duplicates != "off" or "taken_LZ" in DIVERSIFIERS[rules.method].needs
    num_lowest = size if rules.is_by_logit else 0
    query = RowQuery(eligible.counts.bound(num_lowest), num_lowest, schema, has_taken)
    candidates = draw(eligible.counts.eligible_F, size - num_lowest, np.random.default_rng([eligible.seed, 2]))
    num_judges = min(LIKENESS_SAMPLE, eligible.counts.num_eligible) if rules.options.duplicates == "near" else 0
    judges = draw(eligible.counts.eligible_F, num_judges, np.random.default_rng([eligible.seed, 4]))
    drawn_from = with_draws(eligible.sources, [control.draws, candidates, judges])
    found = gather(eligible.folder, drawn_from, eligible.counts, query, on_progress)
    drawn, num_control = found.drawn.drop_columns(["draw"]), len(control.strata)
    in_question = found.lowest if rules.is_by_logit else drawn.slice(num_control, size)
    sample = drawn.slice(len(drawn) - num_judges)
    return Pools(in_question, found.taken, drawn.slice(0, num_control), control.strata, sample, eligible.known)


def sample_of_the_rest(eligible: Eligible, picks: pa.Table) -> pa.Table:
    """A uniform random sample of the items that could have been picked and were not: SAMPLE_SIZE of them, or all,
    without the known ones. Columns are SAMPLE_COLUMNS, rows are in the order of drawing."""
    sources = without(eligible.sources, picks)
    num_picked = Counter(picks["shard"].to_pylist())
    rest_F = eligible.counts.eligible_F - np.array([num_picked[source.record.shard] for source in sources], np.int64)
    drawn = draw(rest_F, min(SAMPLE_SIZE, int(rest_F.sum())), np.random.default_rng([eligible.seed, 3]))
    columns = pa.schema([row_schema(1).field(name) for name in SAMPLE_COLUMNS])
    query = RowQuery(-np.inf, 0, columns, has_taken=False)
    found = gather(eligible.folder, with_draws(sources, [drawn]), eligible.counts, query, lambda _: None)
    is_known = pc.is_in(found.drawn["content_hash"], value_set=eligible.known["content_hash"].combine_chunks())
    return found.drawn.drop_columns(["draw"]).filter(pc.invert(is_known))
