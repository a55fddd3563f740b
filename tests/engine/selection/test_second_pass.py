"""Candidates that are scored again: what is dear decides, exactly once, and by the definition."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from engine.campaign.folder import Campaign, is_complete
from engine.campaign.manifests import (
    RESCORES,
    Manifest,
    SelectionManifest,
    TrainManifest,
    read_manifest,
)
from engine.campaign.stages import QUIET
from engine.config.texts import parse_settings, score_text
from engine.config.toml import override
from engine.errors import ConfigError, InputError
from engine.models.weights import load_networks, to_input
from engine.pool.identity import draw_of
from engine.pool.images import decode
from engine.pool.manifest import read_shards
from engine.pool.shard import Place, read_images
from engine.scoring.again import score_again
from engine.scoring.score import score
from engine.selection.explanation import explain
from engine.selection.select import select
from engine.storage.documents import read_document
from engine.storage.location import Location
from engine.tables.score_reader import read_scores
from tests.committed import records_of
from tests.conftest import pretend_trained
from vaal.acquisition.deepfool import deepfool
from vaal.acquisition.view import Inputs, View
from vaal.diversity.badge import badge

pytestmark = pytest.mark.heavy
SETTINGS = (
    "train.task=classification",
    "select.budget=12",
    "select.duplicates=off",
    "select.control_fraction=0",
    "score.acquisition=['margin','dfal','vaal']",
    "select.acquisition=dfal",
    "select.diversity=none",
    "select.rescore_candidates=60",
)
Row = dict[str, Any]


@pytest.fixture(scope="module")
def scored(
    created: Callable[[tuple[str, ...]], Campaign], local_ray: None, tmp_path_factory: pytest.TempPathFactory
) -> Campaign:
    home = tmp_path_factory.mktemp("scored") / "campaign"
    shutil.copytree(created(SETTINGS).home.path, home)
    made = replace(created(SETTINGS), home=Location.of(str(home)))
    pretend_trained(made)
    score(made)
    return made


@pytest.fixture
def campaign(scored: Campaign, tmp_path: Path) -> Campaign:
    shutil.copytree(scored.home.path, tmp_path / "campaign")
    return replace(scored, home=Location.of(str(tmp_path / "campaign")))


def changed(campaign: Campaign, *settings: str) -> Campaign:
    return replace(campaign, config=override(campaign.config, parse_settings(list(settings)), "test"))


def pool_rows(campaign: Campaign, *names: str) -> list[Row]:
    """Of all items that can be picked, in the order of margin."""
    records = records_of(campaign)
    columns = ["shard", "key", "offset", "size_bytes", "content_hash", *names]
    tables = [read_scores(campaign.stage("scores"), record, columns) for record in records]
    labelled = {
        (row["shard"], row["key"]) for row in (campaign.home / "labels/initial.parquet").read_table().to_pylist()
    }
    rows = [row for table in tables for row in table.to_pylist() if (row["shard"], row["key"]) not in labelled]
    return sorted(rows, key=lambda row: (row["margin"], row["shard"], row["key"]))


def picks(campaign: Campaign) -> list[Row]:
    found: list[Row] = (campaign.stage("selection") / "selection.parquet").read_table().to_pylist()
    return found


def names(rows: list[Row]) -> list[tuple[str, str]]:
    return [(row["shard"], row["key"]) for row in rows]


def viewed(campaign: Campaign, rows: list[Row]) -> View:
    """What the task learner makes of these images, read again."""
    shards = {shard.shard: shard for shard in read_shards(campaign.home)}
    trained = read_manifest(campaign, "train", TrainManifest)
    networks = load_networks(campaign.stage("train"), campaign.config, trained["files"], with_task=True)
    pixels = []
    for row in rows:
        place = Place(*(row[name] for name in Place._fields))
        pixels.append(decode(next(read_images(shards[row["shard"]], [place])), campaign.config.image))
    x = to_input(np.array(pixels), torch.device("cpu")).contiguous()
    return View(networks, Inputs(x, torch.zeros(len(rows), dtype=torch.int64)))


def manifest_of(campaign: Campaign) -> Row:
    return read_document(campaign.stage(RESCORES) / "manifest.json", dict[str, Any])


def files(campaign: Campaign) -> dict[str, tuple[bytes, int]]:
    folder = Path(campaign.stage(RESCORES).path)
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.glob("*.parquet")}


@pytest.mark.slow
def test_the_score_that_is_dear_ranks_the_first_candidates_and_is_computed_once(campaign: Campaign) -> None:
    select(campaign)
    first = pool_rows(campaign, "margin", "dfal", "logit")[:60]
    distance = deepfool(viewed(campaign, first))
    for row, value in zip(first, distance.tolist(), strict=True):
        row["exact"] = value
    expected = sorted(first, key=lambda row: (np.float32(row["exact"]), row["shard"], row["key"]))
    found = picks(campaign)
    assert names(found) == names(expected[:12])
    np.testing.assert_allclose([row["score"] for row in found], [row["exact"] for row in expected[:12]], rtol=1e-4)
    assert [row["logit"] for row in found] == [row["logit"] for row in expected[:12]]
    assert {row["origin"] for row in found} == {"uncertainty"}
    manifest = manifest_of(campaign)
    assert (manifest["counts"]["listed"], manifest["counts"]["scored"]) == (60, 60)
    require_explained(campaign, expected, pool_rows(campaign, "margin")[60])

    # A run that was killed left some files: they stay, and the others are the same again.
    made = files(campaign)
    lost = sorted(made)[::2]
    for name in [*lost, "manifest.json"]:
        (campaign.stage(RESCORES) / name).delete()
    select(campaign, force=True)
    again = files(campaign)
    assert {name: content for name, (content, _) in again.items()} == {n: content for n, (content, _) in made.items()}
    assert {name for name in again if again[name] == made[name]} == made.keys() - {*lost}
    assert names(picks(campaign)) == names(expected[:12])

    # More candidates, and the control arm has no such score.
    other = changed(campaign, "select.rescore_candidates=90", "select.control_fraction=0.25", "select.duplicates=near")
    select(other)
    control = [row["score"] for row in picks(other) if row["arm"] == "control"]
    assert control == [None] * 3
    assert sum(row["score"] is not None for row in picks(other)) == 9
    assert manifest_of(other)["counts"]["listed"] == 90


def require_explained(campaign: Campaign, ranked: list[Row], after: Row) -> None:
    """`explain` tells an image that lost in the second pass from one that was not in it."""
    selection = read_manifest(campaign, "selection", SelectionManifest)
    last, count = ranked[-1], selection["counts"]["candidates"]
    lost = (
        f"its dfal {last['exact']:.4f} is above {ranked[count - 1]['exact']:.4f}, the highest of the {count} candidates"
    )
    assert explain(campaign, last["shard"], last["key"])["why"] == f"it was scored again, and {lost}"
    why = f"it is not among the 60 of the lowest by margin, which is {score_text(after['margin'], 4)} here"
    assert explain(campaign, after["shard"], after["key"])["why"] == f"it was not scored again, for {why}"


@pytest.mark.parametrize("method", ["badge", "gradient_matching"])
def test_gradients_of_candidates_are_those_of_the_task_learner(campaign: Campaign, method: str) -> None:
    select(changed(campaign, "select.acquisition=margin", f"select.diversity={method}", "select.oversample=4"))
    found = picks(campaign)
    assert len(set(names(found))) == 12
    assert {name for name in names(found)} <= set(names(pool_rows(campaign, "margin")[:48]))
    if method == "badge":
        first = pool_rows(campaign, "margin")[:48]
        view = viewed(campaign, first)
        feature = view.pooled.half().float()
        p = view.task.head(feature).softmax(dim=1)
        answer = (p - torch.nn.functional.one_hot(p.argmax(dim=1), p.shape[1])).detach().numpy()
        seed = read_manifest(campaign, "selection", Manifest)["round_seed"]  # type: ignore[typeddict-item]
        draw = np.array([draw_of(row["shard"], row["key"], seed) for row in first], np.uint64)
        expected = badge(feature.numpy(), answer, draw, 12)
        chosen = expected.picked_B if hasattr(expected, "picked_B") else expected
        assert names(found) == names([first[place] for place in chosen])


def test_an_image_that_changed_is_an_error_that_names_it(campaign: Campaign) -> None:
    rows = [{name: row[name] for name in ("shard", *Place._fields)} for row in pool_rows(campaign, "margin")[:3]]
    rows[1]["content_hash"] = "0" * 32
    with pytest.raises(InputError, match=rf"item {rows[1]['key']} has other bytes .*; run: vaal select"):
        score_again(campaign, pa.Table.from_pylist(rows), QUIET)
    assert not is_complete(campaign.stage(RESCORES))


def test_a_score_that_the_pool_does_not_have_is_refused_with_the_fix(campaign: Campaign) -> None:
    with pytest.raises(ConfigError, match=r"select.acquisition=entropy: the pool was scored without it; delete .*"):
        select(changed(campaign, "select.acquisition=entropy"))
