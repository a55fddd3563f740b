"""Chunks of scored items, and the Parquet files in which a shard of them is committed.

A shard's scores file is what says that it is committed: it is written after its quarantine file, whole or not at all,
and only if every listed item is either scored or quarantined.
"""

import hashlib
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from engine.campaign import Campaign
from engine.config import ImageConfig
from engine.identity import content_hash
from engine.images import DecodeError, decode
from engine.shards import Item
from engine.storage import Location
from engine.weights import num_latents as latents_of

QUARANTINE_SCHEMA = pa.schema(
    [
        pa.field("shard", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("stage", pa.string(), nullable=False),
        pa.field("error", pa.string(), nullable=False),
        pa.field("message", pa.string(), nullable=False),
    ]
)
CHUNK_ITEMS = pa.schema(
    [
        ("key", pa.string()),
        ("offset", pa.int64()),
        ("size_bytes", pa.int64()),
        ("content_hash", pa.string()),
        ("fold", pa.int64()),
    ]
)
CHUNK_BAD = pa.schema(list(QUARANTINE_SCHEMA)[1:])


def scores_schema(num_latents: int) -> pa.Schema:
    """The columns of a scores file, rows in archive order."""
    return pa.schema(
        [
            pa.field("shard", pa.string(), nullable=False),
            pa.field("key", pa.string(), nullable=False),
            pa.field("offset", pa.int64(), nullable=False),
            pa.field("size_bytes", pa.int64(), nullable=False),
            pa.field("content_hash", pa.string(), nullable=False),
            pa.field("logit", pa.float32(), nullable=False),
            pa.field("latent", pa.list_(pa.float16(), num_latents), nullable=False),
        ]
    )


class Committed(NamedTuple):
    """The ledger of one committed shard."""

    file: str
    listed: int
    scored: int
    quarantined: int
    sha256: str


class Chunk:
    """Consecutive items of one shard while they are gathered."""

    def __init__(self, shard: str, image: ImageConfig) -> None:
        self.shard, self.image = shard, image
        self.items: list[tuple[Any, ...]] = []
        self.bad: list[tuple[Any, ...]] = []
        self.pixels: list[bytes] = []

    def __len__(self) -> int:
        return len(self.items) + len(self.bad)

    def add(self, item: Item, fold: int) -> None:
        """Decode the item, or note why not."""
        if item.fault:
            self.bad.append((item.key, item.offset, "read", "NotOneImage", item.fault))
            return
        try:
            pixels = decode(item.data, self.image.size, self.image.channels, self.image.max_pixels)
        except DecodeError as error:
            self.bad.append((item.key, item.offset, "decode", type(error.__cause__ or error).__name__, str(error)))
            return
        self.items.append((item.key, item.offset, item.size_bytes, content_hash(item.data), fold))
        self.pixels.append(pixels.tobytes())

    def row(self, number: int, read_bytes: int, listed: int = -1, failure: str = "") -> pa.Table:
        """The chunk as one row. `read_bytes` of the shard were read for it.

        The shard's last chunk alone has `listed` >= 0, the number of its items, and a `failure` if reading it failed.
        """
        return pa.table(
            {
                "shard": [self.shard],
                "chunk": [number],
                "listed": [listed],
                "failure": [failure],
                "read_bytes": [read_bytes],
                "pixels": pa.array([b"".join(self.pixels)], pa.large_binary()),
                "items": [pack(self.items, CHUNK_ITEMS)],
                "bad": [pack(self.bad, CHUNK_BAD)],
            }
        )


def pack(rows: list[tuple[Any, ...]], schema: pa.Schema) -> bytes:
    """Rows as an Arrow stream."""
    columns = [list(column) for column in zip(*rows, strict=True)] or [[]] * len(schema)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_table(pa.table(columns, schema=schema))
    return bytes(sink.getvalue())


def unpack(content: bytes) -> pa.Table:
    """What `pack` packed."""
    return pa.ipc.open_stream(content).read_all()


def commit(campaign: Campaign, shard: str, file: str, rows: list[dict[str, Any]]) -> Committed:
    """Commit a shard from the rows of all its chunks in order, each with `logit` and `latent` as raw bytes added."""
    items = pa.concat_tables([unpack(row["items"]) for row in rows])
    bad = pa.concat_tables([unpack(row["bad"]) for row in rows])
    listed = rows[-1]["listed"]
    logit = np.frombuffer(b"".join(row["logit"] for row in rows), np.float32)
    latent = np.frombuffer(b"".join(row["latent"] for row in rows), np.float16)
    if not listed == len(items) + len(bad) or len(logit) != len(items):
        raise RuntimeError(f"{shard}: listed {listed}, scored {len(logit)}, quarantined {len(bad)}")
    if len(bad):
        names = pa.array([shard] * len(bad), pa.string())
        table = pa.table([names, *(bad[name] for name in CHUNK_BAD.names)], schema=QUARANTINE_SCHEMA)
        (campaign.stage("quarantine") / file).write_table(table)
    num_latents = latents_of(campaign.config)
    columns = [
        pa.array([shard] * len(items), pa.string()),
        *(items[name] for name in ("key", "offset", "size_bytes", "content_hash")),
        pa.array(logit),
        pa.FixedSizeListArray.from_arrays(pa.array(latent), num_latents),
    ]
    schema = scores_schema(num_latents).with_metadata({"vaal.shard": shard, "vaal.listed": str(listed)})
    sha256 = (campaign.stage("scores") / file).write_table(pa.table(columns, schema=schema))
    return Committed(file, listed, len(items), len(bad), sha256)


def recall(folder: Location, file: str) -> Committed:
    """The ledger of a shard that an earlier run committed."""
    content = (folder / file).read_bytes()
    schema = pq.read_schema(pa.BufferReader(content))
    num_scored = pq.read_metadata(pa.BufferReader(content)).num_rows
    listed = int(schema.metadata[b"vaal.listed"])
    return Committed(file, listed, num_scored, listed - num_scored, hashlib.sha256(content).hexdigest())
