"""What Ray starts for a training: each further process takes seconds of a core."""

from collections.abc import Mapping

import pytest
from ray._private.state import actors

from engine.campaign.stages import Run
from engine.training.train import train
from tests.conftest import MakeCampaign


@pytest.mark.heavy
def test_a_private_ray_starts_only_what_trains(make_campaign: MakeCampaign, local_ray: None) -> None:
    before, started = set(actors()), dict[str, str]()

    def look(*_: object) -> None:
        found: dict[str, Mapping[str, str]] = actors()
        started.update({name: actor["ActorClassName"] for name, actor in found.items() if name not in before})

    made = make_campaign("train.batch_size=16", "train.max_steps=1", "train.refit=false", "train.task_steps=1")
    train(made, Run(on_progress=look))
    look()
    # The coordinator is one for all stages of a session.
    assert {*started.values()} - {"_AutoscalingCoordinatorActor"} == {
        "RayTrainWorker", "SynchronizationActor", "TrainController", "_Board",
    }  # fmt: skip
