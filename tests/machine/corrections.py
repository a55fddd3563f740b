"""What a customer does to labels: a deed is a command, and what it does to the truth once it is done."""

import csv
from typing import NamedTuple

from tests.machine.laws import Change, Truth, label_of
from tests.machine.tiny_pool import Item

KINDS = [
    "set", "set right", "set a pick", "set again", "retract", "retract a pick", "undo", "undo a file", "ingest",
    "ingest half", "ingest replace", "ingest with classes",
]  # fmt: skip
CLASSES = [f"class {number}" for number in range(4)]


Rows = dict[Item, tuple[str, str] | None]


class Deed(NamedTuple):
    """A command on labels, and the rows that it gives where they are not there yet; None: an undo."""

    arguments: tuple[str, ...]
    rows: Rows | None


def deed_of(truth: Truth, kind: str, seed: int) -> Deed | None:
    """A deed that is accepted unless something stands in its way; None where there is nothing to do it to."""
    verb, _, what = kind.partition(" ")
    return {"set": _set, "retract": _retract, "undo": _undo, "ingest": _ingest}[verb](truth, what, seed)


def done(truth: Truth, deed: Deed) -> None:
    """What a deed that is done does to the truth, as it is now."""
    new = new_files(truth)
    truth.files |= new
    if deed.rows is None:
        name = (*deed.arguments[3:], "")[0]
        undone = [change for change in _undoable(truth, bool(name)) if name in ("", change.file)]
        if not undone:
            raise truth.broken("what is undone counted", " ".join(deed.arguments))
        truth.changes.remove(undone[0])
        return
    # An ingest says nothing of the image of a label that is known.
    is_ingest = deed.arguments[0] == "ingest"
    size = 1 if is_ingest else 2
    labels = truth.labels
    rows = {item: row for item, row in deed.rows.items() if (row or ())[:size] != labels.get(item, ())[:size]}
    if is_ingest:
        rows = _not_known(truth, rows, replace="--replace" in deed.arguments)
    if rows:
        change = Change(max(new, default=""), rows)
        truth.changes.append(change)
        truth.ever.append(change)


def _not_known(truth: Truth, rows: Rows, *, replace: bool) -> Rows:
    return {item: row for item, row in rows.items() if row and not truth.is_known(item, row[0], replace=replace)}


def new_files(truth: Truth) -> set[str]:
    """The files of labels/ that are not known yet."""
    return {file.name for file in (truth.home / "labels").glob("[!.]*")} - truth.files


def _undoable(truth: Truth, is_any: bool) -> list[Change]:
    """The changes that can be undone, the newest first."""
    counting = [change for change in reversed(truth.changes) if truth.counting(change)]
    return [change for change in counting if is_any or "-ingest-" in change.file]


def wrong_deeds(truth: Truth) -> list[tuple[str, ...]]:
    """Commands on labels that are refused, and change nothing."""
    home, (shard, key) = str(truth.home), truth.pool.items()[0]
    answers = [(item_id, "never given") for item_id in _sent(truth)][:1]
    nobody = next((item for item in truth.pool.items() if item not in truth.labels), (shard, "nobody"))
    return [
        ("labels", home, "set", "no.tar", key, "class 1"),
        ("labels", home, "set", shard, "no key", "class 1"),
        ("labels", home, "set", "0" * 32, "class 1"),
        ("labels", home, "set", shard, key, " "),
        ("labels", home, "set", shard),
        ("labels", home, "retract", *nobody),
        ("labels", home, "retract", "0" * 32),
        ("labels", home, "undo", "999999-ingest-0000000000000000"),
        ("labels", home, "undo", "initial", "more"),
        ("labels", home, "list", shard),
        ("ingest", home, write_answers(truth, answers), "--replace", "--set", 'labels.classes=["none of these"]'),
    ]


def write_answers(truth: Truth, rows: list[tuple[str, str]], head: tuple[str, ...] = ("item_id", "label")) -> str:
    """A vendor's file. Returns its path."""
    file = truth.home.parent / "answers.csv"
    with file.open("w") as out:
        csv.writer(out).writerows([head, *(rows or [("0" * 32, "class 1")])])
    return str(file)


def _sent(truth: Truth) -> dict[str, str]:
    """The image of every item_id that was sent."""
    return {item_id: content for batch in truth.batches for content, item_id in batch.items()}


def _picks(truth: Truth) -> list[Item]:
    return [truth.item_of(item_id) for item_id in _sent(truth)]


def _set(truth: Truth, what: str, seed: int) -> Deed | None:
    among = {"a pick": _picks(truth), "again": sorted(truth.labels)}.get(what, truth.pool.items())
    if not among:
        return None
    item = among[seed % len(among)]
    content = truth.pool.content(item)
    label = truth.labels[item][0] if what == "again" else CLASSES[seed % 4]
    label = label_of(content) if what == "right" else label
    return Deed(("labels", str(truth.home), "set", *item, label), {item: (label, content)})


def _retract(truth: Truth, what: str, seed: int) -> Deed | None:
    sent = {truth.item_of(item_id): item_id for item_id in _sent(truth)}
    among = sorted(truth.labels.keys() & sent.keys() if what else truth.labels.keys())
    # Training needs a few.
    if not among or len(truth.labels) < 3:
        return None
    item = among[seed % len(among)]
    return Deed(("labels", str(truth.home), "retract", *((sent[item],) if what else item)), {item: None})


def _undo(truth: Truth, what: str, seed: int) -> Deed | None:
    # Training needs the first labels.
    names = [change.file for change in _undoable(truth, bool(what)) if change.file != "initial.parquet"]
    if not names:
        return None
    return Deed(("labels", str(truth.home), "undo", *([names[seed % len(names)]] if what else [])), None)


def _ingest(truth: Truth, what: str, seed: int) -> Deed | None:
    sent = {item_id: content for item_id, content in _sent(truth).items() if what != "half" or int(item_id, 16) & 1}
    if not sent:
        return None
    answers = {item_id: label_of(content) for item_id, content in sent.items()}
    if what == "replace":
        wrong = sorted(answers)[seed % len(answers)]
        answers[wrong] = CLASSES[seed % 4]
    rows: Rows = {truth.item_of(item_id): (label, sent[item_id]) for item_id, label in answers.items()}
    labels = truth.labels
    differing = {item: row for item, row in rows.items() if labels.get(item, ("",))[0] != (row or ("",))[0]}
    differing = _not_known(truth, differing, replace=False)
    words = ["--replace"] if differing.keys() & labels.keys() else []
    if what == "with classes":
        words += ["--set", f"labels.classes={CLASSES}".replace("'", '"')]
    file = write_answers(truth, sorted(answers.items()))
    return Deed(("ingest", str(truth.home), file, *words), dict(rows))
