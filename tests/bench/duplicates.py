"""Which duplicates are found, at what false alarms, and what a million candidates cost.

    python tests/bench/duplicates.py [small]

Copies: of 5,000 images of CIFAR-10 at 32 px (small: 500) and of 400 photographs at 32 px (small: 100), saved as JPEG at
quality 70, resized by 0.9, with 1 or 2 pixels cut off each side, or mirrored, and decoded again. Recall is the share
of the copies that are near their original; "others" the share of the originals that are near another one of all 50,000
(small: 10,000) or 400 images, true duplicates among them. By the picture, at several distances, and by the latent, at
several cosines, of a VAE trained with labels for half of CIFAR-10's classes (500 iterations; small: 60), by which the
photographs too are seen. Needs the shards of both below VAAL_DATA, else ../shared/data; says so where they are absent.

Cost: seconds of the clock and of the processor, and peak memory, of `find_duplicates` in a fresh process: 1,000,000
candidates (small: 50,000), 2 % of them taken; latents of 32 units, Gaussian, whose scales fall from 2 to 0.3 and 12 of
which are hardly used; 5 % are near copies by latent, 5 % by picture and 1 % by bytes. Then the same with all latents
near one point and the hashes of every other one equal, as those of networks that collapsed, and of one picture.
"""

import io
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from measure import cifar10_shards, is_small, machine, photo_shards, resident_bytes, result_of, start_fresh
from numpy.typing import NDArray
from PIL import Image, ImageOps
from signal_auc import cifar_pool

from engine.config.input_options import ImageConfig
from engine.models.weights import to_input
from engine.pool.images import decode
from engine.selection.duplicates import find_duplicates
from engine.tables.selections import KINDS
from tests.engine.pool.test_images import encode, pictures
from tests.learn import learn
from vaal.acquisition.discriminator import labelled_logit
from vaal.assembly import Networks
from vaal.duplicates.perceptual_hash import HASH_BYTES, MAX_DISTANCE, MIRROR_MASK, perceptual_hash

IMAGE = ImageConfig(size=32)
DISTANCES = (7, MAX_DISTANCE, 15)
COSINES = (0.95, 0.97, 0.98, 0.985, 0.99, 0.995)
NUM_LATENTS = 32
Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]


def cut(image: Image.Image, pixels: int) -> Image.Image:
    return image.crop((pixels, pixels, image.width - pixels, image.height - pixels))


def smaller(image: Image.Image) -> Image.Image:
    return image.resize((round(image.width * 0.9), round(image.height * 0.9)), Image.Resampling.BICUBIC)


CHANGES: dict[str, tuple[Callable[[Image.Image], Image.Image], int]] = {
    "quality 70": (lambda image: image, 70),
    "resized 0.9": (smaller, 90),
    "cut 1 px": (lambda image: cut(image, 1), 90),
    "cut 2 px": (lambda image: cut(image, 2), 90),
    "mirrored": (ImageOps.mirror, 90),
}


def decoded(images: list[bytes]) -> Pixels:
    return np.stack([decode(data, IMAGE) for data in images])


def copies(images: list[bytes], kind: str) -> Pixels:
    change, quality = CHANGES[kind]
    opened = (Image.open(io.BytesIO(data)).convert("RGB") for data in images)
    return decoded([encode(change(image), "JPEG", quality=quality) for image in opened])


def by_picture(left: Pixels, right: Pixels) -> NDArray[np.int64]:
    """Distances (N, M), negative so that nearer is higher, as cosines are; where there is no hash, below all."""
    one, two = perceptual_hash(left), perceptual_hash(right)
    bits_NF, bits_MF = (np.unpackbits(h.hash_NB, axis=1) * np.float32(2) - 1 for h in (one, two))
    is_flipped = np.unpackbits(MIRROR_MASK) == 1
    agreement = bits_NF[:, ~is_flipped] @ bits_MF[:, ~is_flipped].T
    agreement += np.abs(bits_NF[:, is_flipped] @ bits_MF[:, is_flipped].T)
    distance = ((8 * HASH_BYTES - agreement) / 2).round().astype(np.int64)
    return -np.where(one.has_hash_N[:, None] & two.has_hash_N, distance, 8 * HASH_BYTES + 1)


def by_latent(networks: Networks) -> Callable[[Pixels, Pixels], Floats]:
    def directions(pixels: Pixels) -> Floats:
        parts = []
        with torch.no_grad():
            for begin in range(0, len(pixels), 256):
                x = to_input(pixels[begin : begin + 256], torch.device("cpu"))
                parts.append(labelled_logit(networks, x, torch.zeros(len(x), dtype=torch.int64))[1].half().float())
        return torch.nn.functional.normalize(torch.cat(parts), dim=1).numpy()

    known: dict[int, Floats] = {}

    def cosines(left: Pixels, right: Pixels) -> Floats:
        one, two = (known.setdefault(id(p), directions(p)) if len(p) > 999 else directions(p) for p in (left, right))
        return one @ two.T

    return cosines


def show(name: str, images: list[bytes], num_originals: int, networks: Networks) -> None:
    pixels, originals = decoded(images), images[:num_originals]
    planted = {kind: copies(originals, kind) for kind in CHANGES}
    print(f"\n{name}: {num_originals} originals among {len(images)}")
    print(f"  {'near':16}{'others':>9}" + "".join(f"{kind:>13}" for kind in CHANGES))
    rules = (("picture", by_picture, [-d for d in DISTANCES]), ("latent", by_latent(networks), COSINES))
    for kind, nearness, cuts in rules:
        nearest = np.concatenate(
            [_nearest(nearness, pixels, begin, num_originals) for begin in range(0, num_originals, 500)]
        )
        own = {
            change: np.concatenate([
                nearness(pixels[begin : begin + 500][: num_originals - begin], copied[begin : begin + 500]).diagonal()
                for begin in range(0, num_originals, 500)
            ])
            for change, copied in planted.items()
        }  # fmt: skip
        for least in cuts:
            what = f"{kind} <= {-least}" if kind == "picture" else f"{kind} >= {least}"
            recall = "".join(f"{(near >= least).mean():13.3f}" for near in own.values())
            print(f"  {what:16}{(nearest >= least).mean():9.4f}{recall}")


def _nearest(nearness: Callable[[Pixels, Pixels], NDArray[np.generic]], pixels: Pixels, begin: int, end: int) -> Floats:
    """How near the nearest other image is, for 500 of them."""
    part = pixels[begin : min(begin + 500, end)]
    near = np.array(nearness(part, pixels), np.float32)
    near[np.arange(len(part)), begin + np.arange(len(part))] = -np.inf
    return np.asarray(near.max(axis=1), np.float32)


def candidates(num: int, kind: str) -> pa.Table:
    rng = np.random.default_rng(0)
    scales = np.concatenate([np.geomspace(2, 0.3, NUM_LATENTS - 12), np.full(12, 0.02)]).astype(np.float32)
    latent = rng.normal(size=(num, NUM_LATENTS)).astype(np.float32) * scales
    hashes = rng.integers(0, 256, (num, HASH_BYTES)).astype(np.uint8)
    content, has_hash = rng.permutation(num), np.ones(num, np.bool_)
    if kind == "collapsed":
        latent = np.float32(1) + latent * np.float32(1e-3)
        hashes[:] = hashes[0]
        has_hash[::2] = False
    else:
        near, alike, same = (rng.integers(0, num, (2, num // share)) for share in (20, 20, 100))
        latent[near[0]] = latent[near[1]] + 0.02 * rng.normal(size=(num // 20, NUM_LATENTS))
        hashes[alike[0]] = hashes[alike[1]] ^ np.packbits(rng.random((num // 20, 8 * HASH_BYTES)) < 0.02, axis=1)
        hashes[alike[0][::2]] ^= MIRROR_MASK
        content[same[0]] = content[same[1]]
    valid = pa.py_buffer(np.packbits(has_hash, bitorder="little"))
    columns = {
        "content_hash": pa.array([f"{number:032x}" for number in content.tolist()]),
        "perceptual_hash": pa.Array.from_buffers(pa.binary(HASH_BYTES), num, [valid, pa.py_buffer(hashes)]),
        "latent": pa.FixedSizeListArray.from_arrays(pa.array(latent.astype(np.float16).reshape(-1)), NUM_LATENTS),
    }
    return pa.table(columns)


def cost(num: int, kind: str) -> None:
    items = candidates(num, kind)
    before, wall, processor = resident_bytes(peak=True), time.perf_counter(), time.process_time()
    found = find_duplicates(items, num // 50, "near", 0.99)
    result = {
        "seconds": time.perf_counter() - wall,
        "processor": time.process_time() - processor,
        "before": before,
        "peak": resident_bytes(peak=True),
        **{kind: int((found.kind_N == kind).sum()) for kind in KINDS},
    }
    print(json.dumps(result))


def main() -> None:
    if sys.argv[1:2] == ["cost"]:
        cost(int(sys.argv[2]), sys.argv[3])
        return
    print(machine())
    small = is_small()
    num = 50_000 if small else 1_000_000
    for kind in ("spread", "collapsed"):
        found = result_of(start_fresh(__file__, "cost", str(num), kind))
        print(
            f"{num:,} candidates, {kind}: {found['seconds']:.1f} s, of the processor {found['processor']:.1f} s; peak "
            f"{found['peak'] / 2**30:.2f} GiB, {found['before'] / 2**30:.2f} GiB before; dropped "
            + ", ".join(f"{found[kind]:,} by {kind}" for kind in KINDS)
        )
    if not cifar10_shards() or not photo_shards():
        print("recall not measured, for lack of shards below VAAL_DATA or ../shared/data")
        return
    with tempfile.TemporaryDirectory() as folder:
        made = cifar_pool(Path(folder), 0, "small", 60 if small else 500)
        networks = learn(made.campaign, num_threads=torch.get_num_threads()).networks
    show("CIFAR-10", pictures("cifar10/train-0000*" if small else "cifar10/train-*"), 500 if small else 5000, networks)
    photos = pictures("photos/pool-*")
    show("photographs", photos, 100 if small else len(photos), networks)


if __name__ == "__main__":
    main()
