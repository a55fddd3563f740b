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

from engine.config.options import TrainConfig
from engine.models.weights import require_finite

MANIFEST = "checkpoint.json"


class RunState(NamedTuple):
    """State of a run: iterations done, metrics so far, and the state of the streams and of the guard."""

    step: int
    rows: list[dict[str, Any]]
    batches: dict[str, Any]
    guard: dict[str, Any]


class Schedule:
    """Decides when a checkpoint is due: by `train.checkpoint_steps` and `train.checkpoint_seconds`."""

    def __init__(self, train: TrainConfig, device: torch.device) -> None:
        self._train, self._device = train, device
        self._begin = time.monotonic()

    def is_due(self, steps: int, *, by_age: bool) -> bool:
        """Whether one is due after so many iterations. With `by_age` it is a collective."""
        if self._train.checkpoint_steps and steps % self._train.checkpoint_steps == 0:
            return True
        if not by_age:
            return False
        # Clocks differ, but all ranks must write a checkpoint together: rank 0 decides.
        is_old = time.monotonic() - self._begin > self._train.checkpoint_seconds
        flag = torch.tensor([float(is_old)], device=self._device)
        torch.distributed.broadcast(flag, src=0)
        return bool(flag.item())

    def restart(self) -> None:
        """Measure the age from now on."""
        self._begin = time.monotonic()


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
