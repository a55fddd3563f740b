"""What is labelled, what is out at a vendor, and what came back.

Label files are append-only: one per import, named by its content, so that writing one twice changes nothing. Beside
each, pool/items/ keeps where its images are, so that training reads them by byte range and never scans for them.
"""

import csv
import hashlib
import io
import json
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pyarrow as pa

from engine.config.options import ImageConfig
from engine.errors import InputError
from engine.pool.manifest import Shard
from engine.storage.location import Location

LABELS_SCHEMA = pa.schema(
    [
        pa.field("shard", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("label", pa.string(), nullable=False),
        pa.field("round", pa.int32()),
        pa.field("source", pa.string(), nullable=False),
        pa.field("annotator", pa.string()),
        pa.field("labelled_at", pa.timestamp("us", tz="UTC")),
    ]
)
ITEMS_SCHEMA = pa.schema(
    [
        pa.field("shard", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("size_bytes", pa.int64(), nullable=False),
    ]
)
SCAN_THREADS = 8
Row = dict[str, Any]


class Ingested(NamedTuple):
    """What a file of finished labels held: rows by what became of them."""

    new: int
    repeated: int
    blank: int


def read_labels(home: Location) -> pa.Table:
    """All labels of the campaign, LABELS_SCHEMA. `round` is null for those given at init."""
    folder = home / "labels"
    tables = [(folder / name).read_table().cast(LABELS_SCHEMA) for name in folder.children()]
    return pa.concat_tables(tables) if tables else LABELS_SCHEMA.empty_table()


def labels_fingerprints(home: Location) -> dict[str, str]:
    """SHA-256 of every label file by its name below the campaign."""
    folder = home / "labels"
    return {f"labels/{name}": hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in folder.children()}


def labelled_items(home: Location) -> set[tuple[str, str]]:
    """(shard, key) of everything that has a label."""
    return set(labelled_values(home))


def labelled_values(home: Location) -> dict[tuple[str, str], str]:
    """The label of every (shard, key) that has one."""
    labels = read_labels(home)
    identities = zip(labels["shard"].to_pylist(), labels["key"].to_pylist(), strict=True)
    return dict(zip(identities, labels["label"].to_pylist(), strict=True))


def labelled_positions(home: Location) -> pa.Table:
    """Where the labelled images are: ITEMS_SCHEMA, sorted by (shard, offset)."""
    folder = home / "pool/items"
    tables = [(folder / name).read_table().cast(ITEMS_SCHEMA) for name in folder.children()]
    return pa.concat_tables(tables).sort_by([("shard", "ascending"), ("offset", "ascending")])


def read_rows(source: Location, required: tuple[str, ...]) -> list[Row]:
    """The rows of a CSV, JSON-lines or Parquet file, each with the key "line" added for error messages.

    Raises:
        InputError: the format is unknown, a line is malformed, or a required column is missing from a row.
    """
    content = source.read_bytes()
    suffix = source.name.rpartition(".")[2].lower()
    try:
        if suffix == "csv":
            rows = list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"))))
        elif suffix in ("jsonl", "ndjson"):
            rows = [json.loads(line) for line in content.decode("utf-8-sig").splitlines() if line.strip()]
        elif suffix == "parquet":
            rows = source.read_table().to_pylist()
        else:
            raise InputError(f"{source}: unknown format .{suffix}; give .csv, .jsonl or .parquet")
    except (UnicodeDecodeError, csv.Error, json.JSONDecodeError) as error:
        raise InputError(f"{source}: not valid {suffix}: {error}") from error
    first_line = 2 if suffix == "csv" else 1
    for line, row in enumerate(rows, first_line):
        missing = [column for column in required if not isinstance(row, dict) or row.get(column) is None]
        if missing:
            raise InputError(f"{source}: line {line}: no {missing[0]!r}; every row needs {', '.join(required)}")
        row["line"] = line
    return rows


def import_labels(
    home: Location, source: Location, shards: list[Shard], image: ImageConfig, report: Callable[[str], None]
) -> tuple[list[Shard], int]:
    """Take over the labels a campaign starts with. Scans the shards they name, front to back.

    Returns:
        The shards, with `num_items` where one was scanned, and the number of labels.

    Raises:
        InputError: no labels, an unknown shard or key, an empty label, or an item labelled twice.
    """
    rows = read_rows(source, ("shard", "key", "label"))
    if not rows:
        raise InputError(f"{source}: no labels; training needs at least one labelled item")
    by_name = {shard.shard: shard for shard in shards}
    wanted: dict[str, dict[str, Row]] = {}
    for row in rows:
        shard, key = str(row["shard"]), str(row["key"])
        if shard not in by_name:
            raise InputError(
                f"{source}: line {row['line']}: shard {shard!r} is not in the pool; "
                f"names are paths below the pool's root, for example {shards[0].shard!r}"
            )
        if str(row["label"]).strip() == "":
            raise InputError(f"{source}: line {row['line']}: item {shard}/{key} has an empty label")
        if key in wanted.setdefault(shard, {}):
            raise InputError(f"{source}: line {row['line']}: item {shard}/{key} is labelled a second time")
        wanted[shard][key] = row
    report(f"{len(rows)} labels; looking them up in {len(wanted)} shards")
    items, counts = _find(source, wanted, by_name, image)
    _write(
        home, "initial", items, [_label_row(wanted[shard][key], shard, key, None, "init") for shard, key, *_ in items]
    )
    return [shard._replace(num_items=counts.get(shard.shard)) for shard in shards], len(rows)


def _find(
    source: Location, wanted: dict[str, dict[str, Row]], by_name: dict[str, Shard], image: ImageConfig
) -> tuple[list[tuple[str, str, int, int]], dict[str, int]]:
    from engine.pool.items import read_shard

    def scan(name: str) -> tuple[int, list[tuple[str, str, int, int]]]:
        count, found = 0, []
        for item in read_shard(by_name[name], image):
            count += 1
            if item.key in wanted[name]:
                if item.fault:
                    line = wanted[name][item.key]["line"]
                    raise InputError(f"{source}: line {line}: item {name}/{item.key} has {item.fault}")
                found.append((name, item.key, item.offset, item.size_bytes))
        return count, found

    items: list[tuple[str, str, int, int]] = []
    counts: dict[str, int] = {}
    names = sorted(wanted)
    with ThreadPoolExecutor(SCAN_THREADS) as pool:
        for name, (count, found) in zip(names, pool.map(scan, names), strict=True):
            unknown = set(wanted[name]) - {key for _, key, _, _ in found}
            if unknown:
                key = min(unknown, key=lambda k: wanted[name][k]["line"])
                raise InputError(f"{source}: line {wanted[name][key]['line']}: no item {key!r} in shard {name!r}")
            counts[name] = count
            items.extend(found)
    return items, counts


def ingest(home: Location, source: Location, vendor: str, picked: pa.Table) -> Ingested:
    """Append the finished labels of a vendor's file, all or none. Repeated rows and files change nothing.

    Args:
        picked: every item ever handed out: item_id, shard, key, round, offset, size_bytes.

    Raises:
        InputError: an item_id that was never handed out, or a label that contradicts another; nothing is written.
    """
    by_id = {row["item_id"]: row for row in picked.to_pylist()}
    labels = read_labels(home)
    known = dict(
        zip(
            zip(labels["shard"].to_pylist(), labels["key"].to_pylist(), strict=True),
            labels["label"].to_pylist(),
            strict=True,
        )
    )
    new: dict[str, Row] = {}
    repeated = blank = 0
    for row in read_rows(source, ("item_id",)):
        item_id, label, line = str(row["item_id"]), str(row.get("label") or "").strip(), row["line"]
        if "label" not in row:
            raise InputError(f"{source}: line {line}: no 'label'; leave it empty where there is none yet")
        if item_id not in by_id:
            raise InputError(f"{source}: line {line}: item_id {item_id!r} was never handed out by this campaign")
        if not label:
            blank += 1
            continue
        item = by_id[item_id]
        before = known.get((item["shard"], item["key"]), new.get(item_id, {}).get("label"))
        if before is not None and before != label:
            raise InputError(f"{source}: line {line}: item_id {item_id!r} is {label!r} here but {before!r} before")
        if before is not None:
            repeated += 1
        else:
            new[item_id] = {**row, "label": label}
    if new:
        ordered = sorted(new)
        digest = hashlib.sha256("\n".join(f"{i}\t{new[i]['label']}" for i in ordered).encode()).hexdigest()
        items = [by_id[i] for i in ordered]
        _write(
            home,
            f"ingest-{digest[:16]}",
            [(i["shard"], i["key"], i["offset"], i["size_bytes"]) for i in items],
            [_label_row(new[i["item_id"]], i["shard"], i["key"], i["round"], vendor) for i in items],
        )
    return Ingested(len(new), repeated, blank)


def _label_row(row: Row, shard: str, key: str, round_number: int | None, source: str) -> tuple[Any, ...]:
    moment = row.get("labelled_at") or datetime.now(UTC)
    if isinstance(moment, str):
        try:
            moment = datetime.fromisoformat(moment)
        except ValueError as error:
            raise InputError(f"line {row['line']}: labelled_at {moment!r} is not an ISO 8601 time") from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    annotator = row.get("annotator")
    return shard, key, str(row["label"]).strip(), round_number, source, str(annotator) if annotator else None, moment


def _write(home: Location, name: str, items: Iterable[tuple[Any, ...]], labels: Iterable[tuple[Any, ...]]) -> None:
    # The label file comes last: an item counts as labelled only when its position is known.
    for folder, rows, schema in (("pool/items", items, ITEMS_SCHEMA), ("labels", labels, LABELS_SCHEMA)):
        columns = [list(column) for column in zip(*rows, strict=True)]
        (home / f"{folder}/{name}.parquet").write_table(pa.table(columns, schema=schema))
