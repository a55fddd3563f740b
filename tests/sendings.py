"""Batches that were handed out, written as an export records them, and answers to them."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from engine.campaign.folder import Campaign
from engine.campaign.handed_out import IMAGES_FILE, IMAGES_SCHEMA, SELECTION_FILE, announce, picks_hash
from engine.campaign.manifests import COUNTS, HandoffManifest, SelectionManifest, write_manifest
from engine.campaign.stages import QUIET, Log
from engine.campaign.votes import files_of_votes
from engine.handoff.answer_files import answer_files
from engine.handoff.answers import Rules
from engine.handoff.ingest import Ingested, ingest
from engine.tables.selections import SELECTION_SCHEMA

Identity = tuple[str, str]


def hand_out(
    campaign: Campaign,
    items: dict[str, Identity],
    *,
    number: int = 0,
    vendor: str = "generic",
    gold: tuple[str, ...] = (),
    answered: dict[str, int] | None = None,
    sides: tuple[int, int] = (1, 1),
    **sending: Any,
) -> HandoffManifest:
    """Record a batch of these images, by item_id; `answered` counts the answers that there were on one before;
    `sides` are the height and width of each; `sending` are fields of its Sending that are not as by default."""
    rows = [
        {
            "rank": rank, "item_id": item_id, "shard": shard, "key": key, "offset": rank + 1, "size_bytes": 1,
            "content_hash": "f" * 32, "file": f"images/{item_id}.png", "sha256": "0", "origin": None,
            "gold": item_id in gold, "answered": (answered or {}).get(item_id), "sent_bytes": 1,
            "height": sides[0], "width": sides[1],
        }
        for rank, (item_id, (shard, key)) in enumerate(items.items())
    ]  # fmt: skip
    record = campaign.stage(f"handed_out/{vendor}-{number:03d}")
    announce(record)
    table = pa.Table.from_pylist(rows, schema=IMAGES_SCHEMA)
    question = {"task": campaign.config.handoff.question.task, "classes": [], "instructions": "", "is_open": True}
    facts: dict[str, Any] = {
        "vendor": vendor, "name": "batch", "annotators": 1, "price": 0.0, "question": question, "disputed": False,
        "waiting": 0, "ingests": len(files_of_votes(campaign.home)), "place": "", "links_expire_at": None,
    }  # fmt: skip
    return write_manifest(
        campaign,
        f"handed_out/{vendor}-{number:03d}",
        HandoffManifest,
        inputs={"picks": "a selection that is gone"},
        counts={"images": len(rows), "bytes": len(rows), "gold": len(gold)},
        files={IMAGES_FILE: (record / IMAGES_FILE).write_table(table)},
        sending={**facts, **sending},
    )


def pretend_selected(campaign: Campaign, items: Sequence[Identity]) -> None:
    """A complete selection of these images, which nobody was sent yet, in the place of the one that there was."""
    empty = {field.name: None if field.nullable else _EMPTY[field.type] for field in SELECTION_SCHEMA}
    rows = [
        {**empty, "rank": rank, "item_id": f"{rank:032x}", "shard": shard, "key": key, "content_hash": "f" * 32}
        for rank, (shard, key) in enumerate(items)
    ]
    table = pa.Table.from_pylist(rows, SELECTION_SCHEMA)
    write_manifest(
        campaign,
        "selection",
        SelectionManifest,
        inputs={},
        counts=dict.fromkeys(COUNTS["selection"], len(rows)),
        files={SELECTION_FILE: (campaign.stage("selection") / SELECTION_FILE).write_table(table)},
        signal="present",
        when_no_signal=None,
        round_seed=1,
        objective=None,
        picks=picks_hash(table),
    )


_EMPTY = {pa.string(): "", pa.int64(): 0, pa.int32(): 0, pa.float32(): 0.0, pa.bool_(): False}


def take_in(campaign: Campaign, file: object, vendor: str = "generic", log: Log = QUIET.log, **rules: bool) -> Ingested:
    """Ingest a file."""
    return ingest(campaign, answer_files([str(file)], vendor), vendor, Rules(**rules), log)
