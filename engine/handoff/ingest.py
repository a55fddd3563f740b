"""A vendor's answers come in: votes are kept, labels follow from them."""

import pkgutil
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.campaign.changes import MOST_LINES, refresh
from engine.campaign.classes import Classes, classes_of, joined, new_names
from engine.campaign.decisions import forgotten
from engine.campaign.folder import Campaign
from engine.campaign.labels import Identity, Snapshot, identities, read_snapshot
from engine.campaign.ledger import DISPUTED, IN_PART, OUT, Ledger, read_ledger
from engine.campaign.places import placed
from engine.campaign.settling import Settled, settle
from engine.campaign.stages import QUIET, Log
from engine.campaign.votes import append_votes, read_votes
from engine.config.texts import plural, some
from engine.errors import ConfigError, InputError
from engine.handoff import VENDORS
from engine.handoff.answers import Asked, Place, Refused, Rules, Sieve
from engine.handoff.class_numbers import SentClasses
from engine.handoff.exchange import Answer, AnswerFile, Question
from engine.handoff.known_answers import Known
from engine.handoff.masks import Found, keep_masks, with_masks
from engine.handoff.question import question_of
from engine.handoff.task_classes import note_on_outputs
from engine.pool.mask_source import mask_source

Look = Callable[[Answer, str], Answer]
"""Looks at an answer, by the item_id of its image: changes it, or finds a fault."""
ANY = Rules()
MOST_LOGGED = 1000
"""Reasons why rows do not fit that are logged."""


class Ingested(NamedTuple):
    """What files of answers brought.

    The numbers of labels that are new, of answers that say what was known already, of answers that are blank, and of
    labels that are another one now, or none; the classes that the campaign's labels never had before; how many images
    that were handed out wait for answers; how many of the new labels are for images whose bytes are in the pool no
    more; how many of the answers that were known were corrected or replaced since, and stay so. Then the numbers of new
    votes, of those among them that are newer versions of known answers, and of skipped images in them; how many images
    are disputed; the rows that were refused; whether the round has ended; the number of all answers in the files; how
    many labels were taken away; and the rounds of the images with new votes.

    Of all answers, those that are no new vote, not blank and not refused were known: `known`.
    """

    new: int
    repeated: int
    blank: int
    replaced: int
    new_classes: list[str]
    out: int
    changed: int = 0
    corrected: int = 0
    votes: int = 0
    versions: int = 0
    skipped: int = 0
    disputed: int = 0
    refused: list[str] = []  # noqa: RUF012 - never written to
    is_closed: bool = False
    answers: int = 0
    taken_away: int = 0
    rounds: list[int] = []  # noqa: RUF012 - never written to

    @property
    def known(self) -> int:
        return self.answers - self.votes - self.blank - len(self.refused)


class Brought(NamedTuple):
    """The numbers of new votes and of skipped images in them, and the images that they are on."""

    votes: int
    skipped: int
    item_ids: pa.Array


def ingest(
    campaign: Campaign, files: Iterable[AnswerFile], vendor: str, rules: Rules = ANY, log: Log = QUIET.log
) -> Ingested:
    """Keep the votes of a vendor's files, all or none of them, and derive labels. Repeated rows and files change
    nothing, also where the labels were corrected since.

    A label is for the bytes that were handed out. Of the pool only the shards of new labels are looked at, and the
    images that have other bytes now are named: their labels wait until the bytes are back.

    Raises InputError for a file without rows, and for rows that do not fit: an item_id that was never handed out, a
    class that is not allowed, an answer that contradicts another. Nothing is written then. With `rules.accept_rest`
    such rows are left out.
    """
    snapshot = read_snapshot(campaign.home)
    ledger = read_ledger(campaign, snapshot)
    question = question_of(campaign)
    sieve = _sieve(campaign, ledger, snapshot, asked := _asked(campaign, vendor, question), replace=rules.replace)
    standing, gone = _standing(ledger), _forgotten_ids(campaign, ledger)
    masks = Found()
    look = _looks_at_masks(campaign, ledger, masks) if question.task == "mask" else None
    # What is read again after the votes are there is not kept twice.
    del ledger
    _take_all(sieve, files, vendor, question, look)
    _require_fitting(sieve, asked.classes.advice(sieve.unknown) if sieve.unknown else "", rules, log)
    votes = sieve.finished()
    brought = Brought(len(votes), pc.sum(votes["skipped"]).as_py() or 0, pc.unique(votes["item_id"]))
    if sieve.versions:
        log(f"{plural(sieve.versions, 'answer')} replaced by newer versions")
    if sieve.outdated:
        why = "replaced before, or older by its time, or without one: the newer one counts"
        log(f"{plural(sieve.outdated, 'answer')} {why}; where one without a time is the newest, give --replace")
    if len(votes):
        is_kept = pc.invert(pc.is_in(votes["item_id"], value_set=gone))
        keep_masks(campaign.home, votes["value"].filter(is_kept), masks)
        append_votes(campaign.home, vendor, votes)
    del votes
    forced = frozenset(sieve.item_ids) if rules.replace else frozenset()
    try:
        settled = settle(campaign, forced)
    except ConfigError as error:
        raise ConfigError(f"{error}; the answers are in, and labels follow with the next command") from error
    _log_overridden(settled.changes, standing, log)
    pairs = list(settled.changes.values())
    gained = {label for _, label in pairs if label is not None}
    new_classes = new_names(gained, snapshot.history["label"].drop_null().to_pylist(), question.task)
    if new_classes:
        log(f"new classes, never seen in this campaign before: {', '.join(new_classes)}")
    if note := note_on_outputs(campaign, new_classes):
        log(note)
    changed = _num_changed(campaign, set(settled.changes), settled.ledger.items, log)
    return _counted(sieve, settled, brought)._replace(new_classes=new_classes, changed=changed)


def _counted(sieve: Sieve, settled: Settled, brought: Brought) -> Ingested:
    """The counts but those of new classes and of images that changed."""
    items, pairs = settled.ledger.items, list(settled.changes.values())
    rounds = items.filter(pc.is_in(items["item_id"], value_set=brought.item_ids))["round"]
    ledger = settled.ledger
    is_out_R = np.isin(ledger.state_R, (OUT, IN_PART, DISPUTED)) & ~ledger.gold_R
    return Ingested(
        new=sum(before is None and label is not None for before, label in pairs),
        repeated=sieve.repeated,
        blank=sieve.blank,
        replaced=sum(before is not None for before, _ in pairs),
        new_classes=[],
        out=len(np.unique(ledger.item_R[is_out_R])),
        corrected=sieve.corrected,
        votes=brought.votes,
        versions=sieve.versions,
        skipped=brought.skipped,
        disputed=len(ledger.disputed),
        refused=[str(row) for row in sieve.refused],
        is_closed=settled.is_closed,
        answers=sieve.answers,
        taken_away=sum(before is not None and label is None for before, label in pairs),
        rounds=sorted(pc.unique(rounds).drop_null().to_pylist()),
    )


def _asked(campaign: Campaign, vendor: str, question: Question) -> Asked:
    classes = Classes([] if question.is_open else question.classes, classes_of(campaign.config).option)
    return Asked(vendor, campaign.config.salt, question, VENDORS[vendor].is_snapshot, classes)


def _looks_at_masks(campaign: Campaign, ledger: Ledger, masks: Found) -> Callable[[AnswerFile], Look]:
    """Looks at the masks of each answer as `with_masks`, which adds those that are files to `masks`."""
    source, rows = mask_source(campaign.config, campaign.home), ledger.rows
    sides = zip(rows["height"].to_pylist(), rows["width"].to_pylist(), strict=True)
    shown = dict(zip(rows["item_id"].to_pylist(), sides, strict=True))
    return lambda file: lambda answer, item_id: with_masks(answer, file, masks, shown.get(item_id), source)


def _take_all(
    sieve: Sieve,
    files: Iterable[AnswerFile],
    vendor: str,
    question: Question,
    look: Callable[[AnswerFile], Look] | None,
) -> None:
    """Look at all answers of the files, also with `look`. Raises InputError if there are none."""
    names, is_any = [], False
    for file in files:
        names.append(file.place)
        look_here = look(file) if look else None
        for answer in _answers(file, vendor, question):
            is_any = True
            sieve.take(answer, f"{file.place}: {answer.where}", look_here)
    if not is_any:
        raise InputError(f"{', '.join(names[:3])}: no rows; give the file that the vendor filled in")


def _answers(file: AnswerFile, vendor: str, question: Question) -> Iterator[Answer]:
    read: Callable[[AnswerFile, Question], Iterator[Answer]] = pkgutil.resolve_name(
        f"{VENDORS[vendor].module}:read_answers"
    )
    return read(file, question)


def _foreign_line(foreign: list[Refused], num_answers: int) -> str:
    """One line on the answers for images that were never handed out: how many, the first, and what that means."""
    names = some(dict.fromkeys(str(row.foreign) for row in foreign))
    why = f"{foreign[0].where}: the first of {len(foreign):,} answers, of {num_answers:,} in all, for images that this"
    if len(foreign) == num_answers:
        means = "the file is of another campaign: ingest it there, or give the file of this one"
    else:
        means = "a project at the vendor that several campaigns share, or test images: remove these rows"
    return f"{why} campaign never handed out ({names}); most likely {means}"


def _require_fitting(sieve: Sieve, advice: str, rules: Rules, log: Log) -> None:
    """Log the rows that do not fit, each reason once, and with all rows that have it. Raises InputError unless the rest
    is to be taken. `advice` is on classes."""
    foreign = [row for row in sieve.refused if row.foreign is not None]
    # One of them is a slip, and is named as any other row.
    foreign = foreign if len(foreign) > 1 else []
    refused = [row for row in sieve.refused if row.foreign is None] if foreign else sieve.refused
    if foreign and not refused and not rules.accept_rest:
        rest = "" if len(foreign) == sieve.answers else ", or take the others: --accept-rest"
        raise InputError(f"{_foreign_line(foreign, sieve.answers)}{rest}; nothing was taken in")
    if foreign:
        log(f"refused: {_foreign_line(foreign, sieve.answers)}")
    if not sieve.refused:
        return
    if len(sieve.refused) == 1 and not rules.accept_rest:
        raise InputError(joined(str(refused[0]), advice) if advice else str(refused[0]))
    reasons: dict[str, list[str]] = {}
    for row in refused:
        reasons.setdefault(row.why, []).append(row.where)
    for why, places in islice(reasons.items(), MOST_LOGGED):
        log(f"refused: {places[0]}{f' and {len(places) - 1:,} more' if len(places) > 1 else ''}: {why}")
    if len(reasons) > MOST_LOGGED:
        log(f"... and {plural(len(reasons) - MOST_LOGGED, 'more reason')}")
    if not rules.accept_rest:
        fix = "nothing was taken in: correct them, or take the others: --accept-rest"
        raise InputError(f"{len(sieve.refused):,} rows do not fit; {fix}{f'; {advice}' if advice else ''}")
    if advice:
        log(advice)


def _sieve(campaign: Campaign, ledger: Ledger, snapshot: Snapshot, asked: Asked, *, replace: bool) -> Sieve:
    labels, items = snapshot.values, ledger.items
    words = zip(ledger.stands_U.tolist(), ledger.word_votes_U.tolist(), items["gold"].to_pylist(), strict=True)
    names = zip(items["item_id"].to_pylist(), identities(items), strict=True)
    places = {item_id: Place(labels.get(item), *word) for (item_id, item), word in zip(names, words, strict=True)}
    known = Known(read_votes(campaign.home), snapshot.undone_votes)
    return Sieve(asked, places, known, SentClasses(campaign, asked.vendor), replace=replace)


def _standing(ledger: Ledger) -> dict[Identity, bool]:
    """The images on which a person's word stands, and whether they have votes."""
    items, num_votes = ledger.items.filter(pa.array(ledger.stands_U)), ledger.outcomes.num_votes[ledger.stands_U]
    return dict(zip(identities(items), (num_votes > 0).tolist(), strict=True))


def _forgotten_ids(campaign: Campaign, ledger: Ledger) -> pa.Array:
    """The item_ids of images that are to be forgotten."""
    gone = forgotten(campaign.home)
    names = zip(ledger.items["item_id"].to_pylist(), identities(ledger.items), strict=True)
    return pa.array([item_id for item_id, item in names if item in gone], pa.string())


def _log_overridden(
    changes: dict[Identity, tuple[str | None, str | None]], standing: dict[Identity, bool], log: Log
) -> None:
    """Say in one line which words of people are overridden by votes."""
    overridden = [
        f"{item[0]}/{item[1]} was {changes[item][0] or 'retracted'} and is {changes[item][1]}"
        for item, had_votes in standing.items()
        if item in changes and (had_votes or changes[item][0] is not None)
    ]
    if overridden:
        more = ", ..." if len(overridden) > MOST_LINES else ""
        log(f"overrides {plural(len(overridden), 'correction')}: {', '.join(overridden[:MOST_LINES])}{more}")


def _num_changed(campaign: Campaign, changed: set[Identity], items: pa.Table, log: Log) -> int:
    """How many of these items are in their shards no more with the bytes that were handed out; they are logged."""
    rows = items.filter(pa.array([item in changed for item in identities(items)], pa.bool_()))
    if not len(rows):
        return 0
    try:
        refresh(campaign, log, only=set(rows["shard"].to_pylist()))
        return len(placed(campaign.home, rows)[1])
    except InputError as error:
        # The labels are in, and belong to their bytes. Every stage that reads an image compares these.
        log(f"{error}; the labels are taken, and the next training looks at their images")
        return 0
