"""What the labels lacked: the gate's finding in words, round against round, and the clusters that lack most."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from engine.campaign.folder import Campaign, is_complete
from engine.campaign.manifests import (
    BY_SCORE,
    BY_WORD,
    Gate,
    SelectionManifest,
    TrainManifest,
    read_committed,
    read_manifest,
)
from engine.models.centring import load_centres
from engine.tables.rows import Row
from engine.tables.selections import CLUSTERS_FILE, ORIGIN_UNCERTAINTY
from vaal.deficit import Coverage, Deficit, deficit_of

MOST_CLUSTERS = 12
"""Clusters that are shown."""
DONE = {
    "cluster_completion": "The labels were completed, cluster by cluster",
    "weight_completion": "The labels were completed by a sample, the denser the more is lacking",
    "uncertainty_sampling": "Images were drawn by how unsure the task learner is of them, its classes in turn (margin)",
    "as_random": "The picks are as good as random: there was no task learner that could say what it is not sure of",
}
"""What was done, by the branch of the selection. What other branches do stands above the picks."""
SAID = {
    True: "The labels lack parts of the pool: you say so (labels.are_biased=yes).",
    False: "The labels lack no part of the pool: you say so (labels.are_biased=no).",
}
NO_LABELS = "There were no labels yet: every part of the pool lacked them."
NOT_MEASURED = "It was not measured: there were no clusters of the pool to measure it on."


class Cluster(NamedTuple):
    """A cluster: its number, how much it has of the pool, the labels and the picks, what share of all that is, and the
    image nearest its centre."""

    number: int
    counts: dict[str, int]
    shares: dict[str, float]
    example: Row


class Clusters(NamedTuple):
    """The clusters that lack most, the one that lacks most first; how many there are in all; and the deficit
    once the batch is labelled, None where it is not known."""

    shown: list[Cluster]
    total: int
    after: Deficit | None = None


def clusters_of(campaign: Campaign, trained: TrainManifest, selection: SelectionManifest) -> Clusters:
    """The clusters of a complete selection; none where it has no table of them. Raises InputError if the table, or the
    clusters' centres, are not the committed ones."""
    if CLUSTERS_FILE not in selection["files"]:
        return Clusters([], 0)
    table = read_committed(campaign.stage("selection"), CLUSTERS_FILE)
    rows = table.slice(0, MOST_CLUSTERS).filter(pc.is_valid(table.slice(0, MOST_CLUSTERS)["key"])).to_pylist()
    totals = {name: max(1, _sum(table, name)) for name in ("pool", "labels", "picks")}
    shown = []
    for row in rows:
        count = {name: row[name] for name in totals}
        share = {name: row[name] / total for name, total in totals.items()}
        example = {name: row[name] for name in ("shard", "key", "offset", "size_bytes", "content_hash")}
        shown.append(Cluster(row["cluster"], count, share, example))
    return Clusters(shown, len(table), _after(campaign, trained, selection, table))


def _after(campaign: Campaign, trained: TrainManifest, selection: SelectionManifest, table: pa.Table) -> Deficit | None:
    """The deficit that the gate would find with the batch labelled; None for a table of an earlier version."""
    centres = load_centres(campaign.stage("train"), trained["files"])
    if centres is None or "drawn" not in table.column_names:
        return None
    table = table.sort_by("cluster")
    pool_C, drawn_C, filled_C = (table[name].to_numpy() for name in ("pool", "drawn", "filled"))
    picks = read_committed(campaign.stage("selection"), "selection.parquet").select(["cluster", "origin"])
    is_filling_N = pc.equal(picks["origin"], ORIGIN_UNCERTAINTY).to_numpy()
    cluster_N = picks["cluster"].to_numpy()
    drawn_C = drawn_C + np.bincount(cluster_N[~is_filling_N], minlength=len(pool_C))
    filled_C = filled_C + np.bincount(cluster_N[is_filling_N], minlength=len(pool_C))
    coverage = Coverage(pool_C - drawn_C - filled_C, drawn_C, filled_C)
    with threadpool_limits(1):
        return deficit_of(coverage, centres.centre_CZ.numpy(), selection["round_seed"])


def _sum(table: pa.Table, name: str) -> int:
    return int(pc.sum(table[name]).as_py() or 0)


def share_in_words(selection: SelectionManifest) -> str:
    """What share of the pool lacks labels, for the top of the page; "" where that was not measured, or not asked."""
    gate = selection.get("gate")
    return "" if not gate or gate["by"] == BY_WORD or gate["lacking"] is None else f"{gate['lacking']:.0%}"


def finding_in_words(selection: SelectionManifest) -> tuple[str, str]:
    """What the gate found: a short sentence, and the numbers behind it."""
    gate = selection.get("gate")
    if not gate or (gate["by"] != BY_WORD and (gate["value"] is None or gate["lacking"] is None)):
        return (NO_LABELS if CLUSTERS_FILE in selection["files"] else NOT_MEASURED), ""
    lacks = f"{gate['lacking'] or 0:.0%} of the pool lacks labels."
    if gate["by"] == BY_WORD:
        lacks = SAID[gate["speaks"]]
    elif gate["by"] in ("deficit", BY_SCORE) and not _speaks(gate):
        lacks = "The labels lack no part of the pool that could be shown."
    if gate["value"] is None:
        return lacks, NOT_MEASURED
    numbers = (
        f"Of a random sample of as many images as are labelled, the labels lack {gate['value']:.0%} (deficit). Random "
        f"labels lack {gate['by_chance']:.0%} by chance, and {_of_samples(gate)} of random samples are as far from the "
        "pool as the labels are."
    )
    return lacks, numbers


def _speaks(gate: Gate) -> bool:
    """Whether the deficit shows that the labels lack something, whatever decided."""
    return Deficit(gate["value"] or 0.0, gate["by_chance"] or 0.0, gate["p"] or 0.0, gate["clusters"]).speaks


def _of_samples(gate: Gate) -> str:
    return f"{100 * (gate['p'] or 0):.2g}% (p = {gate['p']:.2g})"


def done_in_words(selection: SelectionManifest) -> str:
    """What was done, and who decided that."""
    gate = selection.get("gate")
    word = {
        BY_WORD: "labels.are_biased decided what was done, and no test. ",
        "auc": "The AUC decided what was done, and not the deficit. ",
        BY_SCORE: f"It decided nothing: {BY_SCORE} ranked, whatever the labels lack. ",
    }
    why = word.get(gate["by"], "") if gate else ""
    branch = selection.get("branch", "")
    return why + (f"{DONE[branch]}." if branch in DONE else "")


def before_and_after(selection: SelectionManifest, clusters: Clusters) -> list[list[str]]:
    """Rows of what lacks labels, the deficit and that by chance: as the gate found it, and with the batch labelled.
    None where either is not known."""
    gate, after = selection.get("gate"), clusters.after
    if not gate or after is None or gate["value"] is None or gate["by_chance"] is None:
        return []
    found = {"before the batch": (gate["value"], gate["by_chance"]), "with the batch": (after.value, after.by_chance)}
    return [
        [name, *(f"{share:.0%}" for share in (max(0.0, value - by_chance), value, by_chance))]
        for name, (value, by_chance) in found.items()
    ]


def round_by_round(campaign: Campaign) -> list[list[str]]:
    """A row for each round up to the campaign's that measured the deficit: round, what is lacking, the deficit, by
    chance, p, and what was done."""
    rows = []
    for number in range(campaign.round + 1):
        of_round = replace(campaign, round=number)
        if is_complete(of_round.stage("selection")):
            selection = read_manifest(of_round, "selection", SelectionManifest)
            gate = selection.get("gate")
            if gate and gate["value"] is not None:
                shares = [f"{gate[name] or 0:.0%}" for name in ("lacking", "value", "by_chance")]
                rows.append(
                    [f"{number:03d}", *shares, f"{gate['p']:.2g}", selection.get("branch", "").replace("_", " ")]
                )
    return rows
