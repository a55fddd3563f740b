"""The losses of a training run: averaged over the workers, for Parquet, the trackers and the progress line."""

import math
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from engine.errors import VaalError
from engine.storage.location import Location
from engine.training.labelled import Part
from vaal.step import StepLosses

LOG_STEPS = 10
"""Losses are fetched from the device, averaged over the workers and shown after every so many steps."""
LOSSES = (*StepLosses._fields, "task", "task_held_out")
"""Of VAAL's iterations, and then of the task learner: on the images that it trains on, and now and then on those held
out."""
METRICS_SCHEMA = pa.schema([("step", pa.int32()), ("epoch", pa.int32())] + [(name, pa.float32()) for name in LOSSES])


class StepLog:
    """The losses of all steps so far, in `rows`, and the `last` of each name; rank 0 sends these to `board`.

    `waiting` is the share of time in which this worker waited for images.
    """

    def __init__(self, part: Part, board: Any) -> None:
        self.part, self.board = part, board
        self.rows: list[dict[str, Any]] = []
        self.last: dict[str, float] = {}
        self.waiting = 0.0
        self._pending: list[tuple[int, int, dict[str, Tensor]]] = []

    def resume(self, rows: list[dict[str, Any]]) -> None:
        """Go on after the rows of a checkpoint."""
        self.rows, self.last = rows, {}
        for row in rows:
            self.last |= {name: row[name] for name in LOSSES if row.get(name) is not None}

    def add(self, step: int, epoch: int, losses: dict[str, Tensor | None]) -> None:
        """Add the losses of a step, None for those it lacks. Every rank must add the same names."""
        self._pending.append((step, epoch, {name: loss for name, loss in losses.items() if loss is not None}))

    def flush(self, checkpoint: str) -> None:
        """Add all pending steps to the rows. A collective. `checkpoint` is the last good one, for the error.

        Raises VaalError if a loss is not finite.
        """
        if not self._pending:
            return
        stacked = torch.stack([loss.float() for _, _, losses in self._pending for loss in losses.values()])
        torch.distributed.all_reduce(stacked)
        num_new = len(self._pending)
        values = iter((stacked / self.part.world).tolist())
        for step, epoch, losses in self._pending:
            found = {name: next(values) for name in losses}
            for name, value in found.items():
                if not math.isfinite(value):
                    raise VaalError(
                        f"training: step {step}: the {name} loss is {value}; last good checkpoint: {checkpoint}; "
                        "lower train.learning_rate, or set train.gradient_clipping=1"
                    )
            self.rows.append({"step": step, "epoch": epoch, **dict.fromkeys(LOSSES), **found})
            self.last |= found
        self._pending.clear()
        if self.part.rank == 0:
            self.board.show.remote(int(self.rows[-1]["step"]) + 1, self.last, self.rows[-num_new:])

    def save(self, folder: Location) -> dict[str, str]:
        """Write metrics.parquet, the losses of the whole run. Returns its SHA-256 by its name."""
        table = pa.Table.from_pylist(self.rows, schema=METRICS_SCHEMA)
        return {"metrics.parquet": (folder / "metrics.parquet").write_table(table)}
