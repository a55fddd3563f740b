"""Why an item was picked or not."""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from engine.campaign.decided import decided_by, first_ranks, highest_scores, ranks, reason_of, scored_by
from engine.campaign.decisions import never_picked
from engine.campaign.folder import Campaign, is_complete
from engine.campaign.handed_out import current_batches, left_out, picked_items
from engine.campaign.labels import POSITIONS_SCHEMA, labelled_values
from engine.campaign.manifests import (
    RESCORES,
    Manifest,
    ScoresManifest,
    SelectionManifest,
    TrainManifest,
    read_committed,
    read_manifest,
)
from engine.campaign.scored_shards import shard_records
from engine.campaign.sharing import elsewhere
from engine.config.texts import plural, score_text
from engine.errors import InputError
from engine.selection.kept_out import why_out
from engine.storage.documents import read_document
from engine.tables.score_reader import read_scores
from engine.tables.scores import QUARANTINE_SCHEMA
from engine.tables.selections import (
    CANDIDATES_FILE,
    CLUSTERS_FILE,
    DUPLICATE,
    EXCLUDED_FILE,
    GROUP_FULL,
    place_of,
    row_of,
)
from engine.tables.shard_records import record_of
from vaal.acquisition import column_of
from vaal.diversity import branch_of

Facts = dict[str, Any]
_NOT_AMONG = {
    "lowest": "it is not among the lowest scores",
    "random": "it is not in the random sample of the pool",
    "nearest": "it is not among those nearest the centres of the parts of the pool that lack labels most",
    "keyed": "it was not drawn: the more the labels lack images like it, the likelier that was",
    "turned": "of its predicted class enough others were drawn before it",
}
"""Why an item is not a candidate, by the kind of candidates."""


def for_people(found: Facts) -> Facts:
    """What `explain` found as a person reads it: places count from 1, scores have few digits, and what is not known is
    left out."""
    title = ("shard", "key", "outcome")
    shown = {name: value for name, value in found.items() if value is not None and name not in title}
    shown |= {name: shown[name] + 1 for name in ("rank", "candidate") if name in shown}
    return {name: score_text(value, 4) if isinstance(value, float) else value for name, value in shown.items()}


def explain(campaign: Campaign, shard: str, key: str) -> Facts:
    """What happened to an item in the round's selection: `outcome`, the reason as the text `why`, and the facts.
    `decided_by` is the acquisition function whose `score` decided. Places count from 0, as in the files, and from 1 in
    `why`.

    Raises InputError if there is no selection, or the pool has no such item.
    """
    folder = campaign.stage("selection")
    manifest = read_manifest(campaign, "selection", SelectionManifest)
    item: Facts = {"shard": shard, "key": key}
    if pick := row_of(read_committed(folder, "selection.parquet"), shard, key):
        found = item | _of_pick(campaign, pick, manifest) | _of_cluster(campaign, pick["cluster"], manifest)
        if row_of(left_out(campaign.home, campaign.round), shard, key):
            waiting = current_batches(campaign.home, campaign.round)[-1].manifest["sending"]["waiting"]
            found["why"] += (
                f"; it waits to be sent: vaal export {campaign.home}"
                if waiting
                else "; it was left out of the batch, because its shard did not hold it: a later round may pick it"
            )
        return found
    if (shard, key) in never_picked(campaign.home):
        return item | {"outcome": "never picked", "why": "a person decided that it is never to be picked"}
    label = labelled_values(campaign.home).get((shard, key))
    if label is not None:
        return item | {"outcome": "labelled", "label": label, "why": "it has a label already"}
    if before := row_of(picked_items(campaign.home, campaign.round), shard, key):
        why = f"it was picked in round {before['round']:03d} and is out at a vendor"
        return item | {"outcome": "out at a vendor", "item_id": before["item_id"], "why": why}
    if kind := elsewhere(campaign).items.get((shard, key)):
        return item | {"outcome": "taken", "why": f"another campaign has it {kind}, by pool.shared_ledger"}
    if why := _why_kept_out(campaign, (shard, key), manifest):
        # Raises for an item that the pool does not have.
        rest = _of_the_rest(campaign, shard, key, manifest)
        return item | (rest if rest["outcome"] == "quarantined" else {"outcome": "kept out", "why": why})
    candidates = read_committed(folder, CANDIDATES_FILE)
    place = place_of(candidates, shard, key)
    if place >= 0:
        candidate = candidates.slice(place, 1).to_pylist()[0]
        found = item | _of_candidate(candidate, place, manifest)
        return found | _of_cluster(campaign, candidate["cluster"], manifest)
    return item | _of_the_rest(campaign, shard, key, manifest)


def _why_kept_out(campaign: Campaign, item: tuple[str, str], manifest: SelectionManifest) -> str:
    """Why an item could not be picked by the options of the selection, as they were then; "" where it could."""
    folder, where = campaign.stage("selection"), manifest["config"]["select"].get("where", "")
    has_file = EXCLUDED_FILE in manifest["files"]
    excluded = read_committed(folder, EXCLUDED_FILE) if has_file else POSITIONS_SCHEMA.empty_table()
    return why_out(campaign, where, item, excluded)


def _of_two_passes(
    campaign: Campaign, item: tuple[str, str], first: str, value: float, manifest: SelectionManifest
) -> str:
    """Why an item is no candidate where the lowest by its `first` score, of this value, were scored again."""
    last, cut, folder = column_of(ranks(manifest)), highest_scores(manifest)[1], campaign.stage(RESCORES)
    of = f"the lowest by {first}, which is {score_text(value, 4)} here"
    if not is_complete(folder) or cut is None:
        return f"candidates are the lowest by {last} among {of}"
    rescored = read_document(folder / "manifest.json", Manifest)
    for name in rescored["files"]:
        if row := row_of(read_committed(folder, name).select(["shard", "key", last]), *item):
            among = f"the highest of the {manifest['counts']['candidates']} candidates"
            return f"it was scored again, and its {last} {_apart(row[last], cut)}, {among}"
    return f"it was not scored again, for it is not among the {rescored['counts']['listed']:,} of {of}"


def _apart(score: float, cut: float) -> str:
    """That a score is above another one, with as many digits as it takes to see that."""
    digits = next((many for many in range(4, 9) if score_text(score, many) != score_text(cut, many)), 9)
    return f"{score_text(score, digits)} is above {score_text(cut, digits)}"


def named(campaign: Campaign, item_id: str) -> tuple[str, str]:
    """Shard and key of an item that was picked up to the campaign's round. Raises InputError if there is none."""
    tables = [picked_items(campaign.home, campaign.round + 1), left_out(campaign.home, campaign.round)]
    picked = pa.concat_tables(table.select(["item_id", "shard", "key"]) for table in tables)
    rows = picked.filter(pc.equal(picked["item_id"], item_id)).to_pylist()
    if not rows:
        raise InputError(f"--explain {item_id}: picked in no round up to {campaign.round}; give SHARD KEY")
    return rows[0]["shard"], rows[0]["key"]


def _of_pick(campaign: Campaign, pick: Facts, manifest: SelectionManifest) -> Facts:
    names = ("rank", "item_id", "arm", "reason", "score", "logit", "cluster", "group_size")
    why = f"rank {pick['rank'] + 1} of {manifest['counts']['picked']}: {pick['reason']}"
    if pick["group_size"] > 1:
        why += f"; it stands for {plural(pick['group_size'] - 1, 'duplicate')}"
    if pick["displaced_key"] is not None:
        why += f"; by the scores alone {pick['displaced_shard']} {pick['displaced_key']} would be here"
    facts = {name: pick[name] for name in names} | _decided(manifest, pick["score"])
    return {"outcome": "picked", **facts, "predicted": _predicted(campaign, pick), "why": why}


def _decided(manifest: SelectionManifest, score: float | None) -> Facts:
    """Which score decided, and the item's own; None where no score did, or the item has another one."""
    by = decided_by(manifest)
    return {"decided_by": by or None, "score": score if by == scored_by(manifest) else None}


def _predicted(campaign: Campaign, pick: Facts) -> str | None:
    """The class that the task learner predicted of a pick, by its name; None without one."""
    classes = read_manifest(campaign, "train", TrainManifest).get("task", {}).get("classes") or []
    number = pick.get("predicted")
    return classes[number] if number is not None and number < len(classes) else None


def _of_candidate(candidate: Facts, place: int, manifest: SelectionManifest) -> Facts:
    facts = {"outcome": "not picked", "candidate": place, "cluster": candidate["cluster"]}
    facts |= _decided(manifest, candidate["score"])
    of = f"candidate {place + 1} of {manifest['counts']['candidates']}"
    if candidate["fate"] == DUPLICATE:
        kind = {"bytes": "the same bytes as", "picture": "the same picture as", "latent": "nearly the same latent as"}
        why = f"{of}, with {kind[candidate['duplicate']]} {candidate['of_shard']} {candidate['of_key']}"
        return facts | {"outcome": "duplicate", "why": why}
    if candidate["fate"] == GROUP_FULL:
        most = manifest["config"]["select"]["per_group"]
        return facts | {"outcome": "group full", "why": f"{of}, after select.per_group={most} others of its group"}
    return facts | {"why": f"{of}; others were picked first, as {reason_of(manifest)}"}


def _of_cluster(campaign: Campaign, number: int | None, manifest: SelectionManifest) -> Facts:
    """How many images and labels a cluster of the pool had when images were picked; empty where that is not known."""
    if number is None or CLUSTERS_FILE not in manifest["files"]:
        return {}
    table = read_committed(campaign.stage("selection"), CLUSTERS_FILE)
    (row,) = table.filter(pc.equal(table["cluster"], number)).select(["pool", "labels"]).to_pylist()
    return {"cluster_images": row["pool"], "cluster_labels": row["labels"]}


def _of_the_rest(campaign: Campaign, shard: str, key: str, manifest: SelectionManifest) -> Facts:
    records = shard_records(campaign, read_manifest(campaign, "scores", ScoresManifest))
    record = record_of(records, shard)
    if record is None:
        raise InputError(f"{shard}: no such shard in the pool; give one of its shards, like {records['shard'][0]}")
    branch = branch_of(manifest.get("branch", "random"))
    # What ranks the pool at first may not be what decides.
    column = column_of(decided_by(manifest) if branch.candidates == "turned" else first_ranks(manifest))
    last = column if branch.candidates == "turned" else column_of(ranks(manifest))
    if row := row_of(read_scores(campaign.stage("scores"), record, ["shard", "key", column]), shard, key):
        why, (_, cut) = _NOT_AMONG[branch.candidates], highest_scores(manifest)
        if last != column:
            why = _of_two_passes(campaign, (shard, key), column, row[column], manifest)
        elif cut is not None:
            of = f"the highest of the {manifest['counts']['candidates']} candidates"
            why = f"its {column} {_apart(row[column], cut)}, {of}"
        by = decided_by(manifest) or None
        return {"outcome": "not a candidate", "decided_by": by, column: row[column], "why": why}
    if record.quarantined:
        bad = (campaign.stage("quarantine") / record.file).read_typed_table(QUARANTINE_SCHEMA)
        if row := row_of(bad, shard, "" if record.failure else key):
            return {"outcome": "quarantined", "why": f"{row['stage']}: {row['error']}: {row['message']}"}
    raise InputError(f"{shard}: no item {key!r}, neither scored nor quarantined; give the name without its suffix")
