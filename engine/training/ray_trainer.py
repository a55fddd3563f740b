"""What Ray Train is asked for, and what its workers give back."""

from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import Any, cast

import ray
import ray.train
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback

from engine.cluster.ray_session import cpus_per_worker, is_private
from engine.errors import VaalError
from engine.storage.location import Location
from engine.training.board import Losses
from engine.training.plan import TrainingPlan
from engine.training.worker import train_worker


def fit(plan: TrainingPlan, storage: Location, run_name: str) -> dict[str, Any]:
    """What the workers give the board at their end. Raises what they cannot go on from."""
    # Of ten million labels it takes a gigabyte: the workers of a node share one copy, and map it into their memory.
    _apart(trainer_of(plan, ray.put(plan), storage, run_name).fit)
    result, failure = ray.get(plan.board.outcome.remote())
    if failure is not None:
        raise failure
    return cast("dict[str, Any]", result)


class _Trainer(TorchTrainer):
    """Without the processes that have nothing to do for us, each of which takes seconds of a core to start."""

    def _create_default_callbacks(self) -> list[Any]:
        # We give it no dataset. A private Ray ends with its driver, and nobody has to free its resources then; what
        # would do it asks an API server that a private Ray does not have, and holds up each training's end by 12 s.
        not_needed = (DatasetsCallback, PlacementGroupCleanerCallback) if is_private() else (DatasetsCallback,)
        made_here = cast("Any", super())._create_default_callbacks()
        return [made for made in made_here if not isinstance(made, not_needed)]


def trainer_of(plan: TrainingPlan, shared: object, storage: Location, run_name: str) -> TorchTrainer:
    """What Ray Train is asked for; the workers get the plan by its reference `shared`."""
    train = plan.config.train
    on_gpu = plan.device == "cuda"
    num_cpus = 1 if on_gpu else cpus_per_worker(train.workers)
    num_workers = (train.min_workers, train.workers) if 0 < train.min_workers < train.workers else train.workers
    return _Trainer(
        _work,
        train_loop_config={"plan": shared, "board": plan.board},
        torch_config=TorchConfig(backend="nccl" if on_gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=cast("int", num_workers),
            use_gpu=on_gpu,
            resources_per_worker={"CPU": num_cpus, "GPU": int(on_gpu)},
        ),
        run_config=RunConfig(
            name=run_name,
            storage_path=storage.path,
            storage_filesystem=None if storage.is_local else storage.filesystem,
            # The board ends it where there is no progress.
            failure_config=FailureConfig(max_failures=-1),
            checkpoint_config=CheckpointConfig(num_to_keep=train.checkpoints_kept),
            callbacks=cast("Any", [Losses(plan.board)]),
        ),
    )


def _apart(body: Callable[[], object]) -> None:
    """Run the body in another thread, so that Ctrl-C ends the wait for it at once: in the main thread Ray Train takes
    the signal for itself, and obeys only when it has the machines it waits for."""
    done: Future[object] = Future()

    def run() -> None:
        try:
            done.set_result(body())
        except BaseException as error:  # noqa: BLE001, raised in the main thread
            done.set_exception(error)

    Thread(target=run, name="Ray Train", daemon=True).start()
    done.result()


def _work(loop_config: dict[str, Any]) -> None:
    """One worker's training. An error that a user must fix goes to the board, because Ray retries all errors: the next
    workers see it there, and end."""
    board = loop_config["board"]
    if ray.get(board.outcome.remote())[1] is not None:
        return
    ray.get(board.arrive.remote())
    try:
        train_worker(ray.get(loop_config["plan"]))
    except VaalError as error:
        ray.get(board.fail.remote(error))
        raise
