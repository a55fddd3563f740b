"""The report shows the deficit before the batch, and with it: what the gate will find once its labels are back."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from engine.campaign.folder import Campaign
from engine.campaign.labels import labelled_items
from engine.campaign.manifests import TrainManifest, read_manifest
from engine.config.texts import parse_settings
from engine.config.toml import override
from engine.models.centring import make_centres, save_centres
from engine.pool.images import decode
from engine.pool.items import read_shard
from engine.pool.manifest import read_shards
from engine.report.lacking import clusters_of
from engine.selection.candidates import plan_pass
from engine.selection.gate import deficit_in
from engine.selection.reduction import count
from engine.selection.select import describe, select
from engine.selection.unpickable import find_unpickable
from engine.tables.selections import CLUSTERS_FILE
from engine.tables.shard_records import table_of
from tests.committed import records_of
from tests.conftest import MakeCampaign, pretend_trained
from tests.engine.report.test_report_rule import answered, page
from tests.engine.selection.test_completing import scored
from tests.fabricate import fabricate_scores
from vaal.deficit import Deficit
from vaal.refit import Cached, refit

pytestmark = pytest.mark.heavy
Array = NDArray[np.float32]
SETTINGS = ("select.budget=100", "select.control_fraction=0.1")


def of_digits(campaign: Campaign) -> Campaign:
    """Scored by logistic discriminators on the 32 main directions of the digits' pixels; no label is of 7, 8 or 9."""
    pretend_trained(campaign, "none")
    image, pixels = campaign.config.image, dict[tuple[str, str], Any]()
    for shard in read_shards(campaign.home):
        pixels |= {(shard.shard, item.key): decode(item.data, image).ravel() / 64 for item in read_shard(shard, image)}
    x = np.stack(list(pixels.values())).astype(np.float32)
    x -= x.mean(axis=0)
    x_NZ = torch.from_numpy(x @ np.linalg.svd(x, full_matrices=False)[2][:32].T)
    labelled = labelled_items(campaign.home)
    is_labelled_N, fold_N = torch.tensor([item in labelled for item in pixels]), torch.arange(len(x)) % 5
    made = refit(*(Cached(x_NZ[part], fold_N[part]) for part in (is_labelled_N, ~is_labelled_N)), 5)
    logit_N = made(x_NZ).gather(1, fold_N[:, None])[:, 0].numpy()
    place = {item: number for number, item in enumerate(pixels)}

    def rows(shard: str, keys: list[str]) -> NDArray[np.intp]:
        return np.array([place[shard, key] for key in keys])

    centres = make_centres(x_NZ, 200, 0)
    assert centres is not None
    file = campaign.stage("train") / "manifest.json"
    manifest = json.loads(file.read_bytes())
    manifest["files"] |= save_centres(campaign.stage("train"), centres)
    file.write_json(manifest)
    fabricate_scores(campaign, lambda *of: logit_N[rows(*of)], latents=lambda *of: x_NZ.numpy()[rows(*of)])
    return campaign


def found_now(campaign: Campaign, seed: int) -> Deficit | None:
    """What the gate finds on the round's scores with the labels there are."""
    trained = read_manifest(campaign, "train", TrainManifest)
    records = table_of(records_of(campaign))
    sources = find_unpickable(campaign, records, 1, lambda _: None).sources
    wish, centres = plan_pass(campaign, trained, sources, seed)
    found = count(campaign.stage("scores"), sources, wish, lambda _: None).found
    return deficit_in(found, centres, seed)


def test_with_the_batch_labelled_less_is_lacking_of_the_digits(make_campaign: MakeCampaign) -> None:
    campaign = of_digits(make_campaign(*SETTINGS))
    manifest = select(campaign)
    trained = read_manifest(campaign, "train", TrainManifest)
    after, gate, text = clusters_of(campaign, trained, manifest).after, manifest["gate"], page(campaign)
    assert after is not None
    assert gate["lacking"] is not None
    assert manifest["branch"] == "cluster_completion"
    assert gate["lacking"] > 0.15
    assert after.excess < gate["lacking"] / 2
    for name, *values in (
        ("before the batch", gate["lacking"], gate["value"], gate["by_chance"]),
        ("with the batch", max(0.0, after.excess), after.value, after.by_chance),
    ):
        cells = "".join(f"<td>{value:.0%}</td>" for value in values)
        assert f'<tr><th scope="row">{name}</th>{cells}</tr>' in text
    answered(campaign)
    assert found_now(campaign, manifest["round_seed"]) == after


def test_uncertain_picks_fill_gaps_and_make_none(make_campaign: MakeCampaign) -> None:
    campaign = scored(make_campaign(*SETTINGS), biased=False, margins=True)
    manifest = select(campaign)
    assert manifest["branch"] == "uncertainty_sampling"
    after = clusters_of(campaign, read_manifest(campaign, "train", TrainManifest), manifest).after
    answered(campaign)
    assert found_now(campaign, manifest["round_seed"]) == after


def test_a_selection_of_an_earlier_version_has_no_deficit_with_the_batch(make_campaign: MakeCampaign) -> None:
    campaign = scored(make_campaign(*SETTINGS))
    manifest = select(campaign)
    table = campaign.stage("selection") / CLUSTERS_FILE
    sha256 = table.write_table(table.read_table().drop_columns(["drawn", "filled"]))
    files = manifest["files"] | {CLUSTERS_FILE: sha256}
    (campaign.stage("selection") / "manifest.json").write_json({**manifest, "files": files})
    text = page(campaign)
    assert "clusters of images that the network finds" in text
    assert "with the batch" not in text


@pytest.mark.parametrize(("word", "num_centres"), [("yes", 200), ("no", 200), ("yes", 0)])
def test_where_the_user_says_it_no_test_is_said_to_have_found_it(
    make_campaign: MakeCampaign, word: str, num_centres: int
) -> None:
    campaign = scored(make_campaign(*SETTINGS), biased=word == "no", num_centres=num_centres)
    config = override(campaign.config, parse_settings([f"labels.are_biased={word}"]), "test")
    campaign = replace(campaign, config=config)
    manifest = select(campaign)
    text, line = page(campaign), describe(campaign, manifest)["labels"]
    assert f"you say so (labels.are_biased={word})." in text
    assert "of the pool lacks labels" not in text
    assert line.startswith(f"labels.are_biased={word} (")
    assert ("not asked: deficit" in line) == (num_centres > 0)
    assert "of the pool lacks labels" not in line
