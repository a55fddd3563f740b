"""What a customer does to labels: a deed is a command, and what it does to the truth once it is done."""

import csv
from pathlib import Path
from typing import NamedTuple

from tests.machine.laws import label_of
from tests.machine.tiny_pool import Item
from tests.machine.truth import Answer, Row, Truth, Word

KINDS = [
    "set", "set right", "set a pick", "set again", "retract", "retract a pick", "undo", "undo a file", "ingest",
    "ingest half", "ingest replace", "ingest with classes", "ingest people", "ingest person", "ingest skips",
    "ingest dispute",
]  # fmt: skip
CLASSES = [f"class {number}" for number in range(4)]
PEOPLE = ("ann", "ben", "cho")
Answers = dict[Answer, str | None]


class Deed(NamedTuple):
    """A command on labels, and what it says: a word on an item, or answers; neither: an undo."""

    arguments: tuple[str, ...]
    item: Item | None = None
    row: Row = None
    answers: Answers | None = None


class Sieved(NamedTuple):
    """The answers that are new, and whether one of them contradicts what is known."""

    new: Answers
    is_contradicting: bool


def deed_of(truth: Truth, kind: str, seed: int) -> Deed | None:
    """A deed that is accepted unless something stands in its way; None where there is nothing to do it to."""
    verb, _, what = kind.partition(" ")
    return {"set": _set, "retract": _retract, "undo": _undo, "ingest": _ingest}[verb](truth, what, seed)


def done(truth: Truth, deed: Deed) -> None:
    """What a deed that is done does to the truth, as it is now."""
    new = new_files(truth)
    truth.files |= new
    verb = deed.arguments[2] if deed.arguments[0] == "labels" else "ingest"
    if verb == "ingest":
        _answered(truth, deed, sorted(name for name in new if name.endswith("-generic.parquet")))
    elif verb == "undo":
        _undone(truth, (*deed.arguments[3:], "")[0])
    else:
        # A label that is there already is not written again.
        for file in (name for name in new if f"-{verb}-" in name):
            assert deed.item
            truth.words.append(Word(file, deed.item, deed.row, truth.num_files_of_votes(), truth.now()))
        if "--never-pick" in deed.arguments and deed.item:
            truth.never.add(deed.item)


def _undone(truth: Truth, name: str) -> None:
    counting = _undoable(truth, is_any=bool(name))
    if not counting or name not in ("", *counting):
        raise truth.broken("what is undone counted", name)
    truth.undone.add(name or counting[-1])


def _answered(truth: Truth, deed: Deed, files: list[str]) -> None:
    answers, is_replaced = deed.answers or {}, "--replace" in deed.arguments
    new, is_contradicting = sieved(truth, answers, replace=is_replaced)
    if is_contradicting:
        raise truth.broken("a contradiction is refused", str(new))
    if bool(new) != bool(files):
        raise truth.broken("what is new is kept, and nothing else", f"{new} in {files}")
    before = truth.labels
    if new:
        truth.ingests[files[0]] = new
    number = truth.num_files_of_votes()
    for item_id in {item_id for item_id, _ in answers}:
        item = truth.item_of(item_id)
        word = truth.standing(item)
        is_other = truth.by_votes(item_id)[1] != before.get(item, (None,))[0]
        is_newer = is_replaced and word is not None and truth.newest_ingest(item_id) > word.num_votes
        if is_other and is_newer:
            truth.words.append(Word("", item, None, number, truth.now(), is_override=True))


def sieved(truth: Truth, answers: Answers, *, replace: bool) -> Sieved:
    """Which answers are new, by the rules of docs/handoff.md."""
    new, is_contradicting, labels = Answers(), False, truth.labels
    for answer, value in answers.items():
        item = truth.item_of(answer[0])
        word, versions = truth.standing(item), truth.versions(answer)
        if value in versions and (versions[-1] == value or not replace):
            continue
        undone_at = [n for n, rows in enumerate(truth.ingests.values(), 1) if rows.get(answer, "") == value]
        if not versions and undone_at and word and word.num_votes >= undone_at[-1]:
            # A person decided after this very answer had come.
            continue
        new[answer] = value
        label = labels.get(item, (None,))[0]
        contradicts = versions or (word and word.row and not answer[1])
        is_contradicting |= bool(contradicts) and value != label and not replace
    return Sieved(new, is_contradicting)


def new_files(truth: Truth) -> set[str]:
    """The files of labels/ and votes/ that are not known yet."""
    return {file.name for folder in ("labels", "votes") for file in (truth.home / folder).glob("[!.]*")} - truth.files


def _undoable(truth: Truth, *, is_any: bool) -> list[str]:
    """The files that can be undone, the newest last: of votes, without a name the last one, and those of words that
    count."""
    votes = [name for name in list(truth.ingests)[0 if is_any else -1 :] if name not in truth.undone]
    words = [word.file for word in truth.words if word == truth.standing(word.item) and word.file != "initial.parquet"]
    return [*(words if is_any else []), *votes]


def wrong_deeds(truth: Truth) -> list[tuple[str, ...]]:
    """Commands on labels that are refused, and change nothing."""
    home, (shard, key) = str(truth.home), truth.pool.items()[0]
    nobody = next((item for item in truth.pool.items() if item not in truth.labels), (shard, "nobody"))
    new: Answers = {(item_id, ""): "never given" for item_id in [*_sent(truth)][:1]}
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
        ("handoff", home, "recall", "--batch", "nobody-000"),
        ("handoff", home, "--pick-again"),
        ("ingest", home, write_answers(truth, new), "--replace", "--set", 'labels.classes=["none of these"]'),
    ]


def write_answers(truth: Truth, answers: Answers) -> str:
    """A vendor's file. Returns its path."""
    rows = [(item_id, value or "", who, str(value is None).lower()) for (item_id, who), value in answers.items()]
    return write_rows(truth.home.parent, [("item_id", "label", "annotator", "skipped"), *sorted(rows)])


def write_rows(folder: Path, rows: list[tuple[str, ...]]) -> str:
    """A vendor's file. Returns its path."""
    if len(rows) == 1:
        rows = [*rows, ("0" * 32, "class 1", "", "false")[: len(rows[0])]]
    file = folder / "answers.csv"
    with file.open("w") as out:
        csv.writer(out).writerows(rows)
    return str(file)


def _sent(truth: Truth) -> dict[str, str]:
    """The image of every item_id that was sent."""
    return {item_id: content for batch in truth.sent for item_id, content in batch.images.items()}


def _set(truth: Truth, what: str, seed: int) -> Deed | None:
    among = {"a pick": [truth.item_of(i) for i in _sent(truth)], "again": sorted(truth.labels)}
    items = among.get(what, truth.pool.items())
    if not items:
        return None
    item = items[seed % len(items)]
    content = truth.pool.content(item)
    label = truth.labels[item][0] if what == "again" else CLASSES[seed % 4]
    label = label_of(content) if what == "right" else label
    return Deed(("labels", str(truth.home), "set", *item, label), item, (label, content))


def _retract(truth: Truth, what: str, seed: int) -> Deed | None:
    sent = {truth.item_of(item_id): item_id for item_id in _sent(truth)}
    among = sorted(truth.labels.keys() & sent.keys() if what else truth.labels.keys())
    # Training needs a few.
    if not among or len(truth.labels) < 3:
        return None
    item = among[seed % len(among)]
    names = (sent[item],) if what else item
    options = ("--never-pick",) if seed % 5 == 0 else ()
    return Deed(("labels", str(truth.home), "retract", *names, *options), item)


def _undo(truth: Truth, what: str, seed: int) -> Deed | None:
    names = _undoable(truth, is_any=bool(what))
    if not names:
        return None
    return Deed(("labels", str(truth.home), "undo", *([names[seed % len(names)]] if what else [])))


def _ingest(truth: Truth, what: str, seed: int) -> Deed | None:
    sent = {item_id: content for item_id, content in _sent(truth).items() if what != "half" or int(item_id, 16) & 1}
    if not sent:
        return None
    answers: Answers = {}
    if what in ("people", "person", "skips", "dispute"):
        people = PEOPLE[seed % 3 :][:1] if what == "person" else PEOPLE[:2]
        for number, (item_id, content) in enumerate(sent.items(), seed):
            for place, who in enumerate(people):
                is_skipped = what == "skips" and (number + place) % 3
                is_other = what == "dispute" and place and number % 2
                label = CLASSES[3] if is_other else label_of(content)
                answers[item_id, who] = None if is_skipped else label
    else:
        answers = {(item_id, ""): label_of(content) for item_id, content in sent.items()}
        if what == "replace":
            wrong = sorted(answers)[seed % len(answers)]
            answers[wrong] = CLASSES[seed % 4]
    words = ["--replace"] if what == "replace" or sieved(truth, answers, replace=False).is_contradicting else []
    if what == "with classes":
        words += ["--set", f"labels.classes={CLASSES}".replace("'", '"')]
    return Deed(("ingest", str(truth.home), write_answers(truth, answers), *words), answers=answers)
