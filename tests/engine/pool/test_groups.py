"""Items of a group are on one side of every split, from init to the diagnosis; the others are dealt as ever."""

import dataclasses
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from engine.campaign.folder import Campaign
from engine.campaign.opening import open_campaign
from engine.config.options import CampaignConfig
from engine.config.texts import parse_settings
from engine.config.toml import override
from engine.errors import ConfigError, InputError
from engine.models.weights import make_networks
from engine.pool.identity import ALONE, Groups, fold_of, group_number_of, held_out_of
from engine.pool.manifest import read_shards
from engine.pool.metadata import read_groups
from engine.scoring import stream
from engine.scoring.score import inputs_of
from engine.scoring.watchdog import Attempts
from engine.tables.scores import unpack
from engine.training.judging import judge
from engine.training.plan import plan_training
from engine.training.task_plan import judges_task
from tests.conftest import MakeCampaign, pretend_trained
from tests.learn import FRONT
from vaal.signal import Diagnosis, diagnose

CLIPS = Groups(r"^(clip\d+)_")
HUNDREDS = "pool.group=^([0-9]{4})[0-9]{2}$"
"""The digits' keys are 000000 to 001796 in shards of 225: a hundred are a group, and reach over shards."""
SHARDS = [f"digits-{number:05d}.tar" for number in range(8)]


def test_the_first_group_of_the_pattern_names_the_clip_and_without_one_the_whole_match() -> None:
    assert CLIPS.of("a.tar", "clip012_000345") == "clip012"
    assert Groups(r"clip\d+").of("a.tar", "x/clip012_000345") == "clip012"
    assert Groups(r"clip(?:\d)(\d+)_(\d+)").of("a.tar", "clip012_7") == "12"
    assert Groups(by_shard={"a.tar": "north", "b.tar": ""}).of("a.tar", "0") == "north"


@pytest.mark.parametrize("groups", [CLIPS, Groups(r"^(clip\d+)?"), Groups("x*"), Groups(by_shard={"a.tar": ""}), ALONE])
def test_an_item_of_which_nothing_is_said_is_a_group_of_its_own(groups: Groups) -> None:
    for key in ("000123", "still_1"):
        assert groups.of("a.tar", key) == ""
        assert fold_of("a.tar", key, 2**60, 3, groups) == fold_of("a.tar", key, 2**60, 3)
        assert group_number_of("a.tar", key, groups) == group_number_of("a.tar", key)
        assert held_out_of("a.tar", key, 0.5, 3, groups) == held_out_of("a.tar", key, 0.5, 3)


def test_a_group_is_whole_in_every_split_over_shards_and_drawn_again_each_round() -> None:
    def splits(clip: int, round_number: int) -> set[tuple[Any, ...]]:
        items = [(shard, f"clip{clip:03d}_{frame:06d}") for shard in ("a.tar", "b.tar") for frame in range(5)]
        return {
            (fold_of(*i, 2**60, round_number, CLIPS), held_out_of(*i, 0.3, round_number, CLIPS),
             group_number_of(*i, CLIPS)) for i in items
        }  # fmt: skip

    first, second = ([splits(clip, number) for clip in range(300)] for number in (0, 1))
    assert all(len(found) == 1 for found in first + second)
    assert len({next(iter(found))[0] for found in first + second}) == 600
    assert 0.2 < np.mean([next(iter(found))[1] for found in first]) < 0.4
    assert len({next(iter(found))[2] for found in first}) == 300


def test_a_group_is_not_mistaken_for_an_item() -> None:
    named = Groups(by_shard={"x.tar": "a.tar\0clip"})
    assert group_number_of("x.tar", "0", named) != group_number_of("a.tar", "clip")


@pytest.fixture(params=["pattern", "column"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    if request.param == "pattern":
        return [HUNDREDS]
    facts = tmp_path / "facts.csv"
    facts.write_text(
        "shard,camera\n" + "".join(f"{shard},{'wxyz '[n // 2].strip()}\n" for n, shard in enumerate(SHARDS))
    )
    return [f"pool.metadata={facts}", "pool.group=column:camera"]


def test_training_scoring_and_the_task_learner_deal_by_one_rule(
    make_campaign: MakeCampaign, settings: list[str]
) -> None:
    campaign = make_campaign(*settings, "train.folds=3")
    campaign = dataclasses.replace(campaign, round=2)
    pool = plan_training(campaign).pool
    groups = read_groups(campaign.home, campaign.config.pool.group)
    assert pool.groups == groups != ALONE
    folds: dict[str, set[int]] = {}
    for shard, row in scoring_rows(campaign).items():
        items = unpack(row)
        for key, fold in zip(items["key"].to_pylist(), items["fold"].to_pylist(), strict=True):
            assert fold == pool.fold_of(shard, key)
            folds.setdefault(groups.of(shard, key), set()).add(fold)
    assert all(len(found) == 1 for found in folds.values())
    assert len(folds) == (18 if HUNDREDS in settings else 4)
    judging: dict[str, set[bool]] = {}
    for shard, key in pool.labelled:
        judging.setdefault(groups.of(shard, key), set()).add(judges_task(groups, shard, key))
    assert all(len(found) == 1 for found in judging.values())


def scoring_rows(campaign: Campaign) -> dict[str, bytes]:
    """The items of each shard, packed, as the tasks of scoring read them."""
    rows, reading = stream.read_rows(campaign, read_shards(campaign.home), cast("Any", {"fold_round": campaign.round}))
    found = {}
    for row in rows.to_pylist():
        (chunk,) = stream._read(pa.Table.from_pylist([row]), reading, Attempts())
        found[row["shard"]["shard"]] = chunk["items"][0].as_py()
    return found


def test_without_folds_whole_groups_are_held_out_and_judged_as_groups(make_campaign: MakeCampaign) -> None:
    campaign = make_campaign(HUNDREDS, "train.folds=1")
    plan = plan_training(campaign)
    entries = judge(plan, make_networks(campaign.config).ready(), plan.positions, FRONT)
    held_out = {key[:4] for n in range(1797) if plan.pool.is_held_out(SHARDS[n // 225], key := f"{n:06d}")}
    assert 0 < len(held_out) < 18
    counts = entries["diagnosis"]["held_out"]
    assert counts["unlabelled_groups"] == len(held_out)
    assert 0 < counts["labelled_groups"] <= len(held_out)
    assert counts["labelled"] > counts["labelled_groups"]


def test_labels_of_one_group_cannot_be_cross_fitted_and_it_is_said_what_is_missing(make_campaign: MakeCampaign) -> None:
    campaign = make_campaign("pool.group=^0")
    with pytest.raises(
        ConfigError, match=r"all 200 .* into one fold, .*; label more, in other groups \(pool.group\), or"
    ):
        plan_training(campaign)


def test_another_rule_is_refused_in_the_file_and_makes_other_scores(make_campaign: MakeCampaign) -> None:
    campaign = make_campaign(HUNDREDS)
    pretend_trained(campaign)
    grouped = inputs_of(campaign)
    with pytest.raises(ConfigError, match=r"--set pool.group: fixed at init"):
        open_campaign(campaign.home.url, ["pool.group="])
    file = campaign.home / "campaign.toml"
    text = file.read_bytes().decode()
    file.write_bytes(text.replace('group = "^([0-9]{4})[0-9]{2}$"', 'group = ""').encode())
    with pytest.raises(ConfigError, match=r"pool.group='', but .*train was made with '\^"):
        open_campaign(campaign.home.url)
    alone = dataclasses.replace(campaign, config=override(campaign.config, {"pool.group": ""}, "test"))
    assert inputs_of(alone)["settings"] != grouped["settings"]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["pool.group=^(clip"], "pool.group=^(clip: not a regular expression: missing ), unterminated subpattern"),
        (["pool.group=column:camera"], "pool.group=column:camera needs pool.metadata, the file with that column"),
        (["pool.group=column:", "pool.metadata=x.csv"], "pool.group=column: needs pool.metadata"),
    ],
)
def test_a_rule_that_cannot_be_read_is_one_line(settings: list[str], says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        override(CampaignConfig(), parse_settings(settings), "--set")
    assert str(refused.value).startswith(f"--set: {says}")
    assert "\n" not in str(refused.value)


def test_a_column_that_is_not_there_and_rows_of_items_are_refused_at_init(
    make_campaign: MakeCampaign, tmp_path: Path
) -> None:
    facts = tmp_path / "facts.csv"
    facts.write_text("shard,camera\n" + "".join(f"{shard},x\n" for shard in SHARDS))
    with pytest.raises(ConfigError, match=r"pool.group=column:patient: .* no such column; it has: camera"):
        make_campaign(f"pool.metadata={facts}", "pool.group=column:patient", name="a")
    facts.write_text("shard,key,patient\n" + "".join(f"{SHARDS[0]},{key:06d},x\n" for key in range(3)))
    with pytest.raises(InputError, match=r"two rows; keep one; a row is for a whole shard, groups of its items are a"):
        make_campaign(f"pool.metadata={facts}", "pool.group=column:patient", name="b")


def of_clips(seed: int, groups: Groups) -> Diagnosis:
    """All 20 frames of 20 clips of 150, drawn at random, are labelled; logistic discriminators, cross-fitted."""
    rng, num_clips, num_frames = np.random.default_rng(seed), 150, 20
    clip_N = np.repeat(np.arange(num_clips), num_frames)
    x_ND = rng.normal(size=(num_clips, 64))[clip_N] + rng.normal(size=(len(clip_N), 64))
    is_labelled_N = np.isin(clip_N, rng.choice(num_clips, 20, replace=False))
    keys = [f"clip{clip:03d}_{n % num_frames:06d}" for n, clip in enumerate(clip_N)]
    fold_N = np.array([fold_of("a.tar", key, 2, seed, groups) for key in keys])
    logit_N = np.zeros(len(keys))
    for fold in range(2):
        trains_N = fold_N != fold
        fitted = LogisticRegression(C=0.1, class_weight="balanced").fit(x_ND[trains_N], is_labelled_N[trains_N])
        logit_N[~trains_N] = fitted.decision_function(x_ND[~trains_N])
    numbers = np.array([group_number_of("a.tar", key, groups) for key in keys], np.uint64).view(np.int64)
    pools = [
        (torch.tensor(logit_N[part_N]), torch.tensor(numbers[part_N])) for part_N in (is_labelled_N, ~is_labelled_N)
    ]
    (logit, group), (others, group_others) = pools
    return diagnose(
        logit, others, None, is_cross_fitted=True, picked_share=0.05,
        groups=None if groups == ALONE else (group, group_others),
    )  # fmt: skip


def test_frames_of_random_clips_are_a_signal_by_frame_and_none_by_clip() -> None:
    """By frame, a discriminator knows the twins of all that it judges."""
    seeds = range(6)
    by_frame, by_clip = ([of_clips(seed, groups) for seed in seeds] for groups in (ALONE, CLIPS))
    assert all(found.signal == "present" and 0.74 < found.auc.value < 0.92 for found in by_frame)
    assert all(found.lift and found.lift.low > 1.5 for found in by_frame)
    assert [found.signal for found in by_clip] == ["none"] * len(seeds)
    assert abs(np.mean([found.auc.value for found in by_clip]) - 0.5) < 0.07
    assert sum(found.lift.low > 1 for found in by_clip if found.lift) == 0
    assert {found.num_groups for found in by_clip} == {(20, 130)}
