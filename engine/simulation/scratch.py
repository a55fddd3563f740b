"""A campaign without shards: its folder, its labels, and the stages of training and scoring from vectors in memory.

Labels, selections and manifests are written by the functions that every campaign uses, and read by them.

Shape suffixes: N items of the pool.
"""

import hashlib
import itertools
from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from engine.campaign.folder import Campaign
from engine.campaign.labels import INITIAL, LABELS_SCHEMA, append_labels
from engine.campaign.positions import write_positions
from engine.config.options import CampaignConfig
from engine.config.toml import to_toml
from engine.pool.manifest import write_shards
from engine.pool.shard import Shard
from engine.simulation.stage_files import Members, write_stages
from engine.simulation.trial_campaign import Ground, TrialCampaign
from engine.simulation.vector_round import train_and_score
from engine.storage.location import Location

MEMBER_BYTES = 1536
"""What an item is said to take in its shard."""


class Scratch(TrialCampaign):
    """A campaign on vectors."""

    def __init__(self, home: Location, ground: Ground, config: CampaignConfig) -> None:
        super().__init__(home, ground, config)
        hashes = [hashlib.blake2b("\0".join(name).encode(), digest_size=16).hexdigest() for name in self.names]
        # The pool is sorted by shard.
        groups = itertools.groupby(self.names, key=lambda name: name[0])
        self._counts = {shard: len(list(group)) for shard, group in groups}
        offset_N = np.concatenate([np.arange(count, dtype=np.int64) * MEMBER_BYTES for count in self._counts.values()])
        self._members = Members(self.names, offset_N, np.full(len(hashes), MEMBER_BYTES, np.int64), hashes)

    def create(self) -> None:
        """`campaign.toml` is written last."""
        if (self.home / "campaign.toml").exists():
            return
        shards, place = [], 0
        for name, items in self._counts.items():
            hashes = self._members.hashes[place : (place := place + items)]
            version = hashlib.sha256("".join(hashes).encode()).hexdigest()
            shards.append(Shard(name, f"simulated:///{name}", items * MEMBER_BYTES, "", items, 0, version))
        write_shards(self.home, shards)
        if not (self.home / f"labels/{INITIAL}.parquet").exists():
            self._answer(self.setup.first.tolist(), None)
        (self.home / "campaign.toml").write_bytes(to_toml(self.config).encode())

    def answer(self, campaign: Campaign, picks: pa.Table) -> None:
        names = zip(picks["shard"].to_pylist(), picks["key"].to_pylist(), strict=True)
        self._answer([self.place[name] for name in names], campaign.round)

    def _answer(self, places: Iterable[int], round_number: int | None) -> None:
        rows, positions = [], []
        for place in places:
            shard, key = self.names[place]
            label = self.answer_to(place)
            values = {"shard": shard, "key": key, "label": label, "round": round_number, "source": "oracle"}
            rows.append(tuple(values.get(name) for name in LABELS_SCHEMA.names))
            members = self._members
            positions.append((shard, key, int(members.offset_N[place]), MEMBER_BYTES, members.hashes[place]))
        write_positions(self.home, positions)
        append_labels(self.home, INITIAL if round_number is None else "ingest", rows)

    def train_and_score(self, campaign: Campaign) -> None:
        place_L, label_L = self.labelled()
        labels = [self.classes[number] for number in label_L]
        trained = train_and_score(campaign, self.names, self.setup.pool.vector_ND, place_L, labels)
        write_stages(campaign, trained, self._members)
