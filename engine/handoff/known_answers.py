"""The answers that came before, in little memory: what is known is no news."""

from datetime import datetime
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.campaign.votes import (
    answers_of_votes,
    codes_of,
    digest_of,
    identities_of_votes,
    micros_of,
    newest_rows,
    times_of,
)

MOST_CACHED = 1 << 14
"""Classes, and people, that are hashed once."""


class Version(NamedTuple):
    """A version of an answer: a digest of what it says, its value (null: skipped), and its time."""

    content: bytes
    value: str | None
    answered_at: datetime | None


class Known:
    """The answers that came before: every version of each, and the newest. In memory there are some 200 bytes for an
    answer, and each value once."""

    def __init__(self, votes: pa.Table, undone: set[str]) -> None:
        is_undone = pc.is_in(votes["ingest"], value_set=pa.array(sorted(undone), pa.string()))
        gone, votes = votes.filter(is_undone), votes.filter(pc.invert(is_undone))
        said = zip(identities_of_votes(gone), gone["value"].to_pylist(), gone["ingest"].to_pylist(), strict=True)
        self._undone = {identity + content_of(value): int(ingest[:6]) for identity, value, ingest in said}
        answer_V, code_V = answers_of_votes(votes), codes_of(votes["value"]) + 1
        self._values = pa.concat_arrays([pa.nulls(1, pa.string()), votes["value"].unique().drop_null()])
        self._codes = {content_of(value): code for code, value in enumerate(self._values.to_pylist())}
        self._contents = list(self._codes)
        version_V, at_V = answer_V * len(self._values) + code_V, times_of(votes)
        order = np.lexsort((at_V, version_V))
        self._version_V, self._at_V = version_V[order], at_V[order]
        newest_A = newest_rows(votes, answer_V)
        newest = votes.take(pa.array(newest_A))
        self._numbers = {identity: number for number, identity in enumerate(identities_of_votes(newest))}
        self._code_A, self._at_A = code_V[newest_A], newest["answered_at"].combine_chunks()

    def newest(self, identity: bytes) -> Version | None:
        """The newest version of an answer."""
        number = self._numbers.get(identity)
        if number is None:
            return None
        code = int(self._code_A[number])
        return Version(self._contents[code], self._values[code].as_py(), self._at_A[number].as_py())

    def has(self, identity: bytes, version: Version) -> bool:
        """Whether this version of the answer is known; one without a time is, if any version said the same."""
        number, code = self._numbers.get(identity), self._codes.get(version.content)
        if number is None or code is None:
            return False
        wanted = number * len(self._values) + code
        first, end = (int(np.searchsorted(self._version_V, wanted, side)) for side in ("left", "right"))
        if first == end or version.answered_at is None:
            return first < end
        at = micros_of(version.answered_at)
        place = first + int(np.searchsorted(self._at_V[first:end], at))
        return place < end and bool(self._at_V[place] == at)

    def undone_at(self, identity: bytes, content: bytes) -> int:
        """The number of the last ingest that said this and was undone; 0 where there is none."""
        return self._undone.get(identity + content, 0)


@lru_cache(MOST_CACHED)
def content_of(value: str | None) -> bytes:
    """A digest of what an answer says, the same object where it is asked for again and again."""
    return digest_of(value)


def is_newer(at: datetime | None, before: datetime | None) -> bool:
    """Whether of two versions the one that came later is the newer, by the times that they have."""
    return before is None or (at is not None and at >= before)
