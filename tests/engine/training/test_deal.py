"""What training reads of a pool that is too large to be read whole: runs of every shard, none twice in a pass."""

import json
from collections import Counter
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from engine.training.batches import JUDGING_PASS, unlabelled_sample
from engine.training.deal import Deal, run_bytes
from engine.training.plan import plan_training
from engine.training.streams import Pool, UnlabelledStream, unlabelled_runs
from tests.conftest import MakeCampaign
from tests.engine.training.test_batches import deal_of, identities, small  # noqa: F401

SHARDS, SHARD_BYTES, ITEM_BYTES = 100, 1000 * 4096, 4096


def sampled(sizes: list[int], num_streams: int = 8, seed: int = 0) -> Deal:
    return Deal(np.array(sizes), num_streams, seed, None, 64 * ITEM_BYTES)


@pytest.mark.parametrize("num_streams", [1, 2, 3, 8, 1000])
def test_a_pass_deals_every_item_to_one_stream(small: Pool, num_streams: int) -> None:  # noqa: F811
    deal = deal_of(small, num_streams, counted=False)
    # With more streams than runs, every stream reads all.
    streams = range(num_streams if num_streams < 20 else 1)
    seen = Counter(
        (small.shards[shard].shard, item.key)
        for stream in streams
        for shard, items in unlabelled_runs(small, deal, deal.runs(0, stream), {}, held_out=False)
        for item in items
    )
    assert seen == Counter(identities(small, labelled=False))


def test_the_beginning_of_a_pass_has_runs_of_all_shards() -> None:
    deal = sampled([SHARD_BYTES] * SHARDS)
    first = [run for stream in range(8) for run in islice(deal.runs(0, stream), 13)]
    assert {run.shard for run in first} == set(range(SHARDS))
    # Not the beginnings of the shards, and evenly many of each stream.
    assert len({run.begin for run in first}) > 10
    lengths = [sum(1 for _ in deal.runs(0, stream)) for stream in range(8)]
    assert max(lengths) - min(lengths) <= 1


def test_shards_come_as_often_as_they_are_large() -> None:
    deal = sampled([SHARD_BYTES] * 50 + [10 * SHARD_BYTES] * 5 + [1] * 100, num_streams=1)
    runs = list(deal.runs(3, 0))
    assert len(set(runs)) == len(runs)
    counts = Counter(run.shard for run in runs)
    assert [counts[shard] for shard in range(155)] == [15] * 50 + [156] * 5 + [1] * 100
    for part in (runs[: len(runs) // 4], runs[-len(runs) // 4 :]):
        shares = Counter(run.shard for run in part)
        assert all(37 <= shares[shard] <= 41 for shard in range(50, 55))
        assert all(2 <= shares[shard] <= 5 for shard in range(50))


def test_runs_are_another_sample_with_each_seed_and_pass_and_for_the_judges() -> None:
    sizes = [SHARD_BYTES] * SHARDS
    samples = [sampled(sizes).runs(0, 0), sampled(sizes, seed=1).runs(0, 0), sampled(sizes).runs(1, 0)]
    samples += [sampled(sizes).runs(JUDGING_PASS, 0)]
    first = [set(islice(sample, 100)) for sample in samples]
    assert all(len(a & b) < 30 for n, a in enumerate(first) for b in first[:n])
    assert list(islice(sampled(sizes).runs(0, 0), 100)) == list(islice(sampled(sizes).runs(0, 0), 100))


def test_a_run_is_short_but_never_less_than_four_items() -> None:
    web = np.full(100_000, 100 << 20)
    assert run_bytes(web, 1000 * 100_000, 768_000) == 16 * (100 << 20) // 1000 // 16 * 16
    assert run_bytes(np.full(100, SHARD_BYTES), 100_000, 768_000) == 64 * ITEM_BYTES
    assert run_bytes(np.full(100, 1 << 30), 10_000, 768_000) == 4 * ((100 << 30) // 10_000)
    assert run_bytes(np.full(1, 1 << 20), 5000, 768_000) == 64 << 10


def test_a_large_pool_is_judged_on_as_many_images_of_as_many_shards(small: Pool) -> None:  # noqa: F811
    deal = deal_of(small, 8, counted=False)
    assert 30 <= len(unlabelled_sample(small, deal, 30).fold_N) < 36
    assert len(unlabelled_sample(small, deal, 1000).fold_N) == 180


@pytest.mark.heavy
def test_few_steps_see_every_shard_and_other_images_in_each_round(make_campaign: MakeCampaign) -> None:
    campaign = make_campaign("train.max_steps=5", "train.batch_size=16")
    seen = []
    for number in (0, 1):
        plan = plan_training(replace(campaign, round=number))
        assert plan.deal.counts is None
        streams = (UnlabelledStream(plan.pool, plan.deal, stream) for stream in range(plan.deal.num_streams))
        seen.append({(shard, item.key) for stream in streams for shard, item in islice(stream, 20)})
        assert {shard for shard, _ in seen[-1]} == set(range(len(plan.pool.shards)))
    assert len(seen[0] & seen[1]) < 0.5 * len(seen[0])


@pytest.mark.parametrize("taken", [0, 17, 181])
def test_whole_shards_are_dealt_where_runs_could_begin_in_an_archive(small: Pool, taken: int) -> None:  # noqa: F811
    deal = deal_of(small, 2, counted=False)._replace(run_bytes=0)
    runs = [run for stream in range(2) for run in deal.runs(0, stream)]
    assert sorted(runs) == [(number, 0, shard.size_bytes) for number, shard in enumerate(small.shards)]
    stream = UnlabelledStream(small, deal, 0)
    seen = list(islice(stream, taken))
    expected = list(islice(stream, 100))
    again = UnlabelledStream(small, deal, 0)
    assert [*islice(again, taken)] == seen
    state = json.loads(json.dumps(again.state()))
    assert list(islice(UnlabelledStream(small, deal, 0, state), 100)) == expected
    assert len(unlabelled_sample(small, deal, 30).fold_N) == 2 + 10 + 10


@pytest.mark.heavy
def test_a_pool_with_tars_in_its_samples_is_sampled_by_whole_shards(
    make_campaign: MakeCampaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign = make_campaign("train.max_steps=3", "train.batch_size=16")
    assert plan_training(campaign).deal.run_bytes >= 65_536
    monkeypatch.setattr("engine.training.plan.holds_archives", lambda _: True)
    lines: list[str] = []
    assert plan_training(campaign, log=lines.append).deal.run_bytes == 0
    assert "training samples whole shards" in lines[-1]
