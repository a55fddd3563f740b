"""A campaign without shards: its folder, its labels, and the stages of training and scoring from vectors in memory.

Labels, selections and manifests are written by the functions that every campaign uses, and read by them.

Shape suffixes: N items of the pool.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine.campaign.changes import file_name
from engine.campaign.folder import Campaign
from engine.campaign.freshness import fingerprint
from engine.campaign.labels import INITIAL, LABELS_SCHEMA, append_labels, read_labels
from engine.campaign.manifests import ScoresManifest, TrainManifest, write_manifest
from engine.campaign.opening import current_round
from engine.campaign.positions import write_positions
from engine.config.options import CampaignConfig
from engine.config.toml import to_toml
from engine.models.centring import save_centres
from engine.models.diagnosis import manifest_entries
from engine.pool.manifest import read_shards, write_shards
from engine.pool.shard import Shard
from engine.scoring.drafts import Draft
from engine.simulation.setups import Setup
from engine.simulation.vector_round import Trained, train_and_score
from engine.storage.location import Location
from engine.tables.scores import ITEM_FIELDS, ShardRecord, pack
from vaal.duplicates.perceptual_hash import HASH_BYTES

MEMBER_BYTES = 1536
"""What an item is said to take in its shard."""


class Scratch:
    """A campaign on the pool of a setup."""

    def __init__(self, home: Location, setup: Setup, classes: list[str], config: CampaignConfig) -> None:
        self.home, self.setup, self.classes, self._config = home, setup, classes, config
        names = list(zip(setup.pool.shard_N.tolist(), setup.pool.key_N.tolist(), strict=True))
        self.names = names
        self._place = {name: number for number, name in enumerate(names)}
        self.hashes = [hashlib.blake2b("\0".join(name).encode(), digest_size=16).hexdigest() for name in names]
        # The pool is sorted by shard.
        self._shards, first, counts = np.unique(setup.pool.shard_N.astype(str), return_index=True, return_counts=True)
        self._slices = [slice(int(begin), int(begin + count)) for begin, count in zip(first, counts, strict=True)]
        self.offset_N = np.concatenate([np.arange(count, dtype=np.int64) * MEMBER_BYTES for count in counts])

    @property
    def campaign(self) -> Campaign:
        """The campaign at its current round."""
        return Campaign(self.home, self._config, current_round(self.home))

    def create(self) -> None:
        """Make the folder with the first labels; one that is there stays. `campaign.toml` is written last."""
        if (self.home / "campaign.toml").exists():
            return
        shards = []
        for name, part in zip(self._shards.tolist(), self._slices, strict=True):
            items = part.stop - part.start
            version = hashlib.sha256("".join(self.hashes[part]).encode()).hexdigest()
            shards.append(Shard(name, f"simulated:///{name}", items * MEMBER_BYTES, "", items, 0, version))
        write_shards(self.home, shards)
        if not (self.home / f"labels/{INITIAL}.parquet").exists():
            self._answer(self.setup.first.tolist(), None)
        (self.home / "campaign.toml").write_bytes(to_toml(self._config).encode())

    def answer(self, campaign: Campaign, picks: pa.Table) -> None:
        """Append the oracle's labels of a round's picks. They end the round."""
        names = zip(picks["shard"].to_pylist(), picks["key"].to_pylist(), strict=True)
        self._answer([self._place[name] for name in names], campaign.round)

    def _answer(self, places: Iterable[int], round_number: int | None) -> None:
        rows, positions = [], []
        for place in places:
            shard, key = self.names[place]
            label = self.classes[self.setup.answer_N[place]]
            values = {"shard": shard, "key": key, "label": label, "round": round_number, "source": "oracle"}
            rows.append(tuple(values.get(name) for name in LABELS_SCHEMA.names))
            positions.append((shard, key, int(self.offset_N[place]), MEMBER_BYTES, self.hashes[place]))
        write_positions(self.home, positions)
        append_labels(self.home, INITIAL if round_number is None else "ingest", rows)

    def labelled(self, before: int | None = None) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
        """The places of what is labelled, ascending, and the classes that the oracle says, as they were before a
        round."""
        table = read_labels(self.home)
        rounds = table["round"].to_pylist()
        is_wanted = [number is None or before is None or number < before for number in rounds]
        table = table.filter(pa.array(is_wanted))
        names = zip(table["shard"].to_pylist(), table["key"].to_pylist(), strict=True)
        place_L = np.array([self._place[name] for name in names], np.intp)
        order = np.argsort(place_L)
        label_L = np.array([self.classes.index(label) for label in table["label"].to_pylist()], np.int64)
        return place_L[order], label_L[order]

    def train_and_score(self, campaign: Campaign) -> None:
        """Complete the stages of training and scoring of the campaign's round."""
        place_L, label_L = self.labelled()
        labels = [self.classes[number] for number in label_L]
        trained = train_and_score(campaign, self.names, self.setup.pool.vector_ND, place_L, labels)
        folder, files = campaign.stage("train"), dict[str, str]()
        if trained.centres is not None:
            files |= save_centres(folder, trained.centres)
        write_manifest(
            campaign, "train", TrainManifest,
            inputs={}, counts={"steps": 0}, files=files, device="cpu", losses={}, fold_round=campaign.round,
            **manifest_entries(trained.diagnosis), **trained.details,
        )  # fmt: skip
        records = self._commit_scores(campaign, trained)
        counts = {
            "shards": len(records),
            **{name: sum(getattr(record, name) for record in records) for name in ("listed", "scored", "quarantined")},
        }
        shards = [record.entry() for record in records]
        write_manifest(
            campaign, "scores", ScoresManifest,
            inputs={}, counts=counts, files={}, device="cpu", errors={}, shards=shards,
        )  # fmt: skip

    def _commit_scores(self, campaign: Campaign, trained: Trained) -> list[ShardRecord]:
        records, key = [], fingerprint()
        for shard, part in zip(read_shards(self.home), self._slices, strict=True):
            draft = Draft(shard.shard)
            table = self._rows(trained, part)
            draft.add({"chunk": 0, "listed": len(table), "failure": "", "scored": pack(table), "bad": None})
            records.append(draft.commit(campaign, file_name(shard, key)))
        return records

    def _rows(self, trained: Trained, part: slice) -> pa.Table:
        latent_NZ = trained.scores.latent_NZ[part]
        flat = pa.array(latent_NZ.reshape(-1))
        size = part.stop - part.start
        columns: dict[str, Any] = {
            "key": [key for _, key in self.names[part]],
            "offset": self.offset_N[part],
            "size_bytes": np.full(size, MEMBER_BYTES, np.int64),
            "content_hash": self.hashes[part],
            "perceptual_hash": pa.nulls(size, pa.binary(HASH_BYTES)),
        }
        table = pa.table(columns, schema=pa.schema(ITEM_FIELDS))
        for name, value_N in trained.scores.columns.items():
            table = table.append_column(name, pa.array(value_N[part]))
        return table.append_column("latent", pa.FixedSizeListArray.from_arrays(flat, latent_NZ.shape[1]))


def at_round(campaign: Campaign, number: int) -> Campaign:
    """The same campaign at a round."""
    return replace(campaign, round=number)
