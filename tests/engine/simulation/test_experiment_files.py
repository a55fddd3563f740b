"""Every experiment that is shipped begins on a small tree of its data, and each of its campaigns plays a round.

The trees are of real images: CIFAR-10's and CamVid's, in the layout of `vaal dataset`.
"""

import fnmatch
import os
import re
from pathlib import Path
from typing import Any

import pytest

from engine.cluster.ray_session import ray_session
from engine.datasets import DATA_SETS
from engine.simulation import pixel_campaign
from engine.simulation.experiment import Experiment, read_experiment
from engine.simulation.learners import learner_of
from engine.simulation.setups import setup_of
from engine.simulation.trial_campaign import ground_of
from engine.simulation.trials import play, trials_of
from engine.simulation.worlds import load
from engine.storage.location import Location
from tests.data_trees import OF_MASKS, write_tree
from tests.engine.simulation.test_experiment import SHIPPED

DATA = Path(os.environ.get("VAAL_DATA", Path(__file__).parents[4] / "shared/data"))
NEW = [file for file in SHIPPED if not file.stem.startswith(("cifar10-embeddings", "cifar10-pixels", "digits"))]
QUICK = [file for file in NEW if "VAAL_SETS" in file.read_text() and not file.stem.endswith("-full")]
SMALL: dict[str, Any] = {
    "device": "cpu", "train.max_steps": 1, "train.epochs": 1, "train.batch_size": 4, "train.task_steps": 1,
    "score.dropout_passes": 2, "select.rescore_candidates": 8,
}  # fmt: skip
SIZE, FIRST, BUDGET, TEST = 60, 20, 6, 20
pytestmark = pytest.mark.skipif(not (DATA / "camvid").exists(), reason="no camvid below VAAL_DATA or ../shared/data")


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small tree of every data set that an experiment reads."""
    folder = tmp_path_factory.mktemp("sets")
    for name in sorted({name for file in NEW for name in re.findall(r"VAAL_SETS\}/(\w+)/", file.read_text())}):
        write_tree(folder, DATA, name, 30 if name in OF_MASKS else SIZE + TEST)
    return folder


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all files keep their campaigns: a quick and a full file have many in common once they are as small."""
    return tmp_path_factory.mktemp("played")


def scaled(file: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Experiment:
    """The experiment of a file with its sizes, steps and networks as small as they can be, on trees in a folder."""
    monkeypatch.setenv("VAAL_DATA", str(DATA))
    monkeypatch.setenv("VAAL_SETS", str(folder))
    found = read_experiment(str(file))
    is_masks = bool(found.masks)
    size, first, test = (30, 10, 5) if is_masks else (SIZE, FIRST, TEST)
    pool = {
        "size": size,
        "shards": re.sub(r"(train|val|test)-.*\.tar", r"\1-00000.tar", found.pool.shards),
    }
    campaign = {**found.campaign, **SMALL, "image.size": 32}
    for key in ("train.task_network", "score.dropout"):
        campaign.pop(key, None)
    return found.model_copy(
        update={
            "pool": found.pool.model_copy(update=pool),
            "test": found.test.model_copy(update={"size": test}),
            "first_labels": found.first_labels.model_copy(update={"count": first}),
            "rounds": 1, "seeds": 2, "budget": BUDGET, "task_steps": 1, "campaign": campaign,
        }
    )  # fmt: skip


def shards_of(name: str) -> dict[str, int]:
    """The images in each shard that `vaal dataset` makes of a whole data set."""
    row = DATA_SETS[name]
    return {
        f"{part}-{number:05d}.tar": min(row.shard_images, count - number * row.shard_images)
        for part, count in row.counts.items()
        for number in range(-(-count // row.shard_images))
    }


@pytest.mark.parametrize("file", QUICK, ids=lambda file: file.stem)
def test_a_quick_experiment_reads_enough_images_and_few_that_it_does_not_use(file: Path) -> None:
    experiment = read_experiment(str(file))
    name = experiment.pool.shards.split("/")[1]
    shards = shards_of(name)
    for part, size in ((experiment.pool.shards, experiment.pool.size), (experiment.test.shards, experiment.test.size)):
        images = [shards[shard] for shard in fnmatch.filter(shards, part.rpartition("/")[2])]
        # Some of train are left out because they are in test too.
        assert sum(images) * 0.95 > size > 0
        # Images of 32 px are read in seconds.
        assert len(images) == 1 or sum(images) <= 4 * size or name == "cifar100"


@pytest.mark.parametrize("file", NEW, ids=lambda file: file.stem)
def test_every_experiment_begins(file: Path, trees: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = scaled(file, trees, monkeypatch)
    world = load(experiment)
    setup = setup_of(world, experiment, 0)
    first, test = experiment.first_labels.count, experiment.test.size
    assert (len(setup.first), len(setup.test.key_N)) == (first, test)
    assert bool(world.masks) == (learner_of(experiment.tasks[0]).sees == "masks")
    noise = experiment.oracle.noise
    wrong = (setup.answer_N != setup.pool.label_N).mean()
    assert (0 < wrong < 2 * noise) if noise else not wrong
    if experiment.first_labels.kind == "biased":
        assert len(setup.missing) == experiment.first_labels.missing
    folders = {trial.folder for trial in trials_of(experiment, world, Location.of(f"{tmp_path}/out"))}
    assert len(folders) == len(experiment.strategies) * experiment.seeds


def plays(experiment: Experiment, folder: Path, names: list[str]) -> None:
    """A round of these strategies with one seed is a whole campaign that measures its task models."""
    world = load(experiment)
    trials = [one for one in trials_of(experiment, world, Location.of(str(folder))) if one.seed == 0]
    ground = ground_of(world, experiment, 0, trials[0].first_folder)
    with ray_session("local"):
        for trial in trials:
            if trial.strategy in names:
                points = play(trial, experiment, ground, lambda: None)
                # Points that other files share have their task models too.
                assert len(points) == 2
                assert all(set(experiment.tasks) <= set(point["tasks"]) for point in points), trial.strategy
                bought = points[1]["num_labels"] - points[0]["num_labels"]
                asked = trial.config.handoff.annotators
                assert 0 <= bought <= BUDGET // asked if asked > 1 else bought == BUDGET, trial.strategy
                if asked > 1:
                    assert points[1]["answers"] - points[0]["answers"] == BUDGET


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("file", NEW, ids=lambda file: file.stem)
def test_every_strategy_of_an_experiment_plays_a_round(
    file: Path, trees: Path, played: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = scaled(file, trees, monkeypatch)
    plays(experiment, played, [one.name for one in experiment.strategies])


@pytest.mark.slow
@pytest.mark.heavy
@pytest.mark.usefixtures("local_ray")
def test_masks_are_bought_and_learned(trees: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = scaled(Path("experiments/camvid.toml"), trees, monkeypatch)
    plays(experiment, tmp_path / "out", ["random"])


@pytest.mark.slow
@pytest.mark.heavy
@pytest.mark.usefixtures("local_ray")
def test_annotators_disagree_and_their_consensus_is_learned(
    trees: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = scaled(Path("experiments/cifar10-annotators.toml"), trees, monkeypatch)
    # As many gold images as others: their answers are paid for too.
    options = [{**one.options, "handoff.gold_fraction": 1.0} for one in experiment.strategies]
    strategies = [
        one.model_copy(update={"options": own}) for one, own in zip(experiment.strategies, options, strict=True)
    ]
    experiment = experiment.model_copy(update={"strategies": strategies})

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    # Killed while the images are out: the same ones are answered.
    with monkeypatch.context() as dying:
        dying.setattr(pixel_campaign, "_take_in", die)
        with pytest.raises(KeyboardInterrupt):
            plays(experiment, tmp_path / "out", ["3 votes one_coin"])
    plays(experiment, tmp_path / "out", ["3 votes one_coin"])
