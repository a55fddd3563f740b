"""Hashes of an item's identity (shard, key): its fold, its random draw and its opaque name.

Folds and what is held out are those of the item's group, so that nothing is judged by its twin.
"""

import hashlib
import math
import re
from collections.abc import Iterable
from functools import partial
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Groups(NamedTuple):
    """Which items belong together, as frames of a clip or images of a patient do.

    `pattern` is a regular expression on the key. Its first group, or the whole match where it has none, names the
    item's group, which reaches over shards. `by_shard` names the group of all items of a shard. An item of which
    neither says anything is a group of its own.
    """

    pattern: str = ""
    by_shard: dict[str, str] | None = None

    def of(self, shard: str, key: str) -> str:
        """The name of an item's group; empty for one of its own."""
        if self.by_shard and (name := self.by_shard.get(shard)):
            return name
        match = re.search(self.pattern, key) if self.pattern else None
        return (match[1 if match.re.groups else 0] or "") if match else ""


_AT_ONCE = 65_536
ALONE = Groups()
"""Every item is a group of its own."""


def _number(shard: str, key: str, group: str = "", *, secret: bytes = b"", person: bytes = b"") -> int:
    """A number of 64 bits from the identity of an item, or of its group: keyed and personalised BLAKE2b."""
    # No shard has an empty name, so that no group is mistaken for an item.
    identity = (f"\0{group}" if group else f"{shard}\0{key}").encode()
    return int.from_bytes(hashlib.blake2b(identity, digest_size=8, key=secret, person=person).digest(), "big")


def _numbers(items: Iterable[tuple[str, str]], groups: Groups, person: bytes) -> NDArray[np.uint64]:
    """`_number` of the group of each item (N,): in a loop of its own, because of ten million the calls alone take
    longer than the hashes."""
    if groups != ALONE:
        found = (_number(shard, key, groups.of(shard, key), person=person) for shard, key in items)
        return np.fromiter(found, np.uint64)
    hashed = partial(hashlib.blake2b, digest_size=8, person=person)
    # Joined in parts, and not an object of Python each.
    rest, parts = iter(items), [b""]
    while part := list(islice(rest, _AT_ONCE)):
        parts.append(b"".join([hashed(f"{shard}\0{key}".encode()).digest() for shard, key in part]))
    return np.frombuffer(b"".join(parts), ">u8").astype(np.uint64)


def group_number_of(shard: str, key: str, groups: Groups = ALONE) -> int:
    """A number of 64 bits that the items of a group share, and no others."""
    return _number(shard, key, groups.of(shard, key), person=b"group")


def fold_of(shard: str, key: str, num_folds: int, round_number: int = 0, groups: Groups = ALONE) -> int:
    """The fold of an item's group, 0 to num_folds - 1: the same in training and scoring, and on every machine.

    Every round draws its own folds. Else a pick, the lowest under its fold's discriminator, would be judged in the
    next round by one that differs little from the one that picked it.
    """
    person = bytes(8) + round_number.to_bytes(8, "big")
    return _number(shard, key, groups.of(shard, key), person=person) % num_folds


def folds_of(
    items: Iterable[tuple[str, str]], num_folds: int, round_number: int = 0, groups: Groups = ALONE
) -> NDArray[np.int64]:
    """`fold_of` each item (N,)."""
    numbers = _numbers(items, groups, bytes(8) + round_number.to_bytes(8, "big"))
    return (numbers % np.uint64(num_folds)).astype(np.int64)


def are_held_out(
    items: Iterable[tuple[str, str]], share: float, round_number: int = 0, groups: Groups = ALONE
) -> NDArray[np.bool_]:
    """`held_out_of` each item (N,)."""
    numbers = _numbers(items, groups, b"held out" + round_number.to_bytes(8, "big"))
    # In whole numbers: a float has not all of 64 bits.
    limit = math.ceil(share * 2**64)
    return numbers < np.uint64(limit) if limit < 2**64 else np.ones(len(numbers), np.bool_)


def held_out_of(shard: str, key: str, share: float, round_number: int = 0, groups: Groups = ALONE) -> bool:
    """Whether an item's group is among the `share` of all, 0 to 1, that nothing trains on in a round. Independent of
    its fold."""
    person = b"held out" + round_number.to_bytes(8, "big")
    return _number(shard, key, groups.of(shard, key), person=person) < share * 2**64


def draw_of(shard: str, key: str, seed: int) -> int:
    """An item's random number, uniform on 64 bits: the same on every machine and at any order of the shards."""
    return _number(shard, key, secret=seed.to_bytes(8, "big"))


def draws_of(items: Iterable[tuple[str, str]], seed: int) -> NDArray[np.uint64]:
    """The random number (N,) of each item: see `draw_of`."""
    return np.array([draw_of(shard, key, seed) for shard, key in items], np.uint64)


def shard_number_of(shard: str) -> int:
    """A number of 64 bits from a shard's name."""
    return _number(shard, "", person=b"shard")


def item_id_of(shard: str, key: str, salt: str) -> str:
    """The 128-bit hex name of an item for vendors; it cannot be traced back without the campaign's salt."""
    return hashlib.blake2b(f"{shard}\0{key}".encode(), digest_size=16, key=bytes.fromhex(salt)).hexdigest()


def content_hash(data: bytes) -> str:
    """128-bit BLAKE2b of an image file's bytes, hex: equal for byte-identical images."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()
