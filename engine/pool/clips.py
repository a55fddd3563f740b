"""Keys that look like frames of clips, of which a user should be told before the round that they spoil."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import pairwise

FRAMES = r"^(.+[^0-9])[0-9]+$"
"""The pattern of pool.group for such keys: all before the last number names the clip."""
_FRAME = re.compile(r"(.*[0-9].*[^0-9])([0-9]{1,18})", re.DOTALL)
"""The clip's own name has a number too: "cat_0001" and "dog_0001" are images of two classes."""
MIN_FRAMES = 5


def example_of_frames(keys: Iterable[str]) -> str:
    """A key if at least half of them look like frames of two or more clips, else empty.

    A clip's frames are at least MIN_FRAMES keys that differ in a last number alone, and most of these numbers are a
    fixed step apart.
    """
    clips, total, last = defaultdict[str, set[int]](set), 0, dict[str, str]()
    for key in keys:
        total += 1
        if match := _FRAME.fullmatch(key):
            clips[match[1]].add(int(match[2]))
            last[match[1]] = key
    found = {clip: len(numbers) for clip, numbers in clips.items() if _are_running(sorted(numbers))}
    return last[min(found)] if len(found) > 1 and 2 * sum(found.values()) >= total else ""


def _are_running(numbers: list[int]) -> bool:
    steps = Counter(after - before for before, after in pairwise(numbers))
    return len(numbers) >= MIN_FRAMES and 2 * max(steps.values()) >= len(numbers) - 1
