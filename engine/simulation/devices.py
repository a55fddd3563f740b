"""Where networks run that a trial trains itself, not by Ray Train: task models, and VAAL of 2019."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch

from engine.errors import ConfigError

T = TypeVar("T")


def on_device(device: str, function: Callable[..., T], *arguments: Any) -> T:
    """What a function returns, called where the device is.

    A trial that is a task of a cluster holds no GPU, since what its stages start needs one: so the function is a task
    with a GPU to itself. Everywhere else it is called here.
    """
    if device != "cuda":
        return function(*arguments)
    import ray

    if not ray.is_initialized() or ray.get_runtime_context().worker.mode != ray.WORKER_MODE:
        return function(*arguments)
    found: T = ray.get(ray.remote(num_gpus=1)(function).remote(*arguments))
    return found


def require_device(device: str) -> None:
    """Raises ConfigError if this machine has no such device."""
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("campaign.device=cuda: this machine has no GPU that torch can use; --set campaign.device=cpu")
