"""A checkpoint's files: written by one worker, read by any number, and used only if whole.

`checkpoint.json` has the SHA-256 of every other file. Without it, writing was interrupted; if a file does not match, it
was damaged later. In both cases the checkpoint before is used.
"""

import hashlib
import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from torch import Tensor

from engine.config.train_options import TrainConfig
from engine.models.weights import require_finite

MANIFEST = "checkpoint.json"


class RunState(NamedTuple):
    """State of a run: iterations done, metrics so far, the state of the streams, None before the first batch, and of
    the guard, and the lowest loss of the task learner on held-out images, None before it was looked at."""

    step: int
    rows: list[dict[str, Any]]
    batches: dict[str, Any] | None
    guard: dict[str, Any]
    task_loss: float | None = None


def is_due(train: TrainConfig, steps: int, saved_at: float | None, device: torch.device) -> bool:
    """Whether a checkpoint is due after so many iterations, or by age if the time of the last one is given.

    With that time it is a collective.
    """
    if train.checkpoint_steps and steps % train.checkpoint_steps == 0:
        return True
    if saved_at is None:
        return False
    # Clocks differ, but all ranks must write a checkpoint together: rank 0 decides.
    flag = torch.tensor([float(time.monotonic() - saved_at > train.checkpoint_seconds)], device=device)
    torch.distributed.broadcast(flag, src=0)
    return bool(flag.item())


def write_checkpoint(folder: Path, engines: dict[str, dict[str, Tensor]], progress: RunState) -> None:
    """Write the engines' full states and the progress, the manifest last.

    Raises VaalError if a tensor is not finite; nothing is written.
    """
    for name, state in engines.items():
        require_finite(state, name, f"step {progress.step}: ")
    contents = {f"{name}.safetensors": safetensors.torch.save(state) for name, state in engines.items()}
    contents["progress.json"] = json.dumps(progress._asdict()).encode()
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    sha256 = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    (folder / MANIFEST).write_text(json.dumps({"step": progress.step, "files": sha256}))


def fault_of(folder: Path) -> str:
    """Why a checkpoint must not be used; empty if it is whole."""
    try:
        files = json.loads((folder / MANIFEST).read_bytes())["files"]
        for name, sha256 in files.items():
            if hashlib.sha256((folder / name).read_bytes()).hexdigest() != sha256:
                return f"{name} is not what was written"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (ValueError, KeyError, TypeError):
        return f"{MANIFEST} is damaged"
    return ""


def read_checkpoint(folder: Path) -> tuple[dict[str, dict[str, Tensor]], RunState]:
    """The engines' states by name, and the progress, of a whole checkpoint."""
    engines = {file.stem: safetensors.torch.load(file.read_bytes()) for file in folder.glob("*.safetensors")}
    return engines, RunState(**json.loads((folder / "progress.json").read_bytes()))
