"""A vendor's answers come in: votes are kept, labels follow from them."""

import pkgutil
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from engine.campaign.changes import MOST_LINES, refresh
from engine.campaign.folder import Campaign
from engine.campaign.labels import Identity, Snapshot, identities, read_snapshot
from engine.campaign.ledger import DISPUTED, IN_PART, OUT, Ledger, read_ledger
from engine.campaign.places import placed
from engine.campaign.settling import settle
from engine.campaign.stages import QUIET, Log
from engine.campaign.votes import append_votes, read_votes
from engine.config.texts import plural
from engine.errors import InputError
from engine.handoff import VENDORS
from engine.handoff.answers import Asked, Place, Rules, Sieve
from engine.handoff.class_numbers import SentClasses
from engine.handoff.exchange import Answer, AnswerFile, Question
from engine.handoff.known_answers import Known
from engine.handoff.masks import Found, keep_masks, with_masks
from engine.handoff.question import question_of

ANY = Rules()
MOST_REASONS = 10
"""Reasons in the text of an error; all of them, up to MOST_LOGGED, are logged."""
MOST_LOGGED = 1000


class Ingested(NamedTuple):
    """What files of answers brought.

    The numbers of labels that are new, of answers that were known already, of answers that are blank, and of labels
    that replaced another one; the classes that the campaign's labels never had before; how many images that were handed
    out wait for answers; how many of the new labels are for images whose bytes are in the pool no more; how many of the
    answers that were known were corrected or replaced since, and stay so. Then the numbers of new votes, of those among
    them that are newer versions of known answers, and of skipped images in them; how many images are disputed; the rows
    that were refused; and whether the round has ended.
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
    sieve = _sieve(campaign, ledger, snapshot, vendor, question, replace=rules.replace)
    standing = _standing(ledger)
    # What is read again after the votes are there is not kept twice.
    del ledger
    masks = Found()
    _take_all(sieve, files, vendor, question, masks)
    _require_fitting(sieve.refused, rules, log)
    votes = sieve.finished()
    num_votes, num_skipped = len(votes), pc.sum(votes["skipped"]).as_py() or 0
    if sieve.versions:
        log(f"{plural(sieve.versions, 'answer')} replaced by newer versions")
    if len(votes):
        keep_masks(campaign.home, votes["value"], masks)
        append_votes(campaign.home, vendor, votes)
    del votes
    forced = frozenset(sieve.item_ids) if rules.replace else frozenset()
    settled = settle(campaign, forced)
    _log_overridden(settled.changes, standing, log)
    pairs = list(settled.changes.values())
    gained = {label for _, label in pairs if label is not None}
    is_class = campaign.config.handoff.question.task == "class"
    new_classes = sorted(gained - set(snapshot.history["label"].to_pylist())) if is_class else []
    if new_classes:
        log(f"new classes, never seen in this campaign before: {', '.join(new_classes)}")
    states = settled.ledger.state_U[~settled.ledger.items["gold"].to_numpy()].tolist()
    return Ingested(
        new=sum(before is None and label is not None for before, label in pairs),
        repeated=sieve.repeated,
        blank=sieve.blank,
        replaced=sum(before is not None for before, _ in pairs),
        new_classes=new_classes,
        out=sum(state in (OUT, IN_PART, DISPUTED) for state in states),
        changed=_num_changed(campaign, set(settled.changes), settled.ledger.items, log),
        corrected=sieve.corrected,
        votes=num_votes,
        versions=sieve.versions,
        skipped=num_skipped,
        disputed=states.count(DISPUTED),
        refused=sieve.refused,
        is_closed=settled.is_closed,
    )


def _take_all(sieve: Sieve, files: Iterable[AnswerFile], vendor: str, question: Question, masks: Found) -> None:
    """Look at all answers of the files. Raises InputError if there are none."""
    names, is_any = [], False
    for file in files:
        names.append(file.place)
        for answer in _answers(file, vendor, question, masks):
            is_any = True
            sieve.take(answer, f"{file.place}: {answer.where}")
    if not is_any:
        raise InputError(f"{', '.join(names[:3])}: no rows; give the file that the vendor filled in")


def _answers(file: AnswerFile, vendor: str, question: Question, masks: Found) -> Iterator[Answer]:
    read: Callable[[AnswerFile, Question], Iterator[Answer]] = pkgutil.resolve_name(
        f"{VENDORS[vendor].module}:read_answers"
    )
    for answer in read(file, question):
        yield with_masks(answer, file, masks) if question.task == "mask" else answer


def _require_fitting(refused: list[str], rules: Rules, log: Log) -> None:
    """Log the rows that do not fit, with all reasons. Raises InputError unless the rest is to be taken."""
    if not refused:
        return
    if len(refused) > 1 or rules.accept_rest:
        for reason in refused[:MOST_LOGGED]:
            log(f"refused: {reason}")
        if len(refused) > MOST_LOGGED:
            log(f"... and {len(refused) - MOST_LOGGED:,} more")
    if not rules.accept_rest:
        more = f"; and {len(refused) - MOST_REASONS:,} more" if len(refused) > MOST_REASONS else ""
        whole = f"{'; '.join(refused[:MOST_REASONS])}{more}"
        fix = "; nothing was taken in: correct these rows, or take the others: --accept-rest"
        raise InputError(whole if len(refused) == 1 else f"{len(refused):,} rows do not fit: {whole}{fix}")


def _sieve(
    campaign: Campaign, ledger: Ledger, snapshot: Snapshot, vendor: str, question: Question, *, replace: bool
) -> Sieve:
    labels, items = snapshot.values, ledger.items
    words = zip(ledger.stands_U.tolist(), ledger.word_votes_U.tolist(), items["gold"].to_pylist(), strict=True)
    names = zip(items["item_id"].to_pylist(), identities(items), strict=True)
    places = {item_id: Place(labels.get(item), *word) for (item_id, item), word in zip(names, words, strict=True)}
    known = Known(read_votes(campaign.home), snapshot.undone_votes)
    option = "handoff.question.classes" if campaign.config.handoff.question.classes else "labels.classes"
    asked = Asked(vendor, campaign.config.salt, question, VENDORS[vendor].is_snapshot, option)
    return Sieve(asked, places, known, SentClasses(campaign, vendor), replace=replace)


def _standing(ledger: Ledger) -> dict[Identity, bool]:
    """The images on which a person's word stands, and whether they have votes."""
    items, num_votes = ledger.items.filter(pa.array(ledger.stands_U)), ledger.outcomes.num_votes[ledger.stands_U]
    return dict(zip(identities(items), (num_votes > 0).tolist(), strict=True))


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
