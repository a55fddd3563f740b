"""Near latents count as duplicates only where they belong to pictures that look alike."""

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.config.input_options import ImageConfig
from engine.pool.images import decode
from tests.engine.pool.test_images import pictures
from vaal.duplicates.likeness import LEAST_PAIRS, Likeness, Pictures, judge_likeness
from vaal.duplicates.perceptual_hash import HASH_BYTES, Hashes, perceptual_hash

COSINE = 0.99


@pytest.fixture(scope="module")
def photographs() -> NDArray[np.uint8]:
    """100 photographs at 32 px, and each a second time with a little noise."""
    found = pictures("photos/pool-0000[01]")[:100] or pytest.skip("no photos below VAAL_DATA or ../shared/data")
    pixels = np.array([decode(content, ImageConfig(size=32)) for content in found], np.int16)
    noise = np.random.default_rng(0).integers(-3, 4, pixels.shape)
    return np.concatenate([pixels, (pixels + noise).clip(0, 255)]).astype(np.uint8)


def judged(latents: NDArray[np.floating], pixels: NDArray[np.uint8]) -> Likeness:
    return judge_likeness(Pictures(latents.astype(np.float32), perceptual_hash(pixels)), COSINE)


def test_latents_that_say_what_a_picture_shows_count(photographs: NDArray[np.uint8]) -> None:
    # A random projection of the pixels, in place of an encoder that preserves what is near.
    flat = photographs.reshape(len(photographs), -1) - photographs.mean()
    latents = flat @ np.random.default_rng(1).normal(size=(flat.shape[1], 32))
    found = judged(latents, photographs)
    assert found.counts
    assert found.num_pairs >= 100
    assert found.alike is not None
    assert found.alike > 0.9


@pytest.mark.parametrize("spread", [0.0, 0.03, 0.1])
def test_latents_with_one_axis_do_not_count(photographs: NDArray[np.uint8], spread: float) -> None:
    rng = np.random.default_rng(2)
    latents = rng.normal(size=(len(photographs), 32)) * np.where(np.arange(32) == 0, 3.0, spread)
    found = judged(latents, photographs)
    assert not found.counts
    assert found.alike is not None
    assert found.alike < 0.3
    # Nothing tells this kind of nearness from that of copies but the pictures.
    assert found.num_pairs >= LEAST_PAIRS


def test_near_pairs_that_are_alike_do_not_count_where_most_pairs_are_near() -> None:
    """As of frames of films, whose latents are all on one side of zero."""
    rng = np.random.default_rng(4)
    frames = np.repeat(rng.normal(size=(40, 32)), 10, axis=0) + 0.01 * rng.normal(size=(400, 32))
    hashes = Hashes(np.repeat(rng.integers(0, 256, (40, HASH_BYTES), np.uint8), 10, axis=0), np.ones(400, np.bool_))
    for offset, counts in ((0, True), (40, False)):
        found = judge_likeness(Pictures((frames + offset).astype(np.float32), hashes), COSINE)
        assert found.alike == 1
        assert found.counts is counts


@pytest.mark.parametrize(("num_axes", "counts"), [(1, False), (2, False), (32, True)])
def test_without_pictures_random_pairs_judge(num_axes: int, counts: bool) -> None:
    latents = np.random.default_rng(3).normal(size=(500, 32)).astype(np.float32)
    latents[:, num_axes:] = 0
    none = Hashes(np.zeros((500, HASH_BYTES), np.uint8), np.zeros(500, np.bool_))
    found = judge_likeness(Pictures(latents, none), COSINE)
    assert (found.counts, found.num_pairs) == (counts, 0)
    assert found.alike is None


@pytest.mark.parametrize("num", [0, 1, 2])
def test_few_latents_and_zero_ones_are_near_nothing(num: int) -> None:
    hashes = Hashes(np.zeros((num, HASH_BYTES), np.uint8), np.ones(num, np.bool_))
    zeros = Pictures(np.zeros((num, 4), np.float32), hashes)
    assert judge_likeness(zeros, COSINE)[:2] == (True, 0)
