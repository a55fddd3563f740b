"""The laws of what goes out and what comes of it: batches, what is taken back, states, the end of a round."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from engine.pool.identity import content_hash, item_id_of
from tests.machine.laws import rows_of
from tests.machine.truth import DONE, OPEN, SALT, Sent, Truth


def look(truth: Truth) -> None:
    """Learn what was sent and taken back since, and check it. A batch is out from its manifest on."""
    known = {batch.record for batch in truth.sent}
    manifests = truth.home.glob("rounds/*/handed_out/*/manifest.json")
    new = [file for file in manifests if str(file.parent.relative_to(truth.home)) not in known]
    for file in sorted(new, key=lambda file: (file.parts[-4], int(file.parent.name.rpartition("-")[2]))):
        _look_at(truth, file.parent)
    for file in sorted((truth.home / "decisions").glob("[!.]*")):
        if file.name not in truth.decisions:
            truth.decisions.add(file.name)
            _decided(truth, pq.read_table(file).to_pylist())
    check_rounds(truth, is_settled=False)


def _look_at(truth: Truth, record: Path) -> None:
    """A new batch: nothing in it is out elsewhere, unless more people are asked; and the most valuable are first."""
    manifest = json.loads((record / "manifest.json").read_bytes())
    sending, picks = manifest["sending"], manifest["inputs"]["picks"]
    rows = [row for row in pq.read_table(record / "images.parquet").to_pylist() if not row["gold"]]
    images = {row["item_id"]: row["content_hash"] for row in rows}
    name = str(record.relative_to(truth.home))
    for item_id in images:
        item, state = truth.item_of(item_id), truth.state(item_id)
        if not picks and state != "disputed":
            raise truth.broken("more people are asked where people disagree", f"{item} is {state}")
        if not picks and (item in truth.never or item_id in truth.given_up()):
            raise truth.broken("more people are asked once, and of nothing that is not to be sent", f"{item} in {name}")
        if picks and item_id in truth.out():
            raise truth.broken("sent once", f"{item} in {name} and an earlier batch")
        if picks and (item in truth.never or item in truth.labels):
            raise truth.broken("what needs no label is not sent", f"{item} in {name}")
    ranks = [row["rank"] for row in rows]
    if ranks != sorted(ranks):
        raise truth.broken("the most valuable first", f"{name}: {ranks}")
    scored = {item_id_of(row["shard"], row["key"], SALT): row["content_hash"] for row in _scores(record.parents[1])}
    for item_id, content in images.items():
        if picks and item_id in scored and scored[item_id] != content:
            raise truth.broken("right bytes in a handoff", f"{truth.item_of(item_id)} was scored with other bytes")
    answered = {item_id: truth.came(item_id) for item_id in images}
    number = truth.num_files_of_votes()
    truth.sent.append(Sent(name, images, sending["annotators"], picks, truth.now(), answered, number))


def _scores(folder: Path) -> list[dict[str, Any]]:
    return rows_of(folder / "scores", "shard", "key", "content_hash")


def _decided(truth: Truth, rows: list[dict[str, Any]]) -> None:
    """Only what is out is taken back; only what has no answer may be picked again."""
    before = {
        (batch.record, item_id): truth.state_in(batch, item_id) for batch in truth.sent for item_id in batch.images
    }
    batches = {batch.record: batch for batch in truth.sent}
    for row in rows:
        kind, batch, item_id = row["kind"], batches.get(row["batch"]), row["item_id"]
        if kind not in ("recalled", "expired", "pick again") or not batch or item_id not in batch.images:
            # Never picked, or a gold image.
            continue
        state = before[batch.record, item_id]
        if kind == "pick again":
            # Of what is disputed more people may be asked again.
            if state not in ("recalled", "expired", "out", *(() if batch.picks else ("disputed", "answered in part"))):
                raise truth.broken("what may be picked again has no answer", f"{truth.item_of(item_id)} is {state}")
            batch.released.add(item_id)
        else:
            if state not in OPEN:
                raise truth.broken("only what is out is taken back", f"{truth.item_of(item_id)} is {state}")
            batch.back[item_id] = kind


def check_folder(truth: Truth, folder: Path, vendor: str) -> None:
    """Straight after an export: the vendor's folder holds exactly its newest batch's images, with their bytes."""
    records = [batch.record for batch in truth.sent if f"handed_out/{vendor}-" in batch.record]
    own = [record for record in records if record.startswith(f"rounds/{folder.name}/")]
    handoff = folder / "handoff" / vendor
    if not own:
        raise truth.broken("done means done", f"nothing went to {vendor}")
    rows = pq.read_table(truth.home / own[-1] / "images.parquet").to_pylist()
    for row in rows:
        try:
            data = (handoff / row["file"]).read_bytes()
        except OSError as error:
            raise truth.broken("done means done", f"export left {type(error).__name__}: {error}") from error
        if hashlib.sha256(data).hexdigest() != row["sha256"] or content_hash(data) != row["content_hash"]:
            raise truth.broken("right bytes in a handoff", f"{row['file']} is not the file of its record")
    files = {path.name for path in (handoff / "images").glob("*")}
    if extra := files - {Path(row["file"]).name for row in rows}:
        raise truth.broken("a handoff holds one batch", f"{len(extra)} images beside the {len(rows)} of the tasks")


def check_ledger(truth: Truth, ledger: dict[str, Any]) -> None:
    """The product's ledger has the states that follow from what came."""
    shown = [batch["states"] for batch in ledger["batches"]]
    expected = []
    for batch in sorted(truth.sent, key=lambda batch: batch.round):
        states = [truth.shown_in(batch, item_id) for item_id in batch.images]
        expected.append({state: states.count(state) for state in set(states)})
    if shown != expected:
        raise truth.broken("every image has its state", f"{expected}, shown as {shown}")


def _check_ended(truth: Truth, folder: Path, own: list[Sent]) -> None:
    if folder.name in truth.ended:
        return
    truth.ended.add(folder.name)
    if json.loads((folder / "closed.json").read_bytes())["by"] == "vaal round --close":
        return
    own = [batch for batch in own if batch.picks]
    newest = [batch for batch in own if batch.picks == own[-1].picks]
    states = {item_id: truth.state_in(batch, item_id) for batch in newest for item_id in batch.images}
    if not states or any(state not in DONE for state in states.values()):
        raise truth.broken("a round ends when it is answered", f"{folder.name} ended with {states}")


def _is_any_answered(states: dict[str, str]) -> bool:
    """A round of which all was taken back unanswered ends by hand alone."""
    return any(state not in ("out", "expired", "recalled") for state in states.values())


def check_rounds(truth: Truth, *, is_settled: bool) -> None:
    """A round that ended has answers to all of its picks, unless it was ended by hand; `is_settled`: and the present
    one ended if it has."""
    for folder in truth.rounds():
        own = [batch for batch in truth.sent if batch.round == int(folder.name)]
        if (folder / "closed.json").exists():
            _check_ended(truth, folder, own)
            continue
        selection = folder / "selection/selection.parquet"
        if (
            not is_settled
            or not own
            or not (folder / "selection/manifest.json").exists()
            or folder != truth.rounds()[-1]
        ):
            continue
        try:
            picks = {row["item_id"] for row in pq.read_table(selection).to_pylist()}
        except OSError:
            continue
        own_picks = json.loads((folder / "selection/manifest.json").read_bytes()).get("picks")
        own = [batch for batch in own if batch.picks == own_picks]
        states = {item_id: truth.state_in(batch, item_id) for batch in own for item_id in batch.images}
        free = picks - truth.out()
        free = {i for i in free if (item := truth.item_of(i)) not in truth.labels and item not in truth.never}
        if own and states and not free and all(state in DONE for state in states.values()) and _is_any_answered(states):
            raise truth.broken("a round that is answered ends", f"{folder.name}: {states}")
