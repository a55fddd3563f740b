"""A campaign's folder: made once, changed only where that has an effect, and complete only by its manifests."""

import re
import tomllib
from pathlib import Path

import pytest

from engine.campaign.folder import is_complete
from engine.campaign.manifests import Manifest, read_manifest, write_manifest
from engine.campaign.opening import check_budget, open_campaign
from engine.errors import ConfigError, InputError
from engine.pool.manifest import read_shards, write_shards
from engine.simulation.demo_pools import DemoPool
from tests.conftest import MakeCampaign, pretend_trained


def test_init_writes_the_resolved_configuration(make_campaign: MakeCampaign, pool: DemoPool) -> None:
    campaign = make_campaign("train.epochs=3")
    written = tomllib.loads((campaign.home / "campaign.toml").read_bytes().decode())
    assert written == {"format": 1, **campaign.config.model_dump()}
    assert written["train"]["epochs"] == 3
    assert written["pool"]["root"] == str(Path(pool.shards[0]).parent)
    assert len(set(written["salt"])) > 1
    assert open_campaign(str(campaign.home), []) == campaign


def test_two_campaigns_have_two_salts(make_campaign: MakeCampaign, pool: DemoPool) -> None:
    # With labels that are named, no copy is made of a campaign that there is.
    one, two = (make_campaign(name=name, labels=pool.labels) for name in ("one", "two"))
    assert one.config.salt != two.config.salt


def test_init_refuses_a_folder_with_a_campaign(make_campaign: MakeCampaign) -> None:
    make_campaign()
    with pytest.raises(ConfigError, match=r"already holds a campaign; use another folder, or continue: vaal round"):
        make_campaign()


def test_a_folder_without_a_campaign_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no campaign here; correct the path, or make one: vaal init"):
        open_campaign(str(tmp_path), [])


def test_a_budget_above_the_pool_is_refused(make_campaign: MakeCampaign) -> None:
    # Every shard holds a label, so that init has counted them all.
    with pytest.raises(ConfigError, match=r"select.budget=1598 is more than the 1597 items .* select.budget=1597"):
        make_campaign("select.budget=1598")
    campaign = make_campaign("select.budget=1597")
    check_budget(campaign)
    shards = read_shards(campaign.home)
    write_shards(campaign.home, [shards[0]._replace(num_items=1), *shards[1:]])
    with pytest.raises(ConfigError, match="is more than the 1373 items"):
        check_budget(campaign)


def test_a_setting_holds_from_its_round_on(make_campaign: MakeCampaign) -> None:
    home = str(make_campaign().home)
    before = (Path(home) / "campaign.toml").read_text()
    assert open_campaign(home, ["train.epochs=7", "score.max_bad_fraction=0.5"]).config.train.epochs == 7
    assert open_campaign(home, ["select.budget=5"]).config.train.epochs == 7
    again = open_campaign(home, []).config
    assert (again.train.epochs, again.score.max_bad_fraction, again.select.budget) == (7, 0.5, 5)
    assert (Path(home) / "campaign.toml").read_text() == before


@pytest.mark.parametrize("setting", ["salt=" + "a" * 32, "pool.group=a", "pool.shards=['x.tar']"])
def test_what_is_fixed_at_init_cannot_be_set(make_campaign: MakeCampaign, setting: str) -> None:
    home = str(make_campaign().home)
    with pytest.raises(ConfigError, match="fixed at init"):
        open_campaign(home, [setting])


@pytest.mark.parametrize("setting", ["train.epochs=7", "image.size=16"])
def test_a_setting_that_comes_too_late_is_refused(make_campaign: MakeCampaign, setting: str) -> None:
    campaign = make_campaign()
    pretend_trained(campaign)
    with pytest.raises(ConfigError, match=r"too late for round 000, .*/train is complete") as refused:
        open_campaign(str(campaign.home), [setting])
    assert open_campaign(str(campaign.home), []) == campaign
    # The same value again, an option of a later stage, or one that changes no results, is not too late.
    for harmless in ("train.epochs=20", "select.budget=7", "device=cpu"):
        open_campaign(str(campaign.home), [harmless])
    # Nothing was sent yet, so it is in time once the file that the advice names is gone.
    (manifest,) = re.findall(r"or delete (\S+) first", str(refused.value))
    Path(manifest).unlink()
    open_campaign(str(campaign.home), [setting])


def test_a_wrong_setting_leaves_nothing_behind(make_campaign: MakeCampaign) -> None:
    campaign = make_campaign()
    with pytest.raises(ConfigError):
        open_campaign(str(campaign.home), ["train.epochs=7", "train.folds=0"])
    assert open_campaign(str(campaign.home), []) == campaign


def test_a_later_round_is_named(make_campaign: MakeCampaign) -> None:
    with pytest.raises(InputError, match="--round 3: the campaign is in round 0"):
        open_campaign(str(make_campaign().home), [], 3)


def test_a_stage_is_complete_by_its_manifest(make_campaign: MakeCampaign) -> None:
    campaign = make_campaign()
    stage = campaign.stage("handoff/generic")
    assert not is_complete(stage)
    with pytest.raises(InputError, match="handoff/generic: not complete; run: vaal export"):
        read_manifest(campaign, "handoff/generic", Manifest)
    written = write_manifest(
        campaign, "handoff/generic", Manifest, inputs={"picks": "1"}, counts={"images": 2, "bytes": 9}, files={}
    )
    assert is_complete(stage)
    assert read_manifest(campaign, "handoff/generic", Manifest) == written
    assert (written["stage"], written["round"], written["seed"]) == ("handoff/generic", 0, 0)
    assert written["config"] == campaign.config.model_dump()


def test_embeddings_that_are_nowhere_are_refused_at_init(make_campaign: MakeCampaign, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere.parquet: no such file"):
        make_campaign(f"pool.embeddings={tmp_path}/nowhere.parquet")
    assert not (tmp_path / "campaign/campaign.toml").exists()


def test_a_relative_path_names_the_same_file_in_any_folder(
    make_campaign: MakeCampaign, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    campaign = make_campaign("task.model=a:b", "task.weights=t.safetensors", "labels.masks=member:png", name="relative")
    assert campaign.config.task.weights == f"{tmp_path}/t.safetensors"
    assert campaign.config.labels.masks == "member:png"
    home = str(campaign.home)
    changed = open_campaign(home, ['task.weights=["one.safetensors", "s3://bucket/two.safetensors"]']).config
    monkeypatch.chdir("/")
    kept = open_campaign(home).config
    assert kept == changed
    assert kept.task.files == [f"{tmp_path}/one.safetensors", "s3://bucket/two.safetensors"]
