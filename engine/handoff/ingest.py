"""A vendor's answers come in: votes are kept, labels follow from them."""

import pkgutil
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from engine.campaign.changes import MOST_LINES, refresh
from engine.campaign.classes import Classes, classes_of, joined, new_names
from engine.campaign.decisions import forgotten
from engine.campaign.folder import Campaign
from engine.campaign.known_images import Images
from engine.campaign.labels import POSITIONS_SCHEMA, identities, read_snapshot
from engine.campaign.last_words import Words
from engine.campaign.ledger import DISPUTED, IN_PART, OUT, WORD_COLUMNS, Ledger, SentAndSaid, read_ledger
from engine.campaign.places import placed
from engine.campaign.settling import Changes, Settled, settle
from engine.campaign.stages import QUIET, Log
from engine.campaign.votes import append_votes, read_votes
from engine.config.texts import plural, some
from engine.errors import ConfigError, InputError
from engine.handoff import VENDORS
from engine.handoff.answers import Asked, Refused, Rules, Sieve
from engine.handoff.class_numbers import SentClasses
from engine.handoff.exchange import Answer, AnswerFile, Question
from engine.handoff.known_answers import Known
from engine.handoff.masks import Found, keep_masks, with_masks
from engine.handoff.question import question_of
from engine.handoff.sent_places import Places
from engine.handoff.task_classes import note_on_outputs
from engine.pool.mask_source import mask_source
from engine.tables.item_keys import ItemKeys, num_items

Look = Callable[[Answer, str], Answer]
"""Looks at an answer, by the item_id of its image: changes it, or finds a fault."""
ANY = Rules()
AT_ONCE, SHAPES_AT_ONCE = 16_384, 256
"""Answers whose images are looked up together; of shapes, where one may be as large as a thousand classes."""
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
    snapshot = read_snapshot(campaign.home, WORD_COLUMNS)
    question, before = question_of(campaign, snapshot), [SentAndSaid.of(campaign, snapshot)]
    del snapshot
    ledger, labels_before = read_ledger(campaign, known=before[0]), before[0].words.all_labels
    sieve = _sieve(
        campaign, ledger, before[0].words, asked := _asked(campaign, vendor, question), replace=rules.replace
    )
    stood_U, had_votes_U, gone = ledger.stands_U, ledger.outcomes.num_votes > 0, _forgotten_ids(campaign, ledger)
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
        # Given away: what is read again is not kept twice.
        settled = settle(campaign, forced, before.pop())
    except ConfigError as error:
        raise ConfigError(f"{error}; the answers are in, and labels follow with the next command") from error
    changes = settled.changes
    _log_overridden(changes, stood_U, had_votes_U, log)
    new_classes = new_names(pc.unique(changes.now).drop_null().to_pylist(), labels_before, question.task)
    if new_classes:
        log(f"new classes, never seen in this campaign before: {', '.join(new_classes)}")
    if note := note_on_outputs(campaign, new_classes):
        log(note)
    changed = _num_changed(campaign, changes, settled.ledger.items, log)
    return _counted(sieve, settled, brought)._replace(new_classes=new_classes, changed=changed)


def _counted(sieve: Sieve, settled: Settled, brought: Brought) -> Ingested:
    """The counts but those of new classes and of images that changed."""
    ledger, changes = settled.ledger, settled.changes

    def count(mask: pa.Array) -> int:
        # An image may have two names.
        return num_items(changes.items.filter(mask))

    answered, had_label = ledger.items.places_of(brought.item_ids), changes.before.is_valid()
    has_label, out_U = changes.now.is_valid(), np.zeros(len(ledger.items), bool)
    out_U[ledger.item_R[np.isin(ledger.state_R, (OUT, IN_PART, DISPUTED)) & ~ledger.gold_R]] = True
    return Ingested(
        new=count(pc.and_not(has_label, had_label)),
        repeated=sieve.repeated,
        blank=sieve.blank,
        replaced=count(had_label),
        new_classes=[],
        out=int(out_U.sum()),
        corrected=sieve.corrected,
        votes=brought.votes,
        versions=sieve.versions,
        skipped=brought.skipped,
        disputed=len(ledger.disputed),
        refused=[str(row) for row in sieve.refused],
        is_closed=settled.is_closed,
        answers=sieve.answers,
        taken_away=count(pc.and_not(had_label, has_label)),
        rounds=np.unique(ledger.items.round_U[answered[answered >= 0]]).tolist(),
    )


def _asked(campaign: Campaign, vendor: str, question: Question) -> Asked:
    classes = Classes([] if question.is_open else question.classes, classes_of(campaign.config).option)
    return Asked(vendor, campaign.config.salt, question, VENDORS[vendor].is_snapshot, classes)


def _looks_at_masks(campaign: Campaign, ledger: Ledger, masks: Found) -> Callable[[AnswerFile], Look]:
    """Looks at the masks of each answer as `with_masks`, which adds those that are files to `masks`."""
    source, rows = mask_source(campaign.config, campaign.home), ledger.rows(["item_id", "height", "width"])
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
    at_once = AT_ONCE if question.task in ("class", "classes") else SHAPES_AT_ONCE
    for file in files:
        names.append(file.place)
        look_here = look(file) if look else None
        answers = _answers(file, vendor, question)
        while some := list(islice(answers, at_once)):
            is_any = True
            sieve.expect(some)
            for answer in some:
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


def _sieve(campaign: Campaign, ledger: Ledger, words: Words, asked: Asked, *, replace: bool) -> Sieve:
    known = Known(read_votes(campaign.home), words.undone_votes)
    return Sieve(asked, Places(ledger, words), known, SentClasses(campaign, asked.vendor), replace=replace)


def _forgotten_ids(campaign: Campaign, ledger: Ledger) -> pa.ChunkedArray:
    """The item_ids of images that are to be forgotten."""
    is_gone_U = ledger.items.are_in(ItemKeys.of_items(sorted(forgotten(campaign.home))))
    return ledger.items.rows(np.flatnonzero(is_gone_U), ["item_id"])["item_id"]


def _log_overridden(changes: Changes, stood_U: NDArray[np.bool_], had_votes_U: NDArray[np.bool_], log: Log) -> None:
    """Say in one line which words of people are overridden by votes; `stood_U` says on which images a person's word
    stood, and `had_votes_U` which had votes before."""
    had_label = changes.before.is_valid().to_numpy(zero_copy_only=False)
    places = np.flatnonzero(stood_U[changes.places] & (had_votes_U[changes.places] | had_label))
    if len(places):
        rows = pa.array(places[:MOST_LINES])
        names = identities(changes.items.take(rows))
        pairs = zip(names, changes.before.take(rows).to_pylist(), changes.now.take(rows).to_pylist(), strict=True)
        overridden = [f"{shard}/{key} was {before or 'retracted'} and is {now}" for (shard, key), before, now in pairs]
        more = ", ..." if len(places) > MOST_LINES else ""
        log(f"overrides {plural(len(places), 'correction')}: {', '.join(overridden)}{more}")


def _num_changed(campaign: Campaign, changes: Changes, items: Images, log: Log) -> int:
    """How many of these images are in their shards no more with the bytes that were handed out; they are logged."""
    if not len(changes.places):
        return 0
    try:
        refresh(campaign, log, only=set(pc.unique(changes.items["shard"]).to_pylist()))
        return len(placed(campaign.home, items.rows(changes.places, POSITIONS_SCHEMA.names))[1])
    except InputError as error:
        # The labels are in, and belong to their bytes. Every stage that reads an image compares these.
        log(f"{error}; the labels are taken, and the next training looks at their images")
        return 0
