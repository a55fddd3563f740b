"""A batch on its way: its images and task files in the vendor's folder, and its record."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, NamedTuple, cast

import pyarrow as pa

from engine.campaign.decisions import without_forgotten
from engine.campaign.folder import Campaign
from engine.campaign.handed_out import IMAGES_FILE, IMAGES_SCHEMA, SentBatch, all_batches
from engine.campaign.labels import identities
from engine.campaign.manifests import HandoffManifest, write_manifest
from engine.campaign.places import placed
from engine.campaign.stages import Run
from engine.campaign.votes import files_of_votes
from engine.config.handoff_options import HandoffConfig
from engine.config.texts import plural
from engine.errors import InputError
from engine.handoff.exchange import Outgoing, Question, Task
from engine.handoff.links import FILES, Links, links_for
from engine.handoff.prelabels import prelabels_of
from engine.handoff.sent_images import THREADS, Written, write_images
from engine.handoff.vendor_files import images_at, write_task_files
from engine.pool.shard import check_unchanged
from engine.pool.shards import Shards
from engine.storage.location import Location


class Parcel(NamedTuple):
    """What goes into a vendor's folder.

    `rows` are the images, gold ones too, in the order of the tasks: rank, item_id, shard, key, offset, size_bytes,
    content_hash, origin, gold. `name` is that of the batch for the vendor. `handoff` are the options of its sending.
    """

    vendor: str
    rows: pa.Table
    question: Question
    name: str
    handoff: HandoffConfig


class Made(NamedTuple):
    """A vendor's folder that was written: its images by item_id, how they are linked, and the SHA-256 of its task
    files by name."""

    images: dict[str, Written]
    links: Links
    files: dict[str, str]


def write_parcel(campaign: Campaign, parcel: Parcel, run: Run, shards: Shards, *records: Location) -> Made:
    """Write the vendor's folder, and the task files into the record too. Without a record it is a batch that was sent,
    which is written as it was.

    What can be refused is refused before anything is written.
    """
    handoff, folder = parcel.handoff, campaign.stage(f"handoff/{parcel.vendor}")
    links = links_for(handoff.images, handoff.link_days, datetime.now(UTC))
    # Those that are in their shards no more have been named, and are left out.
    here, _ = placed(campaign.home, without_forgotten(campaign.home, parcel.rows))
    if len(parcel.rows) and not len(here):
        raise InputError(f"{campaign.stage('selection')}: none of its images is in its shard; restore the shards")
    by_name = shards.find(here["shard"].to_pylist())
    write_tasks(campaign, parcel, _foreseen(here), links)
    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(lambda name: check_unchanged(by_name[name]), sorted(set(here["shard"].to_pylist()))))
    for place in (folder, *records):
        place.clear()
    at, strips = images_at(folder, handoff.images), handoff.strip_metadata
    written = write_images(campaign, at, here, by_name, run, strip_metadata=strips)
    if records:
        _leave_out_known_gold(campaign, parcel, at, written, run)
    for notice in links.notices:
        run.log(notice)
    return Made(written, links, write_tasks(campaign, parcel, written, links, folder, *records))


def _leave_out_known_gold(
    campaign: Campaign, parcel: Parcel, at: Location, written: dict[str, Written], run: Run
) -> None:
    """Take away the gold images of which the vendor gets the very bytes as another image too, here or in an earlier
    batch: files that differ in their metadata alone are equal once these are cut out."""
    gold = parcel.rows.filter(parcel.rows["gold"])["item_id"].to_pylist()
    earlier = [batch for batch in all_batches(campaign.home, campaign.round + 1) if batch.vendor == parcel.vendor]
    seen = {sha256 for batch in earlier if gold for sha256 in batch.rows()["sha256"].to_pylist()}
    seen |= {image.sha256 for item_id, image in written.items() if item_id not in set(gold)}
    left_out = 0
    for item_id in sorted(set(gold) & written.keys()):
        if written[item_id].sha256 in seen:
            (at / written.pop(item_id).file.rpartition("/")[2]).delete()
            left_out += 1
        else:
            seen.add(written[item_id].sha256)
    if left_out:
        run.log(f"left out, because the vendor would know their bytes: {plural(left_out, 'gold image')}")


def _foreseen(rows: pa.Table) -> dict[str, Written]:
    """Images as they may be when they are written, to see what a vendor refuses."""
    sizes = zip(rows["item_id"].to_pylist(), rows["size_bytes"].to_pylist(), strict=True)
    return {
        item_id: Written(item_id, f"images/{item_id}.png", size, "0" * 64, "image/png", 1, 1, "")
        for item_id, size in sizes
    }


def write_tasks(
    campaign: Campaign, parcel: Parcel, images: dict[str, Written], links: Links, *folders: Location
) -> dict[str, str]:
    """Write the task files into each folder. Returns their SHA-256 by name.

    Raises ConfigError for what the vendor does not take.
    """
    guesses = prelabels_of(campaign, parcel.question, parcel.rows) if parcel.handoff.prelabels else {}
    named = zip(parcel.rows["item_id"].to_pylist(), identities(parcel.rows), strict=True)
    there = [(images[item_id], guesses.get(item, "")) for item_id, item in named if item_id in images]
    tasks = [
        Task(
            image.item_id, image.file, links.of(image.file), place, image.size_bytes, image.sha256,
            image.media_type, image.width, image.height, guess,
        )
        for place, (image, guess) in enumerate(there)
    ]  # fmt: skip
    outgoing = Outgoing(parcel.name, parcel.question, parcel.handoff.annotators, tasks)
    return write_task_files(parcel.vendor, outgoing, *folders)


def record_parcel(
    campaign: Campaign, parcel: Parcel, made: Made, record: Location, inputs: dict[str, str], num_waiting: int
) -> HandoffManifest:
    """Complete the record of a batch. From its manifest on, the images are out."""
    rows = []
    for row in parcel.rows.to_pylist():
        if image := made.images.get(row["item_id"]):
            facts = image._asdict() | {"sent_bytes": image.size_bytes, "size_bytes": row["size_bytes"]}
            rows.append(row | {name: facts[name] for name in IMAGES_SCHEMA.names if name in facts})
    images = pa.Table.from_pylist(rows, schema=IMAGES_SCHEMA)
    is_disputed, handoff = not inputs["picks"], parcel.handoff
    return write_manifest(
        campaign,
        record.url.removeprefix(f"{campaign.round_home.url}/"),
        HandoffManifest,
        inputs=inputs,
        counts={
            "images": len(rows),
            "bytes": sum(row["sent_bytes"] for row in rows),
            "gold": sum(images["gold"].to_pylist()),
        },
        files={**made.files, IMAGES_FILE: (record / IMAGES_FILE).write_table(images)},
        sending={
            "vendor": parcel.vendor,
            "name": parcel.name,
            "annotators": handoff.annotators,
            "price": handoff.price,
            "question": parcel.question._asdict(),
            "disputed": is_disputed,
            "waiting": num_waiting,
            "ingests": len(files_of_votes(campaign.home)),
            "place": "" if handoff.images == FILES else handoff.images,
            "links_expire_at": moment_of_end(made.links),
        },
    )


def moment_of_end(links: Links) -> str | None:
    """Until when links work, ISO 8601; None where they do not end."""
    return links.expire_at.isoformat(timespec="seconds") if links.expire_at else None


def parcel_of(batch: SentBatch) -> Parcel:
    """A batch that was sent, as it was."""
    sending, config = batch.manifest["sending"], cast("dict[str, Any]", batch.manifest["config"])
    handoff = HandoffConfig.model_validate(config["handoff"])
    return Parcel(sending["vendor"], batch.rows(), Question(**sending["question"]), sending["name"], handoff)
