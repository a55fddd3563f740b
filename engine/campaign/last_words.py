"""What label files say of the images of a ledger, file by file: as `Snapshot.labels` and `Snapshot.last_words`, which
make a table of all labels, but as a few numbers for each image.

Shape suffixes: U images, N rows of a label file that are about one of them.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from engine.campaign.known_images import Images, Numbers
from engine.campaign.labels import INGEST, REPLACED, VOTES, Snapshot
from engine.tables.item_keys import ItemIndex, ItemKeys, column_at

_BLOCK = 1 << 20
NO_LABEL_AT = np.iinfo(np.int64).max
"""When a word was said that has no time: after everything."""


class Facts(NamedTuple):
    """Of N words that decide: whether each was derived from votes, whether it is a label, when it was said, in
    microseconds since 1970, and how many files of votes there were."""

    derived_N: NDArray[np.bool_]
    label_N: NDArray[np.bool_]
    at_N: NDArray[np.int64]
    votes_N: Numbers


class Words:
    """Of each image the row in `Snapshot.history` of its newest label or retraction, `row_U`, -1 for none, and the word
    that decides. Of gold images no word decides. `files` are the SHA-256 of the label files by name,
    and `undone_votes` the ingests that they take back: the rest of a snapshot is not needed any more."""

    def __init__(self, snapshot: Snapshot, row_U: Numbers, said: "_Said") -> None:
        self.row_U, self._said, names = row_U, said, [*snapshot.tables]
        self.files, self.undone_votes = snapshot.files, snapshot.undone_votes
        self._history = snapshot.history.select(["label", "labelled_at"])
        self._begin_F = np.cumsum([0, *map(len, snapshot.tables.values())])
        self._derived_F = np.array([_is_derived(name) for name in names], bool)
        self._votes_F = np.array([_num_votes(snapshot, name) for name in names], np.int32)

    def parts(self) -> Iterator[tuple[NDArray[np.int64], Facts]]:
        """The places of the images of which there is a word, and the word, part by part."""
        for begin in range(0, len(self._said.word_U), _BLOCK):
            place_N = begin + np.flatnonzero(self._said.word_U[begin : begin + _BLOCK] >= 0)
            rows = self._said.word_U[place_N]
            file_N = np.searchsorted(self._begin_F[:-1], rows, side="right") - 1
            word = self._history.take(pa.array(rows))
            at_N = pc.fill_null(word["labelled_at"].cast(pa.int64()), int(NO_LABEL_AT)).to_numpy()
            yield (
                place_N,
                Facts(self._derived_F[file_N], word["label"].is_valid().to_numpy(), at_N, self._votes_F[file_N]),
            )

    def are_labels(self) -> NDArray[np.bool_]:
        """Which images (U,) have a label now."""
        has_N, found_U = self._history["label"].is_valid().to_numpy(), self.row_U >= 0
        found_U[found_U] = has_N[self.row_U[found_U]]
        return found_U

    def add(self, name: str, sha256: str, num_votes: int, table: pa.Table, place_N: NDArray[np.int64]) -> None:
        """A newest file of derived labels, in which each of these picks has a row: see
        `Images.are_single`."""
        rows = table.select(["label", "labelled_at"]).cast(self._history.schema)
        row_N = (self._begin_F[-1] + np.arange(len(table))).astype(np.int32)
        self.row_U[place_N] = row_N
        self._said.take(place_N, row_N, np.zeros(len(row_N), bool), ~_are_forced(table))
        self._history = pa.concat_tables([self._history, rows]).unify_dictionaries()
        self._begin_F = np.append(self._begin_F, self._begin_F[-1] + len(table))
        self._derived_F, self._votes_F = np.append(self._derived_F, True), np.append(self._votes_F, np.int32(num_votes))
        self.files = {**self.files, name: sha256}

    @property
    def all_labels(self) -> list[str]:
        """The different labels that there ever were."""
        found: list[str] = pc.unique(self._history["label"]).drop_null().to_pylist()
        return found

    def labels_at(self, place_N: NDArray[np.integer]) -> pa.Array:
        """The labels of the images at these places now (N,), null for none."""
        return column_at(self._history["label"], self.row_U[place_N])


def words_of(snapshot: Snapshot, images: Images) -> Words:
    """The words on these images."""
    undone, size, begin = snapshot.undone, len(images), 0
    row_U, said, gold = np.full(size, -1, np.int32), _Said(size), ItemIndex(images.gold_keys)
    of_gold_U = row_U[images.num_picked :]
    for name, table in snapshot.tables.items():
        keys = ItemKeys.of(table)
        place_F = images.picks_of(keys)
        here_N = np.flatnonzero(place_F >= 0)
        place_N, row_N = place_F[here_N], (begin + here_N).astype(np.int32)
        row_U[place_N] = row_N
        if name not in undone:
            is_label_N, is_forced_N = table["label"].is_valid().to_numpy()[here_N], _are_forced(table)[here_N]
            is_by_votes = _is_derived(name) and _num_votes(snapshot, name) > 0
            for part in _each_once(place_N, (row_U[place_N] == row_N).all()):
                gives_way_N = is_by_votes & ~is_forced_N[part]
                said.take(place_N[part], row_N[part], is_label_N[part] & (not is_by_votes), gives_way_N)
        if len(gold):
            place_F = gold.rows_of(keys)
            of_gold_U[place_F[place_F >= 0]] = begin + np.flatnonzero(place_F >= 0)
        begin += len(table)
    # An image may be gold under several names.
    of_gold_U[:] = of_gold_U[gold.rows_of(images.gold_keys)]
    for values_U in (row_U, said.word_U):
        images.to_all(values_U)
    return Words(snapshot, row_U, said)


class _Said:
    """The row of the word that decides on each image so far, and whether it is a label that others gave than votes:
    what votes give leaves it as it is, unless it was to replace it."""

    def __init__(self, size: int) -> None:
        self.word_U, self._given_U = np.full(size, -1, np.int32), np.zeros(size, bool)

    def take(
        self, place_N: NDArray[np.int64], row_N: Numbers, given_N: NDArray[np.bool_], gives_way_N: NDArray[np.bool_]
    ) -> None:
        """The next rows, one an image: at which places, whether each is a label that others gave, and whether it gives
        way to such."""
        decides_N = ~(gives_way_N & self._given_U[place_N])
        self.word_U[place_N[decides_N]] = row_N[decides_N]
        self._given_U[place_N[~gives_way_N]] = given_N[~gives_way_N]


def _each_once(place_N: NDArray[np.int64], is_so: bool) -> list[slice | NDArray[np.int64]]:
    """The rows of a file in parts, in order, in each of which an image has one row; `is_so` where all have one."""
    if is_so:
        return [slice(None)]
    order = np.argsort(place_N, kind="stable")
    is_first = np.diff(place_N[order], prepend=-1) != 0
    turn_N = np.empty(len(order), np.int64)
    turn_N[order] = np.arange(len(order)) - np.maximum.accumulate(np.where(is_first, np.arange(len(order)), 0))
    return [np.flatnonzero(turn_N == turn) for turn in range(int(turn_N.max()) + 1)]


def _is_derived(name: str) -> bool:
    return f"-{INGEST}-" in name


def _num_votes(snapshot: Snapshot, name: str) -> int:
    return int(snapshot.marks[name].get(VOTES, 0))


def _are_forced(table: pa.Table) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = pc.fill_null(pc.equal(table["why"], REPLACED), fill_value=False).to_numpy()
    return found
