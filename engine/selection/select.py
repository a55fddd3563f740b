"""The selection, a pure function of committed scores and weights, labels and configuration.

One pass over the scores finds how the labels cover the pool. The gate says whether they lack something, and so which
items are the candidates; the batch is chosen among them.
"""

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.campaign.advice import force_command
from engine.campaign.decided import highest_scores, ranks, reason_of
from engine.campaign.folder import Campaign, is_complete
from engine.campaign.freshness import left_pool, selection_changes, selection_inputs
from engine.campaign.handed_out import SentBatch, batches, completed, current_batches, picks_hash
from engine.campaign.manifests import ScoresManifest, SelectionManifest, TrainManifest, read_manifest, write_manifest
from engine.campaign.scored_shards import outdated, shard_records
from engine.campaign.stages import QUIET, Log, Run
from engine.config.select_options import RULE
from engine.config.texts import some
from engine.errors import ConfigError, InputError
from engine.models.task_source import weights_of_task
from engine.pool.exclusions import lines_on_kept_out
from engine.pool.manifest import read_shards
from engine.selection.batch import Batch
from engine.selection.candidates import Eligible, choose_batch, nearest_items, plan_pass, sample_of_the_rest
from engine.selection.gate import (
    Verdict,
    branch_name,
    clusters_table,
    deficit_in,
    in_words,
    judge,
    require_signal,
    said,
)
from engine.selection.kept_out import KeptOut, keep_out
from engine.selection.parts import room_for
from engine.selection.reduction import count, parts_of
from engine.selection.unpickable import Unpickable, find_unpickable
from engine.tables.columns import rows_where
from engine.tables.selections import CANDIDATES_FILE, CLUSTERS_FILE, EXCLUDED_FILE, HISTOGRAM_FILE, KINDS, SAMPLE_FILE
from vaal.acquisition import column_of
from vaal.duplicates.likeness import LEAST_ALIKE, Likeness
from vaal.proportions import WANTED, enough_for, few_text

MOST_CONTROL = 0.25
"""A control arm of a larger share of the budget is not advised: its picks teach less than the rule's."""


def select(campaign: Campaign, run: Run = QUIET, *, force: bool = False) -> SelectionManifest:
    """Pick the round's images and complete the selection stage. Returns its manifest.

    A complete stage is left alone unless its options or inputs changed since; then it is made again. What was handed
    out stays as it is, unless `force` is given: its picks stay out at the vendor, and other images are picked as well.

    Raises:
        InputError: training or scoring is not complete, or a scores file is not the committed one.
        ConfigError: there are fewer items than the budget, or the selection was handed out and would now be another.
        NotAcceptableError: there is no signal, and select.when_no_signal is refuse.
    """
    scores = read_manifest(campaign, "scores", ScoresManifest)
    trained = read_manifest(campaign, "train", TrainManifest)
    if is_complete(campaign.stage("selection")) and not _is_due_again(campaign, run.log, force=force):
        return read_manifest(campaign, "selection", SelectionManifest)
    _require_same_weights(campaign, trained, scores)
    if campaign.config.diversity != RULE:
        # Known before anything is read.
        require_signal(campaign, judge(campaign, trained), trained)
    return _make(campaign, run, _current_records(campaign, scores, run.log), trained, force=force)


def _make(campaign: Campaign, run: Run, records: pa.Table, trained: TrainManifest, *, force: bool) -> SelectionManifest:
    out = [batch for batch in batches(campaign.home, campaign.round) if batch.manifest["inputs"]["picks"]]
    # What was handed out stays out when its selection is replaced; one that nobody was sent leaves nothing out.
    is_unsent = is_complete(campaign.stage("selection")) and not current_batches(campaign.home, campaign.round)
    before = campaign.round + (force and bool(out) and not is_unsent)
    unpickable = find_unpickable(campaign, records, before, run.log)
    # 31 bits that differ between rounds.
    seed = int(np.random.SeedSequence([campaign.config.select.seed, campaign.round]).generate_state(1)[0] >> 1)
    sources = unpickable.sources
    parts = parts_of(sources)
    with room_for(parts, run.address):
        _require_workers(campaign, run, len(parts))
        kept_out = keep_out(campaign, sources, lambda share: run.on_progress(share / 10, "leaving out"))
        verdict, eligible, batch = _choose(campaign, run, kept_out, trained, unpickable, seed)
        tables = _tables(campaign, eligible, batch, kept_out)
    counts = eligible.counts
    if batch.likeness and not batch.likeness.counts:
        run.log(_not_alike(batch.likeness))
    if few := _few(campaign, batch.counts["control"]):
        run.log(few)
    if out and not force and not is_complete(campaign.stage("selection")):
        _require_same_images(campaign, out[-1], batch.selection)
    if selection_inputs(campaign, unpickable.inputs["picked_before"]) != unpickable.inputs:
        fix = f"run: vaal select {campaign.home}"
        raise InputError(f"{campaign.home}: scores or labels changed while images were picked; {fix}")
    # No stage may be complete that depends on another selection.
    for folder in [folder for name in ("report", "selection") for folder in completed(campaign, name)]:
        (folder / "manifest.json").delete()
    return write_manifest(
        campaign,
        "selection",
        SelectionManifest,
        inputs=unpickable.inputs | unpickable.others,
        counts={
            "scored": sources.num_scored,
            "eligible": counts.num_eligible,
            **unpickable.counts,
            **kept_out.all_counts(counts.num_out),
            **batch.counts,
        },
        files={name: (campaign.stage("selection") / name).write_table(table) for name, table in tables.items()},
        signal="present" if verdict.speaks else "none",
        when_no_signal=None if verdict.speaks else campaign.config.select.when_no_signal,
        branch=eligible.name,
        gate=verdict.entry(),
        first_ranks=campaign.config.first_ranks,
        scored_by=eligible.scored_by,
        seed=campaign.config.select.seed,
        round_seed=seed,
        **_highest(eligible, batch),
        objective=batch.objective,
        picks=picks_hash(batch.selection),
        likeness=batch.likeness and batch.likeness._asdict(),
    )


def _tables(campaign: Campaign, eligible: Eligible, batch: Batch, kept_out: KeptOut) -> dict[str, pa.Table]:
    """The files of the stage by name."""
    counts = eligible.counts
    tables = {
        CANDIDATES_FILE: batch.candidates,
        HISTOGRAM_FILE: counts.histogram.to_table(),
        SAMPLE_FILE: sample_of_the_rest(eligible, batch.selection),
        "selection.parquet": batch.selection,
    }
    if campaign.config.select.exclude:
        tables[EXCLUDED_FILE] = kept_out.excluded
    if eligible.names_clusters:
        tables[CLUSTERS_FILE] = clusters_table(counts.found, batch.selection, nearest_items(eligible))
    return tables


def _require_workers(campaign: Campaign, run: Run, num_parts: int) -> None:
    """Raises InputError where Ray's tasks read the scores, and a node of its cluster cannot."""
    if num_parts > 1:
        from engine.campaign.workers import require_workers

        require_workers(campaign, run)


def _choose(
    campaign: Campaign, run: Run, kept_out: KeptOut, trained: TrainManifest, unpickable: Unpickable, seed: int
) -> tuple[Verdict, Eligible, Batch]:
    """Look at all scores, ask the gate, and choose by what it says."""
    folder, sources = campaign.stage("scores"), kept_out.sources
    known = unpickable.known(kept_out.excluded)
    wish, centres = plan_pass(campaign, trained, sources, seed)
    counts = count(folder, sources, wish, lambda share: run.on_progress(share / 2, "counting"))
    run.log(f"{sources.num_scored:,} scores checked, {counts.num_eligible:,} can be picked")
    for line in lines_on_kept_out(kept_out.all_counts(counts.num_out)):
        run.log(line)
    verdict = judge(campaign, trained, deficit_in(counts.found, centres, seed))
    require_signal(campaign, verdict, trained)
    name = branch_name(campaign, verdict, counts.found, has_margin=wish.num_turned > 0)
    run.log(said(campaign, verdict, trained, name))
    eligible = Eligible(folder, sources, counts, wish, seed, name, campaign.config.select.acquisition, known)
    return (
        verdict,
        eligible,
        choose_batch(campaign, eligible, run, lambda share: run.on_progress((1 + share) / 2, "choosing")),
    )


def _highest(eligible: Eligible, batch: Batch) -> dict[str, float | None]:
    """The highest scores of a pick and of a candidate, where scores alone decide."""
    query = batch.selection["score"].filter(pc.equal(batch.selection["arm"], "query"))
    names, is_lowest = ("highest_picked_score", "highest_candidate_score"), eligible.branch.candidates == "lowest"
    scores = query, batch.candidates["score"]
    return {name: pc.max(column).as_py() if is_lowest else None for name, column in zip(names, scores, strict=True)}


def describe(campaign: Campaign, manifest: SelectionManifest) -> dict[str, Any]:
    """The facts about a complete stage that a person sees."""
    counts, (highest, _) = manifest["counts"], highest_scores(manifest)
    found = {kind: counts[f"duplicates_{kind}"] for kind in KINDS}
    return {
        "picked": counts["picked"],
        "for control": counts["control"],
        "candidates": f"{counts['candidates']:,} of {counts['eligible']:,}",
        **({"kept out": lines} if (lines := lines_on_kept_out(counts)) else {}),
        "duplicates": ", ".join(f"{number:,} of the same {kind}" for kind, number in found.items() if number) or "none",
        **({"labels": words} if (words := in_words(manifest.get("gate"))) else {}),
        "how": reason_of(manifest),
        **({} if highest is None else {f"highest {column_of(ranks(manifest))} picked": f"{highest:.4f}"}),
        "selection": campaign.stage("selection") / "selection.parquet",
    }


def _is_due_again(campaign: Campaign, log: Log, *, force: bool) -> bool:
    """Whether the complete selection is made again. Raises ConfigError where it must not be."""
    folder = campaign.stage("selection")
    manifest = read_manifest(campaign, "selection", SelectionManifest)
    options, inputs = selection_changes(campaign, manifest)
    if force:
        log("the selection is made again: --force")
        return True
    if completed(campaign, "handoff"):
        if options:
            raise ConfigError(
                f"{folder}: {some(options)} changed, but its images are handed out; to pick other images as well, "
                f"run: {force_command(campaign)}"
            )
        if inputs:
            log(f"{some(inputs)} changed since the images were picked; the images are handed out, and stay picked")
        return False
    if HISTOGRAM_FILE not in manifest["files"]:
        inputs.append("what a report needs of a selection")
    if changed := some(options + inputs):
        log(f"the selection is made again: {changed} changed")
    return bool(changed)


def _few(campaign: Campaign, num_control: int) -> str:
    """That the control arm is too small to say much, and what it takes; "" where it is not, or not there at all."""
    options, is_judged = campaign.config.select, campaign.config.handoff.question.task != "mask"
    few = few_text(num_control, "control pick") if num_control and is_judged else ""
    if not few:
        return ""
    share = math.ceil(100 * enough_for(WANTED) / options.budget) / 100
    if share > MOST_CONTROL:
        return f"{few}, which is much of select.budget={options.budget}"
    return f"{few}: --set select.control_fraction={share:g}"


def _not_alike(likeness: Likeness) -> str:
    """Why nearness of latents does not count, in words."""
    near = f"{likeness.by_chance:.1%} of random pairs are as near"
    if likeness.alike is not None and likeness.alike < LEAST_ALIKE:
        near = f"of {likeness.num_pairs:,} pairs with near latents {likeness.alike:.0%} look alike"
    return f"near latents do not mean like pictures here ({near}): only bytes and pictures count as duplicates"


def _require_same_images(campaign: Campaign, batch: SentBatch, picks: pa.Table) -> None:
    """Raises ConfigError if a selection that is gone would be made again with other images than were handed out."""
    if batch.manifest["inputs"]["picks"] != picks_hash(picks):
        raise ConfigError(
            f"{campaign.stage('selection')}: it is gone, and now other images would be picked than were handed out in "
            f"{batch.folder}; restore it, or to pick other images as well, run: {force_command(campaign)}"
        )


def _current_records(campaign: Campaign, scores: ScoresManifest, log: Log) -> pa.Table:
    """The records of the shards that have the bytes that were scored, without those that left the pool since:
    RECORDS_SCHEMA.

    Raises InputError if others can be scored again. Once images are handed out they cannot, and are left out.
    """
    shards, folder = read_shards(campaign.home).in_round(campaign.round), campaign.stage("scores")
    changed, left = outdated(campaign, shards, scores), left_pool(campaign.home)
    why = f"{folder}: {len(changed)} shards changed since they were scored ({', '.join(sorted(changed)[:3])})"
    if changed and not completed(campaign, "handoff"):
        raise InputError(f"{why}; run: vaal score {campaign.home}")
    if changed:
        log(f"{why}: nothing is picked from them in this round")
    records = shard_records(campaign, scores)
    is_out = pc.is_in(records["shard"], value_set=pa.array([*changed, *left], pa.string()))
    return rows_where(records, ~is_out.to_numpy())


def _require_same_weights(campaign: Campaign, trained: TrainManifest, scores: ScoresManifest) -> None:
    now = trained["files"] | weights_of_task(trained.get("task", {}))
    for name, sha256 in scores["inputs"].items():
        if name.endswith(".safetensors") and now.get(name) != sha256:
            raise InputError(
                f"{campaign.stage('scores')}: made with another {name} than the one in {campaign.stage('train')}; "
                f"run: vaal score {campaign.home}"
            )
