"""Answers become votes: what is new, what was known, what contradicts what came before."""

import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from functools import lru_cache, partial
from typing import Any, NamedTuple

import pyarrow as pa

from engine.campaign.classes import Classes, names_in
from engine.campaign.outcomes import label_text
from engine.campaign.votes import VOTES_SCHEMA, annotator_hash, identity_of_vote
from engine.errors import InputError
from engine.handoff.class_numbers import SentClasses, with_names
from engine.handoff.exchange import Answer, Question
from engine.handoff.known_answers import MOST_CACHED, Known, Version, content_of, is_newer
from engine.handoff.sent_places import Places, forms_of
from engine.tables.values import class_name, class_of

CHUNK_ROWS = 10_000
WITHOUT_INGEST = VOTES_SCHEMA.remove(VOTES_SCHEMA.get_field_index("ingest"))
_ADDRESS = re.compile(r"[\w.%+-]+@[\w-]+(\.[\w-]+)+")
_NUMBER = re.compile(r"\d+([.,]\d+)?e[+-]?\d+", re.IGNORECASE)
_SHOWN = 60
"""Characters of a value in an error."""


class Rules(NamedTuple):
    """What is accepted: whether an answer may replace an earlier other one, and a person's label; and whether rows that
    fit are taken where others do not."""

    replace: bool = False
    accept_rest: bool = False


class Asked(NamedTuple):
    """Who was asked what: the vendor, the campaign's salt, the question, whether the vendor's files are snapshots (see
    `engine.handoff.Vendor`), and the only classes that may come."""

    vendor: str
    salt: str
    question: Question
    is_snapshot: bool
    classes: Classes = Classes([], "labels.classes")


class ForeignError(InputError):
    """An answer on an image that this campaign never handed out; `name` is what the answer calls the image."""

    def __init__(self, where: str, name: str) -> None:
        super().__init__(f"{where}: item_id {name[:_SHOWN]!r} was never handed out by this campaign; remove it")
        self.name = name[:_SHOWN]


class Refused(NamedTuple):
    """A row that does not fit: its place, with its file, and why; of an image that was never handed out its name."""

    where: str
    why: str
    foreign: str | None = None

    def __str__(self) -> str:
        return f"{self.where}: {self.why}"


class Sieve:
    """Takes answers one by one. `finished` gives what is new; what does not fit is in `refused`, with its reason, and
    classes that may not come are in `unknown`. `item_ids` are the images that may be decided again; none without
    `replace`.

    The counts are of all answers, of those that say what was known already, of those among them that were corrected or
    replaced since, of those of which a newer version counts and that have no times, of blank ones, and of newer
    versions of known ones.
    """

    def __init__(self, asked: Asked, places: Places, known: Known, sent: SentClasses, *, replace: bool) -> None:
        self._vendor, _, self._question, self._is_snapshot, self._classes = asked
        self._places, self._known, self._sent, self._replace = places, known, sent, replace
        self._here: dict[bytes, Version] = {}
        self._dated: dict[bytes, dict[datetime, Version]] = {}
        self._undated: dict[bytes, Version] = {}
        self._hashed = lru_cache(MOST_CACHED)(partial(annotator_hash, asked.salt, asked.vendor))
        self._rows: list[tuple[Any, ...]] = []
        self._chunks: list[pa.Table] = []
        self.refused: list[Refused] = []
        self.unknown: dict[str, str] = {}
        self.item_ids: set[str] = set()
        self.answers = self.repeated = self.corrected = self.outdated = self.blank = self.versions = 0

    def expect(self, answers: Iterable[Answer]) -> None:
        """Look up the images of the answers that are taken next."""
        self._places.look_up(answer.item for answer in answers)

    def take(self, answer: Answer, where: str, look: Callable[[Answer, str], Answer] | None = None) -> None:
        """Look at an answer; `where` is its place, with its file. `look` changes it, or finds a fault; it gets the
        item_id, too."""
        self.answers += 1
        if answer.fault:
            self.refused.append(Refused(where, answer.fault))
            return
        try:
            self._take(answer, where, look)
        except InputError as error:
            foreign = error.name if isinstance(error, ForeignError) else None
            self.refused.append(Refused(where, str(error).removeprefix(f"{where}: "), foreign))

    def finished(self) -> pa.Table:
        """The new votes: VOTES_SCHEMA without `ingest`. No answer can be taken any more: what was known is let go."""
        self._flush()
        found = pa.concat_tables([WITHOUT_INGEST.empty_table(), *self._chunks])
        self._chunks, self._here = [], {}
        del self._known, self._places
        return found

    def _take(self, answer: Answer, where: str, look: Callable[[Answer, str], Answer] | None) -> None:
        item_id = self._item_of(answer.item, where)
        if type(answer.value) is not str:
            # A class may be given by its place.
            answer = answer._replace(value=with_names(answer.value, self._sent, item_id, where))
        if look and (answer := look(answer, item_id)).fault:
            raise InputError(answer.fault)
        value = None if answer.skipped else value_of(answer, self._question, where)
        if value is None and not answer.skipped:
            self.blank += 1
            return
        annotator = self._hashed(_person(answer.annotator)) if answer.annotator else None
        answer_id, reason, raw = map(self._unnamed, (answer.answer_id, answer.reason, answer.raw))
        identity = identity_of_vote(item_id, self._vendor, answer_id, annotator)
        version = Version(content_of(value), value, answer.answered_at or answer.as_of)
        if self._replace:
            self.item_ids.add(item_id)
        newest = self._known.newest(identity)
        if self._is_repeated_here(identity, version, item_id, where) or not self._is_new(
            identity, version, newest, item_id, answer, where
        ):
            self.repeated += 1
            return
        if self._replace and not version.answered_at and newest and newest.answered_at:
            # The newer version is the one that is to replace the other.
            version = version._replace(
                answered_at=max(datetime.now(UTC), newest.answered_at + timedelta(microseconds=1))
            )
        facts = (answer_id, annotator, value, answer.skipped, answer.seconds, version.answered_at)
        self._rows.append((item_id, self._vendor, *facts, reason, raw))
        if len(self._rows) >= CHUNK_ROWS:
            self._flush()

    def _unnamed(self, text: str) -> str | None:
        """What a vendor says beside its answer, with pseudonyms for the e-mail addresses in it; None for nothing."""
        return _ADDRESS.sub(lambda found: self._hashed(found[0]), text) if "@" in text else text or None

    def _item_of(self, name: str, where: str) -> str:
        """The item_id that a name says."""
        for item_id in forms_of(name):
            if self._places.get(item_id):
                return item_id
        name = name.strip()
        if _NUMBER.fullmatch(name):
            why = "a number that a spreadsheet made of it; import this column as text from the file that was sent"
            raise InputError(f"{where}: item_id {name!r} is {why}")
        raise ForeignError(where, name)

    def _is_repeated_here(self, identity: bytes, version: Version, item_id: str, where: str) -> bool:
        """Whether the files said this already. Raises InputError where they contradict themselves."""
        first = twin = self._here.get(identity)
        if first is None or twin is None:
            self._here[identity] = self._kept(version)
            return False
        if version.answered_at and first.answered_at and version.answered_at != first.answered_at:
            # Versions of one answer: an answer may come back to what it was.
            said = self._dated.setdefault(identity, {})
            twin = said.get(version.answered_at)
            if twin is None:
                said[version.answered_at] = self._kept(version)
                return False
        if twin.content != version.content:
            why = f"{where}: item_id {item_id!r} is {_words(version.value)} here but {_words(twin.value)} before"
            raise InputError(f"{why}; keep the right one")
        return twin.answered_at is not None or version.answered_at is None

    def _kept(self, version: Version) -> Version:
        """What is kept of a version for as long as the files are read: many are the same object."""
        short = version._replace(value=version.value[:_SHOWN]) if version.value else version
        if version.answered_at or len(self._undated) > MOST_CACHED:
            return short
        return self._undated.setdefault(version.content, short)

    def _is_new(
        self, identity: bytes, version: Version, newest: Version | None, item_id: str, answer: Answer, where: str
    ) -> bool:
        """Whether an answer adds something to its newest version. Raises InputError where it contradicts what is
        known."""
        place = self._places.get(item_id)
        assert place is not None
        is_other = place.stands and place.label != version.value
        is_current = newest is not None and newest.content == version.content
        # Of versions with times the newest counts, whatever is to be replaced.
        if self._known.has(identity, version) and (is_current or not self._replace or version.answered_at):
            self.corrected += is_other or not is_current
            self.outdated += not is_current and version.answered_at is None
            return False
        if is_current and not self._replace:
            # Only its time is another. An own time decides between versions that are still to come; that of a file is
            # another in each, and says nothing new.
            self.repeated += answer.as_of is None
            self.corrected += is_other
            return answer.as_of is None
        undone_at = self._known.undone_at(identity, version.content)
        if not newest and undone_at and place.stands and place.word_votes >= undone_at:
            # A person decided after this very answer had come.
            self.corrected += is_other
            return False
        self._require_class(version.value, where)
        before = place.label if place.stands or not newest else newest.value
        is_sure = self._replace or self._is_snapshot or answer.answer_id or (newest and _both_dated(version, newest))
        contradicts = newest is not None or (place.stands and place.label is not None and not answer.annotator)
        if contradicts and not is_sure and version.value != place.label and not place.is_gold:
            fix = "keep the right one, or correct it with --replace"
            raise InputError(
                f"{where}: item_id {item_id!r} is {_words(version.value)} here but {_words(before)} before; {fix}"
            )
        is_plain = not (answer.annotator or answer.answer_id or answer.answered_at)
        self.repeated += is_plain and version.value == place.label
        is_forced = self._replace and not version.answered_at
        if newest is not None and (is_forced or is_newer(version.answered_at, newest.answered_at)):
            self.versions += 1
        elif newest is not None:
            self.outdated += 1
        return True

    def _require_class(self, value: str | None, where: str) -> None:
        """Raises InputError for a class that is not one of the question's."""
        if value is None or not self._classes.names:
            return
        for name in names_in(value, self._question.task):
            if len(self.unknown) < MOST_CACHED and name not in self.unknown and (fault := self._classes.fault(name)):
                self.unknown[name] = fault
            if name in self.unknown or name not in self._classes.names:
                raise InputError(f"{where}: {self.unknown.get(name, f'label {name!r} is not one of them')}")

    def _flush(self) -> None:
        if self._rows:
            columns = zip(*self._rows, strict=True)
            arrays = [pa.array(column, field.type) for column, field in zip(columns, WITHOUT_INGEST, strict=True)]
            self._chunks.append(pa.table(arrays, schema=WITHOUT_INGEST))
            self._rows = []


def value_of(answer: Answer, question: Question, where: str) -> str | None:
    """The value of an answer as votes keep it; None where there is none yet. Raises InputError for what is not of the
    question's kind."""
    value: Any = answer.value
    if value is None:
        return None
    if question.task == "class":
        if isinstance(value, list) and len(value) == 1:
            (value,) = value
        if isinstance(value, list):
            raise InputError(f"{where}: has {len(value)} values, and one class is asked for; give one")
        return class_of(value, f"{where}: label") or None
    if isinstance(value, str):
        value = [value] if question.task == "classes" else value
    if isinstance(value, str) or any(isinstance(part, str) != (question.task == "classes") for part in value):
        raise InputError(f"{where}: {str(value)[:_SHOWN]!r} is no answer to a question for {question.task}")
    if question.task == "classes":
        names = {class_of(name, f"{where}: label") for name in value} - {""}
        return label_text(sorted(names))
    # A mask that came as a file need not name a class.
    named = (shape | {"label": class_of(shape.get("label"), f"{where}: label")} for shape in value)
    return label_text(list(named))


def _person(name: str) -> str:
    """A person's name in one form: tables write 7 as 7.0, systems write letters with accents in two ways, and an
    address is one in capitals, too."""
    name = class_name(name)
    return name.casefold() if "@" in name else name


def _both_dated(version: Version, other: Version) -> bool:
    return version.answered_at is not None and other.answered_at is not None


def _words(value: str | None) -> str:
    return "skipped" if value is None else repr(value[:_SHOWN])
