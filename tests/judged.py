"""Rounds whose task learner is made up: what it predicts, what the labels are, and which of them came back."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from engine.campaign.folder import Campaign
from engine.campaign.labels import labels_fingerprints, read_labels
from engine.pool.identity import draw_of
from engine.selection.select import select
from tests.conftest import pretend_trained
from tests.fabricate import fabricate_scores
from tests.rounds import encoded
from tests.sendings import take_in
from tests.small import Identity, make_small

NAMES = ("cat", "dog")
Pick = dict[str, Any]


def pool(size: int = 240) -> dict[Identity, bytes]:
    """Small images in three shards."""
    rng = np.random.default_rng(0)
    return {
        (f"s-{number % 3}.tar", f"{number:04d}"): encoded(rng.integers(0, 256, (4, 4), np.uint8))
        for number in range(size)
    }


def make_judged(folder: Path, **settings: Any) -> Campaign:
    """A campaign of `pool()` in round 0, without anything but its first six labels and a selection of no account."""
    given: dict[str, Any] = {"select__budget": 40, "select__control_fraction": 0.5, "select__duplicates": "off"}
    return make_small(folder, pool(), **(given | settings))


def truth(shard: str, key: str) -> str:
    """A third are dogs."""
    return NAMES[draw_of(shard, key, 11) % 3 == 0]


def is_right(shard: str, key: str, number: int) -> bool:
    """Whether the task learner of a round is right: the more often, the later the round."""
    return draw_of(shard, key, 12) % 10 < 5 + number


def pick(campaign: Campaign, *, has_task: bool = True) -> Campaign:
    """Train and score the campaign's round in name, and pick."""
    pretend_trained(campaign)
    file = campaign.stage("train") / "manifest.json"
    manifest = json.loads(file.read_bytes())
    manifest["inputs"] = labels_fingerprints(campaign.home)
    manifest["counts"]["labelled"] = len(read_labels(campaign.home))
    file.write_json(manifest | ({"task": {"classes": list(NAMES)}} if has_task else {}))

    def predicted(shard: str, keys: list[str]) -> tuple[Any, Any]:
        right = [is_right(shard, key, campaign.round) == (truth(shard, key) == "dog") for key in keys]
        return np.zeros(len(keys), np.float32), np.array(right, np.int32)

    fabricate_scores(
        campaign,
        lambda shard, keys: np.array([draw_of(shard, key, 13) % 997 / 100 for key in keys], np.float32),
        margins=predicted if has_task else None,
    )
    select(campaign, force=True)
    return campaign


def picks_of(campaign: Campaign) -> list[Pick]:
    rows: list[Pick] = (campaign.stage("selection") / "selection.parquet").read_table().to_pylist()
    return rows


def answer(campaign: Campaign, picks: list[Pick], label: Callable[[str, str], str] = truth) -> None:
    """These picks are labelled, or skipped where the label is empty."""
    file = Path(f"{campaign.home.path}-answers.jsonl")
    labels = [label(row["shard"], row["key"]) for row in picks]
    rows = [
        {"item_id": row["item_id"], **({"label": name} if name else {"skipped": True})}
        for row, name in zip(picks, labels, strict=True)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    take_in(campaign, file)


def play(folder: Path, num_rounds: int, **settings: Any) -> Campaign:
    """A campaign in the last of its rounds, all of which are answered."""
    campaign = make_judged(folder, **settings)
    for number in range(num_rounds):
        campaign = pick(replace(campaign, round=number))
        answer(campaign, picks_of(campaign))
    return campaign


def without_predictions(campaign: Campaign, kept: int = 0) -> None:
    """The selection as an earlier version wrote it; or with the predictions of its first picks alone."""
    folder = campaign.stage("selection")
    table = (folder / "selection.parquet").read_table()
    predicted, place = table["predicted"].to_pylist(), table.schema.get_field_index("predicted")
    some = pa.array(predicted[:kept] + [None] * (len(table) - kept), table.schema.field(place).type)
    table = table.set_column(place, table.schema.field(place), some) if kept else table.drop_columns(["predicted"])
    manifest = json.loads((folder / "manifest.json").read_bytes())
    manifest["files"]["selection.parquet"] = (folder / "selection.parquet").write_table(table)
    (folder / "manifest.json").write_json(manifest)
