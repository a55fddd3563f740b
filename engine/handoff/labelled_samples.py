"""The samples of a labelled set: an image, its label, and what is known of it; and shards of them."""

import io
import json
import math
import tarfile
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import pyarrow as pa

from engine.campaign.decisions import forgotten
from engine.campaign.folder import Campaign
from engine.campaign.labels import Identity, Snapshot, identities
from engine.campaign.ledger import read_ledger
from engine.campaign.packed_positions import Position
from engine.config.handoff_options import QuestionConfig
from engine.errors import InputError
from engine.handoff.splits import part_of
from engine.pool.formats import format_of
from engine.pool.identity import item_id_of
from engine.pool.mask_files import MaskError
from engine.pool.mask_source import MaskSource, mask_source
from engine.pool.metadata import read_groups
from engine.pool.samples import Item
from engine.pool.shard import Place, Shard, read_images
from engine.pool.sight import samples_at
from engine.storage.location import Location

MOST_SAMPLES, MOST_BYTES = 10_000, 256 << 20
"""Of a shard. Its images are held in memory."""
_OVERHEAD_BYTES = 6 * 512
"""Of a sample in a tar, about: three headers, and what pads its files."""


class Sample(NamedTuple):
    """An image with its label. `facts` are its .json, `classes` the names of classes in its label."""

    item_id: str
    part: str
    shard: str
    place: Place
    classes: tuple[str, ...]
    facts: dict[str, Any]


def samples_of(
    campaign: Campaign, snapshot: Snapshot, positions: Sequence[Position], shares: dict[str, Decimal], seed: int
) -> tuple[list[Sample], list[str]]:
    """The samples of all labelled images in the order of their item_ids, which is random; and why others are left out.

    Args:
        positions: where those are that are in their shards.
    """
    groups, gone = read_groups(campaign.home, campaign.config.pool.group), forgotten(campaign.home)
    task, salt = campaign.config.handoff.question.task, campaign.config.salt
    has_masks = mask_source(campaign.config, campaign.home) is not None
    places = {position[:2]: Place(*position[1:]) for position in positions}
    votes = _votes(campaign, snapshot)
    samples, left_out = list[Sample](), list[str]()
    for row in snapshot.labels.to_pylist():
        item, item_id = (row["shard"], row["key"]), item_id_of(row["shard"], row["key"], salt)
        # Where masks are files, a label may be any text.
        value = _value_of(row["label"], task) or (row["label"] if has_masks else None)
        where = "/".join(item)
        if item in gone:
            left_out.append(f"{where}: was forgotten")
        elif item not in places:
            left_out.append(f"{where}: its shard does not hold the image that was labelled any more")
        elif value is None:
            left_out.append(f"{where}: its label, {row['label'][:40]!r}, is no answer to a question for {task}")
        else:
            num_votes, posterior = votes.get((item, row["label"]), (1, None))
            facts = {"label": value, "shard": item[0], "key": item[1], "num_votes": num_votes, "posterior": posterior}
            facts |= {"round": row["round"], "source": row["source"]}
            part = part_of(*item, groups, shares, seed)
            samples.append(Sample(item_id, part, item[0], places[item], _names_in(value), facts))
    return sorted(samples), left_out


def _votes(campaign: Campaign, snapshot: Snapshot) -> dict[tuple[Identity, str], tuple[int, float | None]]:
    """The number of votes on an image, and the probability of the label that follows from them; by both."""
    ledger = read_ledger(campaign, snapshot)
    outcomes = ledger.outcomes
    votes_K = outcomes.values_K + outcomes.skips_K
    is_own_K = (votes_K > 0) & (outcomes.place_K < ledger.items.num_picked)
    rows = ledger.items.rows(outcomes.place_K[is_own_K], ["shard", "key"])
    facts = zip(
        identities(rows), outcomes.labels.filter(pa.array(is_own_K)).to_pylist(), votes_K[is_own_K].tolist(),
        outcomes.posterior_K[is_own_K].tolist(), strict=True,
    )  # fmt: skip
    return {
        (item, label): (num_votes, None if math.isnan(posterior) else posterior)
        for item, label, num_votes, posterior in facts
        if label is not None
    }


def _value_of(label: str, task: str) -> Any:
    """A label as it stands in .json: a class, or a list; None where it is no answer to the question."""
    if task == "class":
        return label
    try:
        value = json.loads(label)
    except ValueError:
        value = label
    if task == "classes":
        # Labels of init have one class.
        names = value if isinstance(value, list) else [label]
        return names if all(isinstance(name, str) for name in names) else None
    is_shapes = isinstance(value, list) and all(isinstance(shape, dict) and "label" in shape for shape in value)
    return value if is_shapes else None


def _names_in(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    return tuple(str(part["label"]) if isinstance(part, dict) else part for part in value)


def planned(samples: list[Sample], parts: Iterable[str]) -> dict[str, list[Sample]]:
    """The samples of each shard by its name, PART-00000.tar."""
    plan: dict[str, list[Sample]] = {}
    by_part: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        by_part[sample.part].append(sample)
    for part in parts:
        size, number, current = 0, 0, list[Sample]()
        for sample in by_part[part]:
            more = sample.place.size_bytes + _OVERHEAD_BYTES
            if current and (len(current) == MOST_SAMPLES or size + more > MOST_BYTES):
                size, number, current = 0, number + 1, []
            if not current:
                plan[f"{part}-{number:05d}.tar"] = current
            current.append(sample)
            size += more
    return plan


class Form(NamedTuple):
    """What is written of a sample beside its image and its .json: for a question for a class .cls, its number; and
    where there are `masks` .seg.png."""

    number_of: dict[str, int]
    question: QuestionConfig
    masks: MaskSource | None = None


def write_shard(file: Location, samples: list[Sample], shards: dict[str, Shard], form: Form) -> tuple[str, int]:
    """Write a shard of samples. Returns its SHA-256 and its size in bytes. Raises InputError for an image that is of no
    known format or without a usable mask, and ShardError for a shard that changed."""
    contents = _contents(samples, shards, form.masks)
    with tempfile.TemporaryFile() as draft:
        with tarfile.open(fileobj=draft, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for sample in samples:
                for suffix, data in _files_of(sample, contents.pop(sample.item_id), form):
                    # Time and owner are 0: the same samples give the same bytes.
                    info = tarfile.TarInfo(f"{sample.item_id}.{suffix}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
        size_bytes = draft.tell()
        draft.seek(0)
        return file.write_file(draft), size_bytes


def _contents(samples: list[Sample], shards: dict[str, Shard], masks: MaskSource | None) -> dict[str, Item]:
    """The images by item_id, with what their masks need; those of a shard are read in its order."""
    found: dict[str, Item] = {}
    for name in sorted(Counter(sample.shard for sample in samples)):
        own = sorted((s for s in samples if s.shard == name), key=lambda sample: sample.place.offset)
        places = [sample.place for sample in own]
        if masks is not None and masks.member:
            by_key = samples_at(shards[name], masks.image, places, masks.member)
            items = [by_key[place.key] for place in places]
        else:
            contents = read_images(shards[name], places)
            items = [Item(*place[:3], content, "") for place, content in zip(places, contents, strict=True)]
        found |= {sample.item_id: item for sample, item in zip(own, items, strict=True)}
    return found


def _files_of(sample: Sample, item: Item, form: Form) -> Iterator[tuple[str, bytes]]:
    """The suffixes and contents of a sample's files, the image first."""
    kind, where = format_of(item.data), f"{sample.shard}/{sample.place.key}"
    if kind is None:
        raise InputError(f"{where}: labelled, and no image of a known format; retract its label: vaal labels retract")
    yield kind.suffixes[0], item.data
    if form.question.task == "class":
        yield "cls", str(form.number_of[sample.classes[0]]).encode()
    if form.masks is not None:
        value = sample.facts["label"]
        try:
            yield "seg.png", form.masks.file_of(item, value if isinstance(value, str) else json.dumps(value))
        except MaskError as error:
            raise InputError(f"{where}: the mask {error}; or retract its label: vaal labels retract") from error
    yield "json", json.dumps(sample.facts, ensure_ascii=False, sort_keys=True).encode()
