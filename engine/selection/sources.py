"""The committed scores files as a selection reads them: what of each cannot be picked, and what was drawn from it."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine.campaign.labels import labelled_items
from engine.storage.location import Location

_NONE = np.empty(0, np.int64)


class Source(NamedTuple):
    """A committed scores file: its entry in the manifest, the keys of its shard that cannot be picked, and draws.

    A draw is the place of a row among those of the file that can be picked, ascending in `draw_at`; `draw_number` is
    which draw it was.
    """

    entry: dict[str, Any]
    taken: pa.Array
    draw_at: NDArray[np.int64] = _NONE
    draw_number: NDArray[np.int64] = _NONE


class Draws(NamedTuple):
    """N random items in the order in which they were drawn: the number of the source (N,) int64, and the place among
    those of it that can be picked (N,) int64."""

    source_N: NDArray[np.int64]
    at_N: NDArray[np.int64]


def sources_of(home: Location, entries: list[dict[str, Any]], picked_before: pa.Table) -> list[Source]:
    """A source for each of these entries of the scores manifest, by shard. Labelled or picked before is taken."""
    before = zip(picked_before["shard"].to_pylist(), picked_before["key"].to_pylist(), strict=True)
    taken: dict[str, list[str]] = defaultdict(list)
    for shard, key in labelled_items(home) | set(before):
        taken[shard].append(key)
    ordered = sorted(entries, key=lambda entry: str(entry["shard"]))
    return [Source(entry, pa.array(taken.get(entry["shard"], []), pa.string())) for entry in ordered]


def with_draws(sources: Sequence[Source], draws: Sequence[Draws]) -> list[Source]:
    """The sources with these draws; they are numbered on from one to the next."""
    source_N = np.concatenate([part.source_N for part in draws])
    at_N = np.concatenate([part.at_N for part in draws])
    order = np.lexsort((at_N, source_N))
    ends = np.searchsorted(source_N[order], np.arange(len(sources) + 1))
    found = []
    for number, source in enumerate(sources):
        here = order[ends[number] : ends[number + 1]]
        found.append(source._replace(draw_at=at_N[here], draw_number=here.astype(np.int64)))
    return found
