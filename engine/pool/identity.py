"""Hashes of an item's identity (shard, key): its fold, its random draw and its opaque name."""

import hashlib


def fold_of(shard: str, key: str, num_folds: int) -> int:
    """The fold of an item, 0 to num_folds - 1: the same in training and scoring, and on every machine."""
    digest = hashlib.blake2b(f"{shard}\0{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % num_folds


def held_out_of(shard: str, key: str, share: float) -> bool:
    """Whether an item is among the `share` of all items, 0 to 1, that nothing is trained on; apart from its fold."""
    digest = hashlib.blake2b(f"{shard}\0{key}".encode(), digest_size=8, person=b"held out").digest()
    return int.from_bytes(digest, "big") < share * 2**64


def draw_of(shard: str, key: str, seed: int) -> int:
    """An item's random number, uniform on 64 bits: the same whatever shards and machines the pool is on."""
    identity = f"{shard}\0{key}".encode()
    digest = hashlib.blake2b(identity, digest_size=8, key=seed.to_bytes(8, "big")).digest()
    return int.from_bytes(digest, "big")


def item_id_of(shard: str, key: str, salt: str) -> str:
    """The 128-bit hex name under which a vendor sees an item; without the campaign's salt it leads nowhere."""
    identity = f"{shard}\0{key}".encode()
    return hashlib.blake2b(identity, digest_size=16, key=bytes.fromhex(salt)).hexdigest()


def content_hash(data: bytes) -> str:
    """128-bit BLAKE2b of an image file's bytes, hex: equal for byte-identical images."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()
