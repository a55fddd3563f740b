"""Scoring: the pool streams through encoder and discriminator. The only module with Ray Data.

Tasks read and decode shards on any node; an actor pool runs the networks; the driver commits a Parquet file a shard.
What travels between them is a chunk: consecutive items of one shard in one row, so that Ray never splits or merges
it, and a chunk that is computed twice is still one chunk. What is committed is never computed again.
"""

import logging
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from typing import Any, NamedTuple, cast

import numpy as np
import pyarrow as pa
import ray
import ray.data
import torch

from engine.campaign import (
    Campaign,
    Report,
    fingerprint,
    is_complete,
    read_manifest,
    source_fingerprint,
    write_manifest,
)
from engine.config import CampaignConfig, ImageConfig, result_values
from engine.errors import InputError, NotAcceptableError
from engine.identity import fold_of
from engine.pool import Shard, read_shards, write_shards
from engine.score_files import Chunk, Committed, commit, recall, unpack
from engine.session import choose_device, count_devices, ray_session
from engine.shards import read_shard
from engine.storage import Location
from engine.weights import load_networks, make_networks, to_input

CODE = (
    "engine.shards", "engine.images", "engine.identity", "engine.weights", "vaal.networks", "vaal.paper",
    "vaal.ablations", "vaal.acquisition.discriminator", "vaal.acquisition.wasserstein",
)  # fmt: skip
"""What decides a score besides the weights: scores by other code are not mixed with these."""
BLOCK_BYTES = 16 << 20


class Progress(NamedTuple):
    """How far scoring is, in bytes of the shards, because items are not counted before they are read."""

    done_bytes: int
    total_bytes: int
    num_items: int


def score(campaign: Campaign, address: str, on_progress: Callable[[Progress], None], report: Report) -> dict[str, Any]:
    """Score every shard that is not committed yet and complete the scores stage. Returns its manifest.

    Raises:
        InputError: training is not complete, or shards cannot be read; every other shard is committed all the same.
        NotAcceptableError: too many items are quarantined; all shards are committed, the stage is not complete.
    """
    folder = campaign.stage("scores")
    if is_complete(folder):
        return read_manifest(folder, "score")
    trained = read_manifest(campaign.stage("train"), "train")
    weights = {name: trained["files"][name] for name in make_networks(campaign.config).files()}
    inputs = {
        **weights,
        "settings": fingerprint(image=result_values(campaign.config.image), score=result_values(campaign.config.score)),
        "code": source_fingerprint(*CODE),
    }
    shards = read_shards(campaign.home)
    files = {shard.shard: _file_name(index, shard, inputs) for index, shard in enumerate(shards)}
    present = set(folder.children())
    for stage in (folder, campaign.stage("quarantine")):
        for stale in sorted(set(stage.children()) - set(files.values())):
            report(f"removing {stage / stale}: it was made with other weights, settings or code")
            (stage / stale).delete()
    todo = [shard for shard in shards if files[shard.shard] not in present]
    if len(todo) < len(shards):
        report(f"{len(shards) - len(todo)} of {len(shards)} shards are committed already")
    ledger = {shard.shard: recall(folder, files[shard.shard]) for shard in shards if files[shard.shard] in present}
    failures: dict[str, str] = {}
    device = ""
    if todo:
        with ray_session(address):
            workers = campaign.config.score.workers
            device = choose_device(campaign.config.device, 1 if workers == "auto" else workers, address)
            num_actors = count_devices(device) if workers == "auto" else workers
            # Closed before Ray is: after an interrupt, what is left of Ray Data's threads would complain of a lost Ray.
            with closing(_stream(campaign, todo, weights, (device, min(num_actors, len(todo))))) as stream:
                for shard, outcome in _collect(campaign, todo, files, stream, on_progress):
                    if isinstance(outcome, str):
                        failures[shard] = outcome
                    else:
                        ledger[shard] = outcome
    if failures:
        first = next(iter(failures.values()))
        raise InputError(
            f"{first}{f' (and {len(failures) - 1} more shards)' if len(failures) > 1 else ''}; {len(ledger)} of "
            f"{len(shards)} shards are committed; restore the shard, then run again: vaal score {campaign.home}"
        )
    return _complete(campaign, shards, ledger, inputs, device)


def _file_name(index: int, shard: Shard, inputs: dict[str, str]) -> str:
    return f"{index:06d}-{fingerprint(shard=shard[:4], inputs=inputs)[:16]}.parquet"


def _complete(
    campaign: Campaign, shards: list[Shard], ledger: dict[str, Committed], inputs: dict[str, str], device: str
) -> dict[str, Any]:
    folder = campaign.stage("scores")
    listed = sum(entry.listed for entry in ledger.values())
    quarantined = sum(entry.quarantined for entry in ledger.values())
    if quarantined > campaign.config.score.max_bad_fraction * listed:
        raise NotAcceptableError(
            f"{quarantined} of {listed} items ({quarantined / listed:.1%}) are quarantined, more than "
            f"score.max_bad_fraction={campaign.config.score.max_bad_fraction}; see {campaign.stage('quarantine')}, "
            "then mend the shards in a new campaign, or accept the loss: --set score.max_bad_fraction=1"
        )
    write_shards(campaign.home, [shard._replace(num_items=ledger[shard.shard].listed) for shard in shards])
    return write_manifest(
        folder,
        campaign,
        inputs=inputs,
        counts={"shards": len(shards), "listed": listed, "scored": listed - quarantined, "quarantined": quarantined},
        files={},
        details={
            "device": device,
            "shards": [{"shard": shard.shard, **ledger[shard.shard]._asdict()} for shard in shards],
        },
    )


def _stream(
    campaign: Campaign, todo: list[Shard], weights: dict[str, str], actors: tuple[str, int]
) -> Generator[pa.Table]:
    """Scored chunks in any order, a row each. `actors` is their device and number."""
    device, num_actors = actors
    # Whatever stops it is raised here; what its threads log besides is about their own end, as after an interrupt.
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.target_max_block_size = BLOCK_BYTES
    # A shard of many gigabytes may take longer than the 30 minutes after which Ray Data gives up by default.
    context.execution_no_progress_timeout_s = -1
    config = campaign.config
    rows = [{"shard": shard._asdict()} for shard in todo]
    chunks = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        cast("Any", _read_chunks),
        fn_args=(config.image, config.train.folds, config.score.batch_size),
        batch_size=1,
        batch_format="pyarrow",
    )
    # On CPUs both stages ask for the same resources, so that Ray Data fuses them: a chunk then stays in one process.
    scored = chunks.map_batches(
        _Scorer,
        fn_constructor_args=(campaign.stage("train"), config, weights, device),
        batch_size=1,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=num_actors),
        num_gpus=1 if device == "cuda" else None,
        num_cpus=1,
    )
    yield from scored.iter_batches(batch_size=None, batch_format="pyarrow")


def _read_chunks(batch: pa.Table, image: ImageConfig, num_folds: int, chunk_items: int) -> Iterator[pa.Table]:
    """The chunks of one shard, decoded. The last row says how many items there were, or why the shard failed."""
    shard = Shard(**batch["shard"][0].as_py())
    chunk = Chunk(shard.shard, image)
    listed = number = position = 0
    try:
        for item in read_shard(shard):
            listed += 1
            chunk.add(item, fold_of(shard.shard, item.key, num_folds))
            if len(chunk) == chunk_items:
                end = item.offset + item.size_bytes
                yield chunk.row(number, end - position)
                chunk, number, position = Chunk(shard.shard, image), number + 1, end
    except InputError as error:
        yield chunk.row(number, shard.size_bytes - position, listed=listed, failure=str(error))
    else:
        yield chunk.row(number, shard.size_bytes - position, listed=listed)


class _Scorer:
    """An actor that holds the networks."""

    def __init__(self, folder: Location, config: CampaignConfig, weights: dict[str, str], device: str) -> None:
        self.device, self.image = torch.device(device), config.image
        # Read here and not sent along: an actor that Ray restarts must find its weights again.
        self.networks = load_networks(folder, config, weights).to(self.device)

    def __call__(self, chunk: pa.Table) -> pa.Table:
        items = unpack(chunk["items"][0].as_py())
        side, channels = self.image.size, self.image.channels
        flat = np.frombuffer(chunk["pixels"][0].as_buffer(), dtype=np.uint8)
        logit = np.empty(0, np.float32)
        latent = np.empty((0, self.networks.num_latents), np.float16)
        if len(items):
            x = to_input(flat.reshape(-1, side, side, channels).copy(), self.device)
            fold = torch.tensor(items["fold"].to_numpy(), device=self.device)
            logits, means = self.networks.score(x, fold)
            logit, latent = logits.cpu().numpy(), means.cpu().numpy().astype(np.float16)
        return chunk.drop_columns(["pixels"]).append_column(
            "logit", pa.array([logit.tobytes()])
        ).append_column("latent", pa.array([latent.tobytes()]))  # fmt: skip


def _collect(
    campaign: Campaign,
    todo: list[Shard],
    files: dict[str, str],
    stream: Iterator[pa.Table],
    on_progress: Callable[[Progress], None],
) -> Iterator[tuple[str, Committed | str]]:
    """Commit each shard as its last chunk arrives. Yields its ledger, or why it failed."""
    total_bytes = sum(shard.size_bytes for shard in todo)
    done_bytes = num_items = 0
    pending: dict[str, dict[int, dict[str, Any]]] = {shard.shard: {} for shard in todo}
    for table in stream:
        for row in table.to_pylist():
            chunks = pending.get(row["shard"])
            if chunks is None or row["chunk"] in chunks:
                # Ray computes a chunk again when a node is lost; the first answer is as good.
                continue
            chunks[row["chunk"]] = row
            done_bytes += row["read_bytes"]
            num_items += len(row["logit"]) // np.dtype(np.float32).itemsize
            last = max(chunks)
            if chunks[last]["listed"] >= 0 and len(chunks) == last + 1:
                rows = [chunks[number] for number in sorted(pending.pop(row["shard"]))]
                yield row["shard"], rows[-1]["failure"] or commit(campaign, row["shard"], files[row["shard"]], rows)
            on_progress(Progress(done_bytes, total_bytes, num_items))
    if pending:
        raise RuntimeError(f"Ray Data ended without all chunks of {sorted(pending)[:3]}")
