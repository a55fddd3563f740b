"""SIGKILL to workers of training, after each checkpoint: it goes on from there, and its weights are the undisturbed."""

import hashlib
import logging
import random
import re
from pathlib import Path

import pytest

from engine.campaign.folder import Campaign
from tests.conftest import MakeCampaign
from tests.faults.driver import kill_one, run, running
from tests.processes import wait_until

LOG = logging.getLogger(__name__)
NUM_KILLS = 10
SETTINGS = ("train.max_steps=200", "train.epochs=1000", "train.checkpoint_steps=18", "train.workers=2", "train.folds=2")


def weights(campaign: Campaign) -> dict[str, str]:
    folder = Path(campaign.stage("train").path)
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.glob("*.safetensors")}


def saved(campaign: Campaign) -> set[str]:
    """The checkpoints from which a run would go on: Ray Train knows one once all workers have reported it."""
    files = Path(campaign.stage("train").path).glob("checkpoint/*/checkpoint_manager_snapshot.json")
    return {name for file in files for name in re.findall(r"checkpoint_[-\w.]+\d", file.read_text())}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_worker_killed_after_each_of_ten_checkpoints_changes_no_weight(make_campaign: MakeCampaign) -> None:
    calm, campaign = make_campaign(*SETTINGS, name="calm"), make_campaign(*SETTINGS)
    undisturbed = run("train", str(calm.home))
    assert undisturbed.status == 0, undisturbed.errors
    draw, seen = random.Random(0), set[str]()
    with running("train", str(campaign.home)) as driver:
        for _ in range(NUM_KILLS):
            wait_until(lambda: not saved(campaign) <= seen, driver.ended)
            seen.update(saved(campaign))
            assert kill_one(driver, draw, "RayTrainWorker")
        ended = driver.wait(600)
    LOG.info("%.0f s undisturbed, %.0f s with %d kills", undisturbed.seconds, ended.seconds, NUM_KILLS)
    assert ended.status == 0, ended.errors
    assert ended.errors.count("a worker was lost; going on from step") == NUM_KILLS
    assert "Traceback" not in ended.errors
    assert weights(campaign) == weights(calm)
