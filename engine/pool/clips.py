"""Keys that look like frames of clips, which init reports before a round is spoilt by them."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import pairwise

FRAMES = r"^(.+[^0-9])[0-9]+$"
"""The pattern of pool.group for such keys: all before the last number names the clip."""
MIN_FRAMES, MOST_DIGITS = 5, 18


def example_of_frames(keys: Iterable[str]) -> str:
    """A key if at least half of them look like frames of two or more clips, else empty.

    A clip's frames are at least MIN_FRAMES keys that differ in a last number alone, and most of these numbers are a
    fixed step apart. The names of clips differ in a number too: "cat_0001" and "dog_0001" are images of two classes.
    """
    clips, total, last = defaultdict[str, set[int]](set), 0, dict[str, str]()
    for key in keys:
        total += 1
        clip = key.rstrip("0123456789")
        if clip and 0 < len(key) - len(clip) <= MOST_DIGITS:
            clips[clip].add(int(key[len(clip) :]))
            last[clip] = key
    found = {clip: len(numbers) for clip, numbers in clips.items() if _are_running(sorted(numbers))}
    kinds = Counter(map(_kind, found))
    found = {clip: count for clip, count in found.items() if kinds[_kind(clip)] > 1}
    return last[min(found)] if found and 2 * sum(found.values()) >= total else ""


def _kind(clip: str) -> str:
    return re.sub("[0-9]+", "0", clip)


def _are_running(numbers: list[int]) -> bool:
    steps = Counter(after - before for before, after in pairwise(numbers))
    return len(numbers) >= MIN_FRAMES and 2 * max(steps.values()) >= len(numbers) - 1
