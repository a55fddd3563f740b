"""What is labelled: the newest row of an item counts, and a row without a label retracts it.

Label files are append-only, one for each change. A file is written whole or not at all, and is the commit: what is
labelled is what `labels/` says. Where the images are follows from it (`engine.campaign.positions`).
"""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from itertools import count, takewhile
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from engine.campaign.folder import is_closed, next_number
from engine.cluster.allocation import give_back_freed_memory
from engine.errors import InputError, one_line
from engine.storage.location import Location
from engine.tables.columns import required
from engine.tables.dictionaries import as_read_by, encoded
from engine.tables.item_keys import by_item, last_of_each, with_shared_texts
from engine.tables.row_digests import digest_of_rows
from engine.tables.rows import Row
from engine.tables.scores import ITEM_FIELDS, SHARD_FIELD, to_table
from engine.tables.values import class_name, moment_of, plain, text_of

LABELS_SCHEMA = pa.schema(
    [
        *required(pa.string(), "shard", "key"),
        pa.field("label", pa.string()),
        pa.field("round", pa.int32()),
        *required(pa.string(), "source"),
        pa.field("annotator", pa.string()),
        pa.field("labelled_at", pa.timestamp("us", tz="UTC")),
        pa.field("origin", pa.string()),
        pa.field("why", pa.string()),
    ]
)
"""`origin` says by which rule the image was picked: see `engine.campaign.origins`, which knows it where it is null.
`why` is a person's reason for a correction."""
_REPEATED = ("shard", "label", "source", "annotator", "origin", "why")
SNAPSHOT_SCHEMA = pa.schema(
    field.with_type(pa.dictionary(pa.int32(), pa.string())) if field.name in _REPEATED else field
    for field in LABELS_SCHEMA
)
"""LABELS_SCHEMA in memory: what few texts repeat is a dictionary. A row takes 60 bytes, and 150 without."""
POSITIONS_SCHEMA = pa.schema([SHARD_FIELD, *ITEM_FIELDS[:3], pa.field("content_hash", pa.string())])
"""Where an image was when it was labelled. The hash is null where an older campaign did not keep it."""
INITIAL = "initial"
AFTER, UNDOES, PLACES = b"after", b"undoes", b"places"
VOTES, UNDOES_VOTES = b"votes", b"undoes votes"
"""Metadata of a label file: the files of other programs that were there before it; the file that it takes back; the
number of files of positions that were there; the number of files of votes that were there; the ingest that it takes
back."""
INGEST = "ingest"
"""The kind of a label file whose rows were derived from votes."""
REPLACED = "--replace"
"""`why` of a derived label that was to replace a person's."""
Identity = tuple[str, str]


class Snapshot(NamedTuple):
    """The label files at one moment: SHA-256 by name below the campaign, and their rows by name, oldest file first.

    `marks`: their metadata by name.
    """

    files: dict[str, str]
    tables: dict[str, pa.Table]
    marks: dict[str, dict[bytes, bytes]]

    @property
    def undone(self) -> set[str]:
        """The names of the files that take back another one, and of those that are taken back."""
        pairs = ((name, marks[UNDOES].decode()) for name, marks in self.marks.items() if UNDOES in marks)
        return {name for pair in pairs for name in pair}

    @property
    def undone_votes(self) -> set[str]:
        """The ingests that were taken back."""
        return {marks[UNDOES_VOTES].decode() for marks in self.marks.values() if UNDOES_VOTES in marks}

    def last_words(self) -> pa.Table:
        """The row that decides on each item, without what was undone: shard, key, label, labelled_at, is_derived,
        num_votes.

        `is_derived`: it came from votes; else from a person or another program. `num_votes` is the number of files of
        votes that were there. A label that a person gave is followed by derived ones only where votes replaced it.
        """
        undone, tables = self.undone, []
        for name, table in self.tables.items():
            if name not in undone:
                is_derived, num_votes = f"-{INGEST}-" in name, int(self.marks[name].get(VOTES, 0))
                facts = (is_derived, num_votes, bool(is_derived and num_votes))
                table = table.select(["shard", "key", "label", "labelled_at", "why"])
                for column, fact in zip(("is_derived", "num_votes", "is_by_votes"), facts, strict=True):
                    table = table.append_column(column, pa.repeat(pa.scalar(fact), len(table)))
                tables.append(table)
        if not tables:
            return SNAPSHOT_SCHEMA.empty_table()
        rows = pa.concat_tables(tables)
        may_decide = _may_decide(rows)
        return last_of_each(rows if may_decide.all() else rows.filter(pa.array(may_decide)))

    @property
    def history(self) -> pa.Table:
        """All rows, oldest first: SNAPSHOT_SCHEMA, or those of its columns that were read."""
        return pa.concat_tables(list(self.tables.values()) or [SNAPSHOT_SCHEMA.empty_table()])

    @property
    def labels(self) -> pa.Table:
        """The row that counts of every labelled item: SNAPSHOT_SCHEMA."""
        return newest(self.history)

    @property
    def values(self) -> dict[Identity, str]:
        """The label of every (shard, key) that has one: a Python object each, for who asks for a few of few. See
        `labels` for millions."""
        labels = self.labels
        return dict(zip(identities(labels), labels["label"].to_pylist(), strict=True))

    @property
    def first_labels(self) -> list[str]:
        """The labels given at init; where that file is gone, all labels."""
        table = self.tables.get(f"labels/{INITIAL}.parquet", self.history)
        labels: list[str] = table["label"].drop_null().to_pylist()
        return labels


def _may_decide(rows: pa.Table) -> NDArray[np.bool_]:
    """Which rows are not derived labels that follow a person's label and were not to replace it: what was to replace it
    is undone."""
    is_by_votes = rows["is_by_votes"].to_numpy()
    is_forced = pc.fill_null(pc.equal(rows["why"], REPLACED), fill_value=False).to_numpy()
    is_label = rows["label"].is_valid().to_numpy()
    found = np.ones(len(rows), bool)
    is_free = is_by_votes & ~is_forced
    if not is_free.any():
        return found
    # By item, and in an item from old to new: the word before that did not give way decides.
    order, begin = by_item(rows)
    word = np.maximum.accumulate(np.where(is_free[order], -1, np.arange(len(rows))))
    is_given = (is_label & ~is_by_votes)[order][np.maximum(word, 0)] & (word >= begin)
    found[order] = ~(is_free[order] & is_given)
    return found


def read_snapshot(home: Location, columns: Sequence[str] = LABELS_SCHEMA.names) -> Snapshot:
    """The label files as they are now, with these columns in the order of LABELS_SCHEMA. Raises InputError for a file
    that is not a table of labels, or has labels of a round that the campaign has not come to."""
    folder = home / "labels"
    # One after another: the bytes of all take as much again as what is in them.
    contents = ((f"labels/{name}", (folder / name).read_bytes()) for name in folder.children())
    snapshot = snapshot_of(contents, columns)
    give_back_freed_memory()
    _check_rounds(home, snapshot)
    return snapshot


def _check_rounds(home: Location, snapshot: Snapshot) -> None:
    """Raises InputError for another program's file with a round that no round before it leads to."""
    ended = set(pc.unique(snapshot.history["round"]).to_pylist())
    ended |= set(takewhile(lambda number: is_closed(home, number), count()))
    for name in filter(lambda name: not _is_own(name), snapshot.tables):
        rounds = snapshot.tables[name]["round"]
        for number in pc.unique(rounds).drop_null().to_pylist():
            if number < 0 or (number and number - 1 not in ended):
                (row,) = (home / name).read_table().slice(pc.index(rounds, number).as_py(), 1).to_pylist()
                present = next(number for number in count() if number not in ended)
                why = f"{row['shard']}/{row['key']} has round {number}, and the campaign came to round {present}"
                raise InputError(f"{home}/{name}: {why}; write the round that its image was picked in, or null")


def snapshot_of(contents: Iterable[tuple[str, bytes]], columns: Sequence[str] = LABELS_SCHEMA.names) -> Snapshot:
    """A snapshot from names below the campaign and bytes of label files. Raises as `read_snapshot`."""
    files, tables = dict[str, str](), dict[str, pa.Table]()
    for name, content in contents:
        files[name], tables[name] = hashlib.sha256(content).hexdigest(), _parse(name, content, columns)
    schema = pa.schema([SNAPSHOT_SCHEMA.field(column) for column in columns])
    ordered = with_shared_texts(
        schema, {name: tables[name].replace_schema_metadata() for name in _oldest_first(tables)}
    )
    marks = {name: table.schema.metadata or {} for name, table in tables.items()}
    return Snapshot(files, ordered, marks)


def _parse(name: str, content: bytes, columns: Sequence[str]) -> pa.Table:
    schema = pa.schema([SNAPSHOT_SCHEMA.field(column) for column in columns])
    try:
        there = pq.read_schema(pa.BufferReader(content))
        has, _ = there.names, [there.field(column) for column in LABELS_SCHEMA.names[:-2]]
        # As dictionaries from the start: the texts themselves take ten times as much.
        repeated = [column for column in _REPEATED if column in has]
        file = pq.ParquetFile(pa.BufferReader(content), pre_buffer=False, read_dictionary=repeated)
        # Without threads: files are small.
        table = file.read([column for column in columns if column in has], use_threads=False)
        # Other programs may add columns and order them as they like.
        for column in LABELS_SCHEMA.names[-2:]:
            if column in columns and column not in has:
                # Other programs need not know it.
                table = table.append_column(column, pa.nulls(len(table), pa.string()))
        found = pa.table([encoded(table[field.name], field) for field in schema], names=schema.names).cast(schema)
        if "label" in columns:
            # As every other file's labels are read: 3.0 is 3, and blank is null. In an own file every word is a class.
            read = as_read_by(class_name if _is_own(name) else plain, found["label"])
            found = found.set_column(schema.get_field_index("label"), schema.field("label"), read)
    except (KeyError, ValueError, OSError, pa.ArrowException) as error:
        why = f"{name}: not a table with the columns {', '.join(LABELS_SCHEMA.names[:-2])}: {one_line(error)}"
        # Without one of its own files a campaign would send out what is labelled.
        raise InputError(f"{why}; restore it from a copy" + ("" if _is_own(name) else ", or remove it")) from error
    return found.replace_schema_metadata(table.schema.metadata)


def _oldest_first(tables: dict[str, pa.Table]) -> list[str]:
    """The names in the order of writing. Another program's file is newer than all that were not written after it."""
    own = sorted((name for name in tables if _is_own(name)), key=lambda name: (INITIAL not in name, name))
    ordered: dict[str, None] = {}
    for name in own:
        before = json.loads((tables[name].schema.metadata or {}).get(AFTER, "[]"))
        ordered |= dict.fromkeys([*(other for other in before if other in tables), name])
    return list(ordered | dict.fromkeys(sorted(tables)))


def _is_own(name: str) -> bool:
    return name == f"labels/{INITIAL}.parquet" or re.match(r"labels/\d{6}-", name) is not None


def identities(table: pa.Table) -> list[Identity]:
    """(shard, key) of every row."""
    return list(zip(table["shard"].to_pylist(), table["key"].to_pylist(), strict=True))


def newest(history: pa.Table, *, retracted: bool = False) -> pa.Table:
    """The last row of every item, without retractions unless they are asked for too."""
    rows = last_of_each(history)
    return rows if retracted or not rows["label"].null_count else rows.filter(pc.is_valid(rows["label"]))


def read_labels(home: Location, columns: Sequence[str] = LABELS_SCHEMA.names) -> pa.Table:
    """The labels that count, SNAPSHOT_SCHEMA, or these columns of it: shard, key, label, round and others. `round` is
    null for those given at init."""
    return read_snapshot(home, columns).labels


def labels_fingerprints(home: Location) -> dict[str, str]:
    """SHA-256 of every label file by its name below the campaign."""
    return read_snapshot(home, ["round"]).files


def labelled_items(home: Location) -> set[Identity]:
    """(shard, key) of everything that has a label."""
    return set(labelled_values(home))


def labelled_values(home: Location) -> dict[Identity, str]:
    """The label of every (shard, key) that has one."""
    return read_snapshot(home).values


def label_row(
    row: Row, file: Location, item: Identity, round_number: int | None, source: str, origin: str | None
) -> tuple[Any, ...]:
    """A row of LABELS_SCHEMA from a row of a person's file, whose label has been read. Raises InputError where
    `labelled_at` is not a time."""
    where = f"{file}: line {row['line']}:"
    moment = moment_of(row.get("labelled_at"), f"{where} labelled_at")
    annotator = plain(text_of(row.get("annotator"), f"{where} annotator"))
    return *item, row["label"], round_number, source, annotator or None, moment, origin


def append_labels(
    home: Location, kind: str, labels: Iterable[tuple[Any, ...]] | pa.Table, *, undoes: str = "", undoes_votes: str = ""
) -> str:
    """Write a file of labels, LABELS_SCHEMA as a table or as rows, which may end before the origin; it is newer than
    all that are there. Returns its name.

    Args:
        kind: "initial" for the first file, else what happened, for its name.
        undoes: the name of the file that this one takes back.
        undoes_votes: the ingest whose votes do not count any more.
    """
    width = len(LABELS_SCHEMA)
    if not isinstance(labels, pa.Table):
        labels = to_table([(*row, *[None] * width)[:width] for row in labels], LABELS_SCHEMA)
    there = (home / "labels").children()
    names = [f"labels/{name}" for name in there]
    others = json.dumps([name for name in names if not _is_own(name)])
    name = kind
    if kind != INITIAL:
        name = f"{next_number(there)}-{kind}-{digest_of_rows(labels.select(range(4)))[:16]}"
    num_places, num_votes = (str(len((home / folder).children())) for folder in ("pool/items", "votes"))
    metadata = {AFTER: others, PLACES: num_places, VOTES: num_votes}
    metadata |= {mark: value for mark, value in ((UNDOES, undoes), (UNDOES_VOTES, undoes_votes)) if value}
    (home / f"labels/{name}.parquet").write_table(labels.replace_schema_metadata(metadata))
    return f"{name}.parquet"
