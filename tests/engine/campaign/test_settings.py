"""A setting is kept when something was made with it, and what was made is never read with other options."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from engine.campaign import heartbeat
from engine.campaign.folder import Campaign
from engine.campaign.handed_out import batches
from engine.campaign.heartbeat import alone
from engine.campaign.labels import labelled_items
from engine.campaign.opening import check_budget, open_campaign, opened
from engine.campaign.status import status
from engine.config.toml import override
from engine.errors import BusyError, ConfigError, InputError
from engine.handoff.choice import Wish
from engine.handoff.export import export
from engine.pool.manifest import read_shards, write_shards
from engine.selection.select import select
from tests.conftest import MakeCampaign, pretend_trained
from tests.fabricate import fabricate_scores
from tests.small import make_small


@pytest.fixture
def campaign(make_campaign: MakeCampaign) -> Campaign:
    return make_campaign("select.budget=40")


def epochs_of(campaign: Campaign) -> int:
    return open_campaign(str(campaign.home)).config.train.epochs


@pytest.mark.parametrize("refusal", [ConfigError("no"), InputError("no")])
def test_a_setting_is_not_kept_when_its_command_is_refused_before_it_wrote(
    campaign: Campaign, refusal: Exception
) -> None:
    open_campaign(str(campaign.home), ["train.epochs=3"])
    with pytest.raises(type(refusal)), opened(str(campaign.home), ["train.epochs=7"]) as changed:  # noqa: PT012
        assert changed.config.train.epochs == epochs_of(campaign) == 7
        raise refusal
    assert epochs_of(campaign) == 3


@pytest.mark.parametrize("end", [KeyboardInterrupt(), RuntimeError("killed")])
def test_a_setting_is_kept_after_an_interrupt_and_named_by_status(campaign: Campaign, end: BaseException) -> None:
    with pytest.raises(type(end)), opened(str(campaign.home), ["train.epochs=7"]):
        raise end
    assert epochs_of(campaign) == 7
    assert status(open_campaign(str(campaign.home)))["rounds"][0]["settings"] == {"train.epochs": 7}


def test_a_setting_is_kept_when_its_command_wrote_something_before_it_was_refused(campaign: Campaign) -> None:
    with pytest.raises(InputError), opened(str(campaign.home), ["train.epochs=7"]) as changed:  # noqa: PT012
        (changed.stage("train/checkpoint") / "000001/state").write_bytes(b"state")
        raise InputError("a shard cannot be read")
    assert epochs_of(campaign) == 7


def test_no_other_run_works_with_a_setting_that_may_not_be_kept(
    campaign: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0.02)

    def other() -> None:
        with alone(campaign.home, "train"):
            raise AssertionError

    def other_with_a_setting() -> None:
        with opened(str(campaign.home), ["train.epochs=9"]):
            raise AssertionError

    with opened(str(campaign.home), ["train.epochs=7"]), ThreadPoolExecutor(1) as threads:
        for run in (other, other_with_a_setting):
            with pytest.raises(BusyError, match="another run"):
                threads.submit(run).result()
    assert epochs_of(campaign) == 7


def test_a_setting_for_an_earlier_round_is_refused(campaign: Campaign, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.campaign.opening.current_round", lambda _: 1)
    with pytest.raises(ConfigError, match="--set with --round 0: an earlier round stays as it was made"):
        open_campaign(str(campaign.home), ["train.epochs=7"], 0)
    assert open_campaign(str(campaign.home), ["train.epochs=7"], 1).config.train.epochs == 7


@pytest.mark.parametrize(
    ("line", "edited", "key"),
    [
        ("folds = 5", "folds = 3", "train.folds=3"),
        ("size = 8", "size = 16", "image.size=16"),
        ('method = "auto"', 'method = "pixels"', "train.method='pixels'"),
    ],
)
def test_an_option_that_was_edited_by_hand_is_refused_by_key(
    campaign: Campaign, line: str, edited: str, key: str
) -> None:
    file = Path(campaign.home.path) / "campaign.toml"
    text = file.read_text()
    assert f"\n{line}\n" in text
    file.write_text(text.replace(f"\n{line}\n", f"\n{edited}\n"))
    open_campaign(str(campaign.home))
    file.write_text(text)
    pretend_trained(campaign)
    open_campaign(str(campaign.home))
    file.write_text(text.replace(f"\n{line}\n", f"\n{edited}\n"))
    with pytest.raises(ConfigError, match=rf"campaign.toml: {key}, but .*000/train was made with .*; restore"):
        open_campaign(str(campaign.home))


def test_a_budget_counts_what_is_out(campaign: Campaign) -> None:
    pretend_trained(campaign)
    fabricate_scores(campaign, lambda _, keys: np.arange(len(keys)))
    select(campaign)
    export(campaign)
    first, *rest = read_shards(campaign.home)
    write_shards(campaign.home, [first._replace(num_items=1000), *(shard._replace(num_items=1) for shard in rest)])
    num_left = 1000 + len(rest) - len(labelled_items(campaign.home)) - 40
    for budget in (num_left, num_left + 1):
        config = override(campaign.config, {"select.budget": budget}, "test")
        with nullcontext() if budget == num_left else pytest.raises(ConfigError, match="labelled nor out at a vendor"):
            check_budget(Campaign(campaign.home, config, 1))


def test_options_of_the_handoff_are_those_of_the_next_batch(tmp_path: Path) -> None:
    campaign = make_small(tmp_path / "folder")
    export(campaign, wish=Wish(limit=2))
    settings = {"annotators": 3, "price": 0.5, "money_limit": 90}
    campaign = open_campaign(str(campaign.home), [f"handoff.{key}={value}" for key, value in settings.items()])
    export(campaign, wish=Wish(limit=2))
    sent = [batch.manifest["sending"] for batch in batches(campaign.home, 0)]
    assert [(sending["annotators"], sending["price"]) for sending in sent] == [(1, 0), (3, 0.5)]
    # What the batches are of is decided.
    with pytest.raises(ConfigError, match=r"select.budget: too late for round 000, .*generic-000 is complete"):
        open_campaign(str(campaign.home), ["select.budget=30"])
