"""The ledger that campaigns on one pool share (pool.shared_ledger), so that no image is bought twice.

It is a folder of numbered files that are only ever added to. A writer reads all of them, and its own file is created
only if no other one has its number; else it reads that one too. So the files have one order, and of two campaigns that
claim an image at the same moment the second sees the claim of the first, and refuses before anything is sent.

A row says what a campaign has of an image; its newest row on the image counts. Images are known by their bytes, and by
the URL of their shard and their key: the names for vendors differ between campaigns.
"""

import hashlib
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from engine.campaign.folder import Campaign, next_number
from engine.campaign.labels import Identity, identities, read_labels
from engine.campaign.ledger import DISPUTED, IN_PART, OUT, Ledger, read_ledger
from engine.campaign.positions import all_positions
from engine.config.texts import plural
from engine.errors import ConfigError
from engine.pool.manifest import read_shards
from engine.storage.location import Location
from engine.storage.placing import create, require_exclusive
from engine.tables.columns import required

HAS_OUT, HAS_LABEL, FREE = "out", "labelled", "free"
SHARED_SCHEMA = pa.schema(
    [
        *required(pa.string(), "campaign", "home", "kind"),
        pa.field("content_hash", pa.string()),
        *required(pa.string(), "url", "key"),
        *required(pa.timestamp("us", tz="UTC"), "at"),
    ]
)
"""`campaign` is a hash of the campaign's salt, and `home` its folder, for people. `kind` is HAS_OUT, HAS_LABEL, or
FREE, where the campaign has it no more. `url` is that of the shard."""
PROBE_FILE = "format.json"
Image = tuple[str, str, str | None]
"""URL of the shard, key, content hash."""


class Elsewhere(NamedTuple):
    """What other campaigns have of images, newest rows of SHARED_SCHEMA, and the shard of each as the pool names it, ""
    for one that is not below its root."""

    rows: pa.Table
    shards: list[str]

    @property
    def items(self) -> dict[Identity, str]:
        """What another campaign has, by the item of this pool that has the same place."""
        named = zip(self.shards, self.rows["key"].to_pylist(), self.rows["kind"].to_pylist(), strict=True)
        return {(shard, key): kind for shard, key, kind in named if shard}

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what they have."""
        names = ("kind", "content_hash", "url", "key")
        rows = sorted(map(str, zip(*(self.rows[name].to_pylist() for name in names), strict=True)))
        return hashlib.sha256("\n".join(rows).encode()).hexdigest()


def elsewhere(campaign: Campaign) -> Elsewhere:
    """What other campaigns have out or labelled. Empty without pool.shared_ledger."""
    is_shared = campaign.config.pool.shared_ledger
    return _elsewhere_in(campaign, _read(_folder(campaign))[1] if is_shared else SHARED_SCHEMA.empty_table())


def _elsewhere_in(campaign: Campaign, found: pa.Table) -> Elsewhere:
    rows = found.filter(pc.not_equal(found["campaign"], _id_of(campaign)))
    below = f"{Location.of(campaign.config.pool.root).url.rstrip('/')}/" if campaign.config.pool.root else "/"
    urls = rows["url"].to_pylist()
    return Elsewhere(rows, [url.removeprefix(below) if url.startswith(below) else "" for url in urls])


def conflicts(found: Elsewhere, images: pa.Table) -> list[int]:
    """The numbers of the rows of `images` (shard, key, content_hash) that another campaign has."""
    hashes, items = set(found.rows["content_hash"].drop_null().to_pylist()), found.items
    known = zip(identities(images), images["content_hash"].to_pylist(), strict=True)
    return [number for number, (item, content) in enumerate(known) if item in items or content in hashes]


def claim(campaign: Campaign, images: pa.Table, fix: str) -> None:
    """Say that images are out, before they are sent: `images` have shard, key and content_hash. `fix` is the command
    that picks others.

    Raises ConfigError where another campaign has one of them: nothing is claimed then.
    """
    if not campaign.config.pool.shared_ledger:
        return
    require_exclusive(_folder(campaign) / PROBE_FILE)
    urls = _urls_of(campaign)
    wanted = {
        (urls[shard], key): content
        for (shard, key), content in zip(identities(images), images["content_hash"].to_pylist(), strict=True)
    }
    while True:
        number, rows = _read(_folder(campaign))
        found = _elsewhere_in(campaign, rows)
        if taken := conflicts(found, images):
            _refuse(campaign, found, images, taken, fix)
        own = set(_own(campaign, rows))
        changes = [(HAS_OUT, content, *place) for place, content in wanted.items() if place not in own]
        if not changes or _append(campaign, number, changes):
            return


def share(campaign: Campaign, ledger: Ledger | None = None) -> None:
    """Write what the campaign has out and labelled where the shared ledger does not say so yet, and what it has no
    more. It follows from what is committed alone: whatever was interrupted is completed by the next call."""
    if not campaign.config.pool.shared_ledger:
        return
    now = _has(campaign, ledger or read_ledger(campaign))
    while True:
        number, rows = _read(_folder(campaign))
        before = _own(campaign, rows)
        changes = [(*what, *place) for place, what in now.items() if before.get(place, ("", None)) != what]
        changes += [(FREE, what[1], *place) for place, what in before.items() if place not in now]
        if not changes or _append(campaign, number, changes):
            return


def _folder(campaign: Campaign) -> Location:
    return Location.of(campaign.config.pool.shared_ledger)


def _urls_of(campaign: Campaign) -> dict[str, str]:
    """The URL of every shard that ever was in the pool, by name."""
    shards = read_shards(campaign.home).at_root(campaign.config.pool.root)
    return dict(zip(shards.names.to_pylist(), shards.table["url"].to_pylist(), strict=True))


def _id_of(campaign: Campaign) -> str:
    return hashlib.blake2b(bytes.fromhex(campaign.config.salt), digest_size=16, person=b"shared ledger").hexdigest()


def _read(folder: Location) -> tuple[str, pa.Table]:
    """The number of the next file; and what each campaign has of each image now, rows of SHARED_SCHEMA."""
    names = [name for name in folder.children() if name.endswith(".parquet")]
    advice = "restore it from a copy: it says what campaigns have bought"
    tables = [(folder / name).read_typed_table(SHARED_SCHEMA, advice) for name in names]
    rows = pa.concat_tables([SHARED_SCHEMA.empty_table(), *tables])
    numbered = rows.append_column("row", pa.array(np.arange(len(rows))))
    last = numbered.group_by(["campaign", "url", "key"]).aggregate([("row", "max")])["row_max"]
    now = rows.take(last.combine_chunks())
    return next_number(f"{name.removesuffix('.parquet')}-" for name in names), now.filter(
        pc.not_equal(now["kind"], FREE)
    )


def _own(campaign: Campaign, rows: pa.Table) -> dict[tuple[str, str], tuple[str, str | None]]:
    """What the campaign has by the rows, (kind, content hash), by URL of the shard and key."""
    own = rows.filter(pc.equal(rows["campaign"], _id_of(campaign)))
    columns = (own[name].to_pylist() for name in ("url", "key", "kind", "content_hash"))
    return {(url, key): (kind, content) for url, key, kind, content in zip(*columns, strict=True)}


def _has(campaign: Campaign, ledger: Ledger) -> dict[tuple[str, str], tuple[str, str | None]]:
    """As `_own`, by what is committed."""
    urls = _urls_of(campaign)
    is_out = np.isin(ledger.state_R, (OUT, IN_PART, DISPUTED)) & ~ledger.gold_R
    out, labelled = ledger.rows(["shard", "key", "content_hash"], is_out), identities(read_labels(campaign.home))
    known = all_positions(campaign.home)
    hashes = dict(zip(identities(known), known["content_hash"].to_pylist(), strict=True))
    found: dict[Identity, tuple[str, str | None]] = {
        item: (HAS_OUT, content) for item, content in zip(identities(out), out["content_hash"].to_pylist(), strict=True)
    }
    found |= {item: (HAS_LABEL, hashes.get(item)) for item in labelled}
    return {(urls.get(shard, shard), key): what for (shard, key), what in found.items()}


def _append(campaign: Campaign, number: str, changes: list[tuple[Any, ...]]) -> bool:
    """Write the next file. Returns False where another campaign wrote one of this number meanwhile."""
    who, at = (_id_of(campaign), campaign.home.url), datetime.now(UTC)
    rows = [dict(zip(SHARED_SCHEMA.names, (*who, *change, at), strict=True)) for change in changes]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, SHARED_SCHEMA), sink, compression="zstd")
    return create(_folder(campaign) / f"{number}.parquet", sink.getvalue().to_pybytes())


def _refuse(campaign: Campaign, found: Elsewhere, images: pa.Table, taken: list[int], fix: str) -> None:
    (shard, key), *_ = identities(images.take([taken[0]]))
    content = images["content_hash"][taken[0]].as_py()
    columns = (found.rows[name].to_pylist() for name in ("home", "kind", "content_hash", "key"))
    rows = zip(*columns, found.shards, strict=True)
    home, kind = next((h, k) for h, k, c, name, s in rows if (s, name) == (shard, key) or (c and c == content))
    raise ConfigError(
        f"pool.shared_ledger={_folder(campaign)}: {len(taken):,} of {plural(len(images), 'image')} are "
        f"{HAS_OUT} or {HAS_LABEL} in another campaign, first {shard} {key} ({kind} in {home}); nothing was sent; to "
        f"pick others in their place, run: {fix}"
    )
