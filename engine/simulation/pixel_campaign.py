"""A campaign on images: real shards, made and worked on by the functions that the commands call."""

import csv
import io
from collections.abc import Sequence

import pyarrow as pa

from engine.campaign.folder import Campaign
from engine.campaign.opening import create
from engine.campaign.stages import DEFAULT_VENDOR, QUIET
from engine.config.toml import override
from engine.handoff.answer_files import answer_files
from engine.handoff.ingest import ingest
from engine.scoring.score import score
from engine.simulation.trial_campaign import TrialCampaign
from engine.storage.location import Location
from engine.training.train import train


class PixelCampaign(TrialCampaign):
    """A campaign on the shards of a seed's pool."""

    def create(self) -> None:
        """As `vaal init`."""
        if (self.home / "campaign.toml").exists():
            return
        rows = [(*self.names[place], self.answer_to(place)) for place in self.setup.first.tolist()]
        labels = _csv(Location.of(f"{self.home}.first.csv"), ("shard", "key", "label"), rows)
        shards = sorted({f"{self.ground.pool}/{shard}" for shard, _ in self.names})
        config = override(self.config, {"pool.root": self.ground.pool.url}, "simulate")
        create(self.home.url, shards, labels.url, config, QUIET.log)

    def train_and_score(self, campaign: Campaign) -> None:
        """As `vaal train` and `vaal score`."""
        train(campaign)
        score(campaign)

    def answer(self, campaign: Campaign, picks: pa.Table) -> None:
        """As `vaal ingest`."""
        rows = [
            (item_id, self.answer_to(self.place[shard, key]))
            for item_id, shard, key in zip(
                *(picks[name].to_pylist() for name in ("item_id", "shard", "key")), strict=True
            )
        ]
        file = _csv(Location.of(f"{self.home}.answers-{campaign.round:03d}.csv"), ("item_id", "label"), rows)
        ingest(campaign, answer_files([file.url], DEFAULT_VENDOR), DEFAULT_VENDOR)


def _csv(file: Location, header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Location:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    file.write_bytes(text.getvalue().encode())
    return file
