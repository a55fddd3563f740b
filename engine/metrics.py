"""The losses of a training run: averaged over the workers, to Parquet and TensorBoard, and to whoever follows it."""

import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch.utils.tensorboard import SummaryWriter

from engine.batches import Part
from engine.errors import VaalError
from engine.storage import Location
from vaal.step import StepLosses

LOG_STEPS = 10
"""Losses are fetched from the device, averaged over the workers and shown every so many steps."""
METRICS_SCHEMA = pa.schema(
    [("step", pa.int32()), ("epoch", pa.int32())] + [(name, pa.float32()) for name in StepLosses._fields]
)


class StepLog:
    """The losses of all steps so far. `rows` holds them, `board` is told the latest by rank 0."""

    def __init__(self, part: Part, board: Any) -> None:
        self.part, self.board = part, board
        self.rows: list[dict[str, float]] = []
        self._pending: list[tuple[int, int, StepLosses]] = []

    @property
    def last(self) -> dict[str, float]:
        """The latest losses, by name."""
        return {name: self.rows[-1][name] for name in StepLosses._fields}

    def add(self, step: int, epoch: int, losses: StepLosses) -> None:
        """Take the losses of a step; every rank must add the same steps."""
        self._pending.append((step, epoch, losses))
        if len(self._pending) >= LOG_STEPS:
            self.flush()

    def flush(self) -> None:
        """Bring the rows up to date. A collective.

        Raises:
            VaalError: a loss is not finite.
        """
        if not self._pending:
            return
        stacked = torch.stack([torch.stack(losses) for _, _, losses in self._pending]).float()
        torch.distributed.all_reduce(stacked)
        stacked /= self.part.world
        for (step, epoch, _), values in zip(self._pending, stacked.tolist(), strict=True):
            row = dict(zip(StepLosses._fields, values, strict=True))
            if not torch.isfinite(torch.tensor(values)).all():
                raise VaalError(f"training: step {step}: a loss is not finite: {row}; lower train.learning_rate")
            self.rows.append({"step": step, "epoch": epoch, **row})
        self._pending.clear()
        if self.part.rank == 0:
            self.board.show.remote(int(self.rows[-1]["step"]) + 1, self.last)

    def save(self, folder: Location) -> dict[str, str]:
        """Write metrics.parquet and the TensorBoard events of the whole run. Returns SHA-256 by file name."""
        with tempfile.TemporaryDirectory() as events:
            with SummaryWriter(events) as writer:
                for row in self.rows:
                    for name in StepLosses._fields:
                        writer.add_scalar(f"loss/{name}", row[name], int(row["step"]))
            for file in Path(events).iterdir():
                (folder / f"tensorboard/{file.name}").write_bytes(file.read_bytes())
        table = pa.Table.from_pylist(self.rows, schema=METRICS_SCHEMA)
        return {"metrics.parquet": (folder / "metrics.parquet").write_table(table)}
