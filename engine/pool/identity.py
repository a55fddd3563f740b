"""Hashes of an item's identity (shard, key): its fold, its random draw and its opaque name."""

import hashlib


def _number(shard: str, key: str, *, secret: bytes = b"", person: bytes = b"") -> int:
    """A number of 64 bits from an item's identity: its keyed and personalised BLAKE2b."""
    identity = f"{shard}\0{key}".encode()
    return int.from_bytes(hashlib.blake2b(identity, digest_size=8, key=secret, person=person).digest(), "big")


def fold_of(shard: str, key: str, num_folds: int, round_number: int = 0) -> int:
    """The fold of an item, 0 to num_folds - 1: the same in training and scoring, and on every machine.

    Every round draws its own folds. Else a pick, the lowest under its fold's discriminator, would be judged in the
    next round by one that differs little from the one that picked it.
    """
    return _number(shard, key, person=bytes(8) + round_number.to_bytes(8, "big")) % num_folds


def held_out_of(shard: str, key: str, share: float, round_number: int = 0) -> bool:
    """Whether an item is among the `share` of all items, 0 to 1, that nothing trains on in a round. Independent of its
    fold."""
    return _number(shard, key, person=b"held out" + round_number.to_bytes(8, "big")) < share * 2**64


def draw_of(shard: str, key: str, seed: int) -> int:
    """An item's random number, uniform on 64 bits: the same on every machine and at any order of the shards."""
    return _number(shard, key, secret=seed.to_bytes(8, "big"))


def item_id_of(shard: str, key: str, salt: str) -> str:
    """The 128-bit hex name of an item for vendors; it cannot be traced back without the campaign's salt."""
    return hashlib.blake2b(f"{shard}\0{key}".encode(), digest_size=16, key=bytes.fromhex(salt)).hexdigest()


def content_hash(data: bytes) -> str:
    """128-bit BLAKE2b of an image file's bytes, hex: equal for byte-identical images."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()
