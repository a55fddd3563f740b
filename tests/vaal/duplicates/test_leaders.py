"""Leaders against their definition, item by item; whatever is compared at a time, and where all are alike."""

import time
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from vaal.duplicates import leaders, nearness
from vaal.duplicates.leaders import cosine_leaders, hamming_leaders
from vaal.duplicates.nearness import COSINE_ROUNDING

MASK = np.random.default_rng(9).integers(0, 256, 16).astype(np.uint8)
FEW, MANY = (1024, 1 << 22, 1 << 15), (3, 32, 16)
"""FEW_ROWS, BLOCK_PAIRS and PROBING_ROWS: as they are, and so small that a hundred rows go every way there is."""


def definition(is_near: Callable[[int, int], bool], comparable: NDArray[np.bool_], num_fixed: int) -> list[int]:
    kept: list[int] = []
    leader = list(range(len(comparable)))
    for row in leader.copy():
        near = [] if row < num_fixed or not comparable[row] else [other for other in kept if is_near(row, other)]
        if near:
            leader[row] = near[0]
        elif comparable[row]:
            kept.append(row)
    return leader


@pytest.fixture(params=[FEW, MANY], ids=["at once", "in parts"])
def _sizes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in zip(("FEW_ROWS", "BLOCK_PAIRS", "PROBING_ROWS"), request.param, strict=True):
        monkeypatch.setattr(nearness, name, value)
    monkeypatch.setattr(leaders, "FEW_ROWS", request.param[0])
    monkeypatch.setattr(nearness, "FEW_CELL_ROWS", 4 * request.param[0])


@pytest.mark.usefixtures("_sizes")
@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), decimals=st.integers(0, 2), threshold=st.sampled_from([0.3, 0.8, 0.95, 0.999, 1.0]),
       repeats=st.booleans(), offset=st.sampled_from([0, 0, 3, 100]))  # fmt: skip
def test_cosine_leaders_are_the_definitions(
    seed: int, decimals: int, threshold: float, repeats: bool, offset: float
) -> None:
    rng = np.random.default_rng(seed)
    num = int(rng.integers(1, 130))
    latent = rng.normal(size=(num, int(rng.integers(1, 6)))).round(decimals).astype(np.float32) + np.float32(offset)
    latent = latent[rng.integers(0, num, num)] if repeats else latent
    num_fixed = int(rng.integers(0, num + 1)) // int(rng.integers(1, 5))
    comparable = latent.any(axis=1)
    unit = (
        latent.astype(np.float64) / np.where(comparable, np.linalg.norm(latent.astype(np.float64), axis=1), 1)[:, None]
    )
    expected = definition(lambda a, b: bool(unit[a] @ unit[b] >= threshold - COSINE_ROUNDING), comparable, num_fixed)
    assert cosine_leaders(latent, threshold, num_fixed).tolist() == expected


@pytest.mark.usefixtures("_sizes")
@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), max_distance=st.sampled_from([0, 1, 2, 5, 11, 20, 60, 127]),
       share=st.sampled_from([0.0, 0.02, 0.05]), num_sources=st.integers(1, 30))  # fmt: skip
@pytest.mark.heavy
def test_hamming_leaders_are_the_definitions(seed: int, max_distance: int, share: float, num_sources: int) -> None:
    rng = np.random.default_rng(seed)
    num = int(rng.integers(1, 130))
    hashes = rng.integers(0, 256, (num_sources, 16)).astype(np.uint8)[rng.integers(0, num_sources, num)]
    hashes ^= np.packbits(rng.random((num, 128)) < share, axis=1)
    hashes[rng.random(num) < 0.3] ^= MASK
    has_hash = rng.random(num) < 0.9
    # One that is there may be all zero, as those are that are not.
    hashes[~has_hash | (rng.random(num) < 0.05)] = 0
    num_fixed = int(rng.integers(0, num + 1)) // int(rng.integers(1, 5))

    def is_near(a: int, b: int) -> bool:
        differ = hashes[a] ^ hashes[b]
        return int(min(np.bitwise_count(differ).sum(), np.bitwise_count(differ ^ MASK).sum())) <= max_distance

    expected = definition(is_near, has_hash, num_fixed)
    assert hamming_leaders(hashes, has_hash, max_distance, num_fixed, MASK).tolist() == expected


def test_every_pair_within_the_distance_is_found_among_many() -> None:
    """Beyond FEW_ROWS, where keys are looked up: five of six parts differ in two bits, and one in any one: 11."""
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 256, (2 * nearness.FEW_ROWS + 200, 16)).astype(np.uint8)
    flips = np.zeros((128, 128), np.bool_)
    for bit in range(128):
        flips[bit, [bit, *(place for part in range(6) if part != bit % 6 for place in (part, part + 6))]] = True
    assert (flips.sum(axis=1) == 11).all()
    mirrored = np.where(np.arange(128)[:, None] // 6 % 2, MASK, 0).astype(np.uint8)
    hashes[-128:] = hashes[:128] ^ np.packbits(flips, axis=1) ^ mirrored
    every = np.arange(len(hashes))
    leader = hamming_leaders(hashes, np.ones(len(hashes), np.bool_), 11, 0, MASK)
    assert leader.tolist() == np.where(every < len(hashes) - 128, every, every - len(hashes) + 128).tolist()
    assert hamming_leaders(hashes, np.ones(len(hashes), np.bool_), 10, 0, MASK).tolist() == every.tolist()


def test_among_many_latents_the_cells_miss_none(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    latent = rng.normal(size=(12_000, 6)).astype(np.float32) * np.float32([5, 3, 1, 1, 0.3, 0.1])
    latent[6000:] = latent[rng.permutation(6000)] * 2 + 0.05 * rng.normal(size=(6000, 6))
    monkeypatch.setattr(nearness, "FEW_CELL_ROWS", 1000)
    with_cells = cosine_leaders(latent, 0.999, 300)
    assert 3000 < (with_cells != np.arange(len(latent))).sum() < 11_000
    monkeypatch.setattr(nearness, "FEW_CELL_ROWS", len(latent))
    assert cosine_leaders(latent, 0.999, 300).tolist() == with_cells.tolist()


@pytest.mark.heavy
def test_all_but_one_point_takes_neither_time_nor_memory() -> None:
    num, begin = 100_000, time.process_time()
    rng = np.random.default_rng(0)
    point = rng.normal(size=32)
    latent = (point + 1e-4 * rng.normal(size=(num, 32))).astype(np.float32)
    latent[7] = -point
    assert cosine_leaders(latent, 0.99, 5).tolist() == [0, 1, 2, 3, 4, 0, 0, 7] + [0] * (num - 8)
    equal = np.full((num, 16), 77, np.uint8)
    assert not hamming_leaders(equal, np.ones(num, np.bool_), 11, 1, MASK).any()
    alike = equal ^ np.packbits(rng.random((num, 128)) < 0.02, axis=1)
    assert len(set(hamming_leaders(alike, np.ones(num, np.bool_), 11, 1, MASK).tolist())) < 1000
    assert time.process_time() - begin < 10


def test_equal_rows_that_are_taken_are_compared_once() -> None:
    rng, num = np.random.default_rng(0), 40_000
    hashes = rng.integers(0, 256, (1500 + 2 * num, 16)).astype(np.uint8)
    hashes[1500:] = 77
    begin = time.process_time()
    leader = hamming_leaders(hashes, np.ones(len(hashes), np.bool_), 11, 1500 + num, MASK)
    assert leader.tolist() == [*range(1500 + num), *[1500] * num]
    # A few tenths; all pairs of equal rows take many seconds.
    assert time.process_time() - begin < 3


def test_what_cannot_be_compared_is_refused() -> None:
    latent, hashes, have = np.ones((4, 2), np.float32), np.zeros((4, 16), np.uint8), np.ones(4, np.bool_)
    for threshold in (0.0, 1.1):
        with pytest.raises(ValueError, match=f"above 0 and at most 1, got {threshold}"):
            cosine_leaders(latent, threshold, 0)
    for num_fixed in (-1, 5):
        with pytest.raises(ValueError, match=f"num_fixed must be from 0 to 4, got {num_fixed}"):
            cosine_leaders(latent, 0.9, num_fixed)
    for distance in (-1, 128):
        with pytest.raises(ValueError, match=f"from 0 to 127, got {distance}"):
            hamming_leaders(hashes, have, distance, 0, MASK)
    with pytest.raises(ValueError, match="a multiple of 8 bytes, got 12"):
        hamming_leaders(hashes[:, :12], have, 3, 0, MASK[:12])
    for bad in (np.nan, np.inf):
        latent[2, 1] = bad
        with pytest.raises(ValueError, match="1 of 4 latents are not finite"):
            cosine_leaders(latent, 0.9, 0)


def test_nothing_has_no_leaders() -> None:
    assert cosine_leaders(np.empty((0, 3), np.float32), 0.9, 0).shape == (0,)
    assert hamming_leaders(np.empty((0, 16), np.uint8), np.empty(0, np.bool_), 3, 0, MASK).shape == (0,)
    assert cosine_leaders(np.zeros((3, 2), np.float32), 0.9, 1).tolist() == [0, 1, 2]
