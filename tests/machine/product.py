"""The product in this process: real command pages; training, networks, report and Ray are replaced by fast stand-ins.

The stand-in for the networks gives every image a score that is a hash of its bytes, through the real reading, decoding
and committing. The one for training reads and decodes the labelled images as the real one does.
"""

import hashlib
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext
from contextvars import Context
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
import pytest
import typer.main
import typer.testing
from numpy.typing import NDArray
from typer.testing import CliRunner

import engine.campaign.heartbeat
import engine.campaign.manifests
import engine.campaign.workers
import engine.cluster.ray_session
import engine.report.report
import engine.scoring.score
import engine.training.train
from engine.campaign.changes import current_shards
from engine.campaign.folder import Campaign, is_complete
from engine.campaign.manifests import Manifest, TrainManifest, read_manifest, write_manifest
from engine.campaign.opening import check_budget
from engine.campaign.stages import QUIET, Run
from engine.cluster.waiting import Need
from engine.errors import StorageError
from engine.models.weights import make_networks
from engine.pool.shard import Shard
from engine.pool.sight import Sight
from engine.scoring.chunks import PASSED_ON
from engine.scoring.reading import Reading, read_chunks
from engine.scoring.stream import Actors
from engine.scoring.watchdog import Attempts
from engine.storage.location import Location
from engine.tables.scores import BAD_SCHEMA, pack, unpack
from engine.training.labelled import decoded
from engine.training.plan import plan_training
from jobs.cli import app
from tests.conftest import pretend_trained

OnTrained = Callable[[list[tuple[str, str, NDArray[np.uint8]]]], None]


class Killed(BaseException):
    """The process ended here: nothing that it still writes reaches the storage."""


class Done(NamedTuple):
    """A command that ended. `exception` is what a person would see as a traceback."""

    status: int
    out: str
    err: str
    exception: BaseException | None


@dataclass
class Writes:
    """What happens around the writes of a command: `on_write` is called before and after each one."""

    on_write: Callable[[], None] | None = None
    is_dead: bool = False


def logit_of(content: str) -> float:
    """The score of an image whose file has this content hash."""
    return float(np.float32(int(content[:6], 16) / 0xFFFFFF - 0.5))


class Product:
    """Runs `vaal` commands in this process."""

    def __init__(self) -> None:
        self.writes = Writes()
        self.on_trained: OnTrained = lambda _: None

    def run(self, *arguments: str) -> Done:
        """Run a command to its end, or to its death."""
        done = CliRunner().invoke(app, list(arguments))
        error = None if isinstance(done.exception, SystemExit) else done.exception
        return Done(done.exit_code, done.stdout, done.stderr, error)

    def run_killed(self, at: int, *arguments: str) -> Done | None:
        """Run a command that dies at its `at`-th write, before (even) or after it (odd); None where it died."""
        left = at

        def on_write() -> None:
            nonlocal left
            left -= 1
            if left < 0:
                self.writes.is_dead = True
                raise Killed

        self.writes.on_write = on_write
        try:
            return self.run(*arguments)
        except Killed:
            return None
        finally:
            self.writes = Writes()

    def run_during(self, at: int, inner: Callable[[], None], *arguments: str) -> Done:
        """Run a command, and another one at its `at`-th write."""
        left = at

        def on_write() -> None:
            nonlocal left
            left -= 1
            if left == -1:
                self.writes.on_write = None
                # Another process holds nothing of what this one holds.
                Context().run(inner)

        self.writes.on_write = on_write
        try:
            return self.run(*arguments)
        finally:
            self.writes = Writes()

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The stand-ins are in place while the body runs."""
        with pytest.MonkeyPatch.context() as patch:
            # Made once, because that takes longer than many a command.
            command = typer.main.get_command(app)
            patch.setattr(typer.testing, "_get_command", lambda _: command)
            for module in (engine.campaign.workers, engine.cluster.ray_session):
                patch.setattr(module, "ray_session", lambda *_: nullcontext())
            patch.setattr(
                engine.scoring.score, "choose_actors", lambda *_: Actors("cpu", 1, Need("score", 1, 0.0, 0.0))
            )
            patch.setattr(engine.scoring.score, "scored_chunks", _scored_chunks)
            patch.setattr(engine.scoring.score, "ThreadPoolExecutor", _AtOnce)
            patch.setattr(engine.training.train, "train", self._train)
            patch.setattr(engine.report.report, "report", _report)
            patch.setattr(engine.campaign.heartbeat, "BEAT_SECONDS", 0.02)
            patch.setattr(engine.campaign.heartbeat, "SETTLING_SECONDS", 0.0)
            patch.setattr(engine.campaign.heartbeat, "PATIENCE_SECONDS", 0.2)
            for name in ("manifests", "settling", "decisions", "corrections", "recalling"):
                patch.setattr(f"engine.campaign.{name}.datetime", _Clock)
            patch.setattr("engine.handoff.answers.datetime", _Clock)
            patch.setattr(Location, "write_file", _hooked(self, Location.write_file))
            patch.setattr(Location, "delete", _hooked(self, Location.delete))
            yield

    def _train(self, campaign: Campaign, run: Run = QUIET) -> TrainManifest:
        if not is_complete(campaign.stage("train")):
            check_budget(campaign)
            with current_shards(campaign, run.log):
                plan = plan_training(campaign)
                found = decoded(plan.pool, plan.positions)
                seen = [(*plan.positions[number][:2], pixels) for number, pixels in found]
            self.on_trained(seen)
            pretend_trained(campaign)
        return read_manifest(campaign, "train", TrainManifest)


def _hooked(product: Product, original: Callable[..., Any]) -> Callable[..., Any]:
    def hooked(self: Location, *arguments: BinaryIO) -> Any:
        writes = product.writes
        if threading.current_thread().name == "watch":
            # Its moments are not of this command's order of things.
            if writes.is_dead:
                raise StorageError("dead")
            return original(self, *arguments)
        if writes.is_dead:
            raise Killed
        if writes.on_write:
            writes.on_write()
        result = original(self, *arguments)
        if product.writes.on_write:
            product.writes.on_write()
        return result

    return hooked


class _Clock(datetime):
    """A second later at every look, so that nothing depends on how fast this machine is."""

    looks = 0

    @classmethod
    def now(cls, tz: Any = None) -> datetime:
        cls.looks += 1
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=cls.looks)


class _AtOnce:
    """An executor that runs what is submitted at once, in this thread."""

    def __init__(self, _: int) -> None: ...

    def __enter__(self) -> "_AtOnce":
        return self

    def __exit__(self, *_: object) -> None: ...

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(function(*arguments))
        return future


def _scored_chunks(
    campaign: Campaign, todo: list[Shard], inputs: dict[str, str], actors: tuple[str, int], trained: TrainManifest
) -> Generator[pa.Table]:
    config = campaign.config
    score, fold_round = config.score, trained.get("fold_round", 0)
    reading = Reading(Sight(config.image), config.train.folds, score.attempts, score.stall_seconds, fold_round)
    num_latents = make_networks(config).num_latents
    for shard in todo:
        for chunk in read_chunks(shard, reading, Attempts()):
            yield _score_chunk(chunk, num_latents)


def _score_chunk(chunk: pa.Table, num_latents: int) -> pa.Table:
    """As `Scorer.score_chunk`, by the hash of the bytes."""
    items = unpack(chunk["items"][0].as_py()).drop_columns(["fold"])
    hashes = items["content_hash"].to_pylist()
    logit = pa.array([logit_of(content) for content in hashes], pa.float32())
    seeds = (int.from_bytes(hashlib.sha256(content.encode()).digest()[:4], "big") for content in hashes)
    latents = [np.random.default_rng(seed).normal(size=num_latents) for seed in seeds]
    flat = np.array(latents, np.float16).reshape(-1)
    latent = pa.FixedSizeListArray.from_arrays(pa.array(flat), num_latents)
    content = chunk["bad"][0].as_py()
    num_bad = len(unpack(content)) if content else len(BAD_SCHEMA.empty_table())
    return pa.table(
        {
            **{name: chunk[name] for name in PASSED_ON},
            "num_items": [len(items) + num_bad],
            "scored": [pack(items.append_column("logit", logit).append_column("latent", latent))],
            "bad": [content],
            "notes": pa.array([[]], pa.list_(pa.string())),
        }
    )


def _report(campaign: Campaign, run: Run = QUIET) -> Manifest:
    if not is_complete(campaign.stage("report")):
        for name in ("train", "scores", "selection"):
            read_manifest(campaign, name, Manifest)
        write_manifest(campaign, "report", Manifest, inputs={}, counts={}, files={})
    return read_manifest(campaign, "report", Manifest)
