"""Finished labels from a vendor: all of a file are appended, or none."""

import io
import pkgutil
from typing import NamedTuple

import pyarrow as pa

from engine.campaign.changes import MOST_LINES, refresh
from engine.campaign.folder import Campaign
from engine.campaign.labels import (
    POSITIONS_SCHEMA,
    Identity,
    Snapshot,
    append_labels,
    check_classes,
    identities,
    label_row,
    read_snapshot,
)
from engine.campaign.origins import picked_origins
from engine.campaign.places import placed
from engine.campaign.positions import write_positions
from engine.campaign.stages import QUIET, Log
from engine.config.texts import plural
from engine.errors import InputError
from engine.handoff import VENDORS
from engine.handoff.exchange import AnswerFile, Question
from engine.storage.location import Location
from engine.tables.rows import Row
from engine.tables.values import label_of, text_of


class Ingested(NamedTuple):
    """What a file of finished labels brought.

    The numbers of its rows that are new, were known already, have no label yet, or replaced an earlier label; the
    classes that the campaign's labels never had before; how many items that were handed out have no label yet; how
    many of the new labels are for images whose bytes are in the pool no more; and how many of the rows that were known
    already were corrected or replaced since, and stay so.
    """

    new: int
    repeated: int
    blank: int
    replaced: int
    new_classes: list[str]
    out: int
    changed: int = 0
    corrected: int = 0


class _Known:
    """What earlier ingests said, and what became of it.

    A vendor's file comes again, often with more rows. What an ingest gave an item once is known, whatever a person
    corrected or retracted since. It is new again where that ingest was undone and nobody decided otherwise.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self._said: dict[tuple[Identity, str], int] = {}
        """The number of the last ingest that said it, undone or not."""
        self._answered: dict[Identity, int] = {}
        """The number of the last ingest that said anything of it."""
        self._counts: set[tuple[Identity, str]] = set()
        """What ingests said that are not undone."""
        self._last: dict[Identity, tuple[int, bool]] = {}
        """The number of the last file of an item that is not undone, and whether it is an ingest."""
        for number, (name, table) in enumerate(snapshot.tables.items()):
            pairs = list(zip(identities(table), table["label"].to_pylist(), strict=True))
            is_ingest = "-ingest-" in name
            items = dict(pairs)
            if is_ingest:
                self._said |= dict.fromkeys(pairs, number)
                self._answered |= dict.fromkeys(items, number)
            if name not in snapshot.undone:
                self._counts |= set(pairs) if is_ingest else set()
                self._last |= dict.fromkeys(items, (number, is_ingest))

    def __call__(self, item: Identity, label: str, *, replace: bool) -> bool:
        """Whether this answer changes nothing. With `replace` it replaces another answer, but no correction of it."""
        said = self._said.get((item, label))
        if said is None:
            return False
        return self._is_decided(item, said) or (not replace and (item, label) in self._counts)

    def overrides(self, item: Identity, before: str | None) -> bool:
        """Whether another answer overrides a decision: a label that no ingest gave, or that an answer was retracted."""
        answered = self._answered.get(item)
        is_decided = self._is_decided(item, -1 if answered is None else answered)
        return is_decided and (before is not None or answered is not None)

    def _is_decided(self, item: Identity, since: int) -> bool:
        """Whether the last word on an item is not an ingest's, but that of a person or another program after this."""
        number, is_ingest = self._last.get(item, (-1, True))
        return not is_ingest and number > since


class _Sifted(NamedTuple):
    """The rows that change a label, by item_id; which labels they override that are no ingest's, as text; and counts as
    in `Ingested`."""

    changed: dict[str, Row]
    overridden: list[str]
    repeated: int
    blank: int
    replaced: int
    corrected: int


class Rules(NamedTuple):
    """What is accepted: `classes` as labels.classes, and whether a label may replace an earlier other one."""

    classes: list[str] | str = []  # noqa: RUF012 - never written to
    replace: bool = False


ANY = Rules()


def ingest(
    campaign: Campaign, source: Location, vendor: str, picked: pa.Table, rules: Rules = ANY, log: Log = QUIET.log
) -> Ingested:
    """Append the finished labels of a vendor's file, all or none. Repeated rows and files change nothing,
    also where the labels were corrected since.

    A label is for the bytes that were handed out. Of the pool only the shards of new labels are looked at, and the
    images that have other bytes now are named: their labels wait until the bytes are back.

    Args:
        picked: every item ever handed out: see `picked_items`.

    Raises InputError for a file without rows, an item_id that was never handed out, a class that is not allowed, or a
    label that contradicts another; nothing is written.
    """
    home, snapshot = campaign.home, read_snapshot(campaign.home)
    by_id = {item["item_id"]: item for item in picked.to_pylist()}
    sifted = _sift(source, _read(source, vendor), by_id, snapshot, rules)
    changed = sifted.changed
    items = [by_id[item_id] for item_id in sorted(changed)]
    _append(home, source, vendor, items, changed)
    new_classes = sorted({row["label"] for row in changed.values()} - set(snapshot.history["label"].to_pylist()))
    if new_classes:
        log(f"new classes, never seen in this campaign before: {', '.join(new_classes)}")
    if sifted.overridden:
        more = ", ..." if len(sifted.overridden) > MOST_LINES else ""
        named = ", ".join(sifted.overridden[:MOST_LINES])
        log(f"overrides {plural(len(sifted.overridden), 'correction')}: {named}{more}")
    labelled = set(snapshot.values) | {_identity(by_id[item_id]) for item_id in changed}
    out = sum(_identity(item) not in labelled for item in by_id.values())
    num_changed = _num_changed(campaign, items, log)
    num_new = len(changed) - sifted.replaced
    return Ingested(
        num_new, sifted.repeated, sifted.blank, sifted.replaced, new_classes, out, num_changed, sifted.corrected
    )


def _read(source: Location, vendor: str) -> list[Row]:
    """The answers of a file as rows. Raises InputError for one that cannot be taken."""
    file = AnswerFile(str(source), source.name, lambda: io.BytesIO(source.read_bytes()))
    rows = []
    for answer in pkgutil.resolve_name(f"{VENDORS[vendor].module}:read_answers")(file, Question("class", [])):
        if answer.fault:
            raise InputError(f"{source}: {answer.where}: {answer.fault}")
        names = {"item_id": answer.item, "label": answer.value, "annotator": answer.annotator or None}
        rows.append({**names, "labelled_at": answer.answered_at, "line": answer.where.removeprefix("line ")})
    return rows


def _sift(source: Location, rows: list[Row], by_id: dict[str, Row], snapshot: Snapshot, rules: Rules) -> _Sifted:
    """What the rows of a file change. Raises InputError as `ingest`."""
    values, known, initial = snapshot.values, _Known(snapshot), snapshot.first_classes
    said: dict[str, str] = {}
    changed: dict[str, Row] = {}
    overridden: list[str] = []
    repeated = blank = replaced = corrected = 0
    for row in rows:
        where = f"{source}: line {row['line']}"
        item_id, label = text_of(row["item_id"], f"{where}: item_id"), label_of(row.get("label"), f"{where}: label")
        if item_id not in by_id:
            raise InputError(f"{where}: item_id {item_id!r} was never handed out by this campaign; remove it")
        if not label:
            blank += 1
            continue
        item = _identity(by_id[item_id])
        twin, before = said.setdefault(item_id, label), values.get(item)
        why = f"{where}: item_id {item_id!r} is {label!r} here but"
        if twin != label:
            raise InputError(f"{why} {twin!r} before; keep the right one")
        if label == before or item_id in changed:
            repeated += 1
        elif known(item, label, replace=rules.replace):
            repeated, corrected = repeated + 1, corrected + 1
        else:
            check_classes(rules.classes, initial, label, where)
            if before and not rules.replace:
                raise InputError(f"{why} {before!r} before; keep the right one, or correct it with --replace")
            if known.overrides(item, before):
                overridden.append(f"{item[0]}/{item[1]} was {before or 'retracted'} and is {label}")
            replaced += before is not None
            changed[item_id] = {**row, "label": label}
    return _Sifted(changed, overridden, repeated, blank, replaced, corrected)


def _identity(item: Row) -> Identity:
    return item["shard"], item["key"]


def _num_changed(campaign: Campaign, items: list[Row], log: Log) -> int:
    """How many of these items are in their shards no more with the bytes that were handed out; they are logged."""
    try:
        refresh(campaign, log, only={item["shard"] for item in items})
        return len(placed(campaign.home, pa.Table.from_pylist(items))[1]) if items else 0
    except InputError as error:
        # The labels are in, and belong to their bytes. Every stage that reads an image compares these.
        log(f"{error}; the labels are taken, and the next training looks at their images")
        return 0


def _append(home: Location, source: Location, vendor: str, items: list[Row], rows: dict[str, Row]) -> None:
    if not items:
        return
    origins = picked_origins(home, {item["round"] for item in items})
    labels = [
        label_row(rows[i["item_id"]], source, _identity(i), i["round"], vendor, origins.get(_identity(i)))
        for i in items
    ]
    # The positions of picks are known: training need not scan their shards.
    write_positions(home, [tuple(i[name] for name in POSITIONS_SCHEMA.names) for i in items])
    append_labels(home, "ingest", labels)
