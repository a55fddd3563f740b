"""The networks on decoded images: batches that fit the memory, and float32 logits with any precision."""

import math
import pkgutil
from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.config.options import CampaignConfig
from engine.models.centring import load_centres
from engine.models.front import Front, front_of
from engine.models.summaries import settings_of
from engine.models.task_models import load_task, preprocessing_of
from engine.models.task_source import known_weights
from engine.models.weights import load_networks
from engine.pool.identity import draws_of
from engine.pool.sight import seen_as
from engine.scoring.chunks import PASSED_ON, SEEN
from engine.storage.location import Location
from engine.tables.scores import BAD_SCHEMA, WHOLE_COLUMNS, pack, to_table, unpack
from vaal.acquisition import ACQUISITIONS, column_of
from vaal.acquisition.view import Inputs, View
from vaal.assembly import Networks
from vaal.centres import Centres
from vaal.methods import ENCODER, TASK_FILE

CPU_BATCH_PIXELS = 128 * 32 * 32
SMALLEST_CPU_BATCH = 16
"""On a CPU: 128 images at 32 px, 16 at 224. Larger batches gain nothing, and take memory."""
_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")


class _Given(NamedTuple):
    """N items: see `Scorer.__call__`."""

    seen_N: NDArray[Any]
    fold_N: NDArray[np.int64]
    identity_N: NDArray[np.int64] | None
    task_seen_N: NDArray[Any]

    def at(self, part: slice) -> "_Given":
        return _Given._make(None if values is None else values[part] for values in self)


class Scores(NamedTuple):
    """N images, in the order given: a column (N,) float32 for each acquisition function, and (N,) int32 for each of
    `WHOLE_COLUMNS` that there is; latents (N, Z) float16; and which images have finite scores and
    latents (N,)."""

    columns: dict[str, NDArray[Any]]
    latent_NZ: NDArray[np.float16]
    is_finite_N: NDArray[np.bool_]


def load_scorer(
    folder: Location, config: CampaignConfig, weights: dict[str, str], device: str, *, is_again: bool = False
) -> "Scorer":
    """The scorer with the networks in the folder of a train stage, on "cpu" or "cuda". `is_again`: for candidates, see
    `Scorer`.

    `weights` holds the SHA-256 of each file of the networks. Raises InputError if such a file is missing, or not the
    one that training wrote.
    """
    to = torch.device(device)
    networks = networks_of(folder, config, weights, to)
    front = front_of(config, to, networks.embedding, weights.get(ENCODER, ""))
    return Scorer(config, networks, front, None if is_again else load_centres(folder, weights, to), is_again=is_again)


def networks_of(
    folder: Location, config: CampaignConfig, weights: dict[str, str], device: torch.device | str = "cpu"
) -> Networks:
    """The networks that score: those of a train stage, and the task learner, also the user's. Raises as `load_scorer`
    and `engine.models.task_models.load_task`."""
    networks = load_networks(folder, config, weights, with_task=TASK_FILE in weights).ready(device)
    if not config.task.model:
        return networks
    return networks._replace(task=load_task(config, device, known_weights(config, weights)).task)


class Scorer:
    """Scores items with trained networks, on the device of their front. With `centres` items also get clusters.

    `is_again`: candidates get the scores that are dear alone, and the task learner's features in place of latents.
    """

    def __init__(
        self,
        config: CampaignConfig,
        networks: Networks,
        front: Front,
        centres: Centres | None,
        *,
        is_again: bool = False,
    ) -> None:
        self.device, self._is_bf16 = front.device, config.score.precision == "bf16"
        self.networks, self._front, self._centres = networks, front, centres
        names = config.acquisitions(has_task=networks.task is not None)
        self.asks_identity = any("identity" in ACQUISITIONS[name].needs for name in names)
        functions = {column_of(name): pkgutil.resolve_name(ACQUISITIONS[name].function) for name in names}
        self._functions = candidate_functions(config) if is_again else functions
        self._is_again = is_again
        # In lower precision the features are not those of the graph.
        asks_gradient = any("gradient" in ACQUISITIONS[name].needs for name in names)
        self._keeps_graph = asks_gradient and not self._is_bf16
        self._method = pkgutil.resolve_name(config.method.score)
        self._needs_method, self._settings = config.needs_method, settings_of(config)
        self._has_task = not is_again and any("task" in ACQUISITIONS[name].needs for name in names)
        further = [*(("predicted",) if self._has_task else ()), *(("cluster", "distance") if centres else ())]
        self._names = [*self._functions, *further]
        self._notes = list[str]()
        self._task_input = preprocessing_of(config) if config.task.model else None
        self._shapes, self._dtype = seen_as(config, front.length)
        # A GPU takes a whole chunk at once, unless it does not fit.
        size = max(math.prod(shape[:2]) for shape in self._shapes)
        auto = max(SMALLEST_CPU_BATCH, CPU_BATCH_PIXELS // size) if self.device.type == "cpu" else None
        self._batch_size = auto if config.score.batch_size == "auto" else config.score.batch_size

    def __call__(
        self,
        seen_N: NDArray[Any],
        fold_N: NDArray[np.int64],
        identity_N: NDArray[np.int64] | None = None,
        task_seen_N: NDArray[Any] | None = None,
    ) -> Scores:
        """Score N items, of which this was read: see `engine.pool.sight.Sight`. `identity_N` are hashes of what they
        are, where a score asks for them: see `asks_identity`; `task_seen_N` what the task learner gets, where that is
        something else.

        A batch that does not fit the memory is halved, also for later calls, with a note.

        Raises RuntimeError if one image alone does not fit the memory.
        """
        none = torch.empty(0)
        parts = [[*(none for _ in self._names), none.reshape(0, self._num_latents)]]
        begin, given = 0, _Given(seen_N, fold_N, identity_N, seen_N if task_seen_N is None else task_seen_N)
        while begin < len(fold_N):
            size = min(self._batch_size or len(fold_N), len(fold_N) - begin)
            try:
                parts.append(self._forward(given.at(slice(begin, begin + size))))
            except (RuntimeError, MemoryError) as error:
                if size == 1 or not _is_out_of_memory(error):
                    raise
                self._batch_size = size // 2
                self._notes.append(
                    f"a batch of {size} images does not fit the memory of {self.device}; "
                    f"continuing with {self._batch_size}: --set score.batch_size={self._batch_size}"
                )
                continue
            begin += size
        # Results are copied at the end, so that a GPU starts the next batch without waiting for them.
        *scores, latent_NZ = (torch.cat(column[1:] or column).cpu().numpy() for column in zip(*parts, strict=True))
        latent_NZ = latent_NZ.astype(np.float16)
        is_finite_N = np.isfinite(np.column_stack([*scores, latent_NZ])).all(axis=1)
        columns = dict(zip(self._names, scores, strict=True))
        whole = {name: columns[name].astype(np.int32) for name in columns if name in WHOLE_COLUMNS}
        return Scores({**columns, **whole}, latent_NZ, is_finite_N)

    def score_chunk(self, chunk: pa.Table) -> pa.Table:
        """A chunk's row, as `Chunk.row` makes it, with the scores of its items in place of what was read."""
        items = unpack(chunk["items"][0].as_py())
        columns = zip(SEEN, self._shapes, strict=False)
        seen = [np.frombuffer(chunk[name][0].as_buffer(), self._dtype).reshape(-1, *shape) for name, shape in columns]
        shard, identity_N = chunk["shard"][0].as_py(), None
        if self.asks_identity:
            identity_N = draws_of(((shard, key) for key in items["key"].to_pylist()), self._settings.seed).view(
                np.int64
            )
        scores = self(seen[0], items["fold"].to_numpy(), identity_N, seen[-1])
        bad = unpack(content) if (content := chunk["bad"][0].as_py()) else BAD_SCHEMA.empty_table()
        scored = items.drop_columns(["fold"])
        for name, column in scores.columns.items():
            scored = scored.append_column(name, pa.array(column))
        flat, num_latents = pa.array(scores.latent_NZ.reshape(-1)), scores.latent_NZ.shape[1]
        scored = scored.append_column("latent", pa.FixedSizeListArray.from_arrays(flat, num_latents))
        if not scores.is_finite_N.all():
            lost = items.filter(pa.array(~scores.is_finite_N))
            rows = zip(*(lost[name].to_pylist() for name in ("key", "offset", "content_hash")), strict=True)
            why = ("score", "NotFinite", "the networks give this image no finite score and latent")
            bad = pa.concat_tables([bad, to_table([(*row, *why, hashed) for *row, hashed in rows], BAD_SCHEMA)])
            scored = scored.filter(pa.array(scores.is_finite_N))
        notes, self._notes = self._notes, []
        return pa.table(
            {
                **{name: chunk[name] for name in PASSED_ON},
                "num_items": [len(scored) + len(bad)],
                "scored": [pack(scored)],
                "bad": [pack(bad) if len(bad) else b""],
                "notes": pa.array([notes], pa.list_(pa.string())),
            }
        )

    def _view(self, given: _Given) -> View:
        x_N, task_x_N = self._front(given.seen_N), None
        if self.device.type == "cpu":
            # Channels-last suits a GPU's matrix units; on a CPU it is 15 % slower.
            x_N = x_N.contiguous()
        if self._task_input is not None:
            task_x_N = self._task_input(torch.from_numpy(np.ascontiguousarray(given.task_seen_N)).to(self.device))
        fold = torch.tensor(given.fold_N, device=self.device)
        identity = None if given.identity_N is None else torch.tensor(given.identity_N, device=self.device)
        inputs = Inputs(x_N, fold, task_x_N, identity)
        return View(self.networks, inputs, self._settings, self._method, keeps_graph=self._keeps_graph)

    def _forward(self, given: _Given) -> list[Tensor]:
        """The columns of scores, and last the latents."""
        view = self._view(given)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self._is_bf16):
            found = [function(view) for function in self._functions.values()]
            latent_BZ = self._latents(view)
        predicted = [view.predicted.to(torch.int32)] if self._has_task else []
        clusters = self._centres.of(latent_BZ) if self._centres else ()
        return [*found, *predicted, *clusters, latent_BZ]

    @cached_property
    def _num_latents(self) -> int:
        if self._is_again:
            empty = [np.zeros((1, *shape), self._dtype) for shape in self._shapes]
            return self._view(_Given(empty[0], np.zeros(1, np.int64), None, empty[-1])).pooled.shape[1]
        return self._front.num_inputs or self.networks.num_latents

    def _latents(self, view: View) -> Tensor:
        if self._is_again:
            return view.pooled
        return view.method[1] if self._needs_method else view.latents


def candidate_functions(config: CampaignConfig) -> dict[str, Callable[[View], Tensor]]:
    """The functions of the scores that are dear, by column."""
    names = [name for name in config.acquisitions(has_task=True) if config.is_dear(name)]
    return {column_of(name): pkgutil.resolve_name(ACQUISITIONS[name].dear) for name in names}


def _is_out_of_memory(error: Any) -> bool:
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(w in str(error) for w in _OUT_OF_MEMORY)
