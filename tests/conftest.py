"""Real small data: scikit-learn's digits as shards, a campaign on them, and one local Ray for the whole run."""

import atexit
import gc
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NoReturn

import numpy as np
import pyarrow as pa
import pytest
import ray
import torch
from hypothesis import settings
from ray._private import auto_init_hook
from threadpoolctl import threadpool_limits

from engine.campaign.folder import Campaign
from engine.campaign.freshness import fingerprint
from engine.campaign.manifests import TrainManifest, write_manifest
from engine.campaign.opening import create
from engine.cluster.ray_session import ray_session
from engine.config.options import CampaignConfig
from engine.config.texts import parse_settings
from engine.config.toml import override
from engine.models.diagnosis import manifest_entries
from engine.models.task_source import TASK_MODEL, task_inputs
from engine.models.task_trial import task_entry
from engine.models.weights import made_at_last, make_classifier, make_networks, save_weights
from engine.simulation.demo_pools import DemoPool, digits
from engine.storage.location import Location
from engine.training.metrics import METRICS_SCHEMA
from tests.heavy import is_heavy
from vaal.signal import Diagnosis, Interval
from vaal.step import StepLosses

MakeCampaign = Callable[..., Campaign]


# For a first look: random examples are a tenth of the fast tests' time.
# An example may take long on a busy machine.
settings.register_profile("all", deadline=None)
settings.load_profile("all")
settings.register_profile("few", max_examples=25, deadline=None)


def pytest_configure() -> None:
    # A shell ignores Ctrl-C for what it runs behind, and what is tested there ends itself by SIGTERM: all the tests.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # One thread a process: the tests' networks are small, and more threads than free cores wait for one another.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    threadpool_limits(1)
    # What a test writes need not outlive a power cut: waiting for the disk was a fifth of the fast tests' time.
    os.fsync = lambda _: None
    # How often Ray Train's controller looks at its workers; a checkpoint waits for it. Its own default is 2 seconds.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    # Unconnected, `ray.put` and the like join any Ray of this machine: that of another test process, even a dead one.
    auto_init_hook.enable_auto_connect = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if is_heavy(item):
            item.add_marker(pytest.mark.heavy)


def pytest_collection_finish() -> None:
    # The libraries and all tests are there now, and stay: the collector need not look at them again and again.
    gc.collect()
    gc.freeze()
    # At the very end libraries complain of what was not let go.
    atexit.register(gc.unfreeze)


@pytest.fixture(autouse=True)
def _no_ray_by_surprise(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that starts Ray without the fixture `local_ray` would not be found to be heavy: it fails."""

    def refuse(*_: object, **__: object) -> NoReturn:
        pytest.fail("a test that needs Ray takes the fixture local_ray")

    if not request.node.get_closest_marker("heavy"):
        monkeypatch.setattr(ray, "init", refuse)
        # Nobody else begins at the same moment.
        monkeypatch.setattr("engine.campaign.heartbeat.SETTLING_SECONDS", 0.0)


@pytest.fixture(scope="session")
def pool(tmp_path_factory: pytest.TempPathFactory) -> DemoPool:
    """1,797 digits in eight shards; 200 labels."""
    return digits(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="session")
def created(pool: DemoPool, tmp_path_factory: pytest.TempPathFactory) -> Callable[[tuple[str, ...]], Campaign]:
    """A campaign on the digits with further settings, made once for all tests, which copy it."""

    @cache
    def make(settings: tuple[str, ...]) -> Campaign:
        config = override(CampaignConfig(), parse_settings([*pool.settings, *settings]), "test")
        home = tmp_path_factory.mktemp("created") / "campaign"
        return create(str(home), pool.shards, str(pool.labels), config, lambda _: None)

    return make


@pytest.fixture
def make_campaign(tmp_path: Path, pool: DemoPool, created: Callable[[tuple[str, ...]], Campaign]) -> MakeCampaign:
    """Makes a campaign on the digits, with further settings, or with other shards or labels."""

    def make(
        *settings: str, name: str = "campaign", shards: list[str] | None = None, labels: Path | None = None
    ) -> Campaign:
        home = Location.of(str(tmp_path / name))
        if shards is None and labels is None and not (home / "campaign.toml").exists():
            original = created(settings)
            shutil.copytree(original.home.path, home.path)
            return replace(original, home=home)
        config = override(CampaignConfig(), parse_settings([*pool.settings, *settings]), "test")
        return create(home.url, shards or pool.shards, str(labels or pool.labels), config, lambda _: None)

    return make


def found(signal: str) -> Diagnosis:
    """A diagnosis of healthy networks that did, or did not, find a signal."""
    auc = Interval(0.93, 0.88, 0.97) if signal == "present" else Interval(0.52, 0.46, 0.58)
    lift = Interval(6.34, 2.51, 16.2) if signal == "present" else Interval(1.13, 0.72, 1.81)
    kl_Z = [3.0 / (1 + unit) for unit in range(32)]
    return Diagnosis(auc, 40, 400, 0.01, kl_Z, 30, 0.06, lift, 0.25)


def pretend_trained(campaign: Campaign, signal: str = "present") -> None:
    """Complete the train stage with the initial weights: scoring needs weights, not good ones."""
    folder, steps = campaign.stage("train"), np.arange(40)
    curves = [900 / (1 + steps), 1.4 + steps / 100, 2.7 - steps / 100, 2.7 - steps / 200]
    names = ("step", "epoch", *StepLosses._fields)
    rows = [dict(zip(names, row, strict=True)) for row in zip(steps, steps * 0, *curves, strict=True)]
    metrics = pa.Table.from_pylist(rows, schema=METRICS_SCHEMA)
    torch.manual_seed(0)
    networks = made_at_last(campaign.config, make_networks(campaign.config))
    by_user = task_inputs(campaign.config)
    if campaign.config.has_task and not by_user:
        networks = networks._replace(task=make_classifier(campaign.config, 7))
    files = save_weights(folder, networks.files())
    files["metrics.parquet"] = (folder / "metrics.parquet").write_table(metrics)
    losses = dict(zip(StepLosses._fields, (23.1, 1.8, 2.3, 2.5), strict=True))
    write_manifest(
        campaign, "train", TrainManifest,
        inputs={TASK_MODEL: fingerprint(**by_user)} if by_user else {},
        counts={"steps": 40}, files=files, device="cpu", losses=losses, **manifest_entries(found(signal)),
        **({"task": task_entry(campaign.config, [])} if by_user else {}),
    )  # fmt: skip


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """A private Ray that the tests of one run share."""
    with ray_session("local"):
        yield
