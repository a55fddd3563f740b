"""Scoring from precomputed embeddings beside scoring the same images from pixels: items a CPU second, in one run.

    python tests/bench/embedding_scores.py [small]

2,000 images of CIFAR-10 at 32 px and 1,000 photographs at 64 px (small: 1,000 and 200), read and scored by what a
worker of the score stage calls, `read_chunks` and `Scorer.score_chunk`, in one process with one thread:

- pixels: decoded and seen by the default networks
- member: from a file of float32 in each sample (`member:npy`), 128 or 768 numbers, by the networks of embeddings
- parquet: from a Parquet file, with the shards of the pixels
- "features": the same with train.method=features, whose networks are linear

Networks have their initial weights, and 1,000 centres of clusters. Kinds take turns for three rounds; a ratio is the
median of those of a round. `read` is the share of the time that reading takes, with all that it checks and hashes.

Aim: from embeddings at least as fast as from pixels.
"""

import io
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from measure import cifar10_shards, end_on_sigterm, is_small, machine, photo_shards, ratio
from numpy.typing import NDArray

LENGTHS, NUM_CENTRES = (128, 768), 1000
Settings = dict[str, Any]


class Kind(NamedTuple):
    """A way to score: the shards and the configuration."""

    shards: list[Any]
    config: Any
    sight: Any
    scorer: Any


def with_members(source: Path, shard: str, count: int) -> list[tuple[str, str, bytes]]:
    """The key, the suffix and the content of the first images of a shard."""
    found: list[tuple[str, str, bytes]] = []
    with tarfile.open(source) as tar:
        for member in tar:
            key, _, suffix = member.name.partition(".")
            content = tar.extractfile(member)
            if suffix in ("jpg", "jpeg", "png") and content is not None and len(found) < count:
                found.append((key, suffix, content.read()))
    return found


def write_pool(folder: Path, sources: list[Path], count: int, length: int) -> None:
    """Shards of `count` images, with an embedding of each in a member where `length` is above 0, and in Parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng, names, vectors = np.random.default_rng(0), [], list[NDArray[np.float32]]()
    folder.mkdir()
    for number, source in enumerate(sources):
        left = count - len(names)
        if not left:
            break
        shard = f"shard-{number:05d}.tar"
        with tarfile.open(folder / shard, "w") as tar:
            for key, suffix, data in with_members(source, shard, left):
                vector = rng.standard_normal(max(1, length), np.float32)
                buffer = io.BytesIO()
                np.save(buffer, vector)
                for name, content in ((suffix, data), ("npy", buffer.getvalue()))[: 2 if length else 1]:
                    member = tarfile.TarInfo(f"{key}.{name}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
                names.append((shard, key))
                vectors.append(vector)
    if length:
        columns = [list(column) for column in zip(*names, strict=True)]
        flat = pa.FixedSizeListArray.from_arrays(pa.array(np.concatenate(vectors)), length)
        table = pa.table([*columns, flat], names=["shard", "key", "embedding"])
        pq.write_table(table, folder / "embeddings.parquet")


def kind_of(folder: Path, settings: Settings) -> Kind:
    import torch

    from engine.config.options import CampaignConfig
    from engine.config.toml import override
    from engine.models.centring import make_centres
    from engine.models.front import Front
    from engine.models.weights import made_at_last, make_networks
    from engine.pool.manifest import list_shards
    from engine.pool.sight import sight_of
    from engine.scoring.scorer import Scorer
    from vaal.standardise import Standardiser

    config = override(CampaignConfig(), settings, "bench")
    shards = list_shards([f"{folder}/*.tar"], "")[0]
    sight = sight_of(config, shards)
    generator = torch.Generator().manual_seed(0)
    standardiser, length = None, 0
    if sight.vectors is not None:
        standardiser = Standardiser.fit(torch.randn(2000, sight.vectors.length, generator=generator))
        length = standardiser.num_latents
    networks = made_at_last(config, make_networks(config, length)).ready()
    latents = length or networks.num_latents
    centres = make_centres(torch.randn(6 * NUM_CENTRES, latents, generator=generator), NUM_CENTRES, 0)
    return Kind(shards, config, sight, Scorer(config, networks, Front(torch.device("cpu"), standardiser), centres))


def score(kind: Kind, expected: int, *, is_read_alone: bool = False) -> None:
    from engine.scoring.reading import Reading, read_chunks
    from engine.scoring.watchdog import Attempts

    reading, items = Reading(kind.sight, kind.config.train.folds, 1, 60.0), 0
    for shard in kind.shards:
        for chunk in read_chunks(shard, reading, Attempts()):
            items += len(chunk) if is_read_alone else kind.scorer.score_chunk(chunk)["num_items"][0].as_py()
    assert is_read_alone or items == expected, items


def compare(name: str, sources: list[Path], side: int, count: int, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as home:
        folder, image = Path(home), {"image.size": side}
        write_pool(folder / "pixels", sources, count, 0)
        kinds = {"pixels": kind_of(folder / "pixels", image)}
        for length in LENGTHS:
            write_pool(folder / str(length), sources, count, length)
            inside = {**image, "pool.embeddings": "member:npy"}
            beside = {**image, "pool.embeddings": f"{folder}/{length}/embeddings.parquet"}
            kinds[f"member, {length}"] = kind_of(folder / str(length), inside)
            kinds[f"parquet, {length}"] = kind_of(folder / "pixels", beside)
            kinds[f"features, member, {length}"] = kind_of(folder / str(length), {**inside, "train.method": "features"})
        steps = {kind: lambda kind=kind: score(kinds[kind], count) for kind in kinds}
        reads = {f"{kind} read": lambda kind=kind: score(kinds[kind], count, is_read_alone=True) for kind in kinds}
        for step in steps.values():
            step()
        found: dict[str, list[float]] = {step: [] for step in [*steps, *reads]}
        for _ in range(rounds):
            for step, run in (steps | reads).items():
                begin = time.process_time()
                run()
                found[step].append(time.process_time() - begin)
    print(f"\n{name} at {side} px, {count:,} items, {rounds} rounds")
    overs = {kind: ratio(found, "pixels", kind) for kind in kinds}
    for kind, over in overs.items():
        rate, share = count / float(np.median(found[kind])), ratio(found, f"{kind} read", kind)
        print(f"  {kind:<24}{rate:>9,.0f} items/s{over:>7.2f} of pixels   read {share:.0%}")
    least = min(over for kind, over in overs.items() if kind != "pixels")
    print(f"target: from embeddings to pixels: at least 1.0; reached {least:.2f}: {'met' if least >= 1 else 'MISSED'}")


def main() -> None:
    end_on_sigterm()
    import torch

    torch.set_num_threads(1)
    print(machine(), flush=True)
    pools = {"CIFAR-10": (cifar10_shards(), 32, 1000, 2000), "photographs": (photo_shards(), 64, 200, 1000)}
    for name, (sources, side, few, many) in pools.items():
        if sources:
            compare(name, sources, side, few if is_small() else many, 2 if is_small() else 3)
        else:
            print(f"not measured: {name}, for lack of its shards below VAAL_DATA or ../shared/data")


if __name__ == "__main__":
    main()
