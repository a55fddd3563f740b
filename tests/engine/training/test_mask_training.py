"""The training of a task learner of masks: as plain PyTorch, for any number of workers, and from wherever it stopped;
what its masks must be; and how it is judged."""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor

from engine.campaign.folder import Campaign
from engine.errors import InputError, NotAcceptableError
from engine.models.front import Front
from engine.models.summaries import fit_summaries
from engine.models.task_networks import TASK_NETWORKS
from engine.models.weights import make_classifier, to_input
from engine.training.describing import MOST_PARTS_OF_ONE, Reader, describe
from engine.training.labelled import Part, cache_for_task
from engine.training.mask_judging import judge_masks
from engine.training.masked import MaskReader
from engine.training.plan import TrainingPlan, plan_training, require_masks
from engine.training.train import train
from tests.engine.training import task_worker
from tests.engine.training.task_worker import STEPS
from tests.masks import CLASSES, VOID, jpeg, mask_campaign, mask_of
from tests.processes import Processes
from tests.rounds import encoded
from vaal.task.classifier import augmented
from vaal.task.segmentation import mean_iou

CPU = torch.device("cpu")
SEEN, IN_MASKS = slice(None, -1), -1
"""Channels of what is kept of an image: its pixels, and its mask."""


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    return mask_campaign(tmp_path_factory.mktemp("masks"), train__task_steps=STEPS)


@pytest.fixture(scope="module")
def runs(campaign: Campaign, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    made = Processes(task_worker.__name__, str(campaign.home), tmp_path_factory.mktemp("mask-runs"), (2, 1))
    yield made
    made.end()


def reader_of(plan: TrainingPlan) -> MaskReader:
    assert plan.masks is not None
    return MaskReader(plan.pool, plan.masks, plan.labels, {})


@pytest.fixture(scope="module")
def plain(campaign: Campaign, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Tensor], list[float]]:
    """The recipe in a loop of its own: weights, and the cross-entropy of all held-out pixels at each look."""
    plan = plan_training(campaign)
    assert plan.task is not None
    num_streams, split = plan.deal.num_streams, (plan.task.training, plan.task.judging)
    cache = reader_of(plan).cache(tmp_path_factory.mktemp("plain") / "cache")
    labelled, judging = cache_for_task(plan.pool, plan.positions, split, Part(0, 1), num_streams, cache)
    network = make_classifier(plan.config, len(CLASSES)).train()
    recipe, looks = TASK_NETWORKS["unet"], []
    optimizer = torch.optim.AdamW(network.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay)
    for step in range(STEPS):
        drawn = []
        for stream in range(num_streams):
            share = 16 // num_streams
            seen = labelled.seen[labelled.draw(stream, (0, 4), step * share, share)]
            drawn.append(augmented(seen, np.random.default_rng((0, 6, step, stream)), flips=True))
        seen_N = np.concatenate(drawn)
        warm = round(0.1 * STEPS)
        cosine = (1 + math.cos(math.pi * (step - warm) / (STEPS - warm))) / 2
        optimizer.param_groups[0]["lr"] = recipe.learning_rate * ((step + 1) / warm if step < warm else cosine)
        logit = F.interpolate(network(to_input(seen_N[..., SEEN], CPU)), size=(16, 16), mode="bilinear")
        mask = torch.from_numpy(seen_N[..., IN_MASKS].astype(np.int64))
        loss = F.cross_entropy(logit, mask, ignore_index=255, label_smoothing=0.1, reduction="sum") / mask.numel()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        seen_N = labelled.seen[judging]
        with torch.no_grad():
            logit = F.interpolate(network(to_input(seen_N[..., SEEN], CPU)), size=(16, 16), mode="bilinear").double()
        mask = torch.from_numpy(seen_N[..., IN_MASKS].astype(np.int64))
        factors = torch.logspace(math.log10(0.05), math.log10(2), 200, dtype=torch.float64)
        looks.append(min(float(F.cross_entropy(factor * logit, mask, ignore_index=255)) for factor in factors))
    return {f"weight/{name}": value.detach() for name, value in network.named_parameters()}, looks


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("stage", range(4))
@pytest.mark.parametrize("world", [1, 2])
def test_workers_and_zero_stages_train_on_masks_alike(
    runs: Processes, plain: tuple[dict[str, Tensor], list[float]], world: int, stage: int
) -> None:
    folder, (weights, looks) = runs.of(world), plain
    for kind in ("task", "resumed"):
        found = safetensors.torch.load_file(folder / f"{kind}-{world}-{stage}.safetensors")
        for key, tensor in weights.items():
            # Channels-last weights sum in another order, which Adam's first steps amplify.
            torch.testing.assert_close(found[key], tensor, atol=5e-4, rtol=0)
        seen = json.loads((folder / f"{kind}-{world}-{stage}.json").read_text())
        # A sample of the pixels is looked at, here of about six times as many as there are.
        assert seen["looks"] == pytest.approx(looks, rel=0.03)
        alone = json.loads((runs.of(1) / "task-1-0.json").read_text())
        assert seen["looks"] == pytest.approx(alone["looks"], rel=1e-3)
    found = safetensors.torch.load_file(folder / f"accumulated-{world}.safetensors")
    for key, tensor in weights.items():
        torch.testing.assert_close(found[key], tensor, atol=5e-4, rtol=0)


def test_what_is_kept_is_the_image_and_its_mask(campaign: Campaign, tmp_path: Path) -> None:
    plan = plan_training(campaign)
    assert plan.task is not None
    assert plan.task.classes == CLASSES
    split = plan.task.training, plan.task.judging
    where = Part(0, 1), 8, reader_of(plan).cache(tmp_path / "cache")
    labelled, _ = cache_for_task(plan.pool, plan.positions, split, *where)
    assert labelled.seen.shape == (80, 16, 16, 2)
    assert labelled.not_decoded == []
    digits = load_digits().images
    for number, kept in zip(labelled.number_N, labelled.seen[np.arange(80)], strict=True):
        ids = mask_of(digits[int(plan.positions[number][1])])
        assert np.array_equal(kept[::2, ::2, IN_MASKS], np.where(ids == VOID, 255, ids))
        assert np.array_equal(kept[..., IN_MASKS], kept[::2, ::2, IN_MASKS].repeat(2, 0).repeat(2, 1))
    few = reader_of(plan).cache(tmp_path / "few", 3 * 16 * 16 * 2)
    less, _ = cache_for_task(plan.pool, plan.positions, split, *where[:2], few)
    assert less.seen.num_held == 3
    assert np.array_equal(less.seen[np.arange(80)[::-1]], labelled.seen[np.arange(80)[::-1]])


def test_masks_that_cannot_be_used_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    large = np.zeros((9, 8), np.uint8)
    bad = {5: jpeg(large), 2: encoded(large), 41: encoded(mask_of(load_digits().images[41]) + 3)}
    campaign = mask_campaign(tmp_path, bad=bad, score__max_bad_fraction=0.04)
    plan, cache = plan_training(campaign), tmp_path / "cache"
    assert plan.task is not None
    reader, split = reader_of(plan), (plan.task.training, plan.task.judging)
    labelled, _ = cache_for_task(plan.pool, plan.positions, split, Part(0, 1), 8, reader.cache(cache))
    assert {plan.positions[number][1] for number in labelled.not_decoded} == {"002", "005", "041"}
    assert sorted(reader.faults) == [("1.tar", "005"), ("1.tar", "041"), ("2.tar", "002")]
    assert "041: the mask in 041.m.png has ids " in reader.faults["1.tar", "041"]
    assert require_masks(plan, reader.faults) == (
        "1.tar: item 005: the mask in 005.m.png is a JPEG, whose compression changes the ids of pixels; give a PNG; it "
        "is the first of 3 among 80 labelled images; the task learner does not see these"
    )
    assert not require_masks(plan, {})
    few = plan._replace(config=mask_campaign(tmp_path / "few", score__max_bad_fraction=0.03).config)
    with pytest.raises(NotAcceptableError, match=r"first of 3 .*=0.03 is the limit: correct .*retract .*=1$"):
        require_masks(few, reader.faults)


@pytest.mark.slow
@pytest.mark.heavy
@pytest.mark.usefixtures("local_ray")
def test_the_manifest_counts_them(tmp_path: Path) -> None:
    settings = {"train__task_steps": 2, "train__epochs": 1, "score__acquisition": ["margin"]}
    manifest = train(mask_campaign(tmp_path, bad={5: jpeg(np.zeros((8, 8), np.uint8))}, **settings))
    assert manifest["counts"]["masks_not_usable"] == 1
    assert manifest["counts"]["labelled_not_decoded"] == 0


def test_where_no_mask_can_be_used_the_first_is_named(tmp_path: Path) -> None:
    plan = plan_training(mask_campaign(tmp_path, labels__masks="member:seg.png"))
    why = "none of 80 masks can be used: 0.tar: item 000: the mask in 000.seg.png is not there: the sample has no"
    with pytest.raises(InputError, match=why):
        list(reader_of(plan).read(plan.positions))


def test_it_is_judged_by_all_pixels_of_the_held_out_masks(campaign: Campaign) -> None:
    plan = plan_training(campaign)
    assert plan.task is not None
    task = make_classifier(plan.config, len(CLASSES)).eval()
    entry = judge_masks(plan, task, Front(CPU))
    count, likelihood, digits = np.zeros((3, 3), np.int64), [], load_digits().images
    for number in plan.task.judging:
        pixels = digits[int(plan.positions[number][1])]
        ids = mask_of(pixels)
        image = plan.pool.sight.decoded(encoded((pixels * 15).astype(np.uint8)))
        assert image is not None
        with torch.no_grad():
            logit = entry["temperature"] * task(to_input(image[None], CPU))
        wide = F.interpolate(logit, size=(8, 8), mode="bilinear")[0].numpy()
        for row, column in np.argwhere(ids != VOID):
            count[ids[row, column], wide[:, row, column].argmax()] += 1
            likelihood.append((wide[:, row, column], ids[row, column]))
    assert entry["held_out"] == entry["calibrated_on"] == len(plan.task.judging)
    assert entry["held_out_accuracy"] == pytest.approx(count.trace() / count.sum())
    assert entry["held_out_miou"] == pytest.approx(mean_iou(torch.from_numpy(count)))
    assert list(entry["held_out_ious"]) == CLASSES
    assert task.temperature == pytest.approx(entry["temperature"])
    # The best temperature of all pixels is about that of their sample.
    logits, answers = (torch.from_numpy(np.stack(values)) for values in zip(*likelihood, strict=True))
    factors = torch.logspace(math.log10(0.05), math.log10(2), 300)
    losses = torch.stack([F.cross_entropy(factor * logits, answers.long()) for factor in factors])
    assert 1 / entry["temperature"] == pytest.approx(float(factors[losses.argmin()]), rel=0.15)


def test_heads_are_fitted_to_a_sample_of_the_places_of_maps(campaign: Campaign) -> None:
    plan = plan_training(campaign)
    task = make_classifier(plan.config, len(CLASSES)).eval()
    with torch.no_grad():
        found = describe(plan, Reader(plan.pool, Front(CPU).__call__), task)
    parts = found.parts
    assert parts is not None
    assert found.logit_LC is not None
    assert found.logit_LC.shape == (80, 3)
    digits, items = load_digits().images, list(plan.positions)
    # 64 of the 64 places of each map, drawn with repetition; those of the first row are void.
    assert len(parts.answer_N) == pytest.approx(80 * MOST_PARTS_OF_ONE * 7 / 8, rel=0.03)
    by_shard = sorted(items, key=lambda item: item[0])
    for number in (0, 50):
        own = parts.item_N == number
        image = plan.pool.sight.decoded(encoded((digits[int(by_shard[number][1])] * 15).astype(np.uint8)))
        assert image is not None
        ids = mask_of(digits[int(by_shard[number][1])]).flatten()
        with torch.no_grad():
            map_PD = task.features(to_input(image[None], CPU))[0].flatten(1).T
        distance = torch.cdist(parts.feature_ND[own], map_PD, compute_mode="donot_use_mm_for_euclid_dist")
        assert distance.min(dim=1).values.max() < 1e-4
        near = [set(ids[np.flatnonzero(row < 1e-4)]) for row in distance.numpy()]
        assert all(int(answer) in ids for answer, ids in zip(parts.answer_N[own], near, strict=True))
    names = ["ensemble_varr", "pseudo_label_error", "contrastive"]
    config = plan.config.model_copy(update={"score": plan.config.score.model_copy(update={"acquisition": names})})
    kept = fit_summaries(config, task, CLASSES, found)
    assert kept["ensemble_varr"].tensors["weight"].shape == (5, 3, 24)
    assert all(torch.isfinite(value).all() for name in names for value in kept[name].tensors.values())
