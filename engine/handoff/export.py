"""The handoff: the images of the picks and a vendor's task files, and the record of what was sent.

From the manifest of its record on, a batch is out. It is written last, so that an export that was interrupted sent
nothing. A batch of which no run came to say that it is out is shown by the next one, before anything else is sent.
"""

import csv
import hashlib
import io
from collections import defaultdict
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from engine.campaign.advice import back_command, is_waited_for
from engine.campaign.changes import current_shards
from engine.campaign.classes import MOST_NAMED, names_in_all
from engine.campaign.decisions import released, without_forgotten
from engine.campaign.folder import Campaign
from engine.campaign.freshness import current_selection
from engine.campaign.handed_out import (
    RECORDS,
    REFRESHED_FILE,
    SentBatch,
    announce,
    batches,
    is_announced,
    picks_hash,
    record_of,
)
from engine.campaign.labels import read_labels
from engine.campaign.ledger import GIVEN_UP, IN_PART, OUT, TAKEN_BACK, Ledger, read_ledger
from engine.campaign.manifests import HandoffManifest, SelectionManifest, read_committed
from engine.campaign.stages import DEFAULT_VENDOR, QUIET, Run
from engine.config.texts import list_setting, plural, some
from engine.errors import ConfigError, InputError
from engine.handoff import VENDORS
from engine.handoff.choice import ALL, Chosen, Wish, answers_of, candidates_of, chosen_of, cost_text, require_sendable
from engine.handoff.exchange import Question
from engine.handoff.gold import gold_images, mixed
from engine.handoff.links import Links, links_for
from engine.handoff.parcels import Parcel, moment_of_end, parcel_of, record_parcel, write_parcel, write_tasks
from engine.handoff.question import question_of
from engine.handoff.sent_images import Written, written_of
from engine.handoff.vendor_files import files_of, is_intact
from engine.pool.shards import Shards
from engine.storage.location import Location
from engine.tables.harmless import harmless

LINKS_FILE = "links.csv"


def export(campaign: Campaign, run: Run = QUIET, *, vendor: str = DEFAULT_VENDOR, wish: Wish = ALL) -> HandoffManifest:
    """Hand picks that are not out to a vendor. Returns the manifest of the batch's record. Where nothing is left to
    send, the vendor's newest batch is left alone, unless its files are damaged: then they are written again.

    The vendor's folder then holds exactly this batch: what was in it is deleted first. Tasks are in order of priority,
    the most valuable image first.

    Raises:
        InputError: there is no selection, or a shard changed meanwhile; then nothing is handed out.
        ConfigError: the options or inputs of the selection changed since it was made; nothing is left for this vendor;
            or it would cost more than handoff.money_limit.
    """
    own = [batch for batch in batches(campaign.home, campaign.round) if batch.vendor == vendor]
    if own and not is_announced(own[-1].folder):
        run.log(
            f"{own[-1].folder.name} was recorded by a run that was interrupted: this is it, and nothing more is sent"
        )
        return _announced(own[-1].folder, _whole(campaign, own[-1], run))
    selection = None if wish.is_disputed else current_selection(campaign)
    candidates = candidates_of(campaign, wish)
    # Where nothing can be sent, the pool is not looked at.
    looked_at: AbstractContextManager[Shards] = (
        current_shards(campaign, run.log) if len(candidates) else nullcontext(Shards.of([]))
    )
    with looked_at as shards:
        chosen = chosen_of(campaign, wish, candidates)
        if chosen.num_lost:
            why = "are left out of the batch: their shards do not hold them any more; a later round may pick them"
            run.log(f"{chosen.num_lost} of {len(candidates)} picks {why}")
        # A selection of nothing is handed out too: then the stage is complete.
        if not len(chosen.images) and (own or not selection or selection["counts"]["picked"]):
            if own and own[-1].manifest["sending"]["disputed"] >= wish.is_disputed:
                manifest = _whole(campaign, own[-1], run)
                if wish.limit != 0:
                    run.log(_nothing_left(campaign, vendor, wish, chosen.num_waiting))
                return manifest
            if chosen.num_lost == len(candidates) > 0:
                where = campaign.stage("selection")
                raise InputError(f"{where}: none of its images is in its shard; restore the shards")
            raise ConfigError(_nothing_left(campaign, vendor, wish, chosen.num_waiting))
        record = _next_record(campaign, vendor)
        parcel = _packed(campaign, run, vendor, wish, chosen, record)
        made = write_parcel(campaign, parcel, run, shards, record)
    inputs = {"picks": ""}
    if selection:
        inputs = {"selection": selection["files"]["selection.parquet"], "picks": _picks_of(campaign, selection)}
        if current_selection(campaign) != selection:
            fix = f"run: vaal export {campaign.home}"
            raise InputError(f"{campaign.stage('selection')}: made again while it was exported; {fix}")
    return _announced(record, record_parcel(campaign, parcel, made, record, inputs, chosen.num_waiting))


def _next_record(campaign: Campaign, vendor: str) -> Location:
    numbers = [int(batch.folder.name.rpartition("-")[2]) for batch in batches(campaign.home, campaign.round)]
    return campaign.stage(f"{RECORDS}/{vendor}-{max(numbers, default=-1) + 1:03d}")


def _announced(record: Location, manifest: HandoffManifest) -> HandoffManifest:
    announce(record)
    return manifest


def announced(campaign: Campaign) -> set[str]:
    """The stages of the round's batches of which a run came to say that they are out."""
    own = batches(campaign.home, campaign.round)
    return {f"{RECORDS}/{batch.folder.name}" for batch in own if is_announced(batch.folder)}


def _nothing_left(campaign: Campaign, vendor: str, wish: Wish, num_waiting: int) -> str:
    """Why there is nothing to send, and what to do."""
    if wish.is_disputed:
        return _nothing_disputed(campaign)
    out = [batch.folder.name for batch in batches(campaign.home, campaign.round)]
    if num_waiting or not out:
        why = "no pick fits --share or --stratum, or none is left that may be sent"
        fix = f"; {plural(num_waiting, 'pick')} can be sent without them" if num_waiting else ""
        return f"{campaign.stage('selection')}: {why}{fix}"
    why = (
        f"{campaign.round_home}: every pick that fits was sent already ({', '.join(out)}), so nothing goes to {vendor}"
    )
    ledger = read_ledger(campaign)
    # What has answers is not sent again, and what may be is not advised again.
    is_such_R = (ledger.outcomes.num_votes[ledger.item_R] == 0) & ~_are_released(campaign, ledger)
    own = ledger.of_round(campaign.round)
    is_open_R = np.isin(ledger.state_R, (OUT, IN_PART))
    is_back_R = np.isin(ledger.state_R, (GIVEN_UP, TAKEN_BACK))
    is_out = [(ledger.images_of(place) & is_such_R & is_open_R).any() for place in own]
    is_back = [(ledger.images_of(place) & is_such_R & is_back_R).any() for place in own]
    # The advice takes nothing back that is out.
    back = [ledger.batches[place].record for place, has, other in zip(own, is_back, is_out, strict=True) if has > other]
    if back:
        return f"{why}; some were taken back; to send these again: {back_command(campaign, back, pick_again=True)}"
    if any(name.startswith(f"{vendor}-") for name in out) or not any(is_out):
        return why
    there = [ledger.batches[place].record for place, has in zip(own, is_out, strict=True) if has]
    return f"{why}; to take back what is out there: {back_command(campaign, there, pick_again=True)}"


def _are_released(campaign: Campaign, ledger: Ledger) -> NDArray[np.bool_]:
    """Which rows (R,) were taken back and may be picked again."""
    free, found = defaultdict[str, list[str]](list), np.zeros(len(ledger.item_R), bool)
    for record, item_id in released(campaign.home):
        free[record].append(item_id)
    for number, batch in enumerate(ledger.batches):
        if batch.record in free:
            names, own = pa.array(free[batch.record], pa.string()), batch.rows(["item_id"])["item_id"]
            found[ledger.sent.slice_of(number)] = pc.is_in(own, value_set=names).to_numpy()
    return found


def _nothing_disputed(campaign: Campaign) -> str:
    ledger = read_ledger(campaign)
    asking = [
        batch.folder.name
        for place, batch in enumerate(ledger.batches)
        if batch.manifest["sending"]["disputed"] and is_waited_for(ledger, place)
    ]
    more = f"; {', '.join(asking)} asks more people, and answers are missing" if asking else ""
    return f"{campaign.home}: nothing is disputed now{more}; see: vaal handoff {campaign.home.quoted}"


def _not_asked(campaign: Campaign, question: Question) -> list[str]:
    """The classes of labels that annotators cannot give."""
    if not question.classes or question.task not in ("class", "classes"):
        return []
    labels = read_labels(campaign.home, ["shard", "key", "label", "round"])["label"]
    known = names_in_all(pc.unique(labels).to_pylist(), question.task)
    return sorted(set(known) - set(question.classes))


def _packed(campaign: Campaign, run: Run, vendor: str, wish: Wish, chosen: Chosen, record: Location) -> Parcel:
    """What is to be sent, with gold images at random places. Raises ConfigError where it must not be sent."""
    question, images = question_of(campaign), chosen.images
    if question.is_open and question.classes:
        option, names = "handoff.question.classes", question.classes
        how = list_setting(option, names) if len(names) <= MOST_NAMED else option
        words = f"the question has the {plural(len(names), 'class')} of the labels, and others may come back"
        run.log(f"{words}; where these are all, say so: {how}")
    elif others := _not_asked(campaign, question):
        run.log(f"the question does not name {plural(len(others), 'class')} that labels have: {some(others)}")
    gold = gold_images(campaign, vendor, question, record_of(record), images, run.log)
    require_sendable(campaign, vendor, wish, images, len(gold))
    ranks, origins = pa.array([-1] * len(gold), pa.int64()), pa.nulls(len(gold), pa.string())
    gold = (
        gold.append_column("rank", ranks)
        .append_column("origin", origins)
        .select(images.column_names)
        .cast(images.schema)
    )
    is_gold = pa.array(np.arange(len(images) + len(gold)) >= len(images))
    rows = pa.concat_tables([images, gold]).append_column("gold", is_gold)
    rows = rows.append_column("answered", answers_of(campaign, rows))
    drawn = hashlib.blake2b(
        record_of(record).encode(), digest_size=12, key=bytes.fromhex(campaign.config.salt)
    ).digest()
    # The vendor sees the name, which says nothing of the places of gold images: they are drawn from other bytes.
    order = mixed(len(images), len(gold), int.from_bytes(drawn[4:]))
    name = f"batch-{drawn[:4].hex()}"
    return Parcel(vendor, rows.take(pa.array(order, pa.int64())), question, name, campaign.config.handoff)


def _picks_of(campaign: Campaign, selection: SelectionManifest) -> str:
    return selection.get("picks") or picks_hash(read_committed(campaign.stage("selection"), "selection.parquet"))


def _whole(campaign: Campaign, batch: SentBatch, run: Run) -> HandoffManifest:
    """The manifest of a batch that is out. Its files are written again where they are damaged."""
    if not is_intact(campaign, batch):
        run.log(f"{campaign.stage(f'handoff/{batch.vendor}')}: not the files of {batch.folder.name}; written again")
        with current_shards(campaign, run.log) as shards:
            made = write_parcel(campaign, parcel_of(batch), run, shards)
        if made.files != files_of(batch):
            _note_refreshed(batch, made.links, made.files)
    return batch.manifest


def _note_refreshed(batch: SentBatch, links: Links, files: dict[str, str]) -> None:
    (batch.folder / REFRESHED_FILE).write_json({"files": files, "links_expire_at": moment_of_end(links)})


def refresh_links(campaign: Campaign, run: Run, vendor: str) -> HandoffManifest:
    """Sign the links of the vendor's newest batch again: no task is new. links.csv has them by item_id.

    Raises ConfigError where there is no batch of this vendor in the round, or its links are not signed.
    """
    own = [batch for batch in batches(campaign.home, campaign.round) if batch.vendor == vendor]
    if not own:
        raise ConfigError(
            f"{campaign.round_home}: nothing went to {vendor} in this round; see: vaal handoff {campaign.home}"
        )
    batch, folder = own[-1], campaign.stage(f"handoff/{vendor}")
    parcel = parcel_of(batch)
    if batch.manifest["sending"]["links_expire_at"] is None:
        why = f"{batch.folder}: its images travel as {parcel.handoff.images}, and such links do not end"
        raise ConfigError(f"{why}; signed links: --set handoff.images=s3://BUCKET/FOLDER, before an export")
    _whole(campaign, batch, run)
    links = links_for(parcel.handoff.images, campaign.config.handoff.link_days, datetime.now(UTC))
    images = {row["item_id"]: written_of(row) for row in without_forgotten(campaign.home, batch.rows()).to_pylist()}
    files = write_tasks(campaign, parcel, images, links, folder)
    (folder / LINKS_FILE).write_bytes(_list_of_links(images, links))
    _note_refreshed(batch, links, files)
    for notice in links.notices:
        run.log(notice)
    return batch.manifest


def _list_of_links(images: dict[str, Written], links: Links) -> bytes:
    text = io.StringIO()
    rows = ([image.item_id, harmless(links.of(image.file))] for image in images.values())
    csv.writer(text, lineterminator="\n").writerows([("item_id", "link"), *rows])
    return text.getvalue().encode()


def describe(campaign: Campaign, manifest: HandoffManifest, *, is_new: bool = True) -> dict[str, Any]:
    """The facts about a complete stage that a person sees. `is_new`: it was sent now, and not before."""
    sending, counts = manifest["sending"], manifest["counts"]
    folder, record = campaign.stage(f"handoff/{sending['vendor']}"), manifest["stage"].rpartition("/")[2]
    sent = batches(campaign.home, campaign.round)
    end = next((batch.links_expire_at for batch in sent if batch.folder.name == record), None)
    first, dot, suffix = VENDORS[sending["vendor"]].tasks.rpartition(".")
    tasks = sorted(name for name in manifest["files"] if name.startswith(first) and name.endswith(dot + suffix))
    many = f"{record}: {plural(counts['images'], 'image')}, sent {manifest['completed_at'][:10]}"
    return {
        **(_of_new(campaign, manifest) if is_new else {"out already": many}),
        **({"links work until": end} if end else {}),
        "handoff": folder,
        "tasks": folder / next(iter(tasks), ""),
    }


def _of_new(campaign: Campaign, manifest: HandoffManifest) -> dict[str, Any]:
    """How much was sent now, what it costs, and the command that sends the rest."""
    sending, counts = manifest["sending"], manifest["counts"]
    cost = cost_text(counts["images"], sending["annotators"], sending["price"])
    command = f"vaal export {campaign.home.quoted} --to {sending['vendor']}"
    rest = f"{sending['waiting']:,}; to send them: {command}"
    return {
        "batch": manifest["stage"].rpartition("/")[2],
        "images": counts["images"],
        **({"of them gold": gold} if (gold := counts.get("gold", 0)) else {}),
        **({"picks still to send": rest} if sending["waiting"] else {}),
        **({"price": cost} if sending["price"] else {}),
    }
