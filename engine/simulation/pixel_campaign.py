"""A campaign on images: real shards, made and worked on by the functions that the commands call."""

import csv
import io
from collections.abc import Sequence

import pyarrow as pa

from engine.campaign.folder import Campaign, is_closed
from engine.campaign.handed_out import current_batches
from engine.campaign.ledger import read_ledger
from engine.campaign.opening import create
from engine.campaign.settling import close, progress_of
from engine.campaign.stages import DEFAULT_VENDOR, QUIET
from engine.config.toml import override
from engine.handoff.answer_files import answer_files
from engine.handoff.export import export
from engine.handoff.ingest import ingest
from engine.scoring.score import score
from engine.simulation.annotators import Crowd
from engine.simulation.trial_campaign import TrialCampaign, timed
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
        with timed(campaign, "score", "scores"):
            score(campaign)

    def answer(self, campaign: Campaign, picks: pa.Table) -> None:
        """As `vaal ingest`; where there are annotators, as `vaal export` before, and `vaal round --close` where they
        disagree for good."""
        if self.ground.crowd:
            self._ask(campaign, self.ground.crowd)
            return
        folder = Location.of(f"{self.home}.answers-{campaign.round:03d}")
        columns = (picks[name].to_pylist() for name in ("item_id", "shard", "key"))
        places = {item_id: self.place[shard, key] for item_id, shard, key in zip(*columns, strict=True)}
        rows = [(item_id, self.answer_to(place)) for item_id, place in places.items()]
        if self.ground.world.masks:
            rows = [(item_id, f"{item_id}.png") for item_id, _ in rows]
            for item_id, place in places.items():
                (folder / f"{item_id}.png").write_bytes(self.setup.pool.mask_N[place])
        _take_in(campaign, _csv(folder / "answers.csv", ("item_id", "label"), rows))

    def _ask(self, campaign: Campaign, crowd: Crowd) -> None:
        export(campaign)
        (batch,) = current_batches(self.home, campaign.round)
        columns = (batch.rows()[name].to_pylist() for name in ("item_id", "shard", "key"))
        rows = []
        for item_id, *name in zip(*columns, strict=True):
            own = self.setup.answer_N[self.place[tuple(name)]]
            answers = crowd.answers(tuple(name), int(own), campaign.config.handoff.annotators)
            rows += [(item_id, person, self.classes[said]) for person, said in answers]
        folder = Location.of(f"{self.home}.answers-{campaign.round:03d}")
        _take_in(campaign, _csv(folder / "answers.csv", ("item_id", "annotator", "label"), rows))
        if not is_closed(self.home, campaign.round):
            close(campaign, progress_of(campaign, read_ledger(campaign)), "simulate")


def _take_in(campaign: Campaign, file: Location) -> None:
    ingest(campaign, answer_files([file.url], DEFAULT_VENDOR), DEFAULT_VENDOR)


def _csv(file: Location, header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Location:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    file.write_bytes(text.getvalue().encode())
    return file
