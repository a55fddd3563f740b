"""What a customer knows to be true: who said what of which image, in order, and what went out to whom.

Votes and people's words are kept as they came. What is labelled, and what state an image is in, follows from them here
by the rules of docs/handoff.md, and not by the product's code.
"""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from engine.pool.identity import item_id_of
from tests.machine.faults import BrokenLawError
from tests.machine.tiny_pool import Item, TinyPool

SALT = "1f" * 16
LEAST = 0.6
"""labels.min_posterior."""
Row = tuple[str, str] | None
"""Label and image; None: there is none."""
Answer = tuple[str, str]
"""item_id, annotator; no annotator: the vendor's final answer."""
OPEN = ("out", "answered in part")
DONE = ("settled", "skipped", "expired", "recalled", "retracted")


class Word(NamedTuple):
    """What a person said of an item, in a file of labels/, when there were so many files of votes; or a vendor's answer
    that was to replace that: then there is no row."""

    file: str
    item: Item
    row: Row
    num_votes: int
    at: int
    is_override: bool = False


@dataclass
class Sent:
    """A batch: the image of each item_id, in order; for how many people; the selection that it is from, empty where
    more people are asked; how many answers of each had come, and how many files of votes there were; what was taken
    back, and what of it may be picked again."""

    record: str
    images: dict[str, str]
    people: int
    picks: str
    at: int
    answered: dict[str, int]
    ingests: int
    back: dict[str, str] = field(default_factory=dict)
    released: set[str] = field(default_factory=set)

    @property
    def round(self) -> int:
        return int(self.record.split("/")[1])

    @property
    def vendor(self) -> str:
        return self.record.split("/")[3].rpartition("-")[0]


@dataclass
class Truth:
    """What happened so far. Images are named by the hash of their files.

    `ingests`: the answers of each file of votes, oldest first; None: skipped. `files`: all of labels/ and votes/ that
    are known. `after`: the disturbances so far. `closed`: the rounds that ended by hand.
    """

    home: Path
    pool: TinyPool
    words: list[Word] = field(default_factory=list)
    ingests: dict[str, dict[Answer, str | None]] = field(default_factory=dict)
    undone: set[str] = field(default_factory=set)
    files: set[str] = field(default_factory=lambda: {"initial.parquet"})
    sent: list[Sent] = field(default_factory=list)
    never: set[Item] = field(default_factory=set)
    decisions: set[str] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)
    after: list[str] = field(default_factory=list)
    moment: int = 0

    def now(self) -> int:
        self.moment += 1
        return self.moment

    def broken(self, law: str, what: str) -> BrokenLawError:
        text = what.replace(str(self.home.parent), "...")
        return BrokenLawError(f"{law}: {text} [after: {', '.join(sorted(set(self.after))) or 'nothing'}]")

    def item_of(self, item_id: str) -> Item:
        return next((item for item in self.pool.items() if item_id_of(*item, SALT) == item_id), ("unknown", item_id))

    def rounds(self) -> list[Path]:
        return sorted((self.home / "rounds").glob("*"))

    # What people said.

    def last_word(self, item: Item) -> Word | None:
        """The last word on an item that was not taken back."""
        return next((word for word in reversed(self.words) if word.item == item and self.is_live(word)), None)

    def is_live(self, word: Word) -> bool:
        """A vendor's word is taken back with the ingest that it came with."""
        names = list(self.ingests)
        file = names[word.num_votes - 1] if word.is_override else word.file
        return file not in self.undone

    def standing(self, item: Item) -> Word | None:
        """The word that stands over votes: of a label always, of a retraction until the image is sent again."""
        word = self.last_word(item)
        if not word or word.is_override:
            return None
        sent_at = max((batch.at for batch in self.sent if item_id_of(*item, SALT) in batch.images), default=0)
        return word if word.row or word.at >= sent_at else None

    # What annotators said.

    def versions(self, answer: Answer) -> list[str | None]:
        """All versions of an answer that count, oldest first."""
        live = (rows for name, rows in self.ingests.items() if name not in self.undone)
        return [rows[answer] for rows in live if answer in rows]

    def votes(self, item_id: str) -> dict[Answer, str | None]:
        """The newest version of each answer on an image."""
        live = (rows for name, rows in self.ingests.items() if name not in self.undone)
        return {answer: value for rows in live for answer, value in rows.items() if answer[0] == item_id}

    def newest_ingest(self, item_id: str, who: str | None = None) -> int:
        """The number of the newest ingest with a vote on an image that counts: anybody's, or one person's."""
        live = [
            number
            for number, (name, rows) in enumerate(self.ingests.items(), 1)
            for answer in rows
            if name not in self.undone and answer[0] == item_id and who in (None, answer[1])
        ]
        return max(live, default=0)

    def came(self, item_id: str) -> int:
        """How many answers came; a final answer is all that its vendor was asked for before, or else anybody was."""
        votes = self.votes(item_id)
        if (item_id, "") not in votes:
            return len(votes)
        number = self.newest_ingest(item_id, "")
        before = [batch for batch in self.sent if item_id in batch.images and batch.ingests < number]
        own = sum(batch.people for batch in before if batch.vendor == "generic")
        return len(votes) - 1 + (own or max(sum(batch.people for batch in before), 1))

    def by_votes(self, item_id: str) -> tuple[str, str | None]:
        """The state of an image by its votes alone, and the label."""
        votes = self.votes(item_id)
        asked = [b.answered[item_id] + b.people for b in self.sent if item_id in b.images and item_id not in b.back]
        if not votes:
            return "out", None
        if self.came(item_id) < max(asked, default=0):
            return "answered in part", None
        values = Counter(value for value in votes.values() if value is not None)
        num_skips = len(votes) - values.total()
        if num_skips > values.total():
            return "skipped", None
        label, most = max(values.items(), key=lambda pair: pair[1])
        is_settled = most / values.total() >= LEAST and values.total() > num_skips
        return ("settled", label) if is_settled else ("disputed", None)

    def state(self, item_id: str) -> str:
        word = self.standing(self.item_of(item_id))
        if word:
            return "settled" if word.row else "retracted"
        state = self.by_votes(item_id)[0]
        return "retracted" if state == "disputed" and self.item_of(item_id) in self.never else state

    def state_in(self, batch: Sent, item_id: str) -> str:
        state = self.state(item_id)
        return batch.back.get(item_id, state) if state in OPEN else state

    def shown_in(self, batch: Sent, item_id: str) -> str:
        """As `state_in`; of an image that was sent again, by the answers that came since it was in this batch."""
        state, came = self.state_in(batch, item_id), self.came(item_id) - batch.answered[item_id]
        if state != "answered in part" or 0 < came < batch.people:
            return state
        return "disputed" if came > 0 else "out"

    @property
    def labels(self) -> dict[Item, tuple[str, str]]:
        """Label and image of every labelled item."""
        contents = {item_id: content for batch in self.sent for item_id, content in batch.images.items()}
        found = {}
        for item in dict.fromkeys([*(word.item for word in self.words), *map(self.item_of, contents)]):
            item_id = item_id_of(*item, SALT)
            word = self.standing(item)
            label = None if word else self.by_votes(item_id)[1]
            row = word.row if word else (label, contents[item_id]) if label else None
            if row:
                found[item] = row
        return found

    # What went out.

    def out(self) -> set[str]:
        """The item_ids of all that was sent, and may not be picked again."""
        return {item_id for batch in self.sent for item_id in batch.images if item_id not in batch.released}

    def given_up(self) -> set[str]:
        """The item_ids of which more people were asked, and that were taken back without being let go again."""
        more = (batch for batch in self.sent if not batch.picks)
        return {item_id for batch in more for item_id in batch.back if item_id not in batch.released}

    def num_files_of_votes(self) -> int:
        return len(self.ingests)
