"""Labelled images that do not decode are counted and named; too many of them end training before its first step."""

import csv
from pathlib import Path

import pytest

from engine.campaign.folder import Campaign
from engine.campaign.stages import Run
from engine.config.input_options import ImageConfig
from engine.errors import NotAcceptableError
from engine.pool.items import read_shard
from engine.pool.manifest import list_shards
from engine.simulation.demo_pools import DemoPool
from engine.training.labelled import as_seen, cache_labelled
from engine.training.plan import plan_training, require_decoded
from engine.training.train import train
from tests.conftest import MakeCampaign
from tests.rounds import write_shard

NUM_LABELLED, BAD = 80, (3, 60, 61)
"""Labelled images, and the numbers of those that are damaged behind their header."""


def campaign_of(make_campaign: MakeCampaign, pool: DemoPool, folder: Path, *settings: str) -> Campaign:
    """A campaign on one shard of digits: its first images are labelled."""
    shards, _ = list_shards(pool.shards, "")
    items = list(read_shard(shards[0], ImageConfig(size=8, channels=1)))
    folder.mkdir()
    broken = {
        n: item.data[:40] + b"?" * (len(item.data) - 40) if n in BAD else item.data for n, item in enumerate(items)
    }
    write_shard(folder / "a.tar", {f"{n:03d}.png": data for n, data in broken.items()})
    with (folder / "labels.csv").open("w") as file:
        rows = [("a.tar", f"{n:03d}", f"class {n % 3}") for n in range(NUM_LABELLED)]
        csv.writer(file).writerows([("shard", "key", "label"), *rows])
    shard = [f"{folder}/a.tar"]
    return make_campaign(*settings, name=folder.name + "-campaign", shards=shard, labels=folder / "labels.csv")


def test_they_are_counted_and_the_first_is_named(make_campaign: MakeCampaign, pool: DemoPool, tmp_path: Path) -> None:
    settings = ("select.budget=20", "score.max_bad_fraction=0.0375")
    plan = plan_training(campaign_of(make_campaign, pool, tmp_path / "pool", *settings))
    parts = [
        cache_labelled(plan.pool, plan.positions, range(n, 2, 2), 2, as_seen(plan.pool, tmp_path / f"{n}"))
        for n in range(2)
    ]
    bad = {number for part in parts for number in part.not_decoded}
    assert {plan.positions[number][1] for number in bad} == {f"{n:03d}" for n in BAD}
    assert require_decoded(plan, bad) == (
        "3 of 80 labelled images do not decode, the first is a.tar: item 003; nothing trains on them"
    )
    # Also those that are held out, on which networks are judged.
    held_out = plan.pool._replace(held_out=0.6)
    parts = [
        cache_labelled(held_out, plan.positions, range(n, 2, 2), 2, as_seen(held_out, tmp_path / f"{n}"))
        for n in range(2)
    ]
    assert {number for part in parts for number in part.not_decoded} == bad
    assert {held_out.is_held_out(*plan.positions[number][:2]) for number in bad} == {True, False}
    train_on = {plan.positions[n][:2] for part in parts for n in part.number_N}
    assert not [item for item in train_on if held_out.is_held_out(*item)]
    assert not require_decoded(plan, set())
    with pytest.raises(NotAcceptableError, match=r"4 of 80 .*=0.0375 is the limit: repair .*retract .*=1$"):
        require_decoded(plan, {*bad, 79})


@pytest.mark.slow
@pytest.mark.timeout(480)
def test_training_says_so_or_refuses(
    make_campaign: MakeCampaign, pool: DemoPool, tmp_path: Path, local_ray: None
) -> None:
    notes: list[str] = []
    settings = ("select.budget=20", "train.max_steps=2", "train.batch_size=16", "train.workers=2")
    campaign = campaign_of(make_campaign, pool, tmp_path / "pool", *settings)
    manifest = train(campaign, Run(log=notes.append))
    assert manifest["counts"]["labelled_not_decoded"] == len(BAD)
    assert [line for line in notes if "3 of 80 labelled images do not decode, the first is a.tar: item 003" in line]
    strict = campaign_of(make_campaign, pool, tmp_path / "other", *settings[:-1], "score.max_bad_fraction=0.01")
    steps: list[str] = []
    with pytest.raises(NotAcceptableError, match="3 of 80 labelled images do not decode"):
        train(strict, Run(on_progress=lambda _, words: steps.append(words)))
    assert not steps
