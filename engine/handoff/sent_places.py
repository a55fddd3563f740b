"""What is known of the images that answers are for, looked up for many answers at once."""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

import pyarrow as pa

from engine.campaign.last_words import Words
from engine.campaign.ledger import Ledger

_ITEM_ID = re.compile("[0-9a-f]{32}")
_COPY = re.compile(r"(?:copy of )?([0-9a-f]{32})(?:[ _-]*\(\d+\)|[ _-]+(?:copy|\d+))*")
"""The name of a copy, as browsers and file managers write it: ID (1), ID_1, ID - Copy (2), Copy of ID."""


MOST_KEPT = 1 << 15
"""Names whose forms are kept: they are asked for when they are looked up, and when the answer is taken."""


class Place(NamedTuple):
    """What is known of an image that was handed out: its label now, whether a person's or another program's word on it
    stands over votes, how many files of votes there were when it was said, and whether the image is gold."""

    label: str | None
    stands: bool
    word_votes: int
    is_gold: bool


class Places:
    """The images that were picked or handed out, by their names for vendors. Only those that were looked up are held,
    as Python objects."""

    def __init__(self, ledger: Ledger, words: Words) -> None:
        self._items, self._words = ledger.items, words
        self._stands_U, self._word_votes_U = ledger.stands_U, ledger.word_votes_U
        self._here: dict[str, Place] = {}

    def look_up(self, names: Iterable[str]) -> None:
        """Look up what answers call their images, in whatever form; what was looked up before is let go."""
        given = pa.array(dict.fromkeys(form for name in names for form in forms_of(name)), pa.string())
        place_N = self._items.places_of(given)
        is_known_N = place_N >= 0
        found, place_N = given.filter(pa.array(is_known_N)), place_N[is_known_N]
        facts = zip(
            self._words.labels_at(place_N).to_pylist(), self._stands_U[place_N].tolist(),
            self._word_votes_U[place_N].tolist(), (place_N >= self._items.num_picked).tolist(), strict=True,
        )  # fmt: skip
        self._here = dict(zip(found.to_pylist(), map(Place._make, facts), strict=True))

    def get(self, item_id: str) -> Place | None:
        """What is known of an image that was looked up; None where it was never picked or handed out."""
        return self._here.get(item_id)


@lru_cache(MOST_KEPT)
def forms_of(name: str) -> tuple[str, ...]:
    """The item_ids that an answer's name of its image may be, likeliest first: itself, or the stem of a file, also of a
    copy or in capitals."""
    name = name.strip()
    if _ITEM_ID.fullmatch(name):
        return (name,)
    stem = re.split("[?#]", name)[0].replace("\\", "/").rpartition("/")[2].partition(".")[0].strip()
    original = _COPY.fullmatch(stem.lower())
    return tuple(dict.fromkeys([name, stem, stem.lower(), original[1] if original else ""]))
