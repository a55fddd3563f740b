"""The losses of a training run: averaged over the workers, to Parquet and TensorBoard, and to whoever follows it."""

import math
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from engine.errors import VaalError
from engine.storage.location import Location
from engine.training.batches import Part
from vaal.step import StepLosses

LOG_STEPS = 10
"""Losses are fetched from the device, averaged over the workers and shown every so many steps."""
LOSSES = (*StepLosses._fields, "task")
METRICS_SCHEMA = pa.schema([("step", pa.int32()), ("epoch", pa.int32())] + [(name, pa.float32()) for name in LOSSES])


class StepLog:
    """The losses of all steps so far. `rows` holds them, `board` is told the latest by rank 0.

    `waiting` is the share of the run's time in which this worker waited for images.
    """

    def __init__(self, part: Part, board: Any) -> None:
        self.part, self.board = part, board
        self.rows: list[dict[str, Any]] = []
        self.waiting = 0.0
        self._pending: list[tuple[int, int, dict[str, Tensor | None]]] = []

    @property
    def last(self) -> dict[str, float]:
        """The latest losses of the networks that there are, by name."""
        return {name: self.rows[-1][name] for name in LOSSES if self.rows[-1][name] is not None}

    def add(self, step: int, epoch: int, losses: dict[str, Tensor | None], checkpoint: str) -> None:
        """Take the losses of a step, None for what there is not; every rank must add the same."""
        self._pending.append((step, epoch, losses))
        if len(self._pending) >= LOG_STEPS:
            self.flush(checkpoint)

    def flush(self, checkpoint: str) -> None:
        """Bring the rows up to date. A collective. `checkpoint` is the last good one, for the error.

        Raises:
            VaalError: a loss is not finite.
        """
        if not self._pending:
            return
        names = [[name for name in LOSSES if losses[name] is not None] for _, _, losses in self._pending]
        flat = [losses[name] for (_, _, losses), present in zip(self._pending, names, strict=True) for name in present]
        stacked = torch.stack([loss.float() for loss in flat if loss is not None])
        torch.distributed.all_reduce(stacked)
        values = iter((stacked / self.part.world).tolist())
        for (step, epoch, _), present in zip(self._pending, names, strict=True):
            found = {name: next(values) for name in present}
            for name, value in found.items():
                if not math.isfinite(value):
                    raise VaalError(
                        f"training: step {step}: the {name} loss is {value}; last good checkpoint: {checkpoint}; "
                        "lower train.learning_rate, or set train.gradient_clipping=1"
                    )
            self.rows.append({"step": step, "epoch": epoch, **dict.fromkeys(LOSSES), **found})
        self._pending.clear()
        if self.part.rank == 0:
            self.board.show.remote(int(self.rows[-1]["step"]) + 1, self.last)

    def save(self, folder: Location) -> dict[str, str]:
        """Write metrics.parquet and the TensorBoard events of the whole run. Returns SHA-256 by file name."""
        with tempfile.TemporaryDirectory() as events:
            with SummaryWriter(events) as writer:
                for row in self.rows:
                    for name in LOSSES:
                        if row[name] is not None:
                            writer.add_scalar(f"loss/{name}", row[name], int(row["step"]))
            for file in Path(events).iterdir():
                (folder / f"tensorboard/{file.name}").write_bytes(file.read_bytes())
        table = pa.Table.from_pylist(self.rows, schema=METRICS_SCHEMA)
        return {"metrics.parquet": (folder / "metrics.parquet").write_table(table)}
