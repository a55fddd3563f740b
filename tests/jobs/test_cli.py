"""The command line: answers at once, one line an error with its exit status, one JSON object where asked."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from engine.simulation.demo_pools import DemoPool, write_shards
from jobs.cli import PAGES, app, spread_pool
from tests.conftest import MakeCampaign, pretend_trained
from tests.fabricate import fabricate_scores

HEAVY = {"ray", "torch", "pyarrow", "deepspeed", "sklearn", "matplotlib", "webdataset"}


def vaal(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def refused(status: int, *arguments: str) -> str:
    """The one line that a command ends with."""
    result = vaal(*arguments)
    assert result.exit_code == status, result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert "Traceback" not in result.output
    return lines[0]


def init(campaign: Path, pool: DemoPool, *extra: str) -> tuple[str, ...]:
    settings = [word for setting in pool.settings for word in ("--set", setting)]
    return ("init", str(campaign), "--pool", pool.shards[0], "--labels", str(pool.labels), *settings, *extra)


@pytest.mark.parametrize("arguments", [["--help"], ["init", "c", "--labels", "l", "--set", "train.epochss=1"]])
def test_help_and_a_configuration_error_import_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys; from jobs.cli import app\n"
        f"try: app({arguments!r})\n"
        "except SystemExit: pass\n"
        f"sys.exit(bool({HEAVY!r} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_the_module_is_the_console_script() -> None:
    by_module = subprocess.run([sys.executable, "-m", "jobs", "--help"], capture_output=True, text=True, check=True)
    script = Path(sys.executable).parent / "vaal"
    by_script = subprocess.run([script, "--help"], capture_output=True, text=True, check=True)
    assert by_module.stdout.split("Options")[1] == by_script.stdout.split("Options")[1]
    assert all(f" {name} " in by_script.stdout for name in PAGES)


def test_init_makes_a_campaign_and_says_where(tmp_path: Path, pool: DemoPool) -> None:
    result = vaal(*init(tmp_path / "c", pool))
    assert result.exit_code == 0, result.output
    assert str(tmp_path / "c/campaign.toml") in result.stdout
    assert f"vaal round {tmp_path / 'c'}" in result.stdout
    result = vaal(*init(tmp_path / "d", pool, "--json", "--set", "train.epochs=3"))
    data = json.loads(result.stdout)
    assert data["campaign"] == str(tmp_path / "d")
    assert data["config"]["train"]["epochs"] == 3


def test_init_takes_a_file_of_options(tmp_path: Path, pool: DemoPool) -> None:
    config = tmp_path / "options.toml"
    config.write_text("[train]\nepochs = 4\nfolds = 3\n")
    data = json.loads(
        vaal(*init(tmp_path / "c", pool, "--json", "--config", str(config), "--set", "train.folds=1")).stdout
    )
    assert (data["config"]["train"]["epochs"], data["config"]["train"]["folds"]) == (20, 1)
    config.write_text("[train]\nepoch = 4\n")
    assert f"{config}: train.epoch: unknown key" in refused(2, *init(tmp_path / "d", pool, "--config", str(config)))
    assert "absent.toml: cannot be read" in refused(4, *init(tmp_path / "d", pool, "--config", "absent.toml"))
    config.write_bytes(b"\xff\xfe")
    assert f"{config}: damaged, not valid TOML" in refused(2, *init(tmp_path / "d", pool, "--config", str(config)))


def test_mistakes_at_init(tmp_path: Path, pool: DemoPool) -> None:
    labels, home = str(pool.labels), str(tmp_path / "c")
    nothing = f"{tmp_path}/*.tar"
    assert f"--pool {nothing}: no shard matches" in refused(4, "init", home, "--pool", nothing, "--labels", labels)
    no_labels = refused(4, "init", home, "--pool", pool.shards[0], "--labels", str(tmp_path / "absent.csv"))
    assert "absent.csv: no such file; correct the path" in no_labels
    assert "train.epochss: unknown key; did you mean" in refused(
        2, *init(tmp_path / "c", pool, "--set", "train.epochss=1")
    )
    assert "select.budget=9999 is more than" in refused(2, *init(tmp_path / "c", pool, "--set", "select.budget=9999"))
    (tmp_path / "lies.tar").write_text("no tar " * 200)
    (tmp_path / "lies.csv").write_text("shard,key,label\nlies.tar,a,1\n")
    lies = refused(4, "init", home, "--pool", f"{tmp_path}/lies.tar", "--labels", f"{tmp_path}/lies.csv")
    assert "lies.tar: byte 0: not a tar header" in lies
    assert not (tmp_path / "c/campaign.toml").exists()
    assert vaal(*init(tmp_path / "c", pool)).exit_code == 0
    assert "already holds a campaign" in refused(2, *init(tmp_path / "c", pool))


def test_a_campaign_has_a_name_and_does_not_take_over_old_rounds(tmp_path: Path, pool: DemoPool) -> None:
    assert "an empty path" in refused(2, "init", "", "--pool", pool.shards[0], "--labels", str(pool.labels))
    assert "c\\udcff: has bytes that are not UTF-8; rename it" in refused(2, "status", "c\udcff")
    (tmp_path / "c/rounds/000").mkdir(parents=True)
    assert f"{tmp_path}/c: has rounds of a campaign but no campaign.toml" in refused(2, *init(tmp_path / "c", pool))
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["rounds"]
    nested = tmp_path / "nested.toml"
    nested.write_text("a=" + "[" * 100_000)
    assert f"{nested}: damaged, not valid TOML" in refused(2, *init(tmp_path / "d", pool, "--config", str(nested)))


def test_a_pool_of_one_image_leaves_nothing_to_pick(tmp_path: Path, pool: DemoPool) -> None:
    write_shards(tmp_path / "one", "one", iter([(np.zeros((8, 8), np.uint8), "0")]), items_per_shard=1)
    labels = tmp_path / "one.csv"
    labels.write_text("shard,key,label\none-00000.tar,000000,0\n")
    line = refused(2, "init", str(tmp_path / "c"), "--pool", f"{tmp_path}/one/*.tar", "--labels", str(labels))
    assert "select.budget=1000 is more than the 0 items of the pool that are neither labelled nor out" in line


@pytest.mark.parametrize("command", ["train", "score", "select", "export", "report", "round", "status"])
def test_a_folder_without_a_campaign(command: str, tmp_path: Path) -> None:
    line = f"{tmp_path}: no campaign here; correct the path, or make one: vaal init"
    assert line in refused(4, command, str(tmp_path))


def test_a_stage_before_its_turn_names_the_command(make_campaign: MakeCampaign) -> None:
    home = str(make_campaign().home)
    for command, needed in (("score", "train"), ("select", "score"), ("export", "select"), ("report", "select")):
        assert f"not complete; run: vaal {needed}" in refused(4, command, home)


def test_a_broken_campaign_file_names_file_and_key(make_campaign: MakeCampaign) -> None:
    campaign = make_campaign()
    file = Path(campaign.home.path) / "campaign.toml"
    file.write_text(file.read_text().replace("epochs = 20", "epochs = 'twenty'"))
    assert f"{file}: train.epochs='twenty': not a whole number" in refused(2, "status", str(campaign.home))


def test_usage_errors_exit_with_two() -> None:
    for arguments in (["nonsense"], ["init"], ["export", "c", "--to", "nobody"], ["round"]):
        assert vaal(*arguments).exit_code == 2


def test_debug_adds_the_traceback(tmp_path: Path) -> None:
    result = vaal("status", str(tmp_path), "--debug")
    assert result.exit_code == 4
    assert "Traceback" in result.stderr


def test_status_from_storage_alone(make_campaign: MakeCampaign) -> None:
    campaign = make_campaign()
    state = json.loads(vaal("status", str(campaign.home), "--json").stdout)
    assert state["round"] == 0
    assert state["pool"] | {"shards": 8, "items": 1797, "new": 0, "fault": None} == state["pool"]
    assert state["labels"]["total"] == 200
    assert state["rounds"][0]["stages"]["train"] == {"complete": False}
    pretend_trained(campaign)
    state = json.loads(vaal("status", str(campaign.home), "--json").stdout)
    assert state["rounds"][0]["stages"]["train"]["complete"]
    assert state["rounds"][0]["stages"]["scores"] == {"complete": False, "committed_shards": 0, "shards": 8}
    assert "0 of 8 shards" in vaal("status", str(campaign.home)).stdout


@pytest.mark.parametrize(
    ("signal", "shown"),
    [("present", ["present: AUC 0.93", "lift 6.3 (2.5 to 16)"]), ("none", ["no signal: AUC 0.52", "lift 1.1"])],
)
def test_status_shows_the_signal_of_a_round(make_campaign: MakeCampaign, signal: str, shown: list[str]) -> None:
    campaign = make_campaign()
    pretend_trained(campaign, signal)
    output = vaal("status", str(campaign.home)).stdout
    train = json.loads(vaal("status", str(campaign.home), "--json").stdout)["rounds"][0]["stages"]["train"]
    assert all(words in output for words in shown)
    found = json.loads((campaign.stage("train") / "manifest.json").read_bytes())["diagnosis"]
    assert train["signal"] == signal
    shared = ("auc", "auc_low", "auc_high", "findings", "lift")
    assert {key: train[key] for key in shared} == {key: found[key] for key in shared}
    assert bool(train["findings"]) == (signal == "none")


def test_a_trained_round_shows_its_signal_and_each_finding(make_campaign: MakeCampaign) -> None:
    campaign = make_campaign()
    pretend_trained(campaign, "none")
    output = vaal("train", str(campaign.home)).stdout
    assert "no signal: AUC 0.52 (0.46 to 0.58), lift 1.1 (0.72 to 1.8) among the lowest 25%, 30 of 32" in output
    assert "finding 1" in output
    assert "select.when_no_signal decides what is picked" in output


def test_a_selection_shows_how_it_was_made_and_refuses_with_exit_3(make_campaign: MakeCampaign) -> None:
    campaign = make_campaign()
    pretend_trained(campaign, "none")
    fabricate_scores(campaign, lambda _, keys: np.arange(len(keys), dtype=np.float32))
    home = str(campaign.home)
    line = refused(3, "select", home, "--set", "select.when_no_signal=refuse")
    assert "no signal, AUC 0.52 (0.46 to 0.58)" in line
    output = vaal("select", home, "--set", "select.when_no_signal=random").stdout
    assert "random, because no signal was found" in output
    assert "highest logit" not in output


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up its rights and take them back")
def test_a_folder_without_write_permission(tmp_path: Path, pool: DemoPool, make_campaign: MakeCampaign) -> None:
    make_campaign(name="warm")  # imports what init needs, while that is still readable
    for folder in (Path(pool.shards[0]).parent, tmp_path, *tmp_path.parents):
        if not folder.stat().st_mode & 0o005:
            folder.chmod(folder.stat().st_mode | 0o055)
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o755)
    os.seteuid(65534)
    try:
        line = refused(1, *init(closed / "c", pool))
    finally:
        os.seteuid(0)
    assert "closed/c/running.json: cannot be written: Permission denied" in line
    assert list(closed.iterdir()) == []


def test_an_expanded_glob_is_a_list_of_shards() -> None:
    typed = ["init", "c", "--pool", "a.tar", "b.tar", "--labels", "l.csv", "--set", "x=1"]
    assert spread_pool(typed) == ["init", "c", "--pool", "a.tar", "--pool", "b.tar", *typed[5:]]
    for unchanged in (
        ["init", "--pool", "a.tar", "c"],
        ["round", "c"],
        [],
        ["init", "c", "--pool", "a", "--pool", "b"],
    ):
        assert spread_pool(unchanged) == unchanged


@pytest.mark.heavy
def test_select_explains_an_item_and_replaces_by_force_alone(make_campaign: MakeCampaign) -> None:
    campaign = make_campaign()
    pretend_trained(campaign)
    fabricate_scores(campaign, lambda _, keys: np.arange(len(keys), dtype=np.float32))
    home = str(campaign.home)
    output = vaal("select", home).stdout
    assert "candidates" in output
    assert "300 of 1,597" in output
    pick = (campaign.stage("selection") / "selection.parquet").read_table().to_pylist()[0]
    item = (pick["shard"], pick["key"])
    output = vaal("select", home, "--explain", *item).stdout
    assert f"{pick['shard']} {pick['key']}: picked" in output
    found = json.loads(vaal("select", home, "--json", "--explain", *item).stdout)
    assert (found["outcome"], found["rank"], found["reason"]) == ("picked", 0, pick["reason"])
    assert "nowhere.tar: no such shard in the pool" in refused(4, "select", home, "--explain", "nowhere.tar", "x")

    assert vaal("export", home).exit_code == 0
    line = refused(2, "select", home, "--set", "select.budget=20")
    assert "too late" in line
    assert "vaal select --force" in line
    found = json.loads(vaal("select", home, "--json", "--force", "--set", "select.budget=20").stdout)
    assert (found["counts"]["picked"], found["counts"]["picked_before"]) == (20, 100)
    assert json.loads(vaal("export", home, "--json").stdout)["counts"]["images"] == 20
