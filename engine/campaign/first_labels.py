"""The labels that a campaign starts with: imported at init, with the places of their images in the shards."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from engine.campaign.classes import Classes, joined, label_of, names_in
from engine.campaign.labels import INITIAL, append_labels, label_row
from engine.campaign.packed_positions import Position
from engine.campaign.positions import SCAN_THREADS, write_positions
from engine.campaign.stages import Log
from engine.config.input_options import ImageConfig
from engine.config.options import CampaignConfig
from engine.config.texts import plural
from engine.errors import ConfigError, InputError
from engine.pool.clips import FRAMES, example_of_frames
from engine.pool.identity import ALONE, Groups, content_hash
from engine.pool.items import read_shard
from engine.pool.metadata import read_groups
from engine.pool.samples import MOST_COMPANION_BYTES, Item
from engine.pool.shard import Shard
from engine.pool.shards import Shards
from engine.storage.location import Location
from engine.tables.rows import Row, read_rows
from engine.tables.values import class_name, is_blank, is_no_label, skeleton, text_of

SHARDS_WITH_KEYS, MOST_KEYS = 100, 1000
"""So many keys of each of so many shards are looked at for frames of clips."""


OF_MASK = "mask"
"""The label of an image whose mask is found by its key."""


class _Member(NamedTuple):
    """Labels that are files of the samples: their suffix, and of JSON the path of the field, with dots."""

    suffix: str
    field: str


class _Scanned(NamedTuple):
    """The number of items of a shard, how many of them have no group and the first of those, its first keys, and the
    positions and rows of the labelled items."""

    num_items: int
    num_alone: int
    first_alone: str
    keys: list[str]
    positions: list[Position]
    rows: list[Row]


class _Counts:
    """What is counted of a shard's items as they come by."""

    def __init__(self, shard: str, groups: Groups, most_keys: int) -> None:
        self._shard, self._groups, self._most_keys = shard, groups, most_keys
        self._num_items = self._num_alone = 0
        self._first_alone, self._keys = "", list[str]()

    def add(self, key: str) -> None:
        self._num_items += 1
        if self._num_items <= self._most_keys:
            self._keys.append(key)
        if self._groups != ALONE and not self._groups.of(self._shard, key):
            self._num_alone += 1
            self._first_alone = self._first_alone or f"{self._shard}/{key}"

    def scanned(self, positions: list[Position], rows: list[Row]) -> _Scanned:
        return _Scanned(self._num_items, self._num_alone, self._first_alone, self._keys, positions, rows)


def import_labels(home: Location, source: Location, shards: Shards, config: CampaignConfig, log: Log) -> Shards:
    """Import the labels that a campaign starts with. Scans the shards that they name, front to back.

    Args:
        source: a table of labels; or member:SUFFIX or member:json:FIELD, for files of the samples themselves. All
            shards are scanned then, and a sample without such a file has no label.

    Returns the shards, with `num_items` where one was scanned.

    Raises InputError for no labels, an unknown shard or key, an empty label, an item labelled twice, or a class that is
    not one of labels.classes.
    """
    groups, member = read_groups(home, config.pool.group), _member_of(source)
    wanted: dict[str, dict[str, Row]] = {}
    if member:
        log(f"labels are files .{member.suffix} of the samples; looking through {plural(len(shards), 'shard')}")
    else:
        rows = rows_of(source, config)
        if not rows:
            raise InputError(f"{source}: no labels; training needs at least one labelled item")
        wanted = wanted_of(source, rows, shards, config)
        log(f"{plural(len(rows), 'label')}; looking up in {plural(len(wanted), 'shard')}")
    asked = shards if member else shards.where(shards.are_named(wanted))
    looked_at = {*asked[:SHARDS_WITH_KEYS].names.to_pylist()}

    def scan(shard: Shard) -> _Scanned:
        counts = _Counts(shard.shard, groups, MOST_KEYS if shard.shard in looked_at else 0)
        if member:
            return _scan_members(member, shard, config, counts)
        return _scan(source, shard, wanted[shard.shard], config.image, counts)

    with ThreadPoolExecutor(SCAN_THREADS) as threads:
        found = list(threads.map(scan, asked))
    items = [item for scanned in found for item in scanned.positions]
    if not items:
        what = f", field {member.field}" if member and member.field else ""
        raise InputError(f"{source.name}: no sample has a label there{what}; training needs at least one")
    _log_groups(found, groups, config, log)
    rows_of_items = [row for scanned in found for row in scanned.rows]
    labels = [
        label_row(row, source, item[:2], None, "init", INITIAL) for item, row in zip(items, rows_of_items, strict=True)
    ]
    write_positions(home, items)
    append_labels(home, INITIAL, labels)
    counts = pa.array([scanned.num_items for scanned in found], pa.int64())
    return shards.with_column("num_items", counts.take(pc.index_in(shards.names, value_set=asked.names)))


def begin_without_labels(home: Location, config: CampaignConfig) -> None:
    """Begin a campaign that has no labels. Raises ConfigError where an option needs the first ones."""
    if config.labels.classes == "from-init":
        raise ConfigError("labels.classes=from-init: there are no labels at init; name the classes, or leave it out")
    append_labels(home, INITIAL, [])


def _member_of(source: Location) -> _Member | None:
    """The files of samples that labels are; None for a table. Raises InputError without a suffix or field."""
    given = re.fullmatch(r"members?:\.?([^:]*):?(.*)", source.name)
    if given is None:
        return None
    suffix, field = given[1].lower(), given[2]
    if not suffix or (suffix == "json") != bool(field):
        raise InputError(f"--labels {source.name}: give member:SUFFIX, as member:cls, or member:json:FIELD")
    return _Member(suffix, field)


def rows_of(source: Location, config: CampaignConfig, asked: str = "--labels") -> list[Row]:
    """The rows of a file of labels; `asked` names where it was given. Raises InputError for a file that is none."""
    has_masks = _have_masks(config)
    if not source.exists():
        raise InputError(f"{asked} {source}: no such file; correct the path")
    try:
        return read_rows(source, ("shard", "key"), () if has_masks else ("label",))
    except InputError as error:
        if config.task_kind != "segmentation" or has_masks or "no column 'label'" not in str(error):
            raise
        fix = "say where the masks are: --set labels.masks=member:seg.png (in each sample), or a folder of KEY.png"
        raise InputError(f"{error}; or {fix}") from error


def wanted_of(source: Location, rows: list[Row], shards: Shards, config: CampaignConfig) -> dict[str, dict[str, Row]]:
    """The rows by shard and key, with the labels as they are kept. Raises InputError as `import_labels`."""
    wanted: dict[str, dict[str, Row]] = {}
    allowed, given = _allowed(config), {str(row["shard"]).strip() for row in rows}
    names = shards.find(given).keys()
    for row in rows:
        where = f"{source}: line {row['line']}"
        shard, key = (text_of(row[name], f"{where}: {name}") for name in ("shard", "key"))
        if shard not in names:
            near = {skeleton(name): name for name in shards.names.to_pylist()}.get(skeleton(shard))
            advice = f"did you mean {near!r}?" if near else ""
            advice = advice or f"names are paths below the pool's root, for example {shards.name_of(0)!r}"
            raise InputError(f"{where}: shard {shard!r} is not in the pool; {advice}")
        label = _label_of(row.get("label"), f"{where}: item {shard}/{key}", config)
        _require_allowed(label, allowed, where, config)
        if key in wanted.setdefault(shard, {}):
            raise InputError(f"{where}: item {shard}/{key} has two rows; keep one")
        wanted[shard][key] = row | {"label": label}
    return wanted


def _allowed(config: CampaignConfig) -> Classes:
    listed = config.labels.classes
    return Classes([] if listed == "from-init" else [class_name(name) for name in listed], "labels.classes")


def _require_allowed(label: str, allowed: Classes, where: str, config: CampaignConfig) -> None:
    for name in names_in(label, config.handoff.question.task):
        if fault := allowed.fault(name):
            raise InputError(f"{where}: {joined(fault, allowed.advice([name]))}")


def _have_masks(config: CampaignConfig) -> bool:
    """Whether the labels are masks, which labels.masks leads to: a row says which images have one."""
    return config.task_kind == "segmentation" and bool(config.labels.masks)


def _label_of(cell: Any, where: str, config: CampaignConfig) -> str:
    """A cell as a label. Raises InputError for one that says nothing."""
    if is_blank(cell) or (isinstance(cell, str) and is_no_label(cell, config.named_classes)):
        if _have_masks(config):
            return OF_MASK
        is_several = config.handoff.question.task == "classes"
        fix = "remove the row" + (", or write [] for an image without any class" if is_several else "")
        if is_blank(cell):
            raise InputError(f"{where} has an empty label; {fix}")
        why = f"{class_name(cell)!r} for a label, which says that there is none"
        raise InputError(f"{where} has {why}; {fix}, or name it in labels.classes")
    return label_of(cell, config, f"{where}: label")


def _log_groups(found: list[_Scanned], groups: Groups, config: CampaignConfig, log: Log) -> None:
    """Log how the items are grouped, or that they look as if they should be. Raises ConfigError for a bound on groups
    that there are none of."""
    if groups == ALONE:
        if example := example_of_frames(key for scanned in found for key in scanned.keys):
            why = f"keys look like frames of clips, for example {example!r}, and pool.group is not set"
            log(f"{why}; to judge no frame by its neighbours, init again with: --set 'pool.group={FRAMES}'")
        return
    named = {name for scanned in found for place in scanned.positions if (name := groups.of(*place[:2]))}
    lone = [example for scanned in found if (example := scanned.first_alone)]
    num_items, num_alone = (sum(counts) for counts in zip(*(scanned[:2] for scanned in found), strict=True))
    words = f"pool.group: the labels are of {plural(len(named), 'group')}"
    example = f", for example {lone[0]}, and are a group each" if lone else ""
    log(f"{words}; of {plural(num_items, 'item')} in their shards {num_alone:,} have none{example}")
    if config.select.per_group and num_alone == num_items:
        why = f"it names a group of none of the {plural(num_items, 'item')} in the shards with labels{example}"
        fix = "correct it, or leave out select.per_group, which would bound nothing"
        raise ConfigError(f"pool.group={config.pool.group}: {why}; {fix}")


def _scan(source: Location, shard: Shard, wanted: dict[str, Row], image: ImageConfig, counts: _Counts) -> _Scanned:
    """What a shard holds, with the positions of the wanted items."""
    positions, rows, missing = list[Position](), list[Row](), dict(wanted)
    near = dict.fromkeys((skeleton(key, image.suffixes) for key in wanted), "")
    for item in read_shard(shard, image):
        counts.add(item.key)
        if (plain := skeleton(item.key)) in near:
            near[plain] = item.key
        if row := missing.pop(item.key, None):
            if item.fault:
                where = f"{source}: line {row['line']}: item {shard.shard}/{item.key}"
                raise InputError(f"{where} has {item.fault}; remove the row, or repair the shard")
            positions.append(_position(shard, item))
            rows.append(row)
    if missing:
        key = min(missing, key=lambda key: missing[key]["line"])
        where = f"{source}: line {missing[key]['line']}"
        other = near[skeleton(key, image.suffixes)]
        advice = f"did you mean {other!r}?" if other else "correct the key, or remove the row"
        raise InputError(f"{where}: no item {key!r} in shard {shard.shard!r}; {advice}")
    return counts.scanned(positions, rows)


def _position(shard: Shard, item: Item) -> Position:
    return shard.shard, item.key, item.offset, item.size_bytes, content_hash(item.data)


def _scan_members(member: _Member, shard: Shard, config: CampaignConfig, counts: _Counts) -> _Scanned:
    """What a shard holds, with the positions and labels of the items that have one beside them. An image that cannot be
    used has none: it is quarantined when the pool is scored."""
    positions, rows, allowed = list[Position](), list[Row](), _allowed(config)
    for item in read_shard(shard, config.image, member.suffix):
        counts.add(item.key)
        if item.fault or not item.companions:
            continue
        where = f"{shard.url}: item {item.key}: .{member.suffix}"
        if len(item.companions) > 1 or not item.companions[0]:
            raise InputError(f"{where}: not one file of 1 to {MOST_COMPANION_BYTES:,} bytes; repair the shard")
        cell = _cell_of(item.companions[0], member, where)
        if is_blank(cell):
            continue
        text = str(cell).strip()
        if allowed.names and text not in allowed.names and text.isdecimal() and int(text) < len(allowed.names):
            # As WebDataset has them: the number of a class, whose name is that of the list.
            cell = allowed.names[int(text)]
        label = _label_of(cell, where, config)
        _require_allowed(label, allowed, where, config)
        positions.append(_position(shard, item))
        rows.append({"label": label, "line": 0})
    return counts.scanned(positions, rows)


def _cell_of(content: bytes, member: _Member, where: str) -> Any:
    """What a file of a sample says; None for a field that is not there."""
    try:
        value: Any = content.decode() if not member.field else json.loads(content)
    except ValueError as error:
        raise InputError(
            f"{where}: not {'valid JSON' if member.field else 'text in UTF-8'}; repair the shard"
        ) from error
    for name in member.field.split(".") if member.field else ():
        value = value.get(name) if isinstance(value, dict) else None
    return value
