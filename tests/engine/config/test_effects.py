"""Law 10: an option without an effect does not exist. Each is changed, and what follows from it changes too."""

import ast
import dataclasses
import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.campaign.classes import classes_of
from engine.campaign.folder import Campaign
from engine.campaign.hooks import target_of
from engine.campaign.manifests import TrainManifest, read_manifest
from engine.campaign.stages import QUIET
from engine.cluster.waiting import Need
from engine.config import options
from engine.config.options import CampaignConfig
from engine.config.toml import override
from engine.errors import NotAcceptableError
from engine.models.weights import make_classifier, make_networks
from engine.pool.images import DecodeError, decode
from engine.pool.manifest import read_shards
from engine.pool.metadata import read_strata
from engine.pool.shards import NO_SHARDS
from engine.scoring import stream
from engine.scoring.quarantine import require_acceptable
from engine.scoring.scorer import load_scorer
from engine.selection.select import select
from engine.simulation.demo_pools import DemoPool
from engine.storage.location import Location
from engine.tables.scores import ShardRecord
from engine.tables.shard_records import table_of
from engine.training import ray_trainer, train, zero
from engine.training.board import Steps
from engine.training.plan import phase_of, plan_training
from tests.conftest import pretend_trained
from tests.effects import Bench, Look, Stopped, stop
from tests.fabricate import fabricate_scores
from tests.handoff_effects import HANDOFF_EFFECTS
from tests.input_effects import INPUT_EFFECTS
from tests.rounds import encoded
from tests.score_effects import SCORE_EFFECTS
from tests.tars import archive, read

pytestmark = pytest.mark.heavy

ENGINE = Path(__file__).parents[3] / "engine"


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, pool: DemoPool) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        yield Bench(tmp_path_factory.mktemp("effects"), pool, patch)


def listed(bench: Bench, config: CampaignConfig) -> Any:
    """Shards and strata of a campaign, as init finds them."""
    home = bench.campaign(config).home
    strata = read_strata(home, "source") if config.pool.metadata else {}
    return [shard.shard for shard in read_shards(home)], strata


def planned(bench: Bench, config: CampaignConfig) -> Any:
    plan = plan_training(dataclasses.replace(bench.made, config=config))
    return plan.num_steps, plan.weights, phase_of(plan, 0, is_holding=False)


def taught(bench: Bench, config: CampaignConfig) -> Any:
    """The task learner of three classes, and how long it learns."""
    plan = plan_training(dataclasses.replace(bench.made, config=config))
    return plan.task and (plan.task.num_steps, [value.shape for value in make_classifier(config, 3).parameters()])


def refits(bench: Bench, config: CampaignConfig) -> Any:
    return config.refits


def networks(bench: Bench, config: CampaignConfig) -> Any:
    made = make_networks(config)
    return [
        {name: (tuple(value.shape), float(value.double().sum())) for name, value in module.state_dict().items()}
        for module in (made.vae, made.discriminators)
        if module is not None
    ]


def allowed(bench: Bench, config: CampaignConfig) -> Any:
    return not classes_of(config, lambda: ["0"]).fault("1")


def deepspeed(bench: Bench, config: CampaignConfig) -> Any:
    return zero.settings(config.train, 1)


def cluster(bench: Bench, config: CampaignConfig) -> Any:
    """What Ray Train is asked for."""
    bench.patch.setattr(ray_trainer, "cpus_per_worker", lambda _: 1)
    bench.patch.setattr(ray_trainer, "_Trainer", stop)
    plan = plan_training(dataclasses.replace(bench.made, config=config))
    with pytest.raises(Stopped) as stopped:
        ray_trainer.trainer_of(plan._replace(device="cpu"), None, Location("/nowhere"), "name")
    asked = stopped.value.args[-1]
    return str(asked["scaling_config"].num_workers), asked["run_config"].checkpoint_config.num_to_keep


def followed(bench: Bench, config: CampaignConfig) -> Any:
    """Who is given the losses."""
    bench.patch.setattr(train, "tracked", stop)
    made = dataclasses.replace(bench.made, config=config)
    with pytest.raises(Stopped) as stopped, train._shown(made, QUIET, plan_training(made), "name", Steps(1)):
        pass
    return stopped.value.args[0]


def actors(bench: Bench, config: CampaignConfig) -> Any:
    """The scorers on a cluster of four GPUs."""
    bench.patch.setattr(stream, "choose_device", lambda device, *_: "cuda" if device == "auto" else device)
    bench.patch.setattr(stream, "count_devices", lambda _: 4)
    bench.patch.setattr(stream, "require_cpus", lambda *_: None)
    return stream.choose_actors(config, QUIET)


def reading(bench: Bench, config: CampaignConfig) -> Any:
    """How the tasks of scoring are asked to read."""
    bench.patch.setattr(stream, "Reading", stop)
    actors = stream.Actors("cpu", 1, Need("score", 1, 0.0, 0.0))
    with pytest.raises(Stopped) as stopped:
        next(stream.scored_chunks(Campaign(Location("/nowhere"), config, 0), NO_SHARDS, {}, actors, {}))
    return stopped.value.args


def images(bench: Bench, config: CampaignConfig) -> Any:
    """An RGB image of 40 x 30 pixels and a TIFF, as they are read."""
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    content = archive([("a.png", encoded(pixels)), ("b.tif", encoded(pixels, "TIFF"))])
    found: list[Any] = []
    for item in read(content, config.image):
        try:
            found.append((item.error, item.data and decode(item.data, config.image).shape))
        except DecodeError as error:
            found.append(str(error))
    return found


def scorer(bench: Bench, config: CampaignConfig) -> Any:
    campaign = bench.campaign(config)
    pretend_trained(campaign)
    made = load_scorer(campaign.stage("train"), config, read_manifest(campaign, "train", TrainManifest)["files"], "cpu")
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 1), np.uint8)
    sizes: list[int] = []
    forward = made._forward
    made._forward = lambda given: sizes.append(len(given.fold_N)) or forward(given)  # type: ignore[func-returns-value, assignment]
    columns = made(pixels, np.arange(6) % 2).columns
    return sizes, {name: column.tolist() for name, column in columns.items()}


def accepted(bench: Bench, config: CampaignConfig) -> Any:
    record = ShardRecord("a.tar", "a.parquet", 100, 90, 10, "00", 99)
    try:
        require_acceptable(Campaign(Location("/nowhere"), config, 0), table_of([record]), lambda _: None)
    except NotAcceptableError:
        return False
    return True


def picked(bench: Bench, config: CampaignConfig, signal: str = "present") -> Any:
    """A selection from scores whose every second latent is nearly that of the item before it."""
    campaign = bench.campaign(config)
    pretend_trained(campaign, signal)
    rng = np.random.default_rng(0)

    def latents(_: str, keys: list[str]) -> Any:
        found = rng.normal(size=(len(keys), 32))
        found[1::2] = found[0::2][: len(found[1::2])] + 0.1 * rng.normal(size=(len(keys) // 2, 32))
        return found

    fabricate_scores(campaign, lambda _, keys: np.linspace(-2, 2, len(keys)), latents=latents)
    select(campaign)
    columns = ["rank", "shard", "key", "arm", "reason", "item_id"]
    return (campaign.stage("selection") / "selection.parquet").read_table(columns).to_pylist()


without_signal = partial(picked, signal="none")
EFFECTS: dict[str, tuple[Any, Look]] = {
    **INPUT_EFFECTS,
    **HANDOFF_EFFECTS,
    **SCORE_EFFECTS,
    "labels.classes": ("from-init", allowed),
    "labels.are_biased": ("no", picked),
    "salt": ("f" * 32, picked),
    "device": ("cpu", actors),
    "pool.shards": (lambda bench: [f"{bench.folder}/pool/*.tar"], listed),
    "pool.root": (lambda bench: str(bench.folder), listed),
    "pool.metadata": (lambda bench: f"{bench.folder}/sources.csv", listed),
    "pool.group": (r"\d$", planned),
    "image.size": (16, images),
    "image.channels": (3, images),
    "image.max_pixels": (100, images),
    "image.max_bytes": (1000, images),
    "image.suffixes": (["tif"], images),
    "train.preset": ("base", networks),
    "train.method": ("pixels", networks),
    "train.epochs": (3, planned),
    "train.max_steps": (7, planned),
    "train.batch_size": (32, planned),
    "train.vae_steps": (2, planned),
    "train.discriminator_steps": (3, planned),
    "train.beta": (0.5, planned),
    "train.transductive_weight": (0.5, planned),
    "train.adversarial_weight": (0.5, planned),
    "train.gradient_clipping": (1.0, deepspeed),
    "train.folds": (3, networks),
    "train.task": ("none", taught),
    "train.task_network": ("resnet18", taught),
    "train.task_steps": (7, taught),
    "train.refit": (False, refits),
    "train.workers": (2, cluster),
    "train.min_workers": ({"train.min_workers": 1, "train.workers": 2}, cluster),
    "train.wait_seconds": (60.0, lambda _, config: train.need_of(config.train, "cuda")),
    "train.zero_stage": (2, deepspeed),
    "train.offload": ({"train.offload": "optimizer", "train.zero_stage": 1}, deepspeed),
    "train.gradient_accumulation": (2, deepspeed),
    "train.precision": ("bf16", deepspeed),
    "train.checkpoints_kept": (5, cluster),
    "train.trackers": (["tensorboard", "wandb"], followed),
    "train.seed": (1, networks),
    "score.workers": (3, actors),
    "score.gpus_per_worker": (0.5, actors),
    "score.wait_seconds": (60.0, actors),
    "score.batch_size": (4, scorer),
    "score.acquisition": (["vaal", "margin"], scorer),
    "score.precision": ("bf16", scorer),
    "score.attempts": (5, reading),
    "score.stall_seconds": (7.0, reading),
    "score.max_bad_fraction": (0.5, accepted),
    "select.budget": (30, picked),
    "select.oversample": (9.0, picked),
    "select.duplicates": ("off", picked),
    "select.duplicate_cosine": (0.9999, picked),
    "select.diversity": ("none", picked),
    "select.control_fraction": (0.5, picked),
    "select.stratify": (
        lambda bench: {"pool.metadata": f"{bench.folder}/sources.csv", "select.stratify": "source"},
        picked,
    ),
    "select.per_group": ({"select.per_group": 1, "pool.group": "^([0-9]{5})"}, picked),
    "select.where": (
        lambda bench: {"pool.metadata": f"{bench.folder}/sources.csv", "select.where": "source = 'a'"},
        picked,
    ),
    "select.exclude": (lambda bench: f"{bench.folder}/never.csv", picked),
    "select.when_no_signal": ("random", without_signal),
    "select.seed": (1, picked),
    "hooks.on_stage": ("https://example.org/hook", lambda _, config: target_of(config.hooks.on_stage)),
}
"""An option: another value than the default, or the settings that it takes, and where the change shows."""
READ_IN_TRAINING = {
    "train.learning_rate": "worker.py",
    "train.task_augmentation": "task_training.py",
    "train.checkpoint_seconds": "checkpoints.py",
    "train.checkpoint_steps": "checkpoints.py",
}
"""Options of a worker's loop: what they change is tested where it trains; here, that the module reads them."""


def test_every_option_has_its_place_here() -> None:
    # A new option is a decision: with it comes the effect by which it is known.
    assert sorted([*EFFECTS, *READ_IN_TRAINING]) == sorted(options.fields())


@pytest.mark.parametrize("option", EFFECTS)
def test_an_option_has_an_effect(option: str, bench: Bench) -> None:
    value, look = EFFECTS[option]
    value = value(bench) if callable(value) else value
    settings = value if isinstance(value, dict) else {option: value}
    others = {key: given for key, given in settings.items() if key != option}
    before, after = (override(bench.base, given, "test") for given in (others, settings))
    assert look(bench, after) != bench.unchanged(look, before)


@pytest.mark.parametrize("option", READ_IN_TRAINING)
def test_an_option_of_the_training_loop_is_read_there(option: str) -> None:
    tree = ast.parse((ENGINE / "training" / READ_IN_TRAINING[option]).read_text())
    accesses = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert any(re.fullmatch(rf"(.*[._])?{option}", access) for access in accesses)
