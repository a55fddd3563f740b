"""The campaign of a trial, whatever it is made of: what a round of a simulation asks of it."""

import pkgutil
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine.campaign.folder import Campaign
from engine.campaign.labels import read_labels
from engine.campaign.opening import current_round
from engine.config.first_round import without_labels
from engine.config.options import CampaignConfig
from engine.simulation.annotators import Crowd
from engine.simulation.experiment import Experiment
from engine.simulation.pixel_pools import write_pool
from engine.simulation.setups import Setup, setup_of, taken_for
from engine.simulation.worlds import World
from engine.storage.documents import read_document
from engine.storage.location import Location


class Ground(NamedTuple):
    """What the campaigns of a seed stand on: its setup, the world that this was drawn from, the folder of its shards,
    and the annotators, None where the oracle answers itself."""

    setup: Setup
    world: World
    pool: Location
    crowd: Crowd | None = None


def ground_of(world: World, experiment: Experiment, seed: int, folder: str) -> Ground:
    """The ground of a seed. The shards of its pool, where there are images, are written below its folder."""
    setup, pool = setup_of(world, experiment, seed), Location.of(folder) / "pool"
    if experiment.pool.shards:
        companion = world.masks.member if world.masks else ""
        write_pool(experiment.pool.shards, setup.pool.names(), pool, experiment.image, companion)
    return Ground(setup, world, pool, Crowd.of(experiment.oracle, taken_for(world), world.said_AKK))


class TrialCampaign(ABC):
    """A campaign on the pool of a setup."""

    def __init__(self, home: Location, ground: Ground, config: CampaignConfig) -> None:
        self.home, self.ground, self.config = home, ground, config
        self.setup, self.classes = ground.setup, ground.world.classes
        self.names = self.setup.pool.names()
        self.place = {name: number for number, name in enumerate(self.names)}

    @property
    def campaign(self) -> Campaign:
        """The campaign at its current round."""
        config = self.config if len(read_labels(self.home)) else without_labels(self.config)
        return Campaign(self.home, config, current_round(self.home))

    @abstractmethod
    def create(self) -> None:
        """Make the folder with the first labels; one that is there stays."""

    @abstractmethod
    def train_and_score(self, campaign: Campaign) -> None:
        """Complete the stages of training and scoring of the campaign's round. Where they are two steps, the seconds of
        the second are noted as "score"."""

    @abstractmethod
    def answer(self, campaign: Campaign, picks: pa.Table) -> None:
        """Take in the oracle's labels of a round's picks. They end the round."""

    def labelled(self, before: int | None = None) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
        """The places of what is labelled, ascending, and the classes that the oracle says, as they were before a
        round."""
        table = read_labels(self.home)
        rounds = table["round"].to_pylist()
        is_wanted = [number is None or before is None or number < before for number in rounds]
        table = table.filter(pa.array(is_wanted, pa.bool_()))
        names = zip(table["shard"].to_pylist(), table["key"].to_pylist(), strict=True)
        place_L = np.array([self.place[name] for name in names], np.intp)
        order = np.argsort(place_L)
        is_one = len(self.classes) == 1
        # Masks that came back are labels of their own, and their images of the one class that there is.
        label_L = np.array(
            [0 if is_one else self.classes.index(label) for label in table["label"].to_pylist()], np.int64
        )
        return place_L[order], label_L[order]

    def answer_to(self, place: int) -> str:
        """The oracle's label of the item at a place in the pool."""
        label: str = self.classes[self.setup.answer_N[place]]
        return label


class Kind(NamedTuple):
    """A kind of campaign: its class as "module:name", imported when it is used; and whether it trains by Ray."""

    made_by: str
    needs_ray: bool = False

    def make(self, home: Location, ground: Ground, config: CampaignConfig) -> TrialCampaign:
        """A campaign of this kind in a folder."""
        made: TrialCampaign = pkgutil.resolve_name(self.made_by)(home, ground, config)
        return made


KINDS = {
    "vectors": Kind("engine.simulation.scratch:Scratch"),
    "pixels": Kind("engine.simulation.pixel_campaign:PixelCampaign", needs_ray=True),
    "vaal_2019": Kind("engine.simulation.paper_campaign:PaperCampaign", needs_ray=True),
}


@contextmanager
def timed(campaign: Campaign, step: str, *stages: str) -> Iterator[None]:
    """Note how long a step of the campaign's round took, once it is done. Where a killed run had begun one of its
    stages, nothing is noted: nobody knows how long that run was at it."""
    places = [campaign.stage(stage) for stage in stages]
    is_begun = any(place.children() or place.folders() for place in places)
    begin = time.perf_counter()
    yield
    if not is_begun:
        note_seconds(campaign, step, time.perf_counter() - begin)


def note_seconds(campaign: Campaign, step: str, seconds: float) -> None:
    """Note how long a step of the campaign's round took."""
    (campaign.round_home / "seconds.json").write_json({**seconds_of(campaign), step: seconds})


def seconds_of(campaign: Campaign) -> dict[str, float]:
    """How long the steps of the campaign's round took; without those that a killed run had begun."""
    file = campaign.round_home / "seconds.json"
    return read_document(file, dict[str, float]) if file.exists() else {}


def at_round(campaign: Campaign, number: int) -> Campaign:
    """The same campaign at a round."""
    return replace(campaign, round=number)
