"""The batch of given candidates: what is control, a duplicate of what, what displaced what, and in which order."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from engine.campaign.labels import POSITIONS_SCHEMA
from engine.config.options import SelectConfig
from engine.selection.batch import CONTROL_REASON, Batch, Pools, Rules, ShortageError, make_batch
from engine.tables.selections import row_schema
from vaal.diversity import Branch, mini_batches
from vaal.duplicates.perceptual_hash import HASH_BYTES

NUM_LATENTS = 4
NONE: Mapping[str, str] = MappingProxyType({})


def rows_of(names: list[str], angles: list[float] | None = None, bytes_of: Mapping[str, str] = NONE) -> pa.Table:
    """Items "shard/key" with latents at these angles, degrees; by default at right angles to none but their like."""
    angle = np.deg2rad(angles if angles is not None else [(37.0 * n) % 360 for n in range(len(names))])
    schema = row_schema(NUM_LATENTS)
    columns: dict[str, Any] = {
        "shard": [name.split("/")[0] for name in names],
        "key": [name.split("/")[1] for name in names],
        "score": np.arange(len(names), dtype=np.float32),
        "offset": np.arange(len(names)) * 512,
        "size_bytes": np.full(len(names), 100),
        "content_hash": [bytes_of.get(name, name) for name in names],
        "perceptual_hash": pa.nulls(len(names), pa.binary(HASH_BYTES)),
        "latent": [[np.cos(a), np.sin(a), 0, 0] for a in angle],
    }
    return pa.table([columns[name] for name in schema.names], schema=schema)


def names_of(table: pa.Table, prefix: str = "") -> list[str | None]:
    pairs = zip(table[f"{prefix}shard"].to_pylist(), table[f"{prefix}key"].to_pylist(), strict=True)
    return [None if shard is None else f"{shard}/{key}" for shard, key in pairs]


def batch_of(
    candidates: pa.Table,
    budget: int,
    taken: pa.Table | None = None,
    draws: pa.Table | None = None,
    strata: list[str] | None = None,
    quotas: dict[str, int] | None = None,
    known: pa.Table | None = None,
    **options: Any,
) -> Batch:
    values = {"budget": budget, "diversity": "none", "duplicates": "off", "duplicate_cosine": 0.999} | options
    config = SelectConfig(**values)
    none = candidates.slice(0, 0)
    drawn = none if draws is None else draws
    taken, known = none if taken is None else taken, (none if known is None else known).select(POSITIONS_SCHEMA.names)
    pools = Pools(candidates, taken, taken, drawn, strata or [""] * len(drawn), none, known)
    cosine, branch = config.duplicate_cosine, Branch("lowest", config.diversity, "query", "why")
    return make_batch(pools, Rules(config, branch, quotas or {}, 0, "0" * 32, cosine))


ITEMS = [f"{'ab'[n % 2]}/{n:02d}" for n in range(12)]


def test_the_papers_batch_is_the_first_b() -> None:
    batch = batch_of(rows_of(ITEMS), 5)
    assert names_of(batch.selection) == ITEMS[:5]
    assert batch.selection["rank"].to_pylist() == [0, 1, 2, 3, 4]
    assert set(batch.selection["displaced_key"].to_pylist()) == {None}
    assert batch.candidates["fate"].to_pylist() == ["picked"] * 5 + ["passed over"] * 7
    assert batch.selection["group_size"].to_pylist() == [1] * 5


@pytest.mark.parametrize("mode", ["off", "exact", "near"])
def test_known_bytes_are_not_picked_and_lead_what_is_like_them(mode: str) -> None:
    # a/00 has the bytes of an image that has no scores any more; b/01 is near to a/00, and a/02 to nothing.
    candidates = rows_of(ITEMS, [0, 0, *(37.0 * n for n in range(1, 11))], bytes_of={"a/00": "sent"})
    known = rows_of(["gone/key"], bytes_of={"gone/key": "sent"})
    draws = rows_of(["a/00", "a/10"], [0, 333], bytes_of={"a/00": "sent"})
    batch = batch_of(candidates, 3, draws=draws, quotas={"": 1}, known=known, duplicates=mode)
    picked = names_of(batch.selection)
    # Without duplicates the batch is the paper's, whatever the bytes.
    assert ("a/00" in picked) == (mode == "off")
    if mode == "off":
        return
    assert "a/10" in picked
    assert ("b/01" in picked) == (mode != "near")
    assert names_of(batch.candidates, "of_")[:2] == ["gone/key", "gone/key" if mode == "near" else None]
    assert batch.candidates["duplicate"].to_pylist()[:2] == ["bytes", "latent" if mode == "near" else None]


def test_the_same_bytes_are_picked_once_and_say_whose_they_are() -> None:
    candidates = rows_of(ITEMS, bytes_of={"b/01": "same", "a/02": "same", "b/05": "same"})
    batch = batch_of(candidates, 4, duplicates="exact")
    assert names_of(batch.selection) == ["a/00", "b/01", "b/03", "a/04"]
    assert batch.selection["group_size"].to_pylist() == [1, 3, 1, 1]
    # By the logits alone a/02 would be in the batch, and a/04 would not.
    assert names_of(batch.selection, "displaced_") == [None, None, None, "a/02"]
    fates = dict(zip(ITEMS, batch.candidates["fate"].to_pylist(), strict=True))
    assert [name for name, fate in fates.items() if fate == "duplicate"] == ["a/02", "b/05"]
    assert names_of(batch.candidates, "of_")[:2] == [None, None]
    assert names_of(batch.candidates, "of_")[2] == names_of(batch.candidates, "of_")[5] == "b/01"
    assert batch.candidates["of_offset"].to_pylist()[2] == 512
    assert batch.candidates["duplicate"].to_pylist()[2] == "bytes"
    assert (batch.counts["duplicates_bytes"], batch.counts["duplicates_latent"]) == (2, 0)


def test_what_is_taken_is_not_picked_again_in_other_words() -> None:
    taken = rows_of(["t/0", "t/1"], bytes_of={"t/0": "same"})
    batch = batch_of(rows_of(ITEMS, bytes_of={"a/00": "same", "b/03": "same"}), 3, taken=taken, duplicates="exact")
    assert names_of(batch.selection) == ["b/01", "a/02", "a/04"]
    assert names_of(batch.candidates, "of_")[0] == "t/0"


def test_near_latents_are_duplicates_at_the_configured_cosine() -> None:
    candidates = rows_of(ITEMS[:4], angles=[0, 1, 5, 90])
    assert names_of(batch_of(candidates, 3, duplicates="near", duplicate_cosine=0.999).selection) == [
        "a/00",
        "a/02",
        "b/03",
    ]
    assert names_of(batch_of(candidates, 2, duplicates="near", duplicate_cosine=0.99).selection) == ["a/00", "b/03"]
    assert len(batch_of(candidates, 4, duplicates="exact").selection) == 4


@pytest.mark.parametrize(
    ("kind", "further"),
    [
        ("bytes", ""),
        ("picture", ", or compare bytes alone: --set select.duplicates=exact"),
        ("latent", ", raise select.duplicate_cosine, or compare bytes alone: --set select.duplicates=exact"),
    ],
)
def test_too_few_without_duplicates_are_reported_with_what_helps(kind: str, further: str) -> None:
    names = ITEMS[:4]
    items = rows_of(
        names,
        angles=[0, 0, 0, 90] if kind == "latent" else None,
        bytes_of=dict.fromkeys(names[:3], "same") if kind == "bytes" else NONE,
    )
    if kind == "picture":
        place = items.schema.get_field_index("perceptual_hash")
        hashes = pa.array([b"a" * HASH_BYTES] * 3 + [b"\x00" * HASH_BYTES], pa.binary(HASH_BYTES))
        items = items.set_column(place, items.schema.field(place), hashes)
    with pytest.raises(ShortageError) as caught:
        batch_of(items, 3, duplicates="near")
    assert caught.value.num_left == 2
    assert caught.value.fix == f"lower it: --set select.budget=2{further}"


def test_the_control_arm_is_the_first_draws_spread_over_the_ranks() -> None:
    draws = rows_of(["c/0", "a/02", "c/1", "c/2"])
    batch = batch_of(rows_of(ITEMS), 6, draws=draws, quotas={"": 2})
    assert names_of(batch.selection) == ["a/00", "c/0", "b/01", "b/03", "a/02", "a/04"]
    arms = batch.selection["arm"].to_pylist()
    assert arms == ["query", "control", "query", "query", "control", "query"]
    assert batch.selection["reason"].to_pylist() == [CONTROL_REASON if arm == "control" else "why" for arm in arms]
    # A candidate that was drawn is in the control arm, and in no other.
    assert batch.candidates["fate"].to_pylist()[2] == "control"
    assert batch.counts["control"] == 2
    assert names_of(batch.selection, "displaced_") == [None] * 6


def test_a_draw_that_duplicates_what_is_taken_or_drawn_gives_way_to_the_next() -> None:
    same = {"t/0": "one", "c/0": "one", "c/1": "two", "c/2": "two"}
    draws, taken = rows_of(["c/0", "c/1", "c/2", "c/3"], bytes_of=same), rows_of(["t/0"], bytes_of=same)
    batch = batch_of(rows_of(ITEMS), 4, taken, draws, quotas={"": 2}, duplicates="exact")
    picks = batch.selection.to_pylist()
    assert [pick["key"] for pick in picks if pick["arm"] == "control"] == ["1", "3"]
    assert len(picks) == 4


def test_a_candidate_like_a_control_pick_is_its_duplicate_whatever_its_logit() -> None:
    draws = rows_of(["c/0"], bytes_of={"c/0": "same"})
    batch = batch_of(rows_of(ITEMS, bytes_of={"a/00": "same"}), 3, draws=draws, quotas={"": 1}, duplicates="exact")
    picks = batch.selection.to_pylist()
    assert {pick["key"]: pick["group_size"] for pick in picks} == {"01": 1, "0": 2, "02": 1}
    assert names_of(batch.candidates, "of_")[0] == "c/0"


def test_each_stratum_gets_its_quota_and_the_query_arm_what_is_left() -> None:
    draws = rows_of([f"c/{n}" for n in range(5)])
    batch = batch_of(rows_of(ITEMS), 6, draws=draws, strata=["x", "x", "y", "x", "y"], quotas={"x": 1, "y": 3})
    picks = batch.selection.to_pylist()
    assert [pick["key"] for pick in picks if pick["arm"] == "control"] == ["0", "2", "4"]
    assert sum(pick["arm"] == "query" for pick in picks) == 3


@pytest.mark.parametrize("method", ["none", "gumbel", "clusters", "k_center", "facility", "mini_batches"])
def test_every_method_picks_b_different_ones_and_pairs_what_it_displaced(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mini_batches, "STEPS", 8)
    rng = np.random.default_rng(0)
    names = [f"s/{n:03d}" for n in range(200)]
    candidates = rows_of(names, angles=list(rng.uniform(0, 360, 200)))
    taken = rows_of(["t/0", "t/1"])
    batch = batch_of(candidates, 40, taken, diversity=method)
    picks = names_of(batch.selection)
    assert len(set(picks)) == 40
    lowest = names[:40]
    displaced = [name for name in names_of(batch.selection, "displaced_") if name]
    assert displaced == [name for name in lowest if name not in picks]
    outsiders = [pick for pick, loser in zip(picks, names_of(batch.selection, "displaced_"), strict=True) if loser]
    assert outsiders == [pick for pick in picks if pick not in lowest]
    assert batch.selection.equals(batch_of(candidates, 40, taken, diversity=method).selection)
    assert (batch.objective is not None) == (method == "facility")
    in_cluster = dict(zip(names, batch.candidates["cluster"].to_pylist(), strict=True))
    assert [in_cluster[str(pick)] for pick in picks] == batch.selection["cluster"].to_pylist()


def test_nothing_is_a_batch_too() -> None:
    batch = batch_of(rows_of(ITEMS).slice(0, 0), 0, diversity="clusters", duplicates="near")
    assert len(batch.selection) == len(batch.candidates) == 0
