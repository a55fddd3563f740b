"""A trial on pixels is a real campaign: it picks what the commands pick, and goes on where it was killed."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from engine.campaign.folder import Campaign
from engine.campaign.labels import identities, read_labels
from engine.campaign.opening import create, open_campaign
from engine.campaign.stages import run_stage
from engine.simulation import pixel_campaign, trials
from engine.simulation.trial_campaign import KINDS
from engine.storage.location import Location
from tests.engine.simulation.test_pixel_experiment import PIXELS, write_files
from tests.engine.simulation.test_trials import Played, timeless
from tests.sendings import take_in

SMALL = PIXELS.replace("seeds = 6", "seeds = 6\ntask_steps = 3").replace(
    "image.size = 16", "image.size = 16\ntrain.max_steps = 3\ntrain.batch_size = 8"
)
PAPER = """
[[strategies]]
name = "authors"
train.method = "vaal_2019"
train.batch_size = 8
"""


def played(folder: Path, text: str = SMALL) -> Played:
    folder.mkdir(exist_ok=True)
    write_files(folder)
    return Played(folder, text.format(folder))


def picks(home: str, number: int = 0) -> list[str]:
    """The item_ids of a round's picks in their order."""
    found: list[str] = pq.read_table(f"{home}/rounds/{number:03d}/selection/selection.parquet")["item_id"].to_pylist()
    return found


@pytest.mark.slow
@pytest.mark.heavy
@pytest.mark.usefixtures("local_ray")
def test_picks_are_those_of_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = played(tmp_path / "one", SMALL.replace("rounds = 1", "rounds = 2"))
    one.play("random")
    trained = list[int]()
    original = pixel_campaign.train

    def counted(campaign: Campaign) -> object:
        trained.append(campaign.round)
        return original(campaign)

    monkeypatch.setattr(pixel_campaign, "train", counted)
    points = one.play("lowest")
    # Random trains nothing that another strategy could take over.
    assert trained == [0, 1]
    assert [point["num_labels"] for point in points] == [8, 13, 18]
    assert all(0 < point["seconds_score"] < point["seconds_train_and_score"] for point in points[1:])
    simulated = f"{one.of('lowest').folder}/campaign"
    config = one.of("lowest").config
    made = create(
        str(tmp_path / "by hand"), [f"{one.ground.pool}/*.tar"], f"{simulated}.first.csv", config, lambda _: None
    )
    for number in (0, 1):
        campaign = open_campaign(made.home.url)
        for command in ("train", "score", "select"):
            run_stage(command, campaign)
        assert picks(made.home.url, number) == picks(simulated, number)
        file = Location.of(f"{simulated}.answers-{number:03d}/answers.csv")
        take_in(campaign, file)
    labels = [read_labels(Location.of(home)) for home in (made.home.url, simulated)]
    assert sorted(identities(labels[0])) == sorted(identities(labels[1]))
    truth = dict(zip(one.setup.pool.names(), one.setup.answer_N.tolist(), strict=True))
    said = dict(zip(identities(labels[1]), labels[1]["label"].to_pylist(), strict=True))
    assert said == {name: one.world.classes[truth[name]] for name in said}


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_a_killed_trial_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = played(tmp_path / "whole").play("lowest")
    one = played(tmp_path / "killed")
    for module, name in ((pixel_campaign, "score"), (trials, "_take_over"), (trials, "select")):
        with monkeypatch.context() as dying:

            def die(*_: object) -> None:
                raise KeyboardInterrupt

            dying.setattr(module, name, die)
            with pytest.raises(KeyboardInterrupt):
                one.play("lowest")
        opening = Location.of(one.of("lowest").opening_folder) / "campaign/rounds/000/train/manifest.json"
        trained = opening.read_bytes()
    again = one.play("lowest")
    assert opening.read_bytes() == trained
    assert timeless({"points": again}) == timeless({"points": whole})
    homes = [f"{each.of('lowest').folder}/campaign" for each in (one, played(tmp_path / "whole"))]
    assert picks(homes[0]) == picks(homes[1])


def of_ray(folder: Path) -> list[psutil.Process]:
    """The processes that the simulation in a folder has started, and those of Ray below them."""
    first = [one for one in psutil.process_iter(["cmdline"]) if str(folder) in " ".join(one.info["cmdline"] or [])]
    return [*first, *(below for one in first for below in one.children(recursive=True))]


@pytest.mark.slow
def test_side_by_side_each_has_its_cores_and_ends_with_the_simulation(tmp_path: Path) -> None:
    write_files(tmp_path)
    text = SMALL.format(tmp_path).replace("seeds = 6", "seeds = 2").partition("[[strategies]]")[0]
    (tmp_path / "two.toml").write_text('strategies = ["random", "vaal_2019"]\n' + text)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "jobs", "simulate", f"{tmp_path}/two.toml", "--out", str(out), "--workers", "2"]
    killed = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while killed.poll() is None and not list(out.glob("runs/*/*/campaign/rounds/000/train/manifest.json")):
        time.sleep(0.1)
    started = of_ray(tmp_path)
    cores = [set(one.cpu_affinity()) for one in started if "raylet" in one.name()]
    assert len(cores) == 2
    assert not cores[0] & cores[1] or len(os.sched_getaffinity(0)) < 2
    killed.kill()
    _, left = psutil.wait_procs(started, timeout=30)
    # Ray's agents look for their parent, and end some two minutes later.
    assert not [one for one in left if "Agent" not in one.name()]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    curves = pq.read_table(out / "curves.parquet", filters=[("metric", "=", "accuracy"), ("round", "=", 1)])
    assert sorted(zip(curves["strategy"].to_pylist(), curves["seed"].to_pylist(), strict=True)) == [
        ("random", 0), ("random", 1), ("vaal_2019", 0), ("vaal_2019", 1),
    ]  # fmt: skip


def test_a_trial_is_new_where_its_images_are(tmp_path: Path) -> None:
    texts = (
        SMALL,
        SMALL.replace("image.size = 16", "image.size = 12"),
        SMALL.replace("max_steps = 3", "max_steps = 4"),
    )
    trials = [played(tmp_path, text).of("lowest") for text in texts]
    assert trials[0].first_folder != trials[1].first_folder
    assert trials[0].first_folder == trials[2].first_folder
    assert len({trial.opening_folder for trial in trials}) == 3


@pytest.mark.heavy
def test_the_authors_code_buys_its_lowest_scores(tmp_path: Path) -> None:
    one = played(tmp_path, SMALL.replace("budget = 5", "budget = 6") + PAPER)
    trial = one.of("authors")
    assert trial.kind == "vaal_2019"
    assert trial.opening_folder != one.of("lowest").opening_folder
    config = trial.config
    assert (config.train.vae_steps, config.train.folds, config.train.batch_size) == (2, 1, 8)
    points = one.play("authors")
    opening = KINDS[trial.kind].make(Location.of(trial.opening_folder) / "campaign", one.ground, config)
    assert [point["num_labels"] for point in points] == [8, 14]
    assert 0 < points[1]["seconds_score"] < points[1]["seconds_train_and_score"]
    tables = [pq.read_table(file) for file in Path(opening.campaign.stage("scores").path).glob("*.parquet")]
    first = {one.setup.pool.names()[place] for place in one.setup.first}
    rows = [row for table in tables for row in table.to_pylist() if (row["shard"], row["key"]) not in first]
    assert len(rows) == 30 - 8
    lowest = sorted(rows, key=lambda row: row["logit"])[:6]
    bought = pq.read_table(f"{trial.folder}/campaign/rounds/000/selection/selection.parquet").to_pylist()
    assert {row["key"] for row in bought} == {row["key"] for row in lowest}
    assert all(pick["offset"] > 0 and pick["content_hash"] for pick in bought)
