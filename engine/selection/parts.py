"""Work on many files in parts: in this process where there is little, else in Ray tasks that merge in a tree."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np

PART_ROWS = 12_000_000
PART_FILES = 4096
"""About as many are in a part; Ray starts only for more than one part."""
MOST_PARTS = 4096
MERGED_AT_ONCE = 8

Share = Callable[[float], None]
"""Takes the share that is done, 0 to 1."""
Item = TypeVar("Item")
Result = TypeVar("Result")


def deal(items: Sequence[Item], rows: Any) -> list[Sequence[Item]]:
    """Divide items, each with its number of rows, into parts of consecutive items; no part is empty."""
    row_N, count = np.asarray(rows, np.int64), len(items)
    total = int(row_N.sum())
    num_parts = min(MOST_PARTS, max(1, total // PART_ROWS, count // PART_FILES))
    # By rows and by items, because a file without rows takes time too.
    place_N = ((np.cumsum(row_N) - row_N) / max(1, total) + np.arange(count) / max(1, count)) / 2
    cuts = np.searchsorted((place_N * num_parts).astype(np.int64), np.arange(num_parts + 1)).tolist()
    return [items[begin:end] for begin, end in pairwise(cuts) if begin < end]


def room_for(parts: Sequence[Any], address: str) -> AbstractContextManager[None]:
    """Start Ray where there is more than one part."""
    if len(parts) < 2:
        return nullcontext()
    from engine.cluster.ray_session import ray_session

    return ray_session(address)


def map_reduce(
    map_: Callable[[Sequence[Item]], Result],
    merge: Callable[[Iterable[Result]], Result],
    parts: Sequence[Sequence[Item]],
    on_progress: Share,
) -> Result:
    """Merge the results of the parts, in order, in a tree. Must be called within `room_for` these parts."""
    if len(parts) < 2:
        return map_(parts[0] if parts else [])
    import ray

    run: Any = ray.remote(lambda map_, part: map_(part))
    join: Any = ray.remote(lambda merge, *results: merge(results))
    mapping, merging = ray.put(map_), ray.put(merge)
    refs: list[Any] = [run.remote(mapping, part) for part in parts]
    left = list(refs)
    while left:
        _, left = ray.wait(left, fetch_local=False)
        on_progress(1 - len(left) / len(refs))
    while len(refs) > 1:
        groups = [refs[begin : begin + MERGED_AT_ONCE] for begin in range(0, len(refs), MERGED_AT_ONCE)]
        refs = [join.remote(merging, *group) for group in groups]
    result: Result = ray.get(refs[0])
    return result


def each(function: Callable[[Item], Result], items: Sequence[Item], num_threads: int) -> Iterator[Result]:
    """The results for all items, in order, computed by threads. Few results wait at a time."""
    step = 8 * num_threads
    with ThreadPoolExecutor(num_threads) as threads:
        for begin in range(0, len(items), step):
            yield from threads.map(function, items[begin : begin + step])
