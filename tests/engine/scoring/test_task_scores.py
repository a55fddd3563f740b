"""Scores by a task learner that the user brings, at another size than VAAL's networks."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from engine.campaign.folder import Campaign
from engine.campaign.labels import read_snapshot
from engine.campaign.manifests import ScoresManifest, TrainManifest, read_manifest
from engine.config.toml import override
from engine.errors import InputError
from engine.models.task_models import load_task
from engine.pool.images import decode
from engine.pool.items import read_shard
from engine.pool.manifest import read_shards
from engine.pool.sight import sight_of
from engine.scoring.reading import Reading, read_chunks
from engine.scoring.score import inputs_of, require_model, score
from engine.scoring.scorer import Scorer, load_scorer
from engine.scoring.watchdog import Attempts
from engine.selection.select import select
from engine.tables.score_reader import read_scores
from engine.tables.scores import unpack
from engine.training.train import train
from tests.committed import records_of
from tests.conftest import MakeCampaign, pretend_trained
from tests.tasks import Plain

pytestmark = pytest.mark.heavy

COLUMNS = ("margin", "entropy", "bald", "gradient_norm")
SETTINGS = (
    "image.channels=3", "task.classes=['a','b','c','d','e','f']", "task.mean=[0.4,0.5,0.6]", "task.std=[0.2,0.25,0.3]",
    f"score.acquisition={['vaal', *COLUMNS]}".replace("'", '"'),
)  # fmt: skip


def scorer_of(campaign: Campaign, **settings: object) -> Scorer:
    options = campaign.config.score.model_copy(update=settings)
    config = campaign.config.model_copy(update={"score": options})
    return load_scorer(campaign.stage("train"), config, inputs_of(campaign), "cpu")


@pytest.fixture
def campaign(make_campaign: MakeCampaign) -> Campaign:
    made = make_campaign(*SETTINGS, "task.model=tests.tasks:trained", "task.arguments={of='resnet18'}", "task.size=32")
    pretend_trained(made)
    return made


def test_a_score_by_a_resnet_does_not_depend_on_the_batch(campaign: Campaign) -> None:
    rng = np.random.default_rng(0)
    seen, task_seen = (rng.integers(0, 256, (20, size, size, 3), np.uint8) for size in (8, 32))
    given = seen, rng.integers(0, 2, 20), rng.integers(0, 1 << 60, 20), task_seen
    whole, one, seven = (scorer_of(campaign, batch_size=size)(*given).columns for size in (64, 1, 7))
    assert {*COLUMNS, "logit", "predicted"} <= {*whole}
    for name in COLUMNS:
        assert len(np.unique(whole[name])) == 20
        np.testing.assert_allclose(one[name], whole[name], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(seven[name], whole[name], rtol=1e-4, atol=1e-5)
    order = rng.permutation(20)
    mixed = scorer_of(campaign, batch_size=7)(*(values[order] for values in given)).columns
    for name in COLUMNS:
        np.testing.assert_allclose(mixed[name], whole[name][order], rtol=1e-4, atol=1e-5)


def chunk_of(campaign: Campaign) -> Any:
    shards = read_shards(campaign.home)
    reading = Reading(sight_of(campaign.config, shards), campaign.config.train.folds, 1, 60.0)
    return next(read_chunks(shards[0], reading, Attempts()))


def test_it_scores_the_pixels_of_its_own_size_and_preprocessing(campaign: Campaign) -> None:
    row = chunk_of(campaign)
    scored = unpack(scorer_of(campaign).score_chunk(row)["scored"][0].as_py())
    image = campaign.config.image.model_copy(update={"size": 32})
    items = list(read_shard(read_shards(campaign.home)[0], image))
    pixels = np.stack([decode(item.data, image) for item in items]).astype(np.float64) / 255
    x = torch.from_numpy((pixels - [0.4, 0.5, 0.6]) / [0.2, 0.25, 0.3]).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        p = load_task(campaign.config, "cpu").task(x).softmax(dim=1)
    top = p.topk(2).values
    np.testing.assert_allclose(scored["margin"].to_numpy(), (top[:, 0] - top[:, 1]).numpy(), rtol=1e-3, atol=1e-5)
    assert scored["predicted"].to_pylist() == p.argmax(dim=1).tolist()
    # VAAL's own score is what it is without a task learner.
    alone = campaign.config.model_copy(
        update={"task": type(campaign.config.task)(), "score": type(campaign.config.score)()}
    )
    without = load_scorer(campaign.stage("train"), alone, inputs_of(campaign), "cpu")
    expected = unpack(without.score_chunk(row)["scored"][0].as_py())["logit"].to_numpy()
    np.testing.assert_allclose(scored["logit"].to_numpy(), expected, rtol=1e-5, atol=1e-5)


def test_what_decides_its_scores_is_in_their_inputs(
    make_campaign: MakeCampaign, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_model.py").write_text("from tests.tasks import Plain\n")
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "t.safetensors"
    network = Plain(6)
    safetensors.torch.save_file(network.state_dict(), file)

    def inputs(*settings: str) -> dict[str, str]:
        number = len(list(tmp_path.glob("c*")))
        given = ("task.model=own_model:Plain", "task.arguments={num_classes=6}", f"task.weights={file}", *settings)
        nonlocal campaign
        campaign = make_campaign(*SETTINGS, *given, name=f"c{number}")
        pretend_trained(campaign)
        return inputs_of(campaign)

    campaign: Any = None
    before, decide = inputs(), {"settings", "task-model-probe.safetensors"}
    assert inputs() == before
    for setting in ("task.size=32", "task.mean=[0.3]", "task.order=bgr", "task.arguments={num_classes=6,drop=0.5}"):
        other = ["task.std=[0.2]"] if "mean" in setting else []
        changed = inputs(setting, *other)
        assert "settings" in {name for name in changed if changed[name] != before.get(name)} <= decide
    # A line of its module that changes nothing stops nothing.
    (tmp_path / "own_model.py").write_text("from tests.tasks import Plain  # other\n")
    assert inputs() == before
    safetensors.torch.save_file({name: 2 * value for name, value in network.state_dict().items()}, file)
    # The weights that training recorded count, until training runs again.
    for use in (scorer_of, score, require_model):
        with pytest.raises(InputError, match=r"t.safetensors: not the weights that were used before"):
            use(campaign)
    changed = inputs()
    differing = {name for name in changed if changed[name] != before.get(name)}
    assert differing == {"task-model-0.safetensors", "task-model-probe.safetensors"}


@pytest.mark.slow
def test_training_keeps_it_and_writes_what_it_is(make_campaign: MakeCampaign, local_ray: None) -> None:
    campaign = make_campaign(
        *SETTINGS, "task.model=tests.tasks:trained", "task.arguments={num_classes=7,drop=0.5}", "task.size=16",
        "train.task=classification", "train.max_steps=2", "train.refit=false",
        "task.classes=['6','5','4','3','2','1','0']",
        "score.acquisition=['variation_ratio','vaal','margin','core_set']", "score.dropout=network",
    )  # fmt: skip
    manifest = train(campaign)
    assert manifest["task"]["classes"] == [*"6543210"]
    assert manifest["task"]["weights_sha256"] == load_task(campaign.config, "cpu").sha256
    # It was judged where it ran, and is known again by what it answers.
    assert manifest["task"]["labelled"] == 200
    assert manifest["task"]["labelled_interval"][0] <= manifest["task"]["labelled_accuracy"] < 1
    assert [len(part) for part in manifest["task"]["probe"]] == [28, 28]
    assert "task.safetensors" not in manifest["files"]
    assert read_manifest(campaign, "train", TrainManifest)["inputs"]["task model"]
    score(campaign)
    scored = read_manifest(campaign, "scores", ScoresManifest)
    assert scored["inputs"]["task-model-0.safetensors"] == manifest["task"]["weights_sha256"][0]
    record = records_of(campaign)[0]
    table = read_scores(campaign.stage("scores"), record, ["key", "margin", "predicted"])
    assert 0 <= np.min(table["margin"].to_numpy()) < np.max(table["margin"].to_numpy()) <= 1
    # The selection knows the weights that training recorded.
    assert select(campaign)["counts"]["picked"] == campaign.config.select.budget
    # The functions that are fitted saw what it sees: labelled images are where they are.
    labelled = {key for shard, key in read_snapshot(campaign.home).values if shard == record.shard}
    near = read_scores(campaign.stage("scores"), record, ["key", "core_set"])
    distance = dict(zip(near["key"].to_pylist(), near["core_set"].to_pylist(), strict=True))
    assert labelled & distance.keys()
    for key, value in distance.items():
        assert (abs(value) < 1e-3) or key not in labelled
    # What is dear has the same names in both passes, and so has what decides between equal scores.
    dear = dataclasses.replace(
        campaign, config=override(campaign.config, {"select.acquisition": "variation_ratio"}, "t")
    )
    assert select(dear, force=True)["counts"]["picked"] == campaign.config.select.budget
