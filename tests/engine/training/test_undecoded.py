"""Labelled images that do not decode are named and counted; too many of them are refused before anything trains."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from engine.campaign.folder import Campaign
from engine.campaign.stages import Run
from engine.config.options import ImageConfig
from engine.config.toml import override
from engine.errors import NotAcceptableError
from engine.pool.items import read_shard
from engine.pool.manifest import list_shards
from engine.simulation.demo_pools import DemoPool
from engine.training.batches import Part, cache_labelled
from engine.training.board import _Board
from engine.training.plan import plan_training, require_few_undecoded
from engine.training.train import train
from tests.conftest import MakeCampaign
from tests.rounds import write_shard

NUM_LABELLED = 40
MakeDamaged = Callable[..., Campaign]


@pytest.fixture
def make_damaged(make_campaign: MakeCampaign, pool: DemoPool, tmp_path: Path) -> MakeDamaged:
    """Makes a campaign of 40 labels, of whose images the first ones are cut off."""

    def make(num_bad: int, *settings: str) -> Campaign:
        (shard, *_), _ = list_shards(pool.shards, "")
        items = list(read_shard(shard, ImageConfig()))
        cut = {item.key for item in items[:num_bad]}
        members = {f"{i.key}.png": i.data[: len(i.data) // 2] if i.key in cut else i.data for i in items}
        write_shard(tmp_path / "a.tar", members)
        rows = [f"a.tar,{item.key},{n % 2}" for n, item in enumerate(items[:NUM_LABELLED])]
        (tmp_path / "labels.csv").write_text("\n".join(["shard,key,label", *rows]))
        settings = (*settings, "select.budget=5", "train.max_steps=2", "train.batch_size=16", "train.workers=1")
        return make_campaign(*settings, shards=[f"{tmp_path}/a.tar"], labels=tmp_path / "labels.csv")

    return make


@pytest.mark.parametrize("held_out", [0.0, 0.3])
@pytest.mark.parametrize("world", [1, 3])
def test_any_number_of_workers_finds_the_same_and_trains_on_the_others(
    make_damaged: MakeDamaged, world: int, held_out: float, tmp_path: Path
) -> None:
    plan = plan_training(make_damaged(7))
    pool, board, trains = plan.pool._replace(held_out=held_out), _Board(), set[int]()
    for rank in range(world):
        streams = Part(rank, world).streams(8)
        labelled = cache_labelled(pool, plan.positions, streams, 8, tmp_path / f"cache-{rank}")
        found = board.pass_over(labelled.undecoded)
        trains |= set(labelled.number_N.tolist())
    bad = {"/".join(position[:2]) for position in plan.positions[:7]}
    assert found == dict.fromkeys(bad, "the PNG has no end marker")
    good = plan.positions[7:]
    assert {plan.positions[n] for n in trains} == {p for p in good if not pool.is_held_out(*p[:2])}
    assert (len(trains) < len(good)) == (held_out > 0)


def test_more_than_the_bound_are_refused_with_what_to_do(make_damaged: MakeDamaged) -> None:
    campaign = make_damaged(0)
    plan = plan_training(campaign)
    require_few_undecoded(plan, {"a.tar/0": "cut", "a.tar/1": "cut"})
    with pytest.raises(NotAcceptableError) as caught:
        require_few_undecoded(plan, {f"a.tar/{n}": "cut" for n in range(3)})
    assert str(caught.value) == (
        "a.tar/0: cut; 3 of 40 labelled images do not decode, score.max_bad_fraction=0.05 is the limit: take their "
        f"labels away with: vaal labels {campaign.home} retract SHARD KEY, or train without them: --set "
        "score.max_bad_fraction=1"
    )
    config = override(campaign.config, {"score.max_bad_fraction": 1.0}, "test")
    require_few_undecoded(plan._replace(config=config), {f"a.tar/{n}": "cut" for n in range(3)})


@pytest.mark.timeout(240)
def test_training_refuses_them_or_counts_and_names_them(make_damaged: MakeDamaged, local_ray: None) -> None:
    campaign = make_damaged(3)
    with pytest.raises(NotAcceptableError, match=r"a.tar/\w+: the PNG has no end marker; 3 of 40 labelled images"):
        train(campaign)
    assert not (campaign.stage("train") / "manifest.json").exists()
    lines: list[str] = []
    allowed = override(campaign.config, {"score.max_bad_fraction": 1.0}, "test")
    manifest = train(replace(campaign, config=allowed), Run(log=lines.append))
    assert manifest["counts"]["labelled_undecoded"] == 3
    (line,) = [line for line in lines if "do not decode" in line]
    assert line.startswith("3 of 40 labelled images do not decode and were left out of training, first a.tar/")
