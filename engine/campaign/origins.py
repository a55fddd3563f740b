"""By which rule each labelled image was picked: the gate needs it, because picks for uncertainty are concentrated."""

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from engine.campaign.folder import is_complete, round_home
from engine.campaign.handed_out import SELECTION_FILE, batches
from engine.campaign.labels import INITIAL, Identity, identities
from engine.campaign.manifests import read_committed
from engine.errors import InputError
from engine.storage.location import Location
from engine.tables.item_keys import ItemIndex, ItemKeys, KeyParts, items_of, last_of_each, rows_of_items
from engine.tables.selections import ORIGIN_CONTROL, ORIGIN_QUERY

_BLOCK = 1 << 20


class Origins:
    """The origins of N asked items, as far as they were picked; in most campaigns they have few different ones."""

    def __init__(self, items: ItemKeys) -> None:
        self._index, self.keys = ItemIndex(items), items
        # The places of the texts: -1 of what was not picked, 0 of what is known to be picked alone.
        self._code_N, self._names = np.full(len(items), -1, np.int16), [""]

    def take(self, items: ItemKeys, origins: pa.Array) -> None:
        """Picks with their origins, "" where these are not known, of which the last counts that is known."""
        place_R = self._index.rows_of(items)
        is_asked_R = place_R >= 0
        place, given = place_R[is_asked_R], origins.filter(pa.array(is_asked_R)).dictionary_encode()
        texts = given.dictionary.to_pylist()
        self._names += [text for text in texts if text not in self._names]
        code = np.array([self._names.index(text) for text in texts], np.int16)[given.indices.to_numpy()]
        is_better = (code > 0) | (self._code_N[place] < 0)
        self._code_N[place[is_better]] = code[is_better]

    def texts(self) -> pa.Array:
        """The origin of each asked item (N,), null for those that were not picked, ORIGIN_QUERY where it was not
        kept."""
        code_N = self._code_N[self._index.rows_of(self.keys)]
        names = pa.array([ORIGIN_QUERY, *self._names[1:]], pa.string())
        return names.take(pa.array(code_N, mask=code_N < 0))


def origins_among(home: Location, rounds: Iterable[int], items: ItemKeys) -> pa.Array:
    """The origin of each of these items (N,) by what was picked or handed out in these rounds, null for others.

    Where an earlier version picked, all that is known is whether an item was in the control arm.
    """
    found = Origins(items)
    for table, origins in _picks(home, rounds):
        found.take(ItemKeys.of(table), origins)
    return found.texts()


def picked_origins(home: Location, rounds: Iterable[int]) -> dict[Identity, str]:
    """The origin of every item that was picked or handed out in these rounds: a Python object each, for few."""
    items = last_of_each(items_of(rows_of_items([]), *(table for table, _ in _picks(home, rounds))))
    return dict(zip(identities(items), origins_among(home, rounds, ItemKeys.of(items)).to_pylist(), strict=True))


class RoundPicks:
    """What was picked or handed out in a round. `control` (C,) are the items of its control arm, each once."""

    def __init__(self, keys: ItemKeys, control_R: NDArray[np.bool_]) -> None:
        """Rows of items, of which the last one of each counts, and which are in the control arm."""
        self._index, self._control_R = ItemIndex(keys), control_R
        rows = self._index.last_rows()
        self.control = keys.part(rows[control_R[rows]])

    def among(self, items: pa.Table) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
        """Which rows of a table with shard and key are picks (N,), which of them in the control arm (N,), and which of
        `control` have a row (C,)."""
        is_pick_N, control_N = np.zeros(len(items), bool), np.zeros(len(items), bool)
        has_C, of_control = np.zeros(len(self.control), bool), ItemIndex(self.control)
        for begin in range(0, len(items), _BLOCK):
            keys, block = ItemKeys.of(items.slice(begin, _BLOCK)), slice(begin, begin + _BLOCK)
            rows = self._index.rows_of(keys)
            is_pick_N[block] = rows >= 0
            control_N[block][rows >= 0] = self._control_R[rows[rows >= 0]]
            found = of_control.rows_of(keys)
            has_C[found[found >= 0]] = True
        return is_pick_N, control_N, has_C


def picks_of_round(home: Location, number: int) -> RoundPicks:
    """What was picked or handed out in a round; what is known of an item's origin counts."""
    parts, codes = KeyParts(), [np.empty(0, np.int8)]
    for table, origins in _picks(home, [number]):
        parts.add(ItemKeys.of(table))
        is_control, is_unknown = (
            pc.equal(origins, text).to_numpy(zero_copy_only=False) for text in (ORIGIN_CONTROL, "")
        )
        codes.append(is_control.astype(np.int8) - is_unknown)
    keys, code_N = parts.joined(), np.concatenate(codes)
    if (code_N < 0).any():
        # What is not known comes first: it does not count where another row says it.
        order = np.argsort(code_N >= 0, kind="stable")
        keys, code_N = keys.part(order), code_N[order]
    return RoundPicks(keys, code_N > 0)


def _picks(home: Location, rounds: Iterable[int]) -> Iterator[tuple[pa.Table, pa.Array]]:
    """Shard and key of what was picked or handed out in these rounds, and the origins, "" where they are not known."""
    for number in sorted(rounds):
        for batch in batches(home, number):
            images = batch.images(["shard", "key", "origin", "gold"])
            yield images.select(["shard", "key"]), _origins(images)
        folder = round_home(home, number) / "selection"
        if is_complete(folder):
            picks = _selected(folder)
            yield picks.select(["shard", "key"]), _origins(picks)


def _selected(folder: Location) -> pa.Table:
    """The picks of a selection with what says by which rule: an earlier version wrote the arm, or nothing."""
    for more in (["origin"], ["arm"], []):
        try:
            return read_committed(folder, SELECTION_FILE, ["shard", "key", *more])
        except pa.ArrowInvalid:
            continue
    raise InputError(f"{folder}/{SELECTION_FILE}: has no shard and key; restore it from a copy")


def _origins(picks: pa.Table) -> pa.Array:
    """The origin of each pick, "" where it is not known."""
    unknown = pa.array([""], pa.string()).take(pa.array(np.zeros(len(picks), np.int64)))
    if "origin" in picks.column_names:
        return pc.coalesce(picks["origin"].combine_chunks(), unknown)
    if "arm" in picks.column_names:
        is_control = pc.fill_null(pc.equal(picks["arm"], "control"), fill_value=False).combine_chunks()
        return pc.if_else(is_control, pa.scalar(ORIGIN_CONTROL), unknown)
    return unknown


def origins_of(home: Location, labels: pa.Table) -> pa.Array:
    """The origin of every label, rows of SNAPSHOT_SCHEMA. Where it was not kept, a label without a round is one of
    init, and another has the origin of its image in the selection of its round."""
    origins = labels["origin"].cast(pa.string()).combine_chunks()
    is_first = labels["round"].is_null().combine_chunks()
    origins = pc.if_else(pc.and_(origins.is_null(), is_first), INITIAL, origins)
    if not origins.null_count:
        return origins
    lacking = labels.filter(origins.is_null())
    rounds = pc.unique(lacking["round"]).to_pylist()
    found = pc.coalesce(origins_among(home, rounds, ItemKeys.of(lacking)), pa.scalar(ORIGIN_QUERY))
    return pc.replace_with_mask(origins, origins.is_null(), found)
