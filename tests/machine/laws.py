"""The laws, checked on the files of a campaign after every step, against what the machine knows to be true."""

import hashlib
import json
from collections.abc import Iterable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.machine.faults import BrokenLawError
from tests.machine.product import Done, logit_of
from tests.machine.tiny_pool import SIDE, Item
from tests.machine.truth import Truth


def rows_of(folder: Path, *columns: str) -> list[dict[str, Any]]:
    """The rows of all Parquet files in a folder that are not damaged."""
    rows = []
    for file in sorted(folder.glob("[!.]*.parquet")):
        with suppress(OSError, pa.ArrowException):
            rows += pq.read_table(file, columns=list(columns) or None).to_pylist()
    return rows


def label_of(content: str) -> str:
    """The right label of an image."""
    return f"class {int(content[-2:], 16) % 3}"


def check_done(truth: Truth, arguments: tuple[str, ...], done: Done) -> None:
    """A command ends with a known status and, where that is not 0, with one line of error."""
    command = " ".join(arguments)
    if isinstance(done.exception, BrokenLawError):
        raise done.exception
    if done.exception is not None:
        trace, place = done.exception.__traceback__, ""
        while trace:
            code = trace.tb_frame.f_code
            place, trace = f"{Path(code.co_filename).name}:{code.co_name}", trace.tb_next
        raise truth.broken("traceback", f"vaal {command}: {type(done.exception).__name__} in {place}: {done.exception}")
    if done.status not in range(6):
        raise truth.broken("exit status", f"vaal {command}: {done.status}")
    errors = [line for line in done.err.splitlines() if line.startswith("error:")]
    if done.status and (len(errors) != 1 or done.err.splitlines()[-1:] != errors):
        raise truth.broken("one line", f"vaal {command}: exit {done.status}: {done.err!r}")


def check_files(truth: Truth, damaged: Iterable[Path] = ()) -> None:
    """What must be true of the campaign's files whatever happened."""
    check_labels(truth)
    for folder in truth.rounds():
        check_selection(truth, folder)
    check_committed(truth, set(damaged))


def check_committed(truth: Truth, damaged: set[Path]) -> None:
    """Every file that a manifest names exists and has the bytes that it names, apart from what the machine damaged."""
    for manifest in sorted(truth.home.glob("rounds/*/**/manifest.json")):
        # A vendor's folder is what an earlier version wrote.
        if manifest in damaged or manifest.parent.parent.name == "handoff":
            continue
        stage = json.loads(manifest.read_bytes())
        named = dict(stage["files"]) | {entry["file"]: entry["sha256"] for entry in stage.get("shards", [])}
        for name, sha256 in named.items():
            file = manifest.parent / name
            if file not in damaged and (not file.exists() or _sha256(file, file.stat().st_mtime_ns) != sha256):
                where = file.relative_to(truth.home)
                raise truth.broken("what is committed is there", f"{where} is not the file of its manifest")


@lru_cache(1000)
def _sha256(file: Path, _: int) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def check_labels(truth: Truth) -> None:
    """No label is lost, and none is another one than was given."""
    rows: dict[Item, str | None] = {}
    for file in sorted((truth.home / "labels").iterdir(), key=lambda file: (file.stem != "initial", file.name)):
        if file.name.startswith("."):
            continue
        rows |= {(row["shard"], row["key"]): row["label"] for row in pq.read_table(file).to_pylist()}
    found = {item: label for item, label in rows.items() if label is not None}
    labels = truth.labels
    for item, (label, _) in labels.items():
        if found.get(item) != label:
            raise truth.broken("labels are kept", f"{item} was given {label!r}, found {found.get(item)!r}")
    if extra := found.keys() - labels.keys():
        raise truth.broken("labels are kept", f"never given, or taken back: {sorted(extra)}")


def check_list(truth: Truth, listed: list[dict[str, Any]]) -> None:
    """What the product lists is what labels/ says."""
    found = {(row["shard"], row["key"]): row["label"] for row in listed}
    if found != {item: label for item, (label, _) in truth.labels.items()} or len(found) < len(listed):
        raise truth.broken("every reader sees the same labels", f"listed: {found}")


def check_trained(truth: Truth, seen: list[tuple[str, str, Any]]) -> None:
    """Training sees every labelled image under its label: (shard, key, pixels)."""
    for shard, key, pixels in seen:
        # Of another size than the files', an image cannot be recognised.
        if pixels.shape[0] != SIDE:
            continue
        content = truth.pool.hash_of_pixels.get(pixels.tobytes(), "no image of the pool")
        if content != truth.labels.get((shard, key), ("", ""))[1]:
            raise truth.broken("right bytes under a label", f"training saw {content} as {shard}/{key}")


def check_scores(truth: Truth, folder: Path) -> None:
    """Straight after scoring: every item is scored by the bytes that it has now, or is in quarantine."""
    found = {}
    for entry in _entries(folder):
        if entry.get("failure"):
            found.update({(entry["shard"], key): None for key in truth.pool.files[entry["shard"]]})
        for row in pq.read_table(folder / "scores" / entry["file"]).to_pylist():
            found[row["shard"], row["key"]] = (row["content_hash"], row["logit"])
    for item in truth.pool.items():
        content = truth.pool.content(item)
        if item in truth.pool.unseen:
            # Neither size nor time tells. Whoever hands it out must look.
            continue
        if item not in found:
            raise truth.broken("nothing is lost", f"{item} is neither scored nor in quarantine")
        if found[item] not in (None, (content, logit_of(content))):
            raise truth.broken("scores are of the bytes", f"{item} is {content}, scored as {found[item]}")


def check_selection(truth: Truth, folder: Path) -> None:
    """What is picked is scored in its round, was not labelled before, and is picked once."""
    try:
        manifest = json.loads((folder / "selection/manifest.json").read_bytes())
        content = (folder / "selection/selection.parquet").read_bytes()
    except (FileNotFoundError, ValueError):
        return
    if hashlib.sha256(content).hexdigest() != manifest["files"]["selection.parquet"]:
        return
    picks = pq.read_table(folder / "selection/selection.parquet").to_pylist()
    if len({(pick["shard"], pick["key"]) for pick in picks}) < len(picks):
        raise truth.broken("picked once", f"{folder.name}: an item is picked twice")


def check_fresh_selection(truth: Truth, folder: Path) -> None:
    """Straight after a selection that is not out yet: nothing in it is labelled, in quarantine or out at a vendor."""
    try:
        picks = pq.read_table(folder / "selection/selection.parquet").to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise truth.broken("done means done", f"select left {error}") from error
    quarantine = {(row["shard"], row["key"]) for row in rows_of(folder / "quarantine")}
    out = truth.out()
    for pick in picks:
        item = pick["shard"], pick["key"]
        if item in truth.labels:
            raise truth.broken("nothing labelled is picked", f"{folder.name}: {item}")
        if item in quarantine or (item[0], "") in quarantine:
            raise truth.broken("nothing in quarantine is picked", f"{folder.name}: {item}")
        if pick["item_id"] in out:
            raise truth.broken("nothing that is out is picked", f"{folder.name}: {item}")
        if item in truth.never or truth.state(pick["item_id"]) == "skipped":
            raise truth.broken("nothing is picked that has no answer", f"{folder.name}: {item}")


def _entries(folder: Path) -> list[dict[str, Any]]:
    """A row a shard that the scores manifest of a round speaks of."""
    ledger = json.loads((folder / "scores/manifest.json").read_bytes())["ledger"]
    return [row for name in ledger for row in pq.read_table(folder / "ledger" / name).to_pylist()]


def check_nothing_lost(truth: Truth, folder: Path) -> None:
    """Straight after a selection: what is scored and neither labelled nor ever handed out can be picked."""
    labelled = set(truth.labels)
    out = {truth.item_of(item_id) for item_id in truth.out()} | truth.never
    files = [entry["file"] for entry in _entries(folder)]
    scored = {
        (row["shard"], row["key"])
        for file in files
        for row in pq.read_table(folder / "scores" / file, columns=["shard", "key"]).to_pylist()
    }
    expected, counts = scored - labelled - out, json.loads((folder / "selection/manifest.json").read_bytes())["counts"]
    if counts["eligible"] != len(expected):
        raise truth.broken("nothing is lost", f"{folder.name}: {counts} but {len(expected)} can be picked")
