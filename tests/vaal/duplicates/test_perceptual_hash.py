"""The hash of a picture: what it does not depend on, what mirroring does to it, which copies of real ones it finds."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from engine.config.input_options import ImageConfig
from engine.pool.images import decode
from tests.engine.pool.test_images import encode, pictures
from vaal.duplicates import perceptual_hash as module
from vaal.duplicates.perceptual_hash import HASH_BYTES, MAX_DISTANCE, MIN_SIDE, MIRROR_MASK, perceptual_hash

Pixels = NDArray[np.uint8]


def noise(count: int, side: int, channels: int = 3, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, channels), np.uint8)


def tiles(count: int, side: int) -> Pixels:
    """Noise of 16 x 16 patches, so that its low frequencies are strong whatever the side."""
    place = np.arange(side) * 16 // side
    return noise(count, 16)[:, place][:, :, place]


def distances(left: Pixels, right: Pixels) -> NDArray[np.int64]:
    """Between each and each, as they are or mirrored; 129 where one has no hash."""
    one, two = perceptual_hash(left), perceptual_hash(right)
    differ = one.hash_NB[:, None] ^ two.hash_NB[None]
    found = np.minimum(np.bitwise_count(differ).sum(axis=2), np.bitwise_count(differ ^ MIRROR_MASK).sum(axis=2))
    return np.where(one.has_hash_N[:, None] & two.has_hash_N[None], found, 8 * HASH_BYTES + 1).astype(np.int64)


@pytest.mark.parametrize("side", [16, 33, 224])
def test_a_bit_is_the_sign_of_a_cosine(side: int) -> None:
    """Against the sums of the definition, one picture and one frequency at a time."""
    pixels = tiles(3, side)
    grey = pixels @ np.array([0.299, 0.587, 0.114])
    place = (np.arange(side) + 0.5) * np.pi / side
    pairs = [
        (v, h) for total in range(1, 2 * MIN_SIDE) for v in range(MIN_SIDE) for h in [total - v] if 0 <= h < MIN_SIDE
    ]
    for picture, code in zip(grey, perceptual_hash(pixels).hash_NB, strict=True):
        sums = [np.cos(v * place) @ picture @ np.cos(h * place) for v, h in pairs[: 8 * HASH_BYTES]]
        assert np.unpackbits(code).tolist() == [int(value > 0) for value in sums]


@pytest.mark.parametrize("side", [16, 31, 32, 64])
def test_mirroring_flips_the_bits_of_the_mask_and_no_other(side: int) -> None:
    pixels = tiles(200, side)
    as_is, mirrored = perceptual_hash(pixels).hash_NB, perceptual_hash(pixels[:, :, ::-1]).hash_NB
    # A sum that is nearly zero may change its sign by rounding, or count as zero both times.
    wrong = np.bitwise_count(as_is ^ mirrored ^ MIRROR_MASK).sum(axis=1)
    assert wrong.max() <= 1
    assert wrong.mean() < 0.1
    assert np.bitwise_count(as_is ^ mirrored).sum(axis=1).min() > MAX_DISTANCE


@pytest.mark.parametrize("side", [16, 32, 64, 224])
@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_zero_but_for_rounding_gives_no_bit(side: int, channels: int) -> None:
    """A symmetric picture has no odd frequency along its axis: its sums are rounding alone, of either sign."""
    half = tiles(50, side)[:, :, : side // 2, :channels]
    symmetric = np.concatenate([half, half[:, :, ::-1]], axis=2)
    found = perceptual_hash(symmetric)
    # Half the bits are of odd frequencies, so some of these pictures are too plain for a hash, which is zero then.
    assert found.has_hash_N.sum() > 10
    assert not (found.hash_NB & MIRROR_MASK).any()
    # One pixel that is one level brighter is more than rounding: at 32 px it moves a sum by up to 0.002 levels.
    if (side, channels) == (32, 1):
        symmetric[:, 0, 0] += 1
        moved = perceptual_hash(symmetric)
        bits = np.bitwise_count(moved.hash_NB[moved.has_hash_N] & MIRROR_MASK).sum(axis=1)
        assert bits.min() > np.bitwise_count(MIRROR_MASK).sum() / 4


def test_brightness_contrast_colour_of_greys_and_alpha_do_not_count() -> None:
    grey = noise(20, 32, 1) // 4 + 20
    code = perceptual_hash(grey)
    alpha = noise(20, 32, 1, seed=1)
    for same in (grey + 60, grey.repeat(3, axis=3), np.concatenate([grey, alpha], axis=3),
                 np.concatenate([grey.repeat(3, axis=3), alpha], axis=3), 2 * grey - 30):  # fmt: skip
        found = perceptual_hash(same)
        assert np.bitwise_count(found.hash_NB ^ code.hash_NB).sum(axis=1).max() <= 1
        assert found.has_hash_N.all()


def test_a_hash_is_that_of_the_picture_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = noise(50, 32)
    together = perceptual_hash(pixels).hash_NB
    monkeypatch.setattr(module, "_BLOCK_BYTES", 7 * 32 * 32 * 3)
    assert perceptual_hash(pixels).hash_NB.tobytes() == together.tobytes()
    apart = np.concatenate([perceptual_hash(one[None]).hash_NB for one in pixels])
    assert np.bitwise_count(apart ^ together).sum() <= 1


def test_too_small_or_too_plain_a_picture_has_no_hash() -> None:
    ramp = np.arange(32, dtype=np.uint8)[None, None, :, None].repeat(32, axis=1) * 8
    plain = np.concatenate([np.full((1, 32, 32, 1), level, np.uint8) for level in (0, 1, 128, 255)] + [ramp])
    for pixels in (plain, noise(4, MIN_SIDE - 1), noise(4, 8, 1), noise(0, 32), noise(3, 4)):
        found = perceptual_hash(pixels)
        assert found.has_hash_N.shape == (len(pixels),)
        assert not found.has_hash_N.any()
        assert found.hash_NB.shape == (len(pixels), HASH_BYTES)
        assert not found.hash_NB.any()
    assert perceptual_hash(noise(4, MIN_SIDE)).has_hash_N.all()


def changed(data: bytes, change: Callable[[Image.Image], Image.Image], quality: int) -> bytes:
    return encode(change(Image.open(io.BytesIO(data)).convert("RGB")), "JPEG", quality=quality)


def smaller(image: Image.Image) -> Image.Image:
    return image.resize((round(image.width * 0.9), round(image.height * 0.9)), Image.Resampling.BICUBIC)


def cropped(image: Image.Image) -> Image.Image:
    return image.crop((2, 2, image.width - 2, image.height - 2))


COPIES: dict[str, tuple[Callable[[Image.Image], Image.Image], int]] = {
    "quality 70": (lambda image: image, 70), "smaller": (smaller, 90), "mirrored": (ImageOps.mirror, 90),
    "cropped": (cropped, 90),
}  # fmt: skip


@pytest.mark.parametrize(
    ("pattern", "side", "kinds", "recall"),
    [("photos/pool-0000[01]", 64, [*COPIES], 0.97), ("cifar10/train-0000[0]", 32, [*COPIES][:3], 0.995)],
    ids=["photographs", "CIFAR-10"],
)
@pytest.mark.heavy
def test_copies_of_real_pictures_are_found(pattern: str, side: int, kinds: list[str], recall: float) -> None:
    originals = pictures(pattern)[:100] or pytest.skip(f"no {pattern}.tar below VAAL_DATA or ../shared/data")
    image = ImageConfig(size=side)
    pixels = np.stack([decode(data, image) for data in originals])
    for kind in kinds:
        change, quality = COPIES[kind]
        copies = np.stack([decode(changed(data, change, quality), image) for data in originals])
        found = distances(pixels, copies)
        assert (found.diagonal() <= MAX_DISTANCE).mean() >= recall, kind
        assert (found <= MAX_DISTANCE).sum() <= len(originals), kind


def test_different_photographs_are_far_apart() -> None:
    originals = pictures("photos/pool-*") or pytest.skip("no photos/pool-*.tar below VAAL_DATA or ../shared/data")
    found = distances(*[np.stack([decode(data, ImageConfig(size=32)) for data in originals])] * 2)
    assert found[~np.eye(len(found), dtype=np.bool_)].min() >= 3 * MAX_DISTANCE
