"""The networks over decoded images: batches that fit the memory, and logits in fp32 whatever the precision."""

from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.config.options import CampaignConfig
from engine.models.weights import load_networks, to_input
from engine.scoring.chunks import BAD_SCHEMA, pack, to_table, unpack
from engine.storage.location import Location

CPU_BATCH_PIXELS = 16 * 32 * 32
SMALLEST_CPU_BATCH = 16
"""On a CPU what counts is that the activations stay in its cache: 16 images at 32 px or more, more of smaller ones."""
_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")


class Scores:
    """Of N images: logit (N,) float32, latent (N, Z) float16, and which are finite (N,), in the order given."""

    def __init__(self, logit: NDArray[np.float32], latent: NDArray[np.float32]) -> None:
        self.logit, self.latent = logit, latent.astype(np.float16)
        self.is_finite: NDArray[np.bool_] = np.isfinite(logit) & np.isfinite(self.latent).all(axis=1)


class Scorer:
    """Scores images with the networks that a train stage wrote.

    Args:
        folder: the train stage.
        weights: SHA-256 of each file of the networks.
        device: "cpu" or "cuda".

    Raises:
        InputError: a file of weights is missing, or not the one that training wrote.
    """

    def __init__(self, folder: Location, config: CampaignConfig, weights: dict[str, str], device: str) -> None:
        self.device, self._is_bf16 = torch.device(device), config.score.precision == "bf16"
        self.networks = load_networks(folder, config, weights).to(self.device)
        self._image, self._notes = config.image, list[str]()
        given, side = config.score.batch_size, config.image.size
        if given != "auto":
            self._batch_size: int | None = given
        elif device == "cpu":
            self._batch_size = max(SMALLEST_CPU_BATCH, CPU_BATCH_PIXELS // side**2)
        else:
            # A GPU takes whatever comes at once, until it does not fit.
            self._batch_size = None

    def __call__(self, pixels_NHWC: NDArray[np.uint8], fold_N: NDArray[np.int64]) -> Scores:
        """Score N images, uint8. Where the memory does not suffice the batch is halved, for good, and it is said.

        Raises:
            RuntimeError: one image alone does not fit the memory.
        """
        logits, latents, begin = [], [], 0
        while begin < len(fold_N):
            size = min(self._batch_size or len(fold_N), len(fold_N) - begin)
            part = slice(begin, begin + size)
            try:
                logit, latent = self._forward(pixels_NHWC[part], fold_N[part])
            except (RuntimeError, MemoryError) as error:
                if size == 1 or not _is_out_of_memory(error):
                    raise
                self._batch_size = size // 2
                self._notes.append(
                    f"a batch of {size} images does not fit the memory of {self.device}; "
                    f"going on with {self._batch_size}: --set score.batch_size={self._batch_size}"
                )
                continue
            logits.append(logit)
            latents.append(latent)
            begin += size
        if not logits:
            return Scores(np.empty(0, np.float32), np.empty((0, self.networks.num_latents), np.float32))
        # Copied back at the end, so that a GPU goes on to the next batch while this one's results are not yet there.
        return Scores(torch.cat(logits).cpu().numpy(), torch.cat(latents).cpu().numpy())

    def score_chunk(self, chunk: pa.Table) -> pa.Table:
        """A chunk's row, as `Chunk.row` makes it, with its items' scores in place of their pixels."""
        items, image = unpack(chunk["items"][0].as_py()), self._image
        flat = np.frombuffer(chunk["pixels"][0].as_buffer(), dtype=np.uint8)
        pixels_NHWC = flat.reshape(-1, image.size, image.size, image.channels)
        scores = self(pixels_NHWC, items["fold"].to_numpy())
        bad = unpack(content) if (content := chunk["bad"][0].as_py()) else BAD_SCHEMA.empty_table()
        latent = pa.FixedSizeListArray.from_arrays(pa.array(scores.latent.reshape(-1)), scores.latent.shape[1])
        scored = (
            items.drop_columns(["fold"]).append_column("logit", pa.array(scores.logit)).append_column("latent", latent)
        )
        if not scores.is_finite.all():
            lost = items.filter(pa.array(~scores.is_finite))
            rows = zip(lost["key"].to_pylist(), lost["offset"].to_pylist(), strict=True)
            why = ("score", "NotFinite", "the networks give this image no finite logit and latent")
            bad = pa.concat_tables([bad, to_table([(*row, *why) for row in rows], BAD_SCHEMA)])
            scored = scored.filter(pa.array(scores.is_finite))
        notes, self._notes = self._notes, []
        return pa.table(
            {
                **{name: chunk[name] for name in ("shard", "chunk", "listed", "failure", "read_bytes")},
                "num_items": [len(scored) + len(bad)],
                "scored": [pack(scored)],
                "bad": [pack(bad) if len(bad) else b""],
                "notes": pa.array([notes], pa.list_(pa.string())),
            }
        )

    def _forward(self, pixels_NHWC: NDArray[np.uint8], fold_N: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        x_NCHW = to_input(pixels_NHWC, self.device)
        if self.device.type == "cpu":
            # Channels-last is what a GPU's matrix units want; on a CPU it is 15 % slower at batches of this size.
            x_NCHW = x_NCHW.contiguous()
        fold = torch.tensor(fold_N, device=self.device)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self._is_bf16):
            return self.networks.score(x_NCHW, fold)


def _is_out_of_memory(error: Any) -> bool:
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(w in str(error) for w in _OUT_OF_MEMORY)
