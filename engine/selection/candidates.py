"""The candidates of a batch. Where too many of them are duplicates, more are collected."""

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from engine.campaign.folder import Campaign
from engine.campaign.manifests import TrainManifest
from engine.campaign.stages import Run
from engine.config.select_options import RULE, SelectConfig
from engine.errors import ConfigError
from engine.pool.metadata import read_groups, read_strata
from engine.selection.batch import Batch, Pools, Rules, ShortageError, make_batch
from engine.selection.bounds import Bound
from engine.selection.collecting import Wish
from engine.selection.draws import ControlDraws, draw, draw_control
from engine.selection.duplicates import Mode, likeness_of
from engine.selection.gate import judge
from engine.selection.known_bytes import KnownImages
from engine.selection.order import Ranking, ranking_by
from engine.selection.parts import Share
from engine.selection.reduction import FirstPass, RowQuery, count, gather
from engine.selection.second_pass import num_rescored, second_pass
from engine.selection.sources import Draws, Sources, with_draws, with_taken, without
from engine.selection.taken_like import Comparison, taken_like
from engine.storage.location import Location
from engine.tables.score_reader import columns_of, num_latents_of
from engine.tables.selections import SAMPLE_COLUMNS, SAMPLE_SIZE, row_schema
from vaal.acquisition import ACQUISITIONS
from vaal.completion import NEAREST, by_clusters, cluster_order, joined
from vaal.diversity import BRANCHES, DIVERSIFIERS, Branch, Diversifier, branch_of
from vaal.duplicates.likeness import SAMPLE_SIZE as LIKENESS_SAMPLE

if TYPE_CHECKING:
    from vaal.centres import Centres

MOST_CENTERS = 10_000
"""Taken items that a method keeps away from, at most; a random sample where there are more."""
SAMPLED = 10_000
"""Items of the unlabelled pool that stand for it, where a choice asks for them."""
LEAST_WITHOUT_SIGNAL = 10_000
"""Without a signal the batch is spread over a sample of the pool, with at least this many items where there are."""
MORE_IN_GROUPS = 8
"""So many times more draws for the control arm with select.per_group, because the group of a draw may be full."""
_NONE = Draws(np.empty(0, np.int64), np.empty(0, np.int64))
EXAMPLES = 60
"""Clusters of which a report can show the item nearest the centre."""


class Eligible(NamedTuple):
    """The items to choose from: the folder of the scores and its files, what can be picked in each, what was asked for
    to find that, the seed of the round, what is done, by its name, the score that ranks, and the images that are
    known."""

    folder: Location
    sources: Sources
    counts: FirstPass
    wish: Wish
    seed: int
    name: str
    acquisition: str
    known: KnownImages

    @property
    def branch(self) -> Branch:
        return branch_of(self.name, self.acquisition)

    @property
    def scored_by(self) -> str:
        """The acquisition function whose scores the rows hold: the one that decided, or else the one that ranks."""
        return self.branch.by or self.acquisition

    @property
    def ranking(self) -> Ranking:
        """Its place in the files of the first pass, where a score that is dear has none."""
        return self.wish.ranking if self.branch.candidates == "lowest" else ranking_by(self.scored_by)

    @property
    def names_clusters(self) -> bool:
        """Whether picks and candidates get clusters of the pool. A method that chooses among clusters makes its own of
        the candidates where another score than VAAL's ranks."""
        is_chosen_by = "cluster_M" in DIVERSIFIERS[self.branch.diversity].needs
        return self.wish.num_clusters > 0 and (self.acquisition == "vaal" or not is_chosen_by)


def plan_pass(campaign: Campaign, trained: TrainManifest, sources: Sources, seed: int) -> tuple[Wish, "Centres | None"]:
    """What the first pass is to find, whatever the gate will say; and the centres of the clusters, if there are any."""
    # torch takes as much memory as the labels of ten million images: it is loaded when their indexes are gone.
    from engine.models.centring import load_centres

    options, folder, diversity = campaign.config.select, campaign.stage("scores"), campaign.config.diversity
    there = columns_of(folder, sources[0].record) if sources else set()
    ranking = ranking_by(campaign.config.first_ranks)
    if there and not {*ranking.columns} <= there:
        why = f"select.acquisition={campaign.config.first_ranks}: the pool was scored without it"
        raise ConfigError(f"{folder}: {why}; delete {folder}/manifest.json, then run: vaal score {campaign.home}")
    # Whatever score ranks: what the labels lack is reported, also where it decides nothing.
    centres = load_centres(campaign.stage("train"), trained["files"]) if "cluster" in there else None
    # Four times as many as in the first try, because duplicates call for more candidates.
    size = num_rescored(campaign.config, 4 * math.ceil(options.oversample * options.budget))
    # Of all other rules it is known what the gate will say.
    is_lowest = diversity != RULE and judge(campaign, trained).speaks
    may_refine = not is_lowest and options.when_no_signal == "uncertainty"
    wish = Wish(
        num_lowest=size if is_lowest else 0,
        num_clusters=len(centres.centre_CZ) if centres else 0,
        has_logits="logit" in there,
        num_keyed=size if diversity == RULE or may_refine else 0,
        num_turned=size if may_refine and {"margin", "predicted"} <= there else 0,
        num_labelled=len(sources.columns["labelled"].values),
        budget=options.budget,
        seed=seed,
        ranking=ranking,
    )
    return wish, centres


def choose_batch(campaign: Campaign, eligible: Eligible, run: Run, on_progress: Share) -> Batch:
    """Choose the batch among the candidates of the branch. `run` is for scores that are dear.

    Raises:
        ConfigError: fewer items than the budget can be picked, or fewer are left without duplicates.
        InputError: a scores file cannot be read.
    """
    options, total = campaign.config.select, eligible.counts.num_eligible
    if options.budget > total:
        named = [f"select.{name}" for name in ("where", "exclude") if getattr(options, name)]
        rest = f", and not kept out by {' or '.join(named)}" if named else ""
        raise ConfigError(
            f"select.budget={options.budget}: only {total} items are neither labelled, quarantined nor picked before"
            f"{rest}; lower it: --set select.budget={total}"
        )
    control = _draw_control(campaign, eligible)
    is_near = options.duplicates == "near" and campaign.config.latents_show_pictures
    salt, cosine = campaign.config.salt, options.duplicate_cosine if is_near else None
    worthless = ACQUISITIONS[eligible.acquisition].worthless
    bound = Bound(options.per_group, read_groups(campaign.home, campaign.config.pool.group))
    rules = Rules(options, eligible.branch, control.quotas, eligible.seed, salt, cosine, worthless, bound)
    size, is_lowest = num_candidates(options, eligible.branch), eligible.branch.candidates == "lowest"
    while True:
        size = min(size, total)
        num_read = min(num_rescored(campaign.config, size), total) if is_lowest else size
        eligible = _with_enough(eligible, num_read, on_progress)
        pools, judges = _gather(eligible, control, num_read, rules, lambda share: on_progress(share / 2))
        if is_lowest and campaign.config.scores_again:
            pools = _scored_again(campaign, pools, size, run)
        # The same judges for any number of candidates: a verdict that changed with it would change what is a duplicate.
        likeness = likeness_of(judges, cosine) if cosine else None
        counted = cosine if likeness and likeness.counts else None
        pools = _with_taken(eligible, pools, options.duplicates, counted, lambda share: on_progress((1 + share) / 2))
        try:
            batch = make_batch(pools, rules._replace(cosine=counted))._replace(likeness=likeness)
            if bound.most and not any(bound.names(batch.candidates)):
                run.log(f"select.per_group={bound.most} bounds nothing: pool.group names no group of any candidate")
            return batch
        except ShortageError as shortage:
            if size == total:
                within = f" and no more than select.per_group={bound.most} of a group" if shortage.num_full else ""
                why = f"only {shortage.num_left} of the {total} items left are not duplicates{within}"
                raise ConfigError(f"select.budget={options.budget}: {why}; {shortage.fix}") from shortage
            size *= 2


def num_candidates(options: SelectConfig, branch: Branch) -> int:
    """The number of candidates of the first try."""
    size = math.ceil(options.oversample * options.budget)
    if branch.candidates == "nearest":
        return max(size, NEAREST * options.budget)
    return max(size, LEAST_WITHOUT_SIGNAL) if branch == BRANCHES["spread"] else size


def _with_enough(eligible: Eligible, size: int, on_progress: Share) -> Eligible:
    """The same, after another pass where more items in the order of the keys or margins are needed than were kept."""
    wish, kind = eligible.wish, eligible.branch.candidates
    name = {"nearest": "num_keyed", "keyed": "num_keyed", "turned": "num_turned"}.get(kind, "")
    if not name or size <= getattr(wish, name):
        return eligible
    wish = wish._replace(**{name: size})  # type: ignore[arg-type]
    return eligible._replace(wish=wish, counts=count(eligible.folder, eligible.sources, wish, on_progress))


def _in_question(eligible: Eligible, size: int) -> tuple[Draws, NDArray[np.int64] | None]:
    """The candidates by their places, the first ones first, where they are not the lowest logits; and their groups,
    where each gives one pick."""
    counts, kind = eligible.counts, eligible.branch.candidates
    if kind == "random":
        return draw(counts.eligible_F, size, np.random.default_rng([eligible.seed, 2])), None
    found = {"nearest": counts.found.nearest, "keyed": counts.found.keyed, "turned": counts.found.turned}[kind]
    if kind == "nearest":
        # Where the clusters have no more, their keys decide.
        keyed = counts.found.keyed._replace(group_K=np.full(len(counts.found.keyed.at_K), -1))
        found = joined([by_clusters(found, cluster_order(counts.found.sum_C, counts.found.count_C)), keyed])
        _, first_K = np.unique(np.stack([found.file_K, found.at_K]), axis=1, return_index=True)
        found = found.take(np.sort(first_K))
    return Draws(found.file_K[:size], found.at_K[:size]), found.group_K[:size] if kind == "nearest" else None


def _draw_control(campaign: Campaign, eligible: Eligible) -> ControlDraws:
    options = campaign.config.select
    strata = read_strata(campaign.home, options.stratify) if options.stratify else {}
    stratum_F = [strata.get(name, "") for name in eligible.sources.names.to_pylist()]
    size = math.floor(options.control_fraction * options.budget + 0.5)
    spare = MORE_IN_GROUPS if options.per_group else 1
    rng = np.random.default_rng([eligible.seed, 1])
    return draw_control(eligible.counts.eligible_F, stratum_F, size, rng, spare)


def _gather(
    eligible: Eligible, control: ControlDraws, size: int, rules: Rules, on_progress: Share
) -> tuple[Pools, pa.Table]:
    """What a batch of so many candidates is made from, and the sample of the pool that judges latents."""
    is_lowest = rules.branch.candidates == "lowest"
    row, first_file = DIVERSIFIERS[rules.branch.diversity], eligible.sources[0].record
    there, ranking = columns_of(eligible.folder, first_file), eligible.ranking
    wanted = [name for name in ("logit", "predicted", "cluster") if _is_needed(name, row, eligible)]
    others = [name for name in (*wanted, ranking.ties) if name in there]
    schema = row_schema(num_latents_of(eligible.folder, first_file), others)
    num_lowest = size if is_lowest else 0
    query = RowQuery(eligible.counts.bound(num_lowest), num_lowest, schema, ranking)
    candidates, group_M = (_NONE, None) if is_lowest else _in_question(eligible, size)
    eligible_F, total = eligible.counts.eligible_F, eligible.counts.num_eligible
    # Draws of their own: which method chooses must not change the verdict on latents.
    judges, sample = (
        draw(eligible_F, min(most if is_asked else 0, total), np.random.default_rng([eligible.seed, number]))
        for number, most, is_asked in ((5, LIKENESS_SAMPLE, rules.cosine), (4, SAMPLED, "sample_RZ" in row.needs))
    )
    draws = [control.draws, candidates, judges, sample]
    sources = with_draws(eligible.sources, draws)
    if {"taken_LZ", "labelled_feature_LD"} & {*row.needs}:
        # Features are looked up of the same labelled images in each round.
        seed = eligible.seed if "taken_LZ" in row.needs else rules.options.seed
        sources = with_taken(sources, eligible.counts.taken_F, MOST_CENTERS, seed)
    found = gather(eligible.folder, sources, eligible.counts, query, on_progress)
    ends, drawn = np.cumsum([len(part.at_N) for part in draws]), found.drawn.drop_columns(["draw"])
    control_rows, others, judging, standing = (
        drawn.slice(end - len(part.at_N), len(part.at_N)) for end, part in zip(ends.tolist(), draws, strict=True)
    )
    in_question = found.lowest if is_lowest else others
    hashes = pa.chunked_array([*in_question["content_hash"].chunks, *control_rows["content_hash"].chunks], pa.string())
    rest = found.taken, control_rows, control.strata, standing, eligible.known.like(hashes), group_M
    return Pools(in_question, schema.empty_table(), *rest), judging


def _with_taken(eligible: Eligible, pools: Pools, mode: Mode, cosine: float | None, on_progress: Share) -> Pools:
    """The pools with what is taken and like an item of theirs."""
    query = RowQuery(eligible.ranking.lowest, 0, pools.taken.schema, eligible.ranking)
    like = Comparison.of([pools.draws, pools.candidates], pools.taken.schema, mode, cosine)
    return pools._replace(taken=taken_like(eligible.folder, eligible.sources, query, like, on_progress))


def _scored_again(campaign: Campaign, pools: Pools, size: int, run: Run) -> Pools:
    """The pools after the second pass: see `engine.selection.second_pass`."""
    found = second_pass(campaign, pools.candidates, pools.centers, size, run)
    pools = pools._replace(candidates=found.candidates, taken_again=found.taken, answers=found.answers)
    if not campaign.config.is_dear(campaign.config.select.acquisition):
        return pools
    place = pools.draws.schema.get_field_index("score")
    unknown = pa.nulls(len(pools.draws), pa.float32())
    return pools._replace(draws=pools.draws.set_column(place, pools.draws.schema.field(place), unknown))


def _is_needed(name: str, row: Diversifier, eligible: Eligible) -> bool:
    if name == "cluster":
        return eligible.names_clusters
    # What the task learner predicted of a pick is kept: it is judged by it once the label is back.
    return name in ("logit", "predicted") or f"{name}_M" in row.needs


def nearest_items(eligible: Eligible) -> pa.Table:
    """The items nearest the centres of the first clusters, EXAMPLES of them, SAMPLE_COLUMNS."""
    found = eligible.counts.found
    order = cluster_order(found.sum_C, found.count_C)[:EXAMPLES]
    nearest = by_clusters(found.nearest, order)
    first_K = np.unique(nearest.group_K, return_index=True)[1]
    nearest = nearest.take(np.sort(first_K))
    return _some(eligible, eligible.sources, Draws(nearest.file_K, nearest.at_K))


def sample_of_the_rest(eligible: Eligible, picks: pa.Table) -> pa.Table:
    """A uniform random sample of the items that could have been picked and were not: SAMPLE_SIZE of them, or all,
    without the known ones. Columns are SAMPLE_COLUMNS, rows are in the order of drawing."""
    sources = without(eligible.sources, picks)
    rest_F = eligible.counts.eligible_F - sources.grouped(picks).counts
    drawn = draw(rest_F, min(SAMPLE_SIZE, int(rest_F.sum())), np.random.default_rng([eligible.seed, 3]))
    found = _some(eligible, sources, drawn)
    known = eligible.known.like(found["content_hash"])
    return found.filter(pc.invert(pc.is_in(found["content_hash"], value_set=known["content_hash"].combine_chunks())))


def _some(eligible: Eligible, sources: Sources, drawn: Draws) -> pa.Table:
    """SAMPLE_COLUMNS of drawn items, in the order of drawing."""
    columns = pa.schema([row_schema(1).field(name) for name in SAMPLE_COLUMNS])
    ranking = eligible.ranking
    query = RowQuery(ranking.lowest, 0, columns, ranking)
    found = gather(eligible.folder, with_draws(sources, [drawn]), eligible.counts, query, lambda _: None)
    return found.drawn.drop_columns(["draw"])
