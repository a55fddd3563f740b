"""Every image that an answer may be for, and every row that was sent, by numbers.

Of ten million images the texts take gigabytes. What is in memory is a hash of each name, 20 bytes; the texts of the few
that somebody asks for are read again, file by file.

Shape suffixes: U different images, R rows of batches, F files, G all rows of the files, B batches.
"""

from datetime import datetime
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from engine.campaign.folder import Campaign
from engine.campaign.handed_out import PICKED_SCHEMA, PickedFile, SentBatch, picked_files
from engine.cluster.allocation import give_back_freed_memory
from engine.tables.item_keys import ItemIndex, ItemKeys, KeyParts, first_rows

Numbers = NDArray[np.int32]
KNOWN_SCHEMA = PICKED_SCHEMA.append(pa.field("gold", pa.bool_()))
_OF_FILES = frozenset(PICKED_SCHEMA.names[:-1])


class Images:
    """U different images: picks in the order in which each was picked first, and after them gold images, each under all
    its names for vendors. `round_U` is the round of each, `num_picked` how many picks there are, and `gold_keys` are
    the items that are gold."""

    def __init__(self, files: list[PickedFile], begin_F: NDArray[np.int64], row_U: Numbers | None, num_picked: int,
                 names: ItemIndex, items: ItemKeys) -> None:  # fmt: skip
        """`begin_F` is the first row of each file, among all, and one more; `row_U` the row of each image, None where
        each row is one; `names` are those for vendors (U,), and `items` the keys of shard and key (U,)."""
        self._files, self._begin_F, self._row_U, self.num_picked = files, begin_F, row_U, num_picked
        of_files = np.array([file.round for file in files], np.int32)
        self.round_U: Numbers = (
            np.repeat(of_files, np.diff(begin_F)) if row_U is None else of_files[self._files_of(row_U)]
        )
        picks, self.gold_keys = items.part(slice(num_picked)), items.part(slice(num_picked, None)).copy()
        self._names, self._picks = names, ItemIndex(picks)
        # The same image may have two names only where people wrote them.
        self._same = self._picks.rows_of(picks) if len(self._picks) < num_picked else None

    def __len__(self) -> int:
        return len(self.round_U)

    @property
    def are_gold(self) -> NDArray[np.bool_]:
        """Which images are gold (U,)."""
        is_gold_U: NDArray[np.bool_] = np.arange(len(self)) >= self.num_picked
        return is_gold_U

    def places_of(self, item_ids: pa.Array | pa.ChunkedArray) -> NDArray[np.int64]:
        """The places of the images with these names for vendors (N,), -1 for none."""
        column = item_ids if isinstance(item_ids, pa.ChunkedArray) else pa.chunked_array([item_ids])
        return self._names.rows_of(ItemKeys.of_texts(column))

    def picks_of(self, items: ItemKeys) -> NDArray[np.int64]:
        """The places of these items among the picks (N,), -1 for none. An item that has several has its last one: see
        `to_all`."""
        return self._picks.rows_of(items)

    def are_single(self, items: ItemKeys) -> bool:
        """Whether each of these picks has one place alone: no second name, and none as gold."""
        return self._same is None and not ItemIndex(self.gold_keys).holds(items).any()

    def to_all(self, values_U: NDArray[np.generic]) -> None:
        """Give picks of the same item the same values, in place: those at the place that `picks_of` gives."""
        if self._same is not None:
            values_U[: self.num_picked] = values_U[self._same]

    def spread(self, is_U: NDArray[np.bool_]) -> None:
        """Of picks of the same item, make it true of all where it is of one, in place."""
        if self._same is not None:
            is_U[self._same[np.flatnonzero(is_U[: self.num_picked])]] = True
            self.to_all(is_U)

    def are_in(self, items: ItemKeys) -> NDArray[np.bool_]:
        """Which images (U,) are of these items, gold ones too."""
        found_U = np.zeros(len(self), bool)
        places = self.picks_of(items)
        found_U[places[places >= 0]] = True
        self.to_all(found_U)
        if len(self) > self.num_picked:
            found_U[self.num_picked :] = ItemIndex(items).holds(self.gold_keys)
        return found_U

    def rows(self, places_N: NDArray[np.integer], columns: list[str] = KNOWN_SCHEMA.names) -> pa.Table:
        """These images in this order, with these columns of KNOWN_SCHEMA: one file after another is read again."""
        row_N = places_N if self._row_U is None else self._row_U[places_N]
        asked = [name for name in columns if name in _OF_FILES]
        file_N = self._files_of(row_N)
        tables = [pa.schema([KNOWN_SCHEMA.field(name) for name in asked]).empty_table()]
        order = np.argsort(file_N, kind="stable")
        numbers, begin_F = np.unique(file_N[order], return_index=True)
        parts = zip(numbers.tolist(), np.split(row_N[order], begin_F[1:]), strict=True) if asked and len(row_N) else ()
        for number, rows in parts:
            own = pa.array(rows - self._begin_F[number])
            tables.append(self._files[number].rows(asked).take(own).cast(tables[0].schema))
        found = pa.concat_tables(tables)
        facts = {"round": self.round_U[places_N].astype(np.int32), "gold": places_N >= self.num_picked}
        if asked and (np.diff(order) != 1).any():
            back = np.empty(len(order), np.int64)
            back[order] = np.arange(len(order))
            found = found.take(pa.array(back))
        own_columns = [found[name] if name in _OF_FILES else pa.array(facts[name]) for name in columns]
        return pa.table(own_columns, schema=pa.schema([KNOWN_SCHEMA.field(name) for name in columns]))

    def table(self, columns: list[str] = KNOWN_SCHEMA.names) -> pa.Table:
        """All images: for few of them."""
        return self.rows(np.arange(len(self)), columns)

    def _files_of(self, row_N: NDArray[np.integer]) -> NDArray[np.int64]:
        found: NDArray[np.int64] = np.searchsorted(self._begin_F, row_N, side="right") - 1
        return found


class Sent(NamedTuple):
    """The batches, and their R rows in the order of sending: which are gold, how many answers had come before each was
    sent, and the place of its image among `images`. The rows of batch b are those from `begin_B[b]` on; there is one
    beginning more than batches."""

    batches: list[SentBatch]
    begin_B: NDArray[np.int64]
    gold_R: NDArray[np.bool_]
    answered_R: Numbers | None
    item_R: Numbers
    images: Images

    def answered(self, rows: slice | NDArray[np.integer]) -> Numbers | int:
        """How many answers had come before these rows were sent."""
        return 0 if self.answered_R is None else self.answered_R[rows]

    def slice_of(self, number: int) -> slice:
        """The rows of a batch."""
        return slice(int(self.begin_B[number]), int(self.begin_B[number + 1]))

    def batches_of(self, row_N: NDArray[np.integer]) -> NDArray[np.int64]:
        """The places of the batches of these rows (N,)."""
        found: NDArray[np.int64] = np.searchsorted(self.begin_B, row_N, side="right") - 1
        return found

    def batch_of_each(self) -> Numbers:
        """The place of the batch of each row (R,)."""
        return np.repeat(np.arange(len(self.batches), dtype=np.int32), np.diff(self.begin_B))

    def asked(self, number: int) -> int:
        """How many answers a batch asked for, of each image."""
        return self.batches[number].manifest["sending"]["annotators"]

    def last_times(self) -> tuple[NDArray[np.int64], Numbers]:
        """When something was sent, T times, microseconds since 1970, the first of them 0 for never; and which of them
        is the last of each image (U,)."""
        at_B = [datetime.fromisoformat(batch.manifest["completed_at"]).timestamp() * 1e6 for batch in self.batches]
        at_T = np.unique(np.array([0, *at_B], np.int64))
        last_U = np.zeros(len(self.images), np.int32)
        for number, time in enumerate(np.searchsorted(at_T, np.array(at_B, np.int64)).tolist()):
            item_N = self.item_R[self.slice_of(number)]
            last_U[item_N] = np.maximum(last_U[item_N], np.int32(time))
        return at_T, last_U


def read_sent(campaign: Campaign) -> Sent:
    """What was sent in the campaign's rounds up to its own, and every image that was picked or sent.

    Raises InputError where a record or a selection is gone or damaged.
    """
    files = list(picked_files(campaign.home, campaign.round + 1))
    names, items, count_F = KeyParts(), KeyParts(), list[int]()
    gold, answered = [np.empty(0, bool)], dict[int, Numbers]()
    for number, file in enumerate(files):
        columns = ["item_id", "shard", "key"]
        table = file.rows([*columns, "gold", "answered"] if file.batch else columns)
        names.add(ItemKeys.of_texts(table["item_id"]))
        items.add(ItemKeys.of(table))
        gold.append(table["gold"].to_numpy() if file.batch else np.zeros(len(table), bool))
        # Of most batches nothing had been answered before.
        if file.batch and table["answered"].null_count < len(table):
            answered[number] = pc.fill_null(table["answered"], 0).to_numpy().astype(np.int32)
        count_F.append(len(table))
        del table
    gold_G, begin_F = np.concatenate(gold), np.cumsum([0, *count_F])
    # A batch of a later round is picked already, but is not sent in these rounds.
    own_F = np.array([file.batch is not None and file.round <= campaign.round for file in files], bool)
    own_G = np.repeat(own_F, count_F)
    known = names.joined()
    row_U, item_G, num_picked = _numbered(known, gold_G, own_G)
    is_same = len(row_U) == len(known) and not gold_G.any()
    index = ItemIndex(known if is_same else known.part(row_U))
    del known
    keys = items.joined()
    images = Images(
        files, begin_F, None if is_same else row_U, num_picked, index, keys if is_same else keys.part(row_U)
    )
    sent = [number for number, is_own in enumerate(own_F) if is_own]
    begin_B, own_R = np.cumsum([0, *(count_F[number] for number in sent)]), slice(None) if own_F.all() else own_G
    answered_R: Numbers | None = None
    if answered.keys() & sent:
        parts = [answered.get(number, np.zeros(count_F[number], np.int32)) for number in sent]
        answered_R = np.concatenate(parts)
    batches = [file.batch for file in files if file.batch and file.round <= campaign.round]
    # The keys of each file lay between others.
    give_back_freed_memory()
    return Sent(batches, begin_B, gold_G[own_R], answered_R, item_G[own_R], images)


def _numbered(names: ItemKeys, gold_G: NDArray[np.bool_], own_G: NDArray[np.bool_]) -> tuple[Numbers, Numbers, int]:
    """The row of each image (U,), the image of each row (G,), and how many of the images are picks."""
    item_G: Numbers = np.full(len(gold_G), -1, np.int32)
    pick_rows = np.flatnonzero(~gold_G).astype(np.int32)
    first = first_rows(names.part(pick_rows) if gold_G.any() else names)
    is_first = first == np.arange(len(first), dtype=np.int32)
    rank: Numbers = np.cumsum(is_first, dtype=np.int32) - np.int32(1)
    item_G[pick_rows] = rank[first]
    num_picked, gold_rows = int(is_first.sum()), np.flatnonzero(gold_G & own_G).astype(np.int32)
    item_G[gold_rows] = num_picked + np.arange(len(gold_rows), dtype=np.int32)
    return np.concatenate([pick_rows[is_first], gold_rows]), item_G, num_picked
