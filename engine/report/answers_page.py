"""The page about the answers to a round: answers.html beside report.html, one file that loads nothing.

It follows from the answers, labels and decisions that are there, whichever round the campaign is in by now, and is made
again when they change. answers.json names what it was made of, by hash.
"""

import hashlib
import importlib.metadata
from datetime import UTC, datetime

import pyarrow.compute as pc
from typing_extensions import TypedDict

from engine.campaign import decisions, votes
from engine.campaign.advice import disputed_advice
from engine.campaign.changes import current_shards
from engine.campaign.folder import Campaign
from engine.campaign.freshness import fingerprint
from engine.campaign.handed_out import all_batches
from engine.campaign.labels import labels_fingerprints
from engine.campaign.opening import open_campaign
from engine.campaign.stages import Log
from engine.config.texts import plural
from engine.errors import ConfigError, InputError, UnreadableError
from engine.pool.shard import ShardError
from engine.report import arms, crowd, disputes, round_answers
from engine.report.control_arm import MASKS
from engine.report.page import render, shown_thumbnails
from engine.report.round_answers import RoundAnswers
from engine.report.thumbnails import BLANK, Identity, read_thumbnails
from engine.storage.documents import Moment, read_document
from engine.storage.location import Location

PAGE, RECORD = "answers.html", "answers.json"
_STAGES = ("train", "scores", "selection")
MOVED = "pool/moved.parquet"


class AnswersRecord(TypedDict):
    """What the page was made of (`inputs`) and is (`files`), SHA-256 by name. `counts.unread` is the number of shards
    that could not be read: the page is made again then, to show their images."""

    round: int
    counts: dict[str, int]
    inputs: dict[str, str]
    files: dict[str, str]
    code_version: str
    completed_at: Moment


def answers_page(campaign: Campaign, log: Log) -> Location | None:
    """Make the page about the answers to the campaign's round, or leave it alone where nothing changed since. Returns
    its place; None where no answer came.

    Raises InputError if a file of the campaign's state cannot be read.
    """
    folder, now = campaign.stage("report"), open_campaign(campaign.home.url)
    inputs, record = answers_inputs(now, campaign.round), _record(folder)
    if record and record["inputs"] == inputs and not record["counts"]["unread"]:
        return folder / PAGE
    answers = round_answers.read_round(now, campaign.round)
    # A page that is there is made again also when its answers were taken back.
    if not len(answers.votes) and not (folder / PAGE).exists():
        return None
    page, counts = _make(answers, log)
    written: AnswersRecord = {
        "round": campaign.round,
        "counts": counts,
        # Looking at the pool may have found that images moved.
        "inputs": inputs | hashes(campaign.home, [MOVED]),
        "files": {PAGE: (folder / PAGE).write_bytes(page.encode())},
        "code_version": importlib.metadata.version("vaal"),
        "completed_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    (folder / RECORD).write_json({**written})
    log(f"{folder / PAGE} shows {plural(counts['votes'], 'answer')}")
    return folder / PAGE


def page_of(campaign: Campaign) -> Location | None:
    """Where the page of the campaign's round is; None where there is none."""
    file = campaign.stage("report") / PAGE
    return file if file.exists() else None


def _record(folder: Location) -> AnswersRecord | None:
    """The record of the page that is there, None where it is damaged or missing: then it is made again."""
    try:
        if not (folder / RECORD).exists():
            return None
        record = read_document(folder / RECORD, AnswersRecord)
        (folder / PAGE).read_verified(record["files"].get(PAGE), "")
    except UnreadableError:
        raise
    except (ConfigError, InputError):
        return None
    return record


def answers_inputs(campaign: Campaign, number: int) -> dict[str, str]:
    """SHA-256 by name of all that the page of a round follows from. `campaign` is as of its current round."""
    home, config = campaign.home, campaign.config
    names = [f"{folder}/{name}" for folder in (votes.FOLDER, decisions.FOLDER) for name in (home / folder).children()]
    stages = [f"rounds/{number:03d}/{stage}/manifest.json" for stage in _STAGES]
    batches = {batch.record: fingerprint(manifest=batch.manifest) for batch in all_batches(home, campaign.round + 1)}
    options = fingerprint(labels=config.labels.model_dump(), handoff=config.handoff.model_dump(mode="json"))
    found = hashes(home, [*names, *stages, MOVED])
    return {**found, **labels_fingerprints(home), **batches, "options": options}


def hashes(home: Location, names: list[str]) -> dict[str, str]:
    """SHA-256 of each file by name, without those that are missing."""
    found = {}
    for name in names:
        if (home / name).exists():
            found[name] = hashlib.sha256((home / name).read_bytes()).hexdigest()
    return found


def _make(answers: RoundAnswers, log: Log) -> tuple[str, dict[str, int]]:
    """The page, and what it counts."""
    disputed = disputes.disputes_of(answers)
    thumbnails, num_unread = _thumbnails(answers, disputed, log)
    annotators = crowd.annotators_of(answers)
    people = [row for row in annotators if row.name]
    (gain,) = arms.gains_of(answers.campaign, answers.snapshot, [answers.number])
    moments = answers.votes["answered_at"].drop_null()
    page = render(
        "answers.html.j2",
        campaign=answers.campaign,
        answers=answers,
        of=round_answers,
        crowd=crowd,
        concord=crowd.concord_of(answers),
        annotators=annotators,
        num_people=len(people),
        disputes=disputed,
        disputed_advice=disputed_advice,
        most_said=disputes.MOST_SAID,
        gain=gain if gain.has_labels and answers.task != "mask" else None,
        no_gain=MASKS if answers.task == "mask" else "",
        class_counts=arms.class_counts,
        labels=round_answers.label_counts(answers),
        new_classes=round_answers.new_classes(answers),
        last_at=pc.max(moments).as_py() if len(moments) else None,
        thumbnails=thumbnails,
        pictures={},
    )
    return page, {"votes": len(answers.votes), "images": len(disputed), "unread": num_unread}


def _thumbnails(
    answers: RoundAnswers, disputed: list[disputes.Dispute], log: Log
) -> tuple[dict[Identity, tuple[str, bool]], int]:
    """The thumbnails of disputed images, grey where they are gone; and how many shards cannot be read."""
    faults: list[ShardError] = []
    rows = [dispute.row for dispute in disputed]
    with current_shards(answers.campaign, log, only={row["shard"] for row in rows}):
        found = read_thumbnails(answers.campaign, rows, faults.append)
    for fault in faults:
        log(f"{fault}; its images are shown grey")
    num_blank = sum(image is BLANK for image in found.values())
    if num_blank:
        log(f"shown grey, because in their shards no more: {plural(num_blank, 'disputed image')}")
    return shown_thumbnails(found), len(faults)
