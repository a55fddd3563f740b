"""Images per second on one core of the engine's decoding, beside full decoding by Pillow and by simplejpeg.

    python tests/bench/decoding.py [small]

400 photographs (median 500 x 375; small: 40 of them) to 64 and 224 px, and 2,000 images of CIFAR-10 (small: 200) at
their own 32 px, all JPEG and held in memory. Needs the shards of both below VAAL_DATA, else ../shared/data; says so
where they are absent. The other two check no limit, apply no orientation and notice no missing data.

The three take turns in one run; a figure is the median of five turns. The distance is that of the engine's pixels from
Pillow's full decoding, turned upright, of 255: the mean over all, and the largest.
"""

import io
import statistics
from collections.abc import Callable

import numpy as np
import simplejpeg
from measure import interleaved, is_small, machine, ratio
from numpy.typing import NDArray
from PIL import Image

from engine.config.input_options import ImageConfig
from engine.pool.images import decode
from tests.engine.pool.test_images import by_pillow, pictures

NUM_ROUNDS = 5


def full_pillow(data: bytes, size: int) -> NDArray[np.uint8]:
    return _resized(Image.open(io.BytesIO(data)).convert("RGB"), size)


def full_simplejpeg(data: bytes, size: int) -> NDArray[np.uint8]:
    return _resized(Image.fromarray(simplejpeg.decode_jpeg(data)), size)


def _resized(image: Image.Image, size: int) -> NDArray[np.uint8]:
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(image)


def measure(name: str, images: list[bytes], size: int) -> None:
    config = ImageConfig(size=size)
    decoders: dict[str, Callable[[bytes], NDArray[np.uint8]]] = {
        "engine": lambda data: decode(data, config),
        "Pillow": lambda data: full_pillow(data, size),
        "simplejpeg": lambda data: full_simplejpeg(data, size),
    }

    def all_by(decoder: Callable[[bytes], NDArray[np.uint8]]) -> Callable[[], None]:
        def step() -> None:
            for data in images:
                decoder(data)

        return step

    steps = {kind: all_by(decoder) for kind, decoder in decoders.items()}
    medians = interleaved(steps, num_rounds=NUM_ROUNDS, block=1, skipped=0)
    print(f"{name} at {size} px, {len(images)} images")
    for kind, seconds in medians.items():
        rate = len(images) / statistics.median(seconds)
        print(f"  {kind:11} {rate:8,.0f} images/s   {ratio(medians, kind, to='engine'):.2f} x the engine's time")
    differences = [np.abs(decode(data, config).astype(np.int16) - by_pillow(data, size)) for data in images]
    mean, most = np.mean([difference.mean() for difference in differences]), np.max(differences)
    print(f"  distance    mean {mean:.3f}, at most {most}")


def main() -> None:
    print(machine())
    absent = []
    photos, small = pictures("photos/pool-*"), pictures("cifar10/train-0000[01]")
    for name, images, sizes in (("photographs", photos, (64, 224)), ("CIFAR-10", small, (32,))):
        if not images:
            absent.append(name)
        for size in sizes if images else ():
            measure(name, images[:: 10 if is_small() else 1], size)
    if absent:
        print(f"not measured: {' and '.join(absent)}, for lack of shards below VAAL_DATA or ../shared/data")


if __name__ == "__main__":
    main()
