"""The experiments in full are the paper's protocol: pool, first labels, batches, updates, networks, weights."""

from typing import NamedTuple

import pytest

from engine.simulation.experiment import Experiment, read_experiment
from engine.simulation.learners import STRONG, learner_of
from engine.simulation.recipes import RECIPES
from tests.engine.simulation.test_experiment import SHIPPED
from vaal.assembly import Sizes


class Protocol(NamedTuple):
    """Images of the pool; updates of the task model and iterations of VAAL, of `batch` images; latents; lambda2; the
    share of the pool that is labelled at the end."""

    pool: int
    updates: int
    batch: int
    latents: int
    weight: float
    last: float = 0.4


CIFAR = Protocol(50_000, 39_062, 128, 32, 1.0)
PAPER = {
    "cifar10": CIFAR, "cifar100": CIFAR, "cifar100-biased": CIFAR, "cifar100-budget": CIFAR, "cifar100-noisy": CIFAR,
    # 100 passes over its 30,607 images with clutter; 12 of each of the 256 classes are the test set.
    "caltech256": Protocol(29_780 - 256 * 12, 23_911, 128, 64, 10.0),
    "imagenet": Protocol(1_281_167, 1_000_911, 128, 64, 10.0, 0.3),
    "cityscapes": Protocol(2_975, 18_593, 8, 128, 25.0),
    # Not in the paper: its protocol with CamVid's images, and fewer updates for them.
    "camvid": Protocol(367, 4_000, 8, 128, 25.0),
    "bdd100k": Protocol(7_000, 43_750, 8, 128, 25.0), "bdd100k-ablation": Protocol(7_000, 43_750, 8, 128, 25.0),
}  # fmt: skip
FULL = {file.stem.removesuffix("-full"): file for file in SHIPPED if file.stem.endswith("-full")}
# Its seconds do not depend on how long anything learned.
del FULL["cifar10-sampling-time"]


def read(name: str, monkeypatch: pytest.MonkeyPatch) -> Experiment:
    monkeypatch.setenv("VAAL_SETS", "/sets")
    return read_experiment(str(FULL[name]))


@pytest.mark.parametrize("name", FULL)
def test_labels_are_the_papers_shares_of_the_pool(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment, paper = read(name, monkeypatch), PAPER[name]
    assert experiment.first_labels.count == pytest.approx(paper.pool * 0.1, rel=0.01, abs=2)
    assert experiment.budget == pytest.approx(
        paper.pool * (0.1 if name == "cifar100-budget" else 0.05), rel=0.01, abs=2
    )
    last = experiment.first_labels.count + experiment.rounds * experiment.budget
    assert last == pytest.approx(paper.pool * paper.last, rel=0.01, abs=2)
    assert experiment.seeds == (2 if name == "imagenet" else 5)


@pytest.mark.parametrize("name", FULL)
def test_task_models_are_updated_as_often_by_both_recipes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment, paper = read(name, monkeypatch), PAPER[name]
    recipes = []
    for task in experiment.tasks:
        row = learner_of(task)
        recipe = RECIPES[f"{row.recipe}_masks" if row.recipe == STRONG and row.sees == "masks" else row.recipe]
        recipes.append(row.recipe)
        assert recipe.batch == paper.batch
        assert (recipe.steps if experiment.task_steps == "auto" else experiment.task_steps) == paper.updates, task
    assert recipes == ["paper_masks" if paper.batch == 8 else "paper", STRONG]


@pytest.mark.parametrize("name", FULL)
def test_vaal_has_the_papers_networks_and_iterations(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment, paper = read(name, monkeypatch), PAPER[name]
    unlabelled = paper.pool - experiment.first_labels.count - (experiment.rounds - 1) * experiment.budget
    ours = [one for one in experiment.strategies if one.name in ("vaal", "vaal_2019", "frozen_vae", "vae_only")]
    assert len(ours) == (3 if name.endswith("ablation") else 2)
    for strategy in ours:
        config = experiment.config_of(strategy, 0)
        train = config.train
        assert train.preset == "paper"
        assert (train.batch_size, train.adversarial_weight, train.beta) == (paper.batch, paper.weight, 1.0)
        # In the last round, in which a pass over what is not labelled is shortest.
        assert min(train.max_steps, train.epochs * unlabelled // train.batch_size) == paper.updates
        assert Sizes("paper", config.image.size, 3, 1).shape.num_latents == paper.latents


def test_the_batch_of_an_experiment_is_that_of_the_authors_code_too(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, batch in (("camvid", 8), ("cifar10", 128)):
        experiment = read_experiment(f"experiments/{name}.toml")
        (strategy,) = (one for one in experiment.strategies if one.name == "vaal_2019")
        assert experiment.config_of(strategy, 0).train.batch_size == batch
        own = strategy.model_copy(update={"options": {**strategy.options, "train.batch_size": 16}})
        assert experiment.config_of(own, 0).train.batch_size == 16
