"""Duplicates by bytes, then by picture, then by latent: who leads, by what kind, and what is taken already."""

import dataclasses
from typing import Literal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engine.config.toml import override
from engine.selection.duplicates import Duplicates, find_duplicates
from engine.selection.select import select
from engine.tables.selections import KINDS
from tests.conftest import MakeCampaign, pretend_trained
from tests.fabricate import fabricate_scores
from vaal.duplicates.perceptual_hash import HASH_BYTES, MAX_DISTANCE, MIRROR_MASK

COSINE = 0.99
Mode = Literal["off", "exact", "near"]


def table(content: list[str], picture: list[bytes | None], latent: list[tuple[float, float]]) -> pa.Table:
    flat = pa.array(np.array(latent, np.float16).reshape(-1))
    columns = {
        "content_hash": pa.array(content, pa.string()),
        "perceptual_hash": pa.array(picture, pa.binary(HASH_BYTES)),
        "latent": pa.FixedSizeListArray.from_arrays(flat, 2),
    }
    return pa.table(columns)


def picture(number: int, num_flipped: int = 0, *, is_mirrored: bool = False) -> bytes:
    bits = np.random.default_rng(number).integers(0, 2, 8 * HASH_BYTES)
    bits[:num_flipped] ^= 1
    code = np.packbits(bits) ^ (MIRROR_MASK if is_mirrored else 0)
    return code.astype(np.uint8).tobytes()


def direction(degrees: float) -> tuple[float, float]:
    return float(np.cos(np.radians(degrees))), float(np.sin(np.radians(degrees)))


def shown(found: Duplicates) -> list[tuple[int, str | None]]:
    return list(zip(found.leader_N.tolist(), found.kind_N.tolist(), strict=True))


ITEMS = table(
    ["a", "b", "a", "c", "d", "e", "f"],
    [picture(0), picture(1), picture(7), None, picture(1, MAX_DISTANCE, is_mirrored=True), picture(1, 12), None],
    [direction(angle) for angle in (0, 90, 50, 270, 180, 120, 271)],
)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("off", [(0, None), (1, None), (2, None), (3, None), (4, None), (5, None), (6, None)]),
        ("exact", [(0, None), (1, None), (0, "bytes"), (3, None), (4, None), (5, None), (6, None)]),
        ("near", [(0, None), (1, None), (0, "bytes"), (3, None), (1, "picture"), (5, None), (3, "latent")]),
    ],
)
def test_each_kind_drops_what_it_should(mode: Mode, expected: list[tuple[int, str | None]]) -> None:
    assert shown(find_duplicates(ITEMS, 0, mode, COSINE)) == expected
    # Columns in several chunks, and slices of longer ones.
    assert shown(find_duplicates(pa.concat_tables([ITEMS[:3], ITEMS[3:]]), 0, mode, COSINE)) == expected
    assert shown(find_duplicates(pa.concat_tables([ITEMS, ITEMS])[:7], 0, mode, COSINE)) == expected
    assert shown(find_duplicates(pa.concat_tables([ITEMS[:2], ITEMS])[2:], 0, mode, COSINE)) == expected


def test_a_slice_is_of_its_own_pictures() -> None:
    items = table(
        ["x", "a", "b"], [picture(5), picture(0), picture(0, 3)], [direction(angle) for angle in (0, 90, 180)]
    )
    assert shown(find_duplicates(items[1:], 0, "near", COSINE)) == [(0, None), (0, "picture")]


def test_what_is_taken_is_kept_and_leads() -> None:
    found = find_duplicates(ITEMS, 7, "near", COSINE)
    assert shown(found) == [(n, None) for n in range(7)]
    found = find_duplicates(pa.concat_tables([ITEMS, ITEMS]), 7, "near", COSINE)
    assert shown(found)[:7] == [(n, None) for n in range(7)]
    assert shown(found)[7:] == [(n, "bytes") for n in (0, 1, 0, 3, 4, 5, 6)]


def test_an_item_is_led_by_what_stands_for_its_leader() -> None:
    items = table(
        ["a", "b", "c", "c"],
        [picture(0), picture(1), picture(1, 3), picture(9)],
        [direction(0), direction(1), direction(90), direction(180)],
    )
    # The last has the bytes of the third, which has the picture of the second, which has the latent of the first.
    assert shown(find_duplicates(items, 0, "near", COSINE)) == [(0, None), (0, "latent"), (0, "picture"), (0, "bytes")]


def test_a_picture_without_a_hash_is_like_no_other() -> None:
    items = table(["a", "b", "c"], [None, bytes(HASH_BYTES), None], [direction(angle) for angle in (0, 90, 180)])
    assert not any(find_duplicates(items, 0, "near", COSINE).kind_N)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), mode=st.sampled_from(["off", "exact", "near"]))
def test_kept_items_are_no_duplicates_and_every_other_has_one_that_is_kept(seed: int, mode: Mode) -> None:
    rng = np.random.default_rng(seed)
    num = int(rng.integers(0, 60))
    num_fixed = int(rng.integers(0, num + 1)) // 3
    pictures = [None if rng.random() < 0.2 else picture(int(rng.integers(9)), int(rng.integers(9))) for _ in range(num)]
    angles = [direction(angle) for angle in rng.uniform(0, 360, num)]
    items = table([str(n) for n in rng.integers(0, 30, num)], pictures, angles)
    leader, kind = find_duplicates(items, num_fixed, mode, COSINE)
    assert (leader[leader] == leader).all()
    assert (leader <= np.arange(num)).all()
    assert (leader[:num_fixed] == np.arange(num_fixed)).all()
    assert ((kind == None) == (leader == np.arange(num))).all()  # noqa: E711
    again = find_duplicates(items.take(np.flatnonzero(leader == np.arange(num))), num_fixed, mode, COSINE)
    assert not any(again.kind_N)
    # By definition the kinds come one after the other, each among what the ones before it left.
    content = items["content_hash"].to_pylist()
    dropped = set(kind[kind != None].tolist())  # noqa: E711
    assert dropped <= set(KINDS[: {"off": 0, "exact": 1, "near": 3}[mode]])
    if mode != "off":
        for row in range(num_fixed, num):
            assert (kind[row] == "bytes") == (content[row] in content[:row])


@pytest.mark.heavy
def test_the_verdict_on_latents_is_the_same_for_any_number_of_candidates_and_any_method(
    make_campaign: MakeCampaign,
) -> None:
    """One item in eight has latents on one axis, and the lowest logit: candidates by themselves would say otherwise."""
    campaign = make_campaign("image.size=32", "select.budget=40", "select.control_fraction=0")
    pretend_trained(campaign)
    rng = np.random.default_rng(0)

    def latents(_: str, keys: list[str]) -> NDArray[np.float32]:
        found = rng.normal(size=(len(keys), 32))
        found[::8, 1:] *= 0.01
        return found.astype(np.float32)

    fabricate_scores(campaign, lambda _, keys: np.where(np.arange(len(keys)) % 8 == 0, -9.0, 0.0), latents=latents)
    verdicts = []
    for oversample, diversity in ((1.0, "none"), (30.0, "none"), (3.0, "herding"), (3.0, "completion")):
        changed = {"select.oversample": oversample, "select.diversity": diversity}
        config = override(campaign.config, changed, "test")
        verdicts.append(select(dataclasses.replace(campaign, config=config))["likeness"])
    assert all(verdict == verdicts[0] for verdict in verdicts)
