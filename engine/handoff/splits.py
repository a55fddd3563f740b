"""Parts of a labelled set, such as train and val, into which groups of images are dealt by a hash."""

import hashlib
import re
from decimal import Decimal, InvalidOperation
from itertools import accumulate

from engine.errors import ConfigError
from engine.pool.identity import Groups, group_number_of


def shares_of(split: str) -> dict[str, Decimal]:
    """The share of each part from "train=0.8,val=0.1,test=0.1". Raises ConfigError where it is not that, or the shares
    do not sum to 1."""
    shares: dict[str, Decimal] = {}
    for word in split.split(","):
        name, _, text = (part.strip() for part in word.partition("="))
        try:
            share = Decimal(text)
        except InvalidOperation:
            share = Decimal(0)
        if not re.fullmatch("[A-Za-z0-9_-]+", name) or not (share.is_finite() and 0 < share <= 1):
            raise ConfigError(f"--split {split}: {word!r} is no part; write NAME=SHARE, as train=0.9,val=0.1")
        if name in shares:
            raise ConfigError(f"--split {split}: {name} is there twice; name each part once")
        shares[name] = share
    if sum(shares.values()) != 1:
        raise ConfigError(f"--split {split}: the shares sum to {sum(shares.values())}; they must sum to 1")
    return shares


def part_of(shard: str, key: str, groups: Groups, shares: dict[str, Decimal], seed: int) -> str:
    """The part of an item's group: the same whatever else there is."""
    number = group_number_of(shard, key, groups).to_bytes(8, "big") + str(seed).encode()
    draw = int.from_bytes(hashlib.blake2b(number, digest_size=8, person=b"split").digest(), "big")
    ends = zip(shares, accumulate(shares.values()), strict=True)
    return next(part for part, end in ends if draw < end * 2**64)
