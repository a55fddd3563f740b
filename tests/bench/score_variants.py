"""One way to score a pool, in a process of its own: what score_throughput.py and score_memory.py run.

    python tests/bench/score_variants.py VARIANT SPEC STARTED

SPEC is a JSON file: `files`, the shards; `settings` of the configuration; `campaign` and `out`, folders; `workers`, the
number of processes that run the networks. STARTED is time.monotonic() before this process was started. Prints as its
last line a JSON object: `items`; `whole`, the seconds from STARTED to the end of the output, where there is one; and
`steady`, items/s from when a tenth of the items is done, of the bare loops from when all processes are ready.

Every variant runs the same networks. Nothing heavy is imported before a variant needs it.
"""

import io
import json
import logging
import multiprocessing
import sys
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import measure
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine.campaign.folder import Campaign
from engine.config.input_options import ImageConfig
from engine.config.options import CampaignConfig
from engine.config.toml import override

Decoder = Callable[[bytes, ImageConfig], NDArray[np.uint8]]
Found = dict[str, float]
STEADY_FROM = 0.1


class Spec(NamedTuple):
    files: list[str]
    settings: dict[str, Any]
    campaign: str
    out: str
    workers: int

    @property
    def config(self) -> CampaignConfig:
        return override(CampaignConfig(), self.settings, "bench")


def steady(records: Iterable[tuple[float, int]]) -> float:
    """Items/s between a tenth and all of the items, of (seconds, items done until then)."""
    ordered = sorted(records)
    total = ordered[-1][1]
    begin, done = next(record for record in ordered if record[1] >= STEADY_FROM * total)
    return (total - done) / (ordered[-1][0] - begin) if total > done else float("nan")


def batch_items(config: CampaignConfig, *, is_lean: bool = False) -> int:
    """Images in a batch: of the lean loop as many as `engine.scoring.scorer` takes on a CPU, else 16 at 32 px."""
    from engine.scoring.scorer import CPU_BATCH_PIXELS, SMALLEST_CPU_BATCH

    return max(SMALLEST_CPU_BATCH, (CPU_BATCH_PIXELS if is_lean else 16 * 32 * 32) // config.image.size**2)


def handed_on(config: CampaignConfig) -> int:
    """Images in what a rival hands from one stage to the next: fewer cost it time, more are long in coming."""
    return max(32, 512 * 32 * 32 // config.image.size**2)


def networks_of(
    config: CampaignConfig, threads: int, *, is_lean: bool = False
) -> Callable[[NDArray[np.uint8]], tuple[Any, Any]]:
    """What gives N images their logits (N,) and latents (N, Z); threads get more at a time, for they wait for one
    another."""
    import torch

    from engine.models.weights import make_networks, score_function, to_input

    torch.set_num_threads(threads)
    score = score_function(config)
    networks, device = make_networks(config).ready(), torch.device("cpu")
    size = batch_items(config, is_lean=is_lean) * (1 if threads == 1 else 4 * threads)

    def run(pixels_NHWC: NDArray[np.uint8]) -> tuple[Any, Any]:
        found = []
        for begin in range(0, len(pixels_NHWC), size):
            part = pixels_NHWC[begin : begin + size]
            fold_N = torch.arange(len(part)) % config.train.folds
            found.append(score(networks, to_input(part, device).contiguous(), fold_N))
        return tuple(torch.cat(column).numpy() for column in zip(*found, strict=True))

    run(np.zeros((size, config.image.size, config.image.size, config.image.channels), np.uint8))
    return run


def by_pillow(data: bytes, image: ImageConfig) -> NDArray[np.uint8]:
    """Decoded in full, as most loaders do it; no limits, no orientation, no notice of missing data."""
    return resized(Image.open(io.BytesIO(data)).convert("RGB"), image.size)


def resized(image: Image.Image, side: int) -> NDArray[np.uint8]:
    return np.asarray(image if image.size == (side, side) else image.resize((side, side), Image.Resampling.BILINEAR))


def members(files: list[str]) -> Iterator[bytes]:
    for file in files:
        with tarfile.open(file) as tar:
            for member in tar:
                content = tar.extractfile(member)
                assert content is not None
                yield content.read()


def items_of(spec: Spec, files: list[str]) -> Iterator[bytes]:
    """The images of these shards by the engine's reader."""
    from engine.campaign.opening import open_campaign
    from engine.pool.items import read_shard
    from engine.pool.manifest import read_shards

    opened = open_campaign(spec.campaign, [])
    shards = {Path(shard.url).resolve(): shard for shard in read_shards(opened.home).at_root(opened.config.pool.root)}
    for file in files:
        for item in read_shard(shards[Path(file).resolve()], opened.config.image):
            yield item.data


def bare_part(spec: Spec, part: int, kind: str, barrier: Any, results: Any) -> None:
    """One process of a bare loop: neither checks, hashes nor keeps anything."""
    from engine.cluster.allocation import keep_freed_memory
    from engine.pool.images import decode

    config, is_lean = spec.config, kind == "lean"
    if is_lean:
        keep_freed_memory()
    run, size = networks_of(config, threads=1, is_lean=is_lean), batch_items(config, is_lean=is_lean)
    decoder = by_pillow if kind == "Pillow" else decode
    files = spec.files[part :: spec.workers]
    batch: list[NDArray[np.uint8]] = []
    barrier.wait()
    begin, items = time.monotonic(), 0
    for data in items_of(spec, files) if is_lean else members(files):
        batch.append(decoder(data, config.image))
        items += 1
        if len(batch) == size:
            run(np.stack(batch))
            batch.clear()
    if batch:
        run(np.stack(batch))
    results.put((items, begin, time.monotonic()))


def bare(spec: Spec, kind: str = "") -> Found:
    """As many processes as workers, a thread and a share of the shards each."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(spec.workers), context.Queue()
    processes = [
        context.Process(target=bare_part, args=(spec, part, kind, barrier, results), daemon=True)
        for part in range(spec.workers)
    ]
    for process in processes:
        process.start()
    items, begins, ends = zip(*(results.get() for _ in processes), strict=True)
    return {"items": sum(items), "steady": sum(items) / (max(ends) - min(begins))}


def vaal(spec: Spec) -> Found:
    """The score stage, whose driver loads no torch."""
    from engine.campaign.opening import open_campaign
    from engine.campaign.stages import Run
    from engine.scoring.score import score

    given = open_campaign(spec.campaign, [])
    campaign = Campaign(given.home, override(given.config, {"score.workers": spec.workers}, "bench"), 0)
    records: list[tuple[float, int]] = []

    def on_progress(_: float, words: str) -> None:
        records.append((time.monotonic(), int(words.split()[0].replace(",", ""))))

    manifest = score(campaign, Run(on_progress=on_progress))
    return {"items": manifest["counts"]["scored"], "steady": steady(records)}


class RayScorer:
    """The actor of the Ray Data pipeline."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._config = override(CampaignConfig(), settings, "bench")
        self._run = networks_of(self._config, threads=1)

    def __call__(self, batch: Any) -> dict[str, NDArray[Any]]:
        side = self._config.image.size
        pixels = [self._fit(image, side) for image in batch["jpg"]]
        logit, latent = self._run(np.stack(pixels))
        at = np.full(len(pixels), time.monotonic())
        names = {name: np.asarray(batch[name]) for name in ("__url__", "__key__")}
        return {**names, "logit": logit, "latent": latent.astype(np.float16), "at": at}

    @staticmethod
    def _fit(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
        if image.shape == (side, side, 3):
            return image
        return resized(Image.fromarray(image).convert("RGB"), side)


def ray_data(spec: Spec) -> Found:
    """`read_webdataset` with its own decoder, an actor pool and `write_parquet`.

    On two cores there is room for two of each stage at a time: Ray Data does not fuse them, and two actors of one CPU
    each would leave none to read with, so that the pipeline would wait for ever.
    """
    import pyarrow.parquet as pq
    import ray.data

    from engine.cluster.ray_session import ray_session

    with ray_session("local"):
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        ray.data.DataContext.get_current().enable_progress_bars = False
        images = ray.data.read_webdataset(spec.files, num_cpus=0.4)
        scored = images.map_batches(
            RayScorer, fn_constructor_args=(spec.settings,), batch_size=handed_on(spec.config),
            batch_format="pandas",
            compute=ray.data.ActorPoolStrategy(size=spec.workers), num_cpus=0.5,
        )  # fmt: skip
        scored.write_parquet(spec.out, ray_remote_args={"num_cpus": 0.1})
        ended = time.monotonic()
    at = np.sort(pq.read_table(spec.out, columns=["at"])["at"].to_numpy())
    times, counts = np.unique(at, return_counts=True)
    return {"items": len(at), "steady": steady(zip(times, np.cumsum(counts).tolist(), strict=True)), "ended": ended}


def webdataset(spec: Spec) -> Found:
    """`webdataset` under a DataLoader: its workers decode, the main process runs the networks on as many threads."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    import torch
    import webdataset as wds

    config = spec.config

    def decoded(sample: dict[str, Any]) -> tuple[str, str, Any]:
        return sample["__url__"], sample["__key__"], torch.from_numpy(by_pillow(sample["jpg"], config.image).copy())

    def collated(samples: list[tuple[str, str, Any]]) -> tuple[list[str], list[str], Any]:
        urls, keys, pixels = zip(*samples, strict=True)
        return list(urls), list(keys), torch.stack(pixels)

    images = wds.WebDataset(spec.files, shardshuffle=False).map(decoded)
    dataset = images.batched(handed_on(config), collation_fn=collated)
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=None, num_workers=min(spec.workers, len(spec.files)), multiprocessing_context="fork"
    )
    run = networks_of(config, threads=spec.workers)
    tables: list[pa.Table] = []
    records, items = [], 0
    for urls, keys, pixels in loader:
        logit, latent = run(pixels.numpy())
        flat = pa.array(latent.astype(np.float16).reshape(-1))
        latents = pa.FixedSizeListArray.from_arrays(flat, latent.shape[1])
        tables.append(pa.table({"shard": urls, "key": keys, "logit": logit, "latent": latents}))
        items += len(keys)
        records.append((time.monotonic(), items))
    pq.write_table(pa.concat_tables(tables), Path(spec.out).with_suffix(".parquet"))
    return {"items": items, "steady": steady(records)}


VARIANTS: dict[str, Callable[[Spec], Found]] = {
    "bare": bare,
    "lean": lambda spec: bare(spec, "lean"),
    "vaal": vaal,
    "ray.data": ray_data,
    "webdataset": webdataset,
    "bare, Pillow": lambda spec: bare(spec, "Pillow"),
}


def main() -> None:
    measure.end_on_sigterm()
    variant, spec, started = sys.argv[1:]
    found = VARIANTS[variant](Spec(**json.loads(Path(spec).read_text())))
    whole = found.pop("ended", time.monotonic()) - float(started)
    print(json.dumps(found if variant.startswith(("bare", "lean")) else {**found, "whole": whole}))


if __name__ == "__main__":
    main()
