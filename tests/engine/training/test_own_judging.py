"""The user's own task learner is judged on the labelled images, by each kind of answer, with an interval."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from engine.models.front import Front
from engine.models.weights import make_classifier
from engine.storage.location import Location
from engine.training.describing import Reader
from engine.training.labelled import decoded
from engine.training.mask_judging import judge_masks
from engine.training.own_judging import judge_own, other_order
from engine.training.plan import TrainingPlan, plan_training
from tests.conftest import MakeCampaign
from tests.masks import CLASSES as MASK_CLASSES
from tests.masks import mask_campaign
from vaal.task.model import Task
from vaal.task.shares import share_of

CLASSES = [*"0123456789"]


class Remembering(nn.Module):
    """Knows images by heart: the class of the nearest one, its outputs in some order."""

    def __init__(self, image_ND: Tensor, answer_NC: Tensor, order: Sequence[int]) -> None:
        super().__init__()
        self.image_ND, self.answer_NC = image_ND, answer_NC[:, list(order)]

    def features(self, x: Tensor) -> Tensor:
        return x.flatten(1)

    def head(self, feature_BD: Tensor) -> Tensor:
        return self.answer_NC[torch.cdist(feature_BD, self.image_ND).argmin(dim=1)]


class Lost(Remembering):
    """Has no finite output for images of the class 0, whose place in the outputs such an answer would be."""

    def head(self, feature_BD: Tensor) -> Tensor:
        logit_BC = super().head(feature_BD)
        return logit_BC.masked_fill((logit_BC.argmax(dim=1) == 0)[:, None], torch.nan)


def see(pixels_N: Any) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels_N)).float()


def known_by_heart(plan: TrainingPlan, order: Sequence[int], kind: Any = "classes") -> tuple[Task, Reader]:
    images = dict(decoded(plan.pool, plan.positions))
    labels = torch.tensor([int(plan.labels[position[:2]]) for position in plan.positions])
    image_ND = see(np.stack([images[number] for number in range(len(images))])).flatten(1)
    answer_NC = nn.functional.one_hot(labels, 10).float()
    return Task(Remembering(image_ND, answer_NC, order), kind).eval(), Reader(plan.pool, see)


@pytest.mark.heavy
def test_a_right_one_is_right_and_one_with_its_classes_in_another_order_is_found_out(
    make_campaign: MakeCampaign,
) -> None:
    plan = plan_training(make_campaign("train.task=classification"))
    task, reader = known_by_heart(plan, range(10))
    entry = judge_own(plan, task, reader, CLASSES)
    counts = np.unique(list(plan.labels.values()), return_counts=True)
    assert (entry["labelled"], entry["labelled_accuracy"]) == (200, 1.0)
    assert entry["labelled_interval"] == pytest.approx([0.981, 1.0], abs=1e-3)
    most = {"class": counts[0][counts[1].argmax()], "share": pytest.approx(counts[1].max() / 200)}
    assert entry["most_frequent"] == most
    assert "other_order" not in entry
    there = sorted(set(map(int, plan.labels.values())))
    rolled = [*there[1:], there[0]]
    order = [rolled[there.index(number)] if number in there else number for number in range(10)]
    swapped, reader = known_by_heart(plan, order)
    entry = judge_own(plan, swapped, reader, CLASSES)
    assert entry["labelled_accuracy"] == 0.0
    assert [entry["other_order"][number] for number in there] == [str(order[number]) for number in there]


@pytest.mark.heavy
def test_of_several_classes_an_image_the_likeliest_is_one_of_them_and_images_without_any_do_not_count(
    make_campaign: MakeCampaign,
) -> None:
    plan = plan_training(make_campaign("train.task=classification"))
    task, reader = known_by_heart(plan, range(10), "labels")
    names = {item: f'["{label}", "odd"]' if int(label) % 2 else "[]" for item, label in plan.labels.items()}
    entry = judge_own(plan._replace(labels=names), task, reader, [*CLASSES[:9], "odd"])
    odd = sum(int(label) % 2 for label in plan.labels.values())
    nines = sum(label == "9" for label in plan.labels.values())
    assert nines == 0
    assert (entry["labelled"], entry["labelled_accuracy"]) == (odd, 1.0)
    assert entry["most_frequent"] == {"class": "odd", "share": 1.0}


def test_of_masks_it_is_all_pixels_of_all_labelled_images(tmp_path: Path) -> None:
    plan = plan_training(mask_campaign(tmp_path))
    assert plan.task is not None
    task, front = make_classifier(plan.config, len(MASK_CLASSES)).eval(), Front(torch.device("cpu"))
    entry = judge_own(plan, task, Reader(plan.pool, front.__call__), MASK_CLASSES)
    everything = plan._replace(task=plan.task._replace(judging=list(range(len(plan.positions)))))
    other = judge_masks(everything, task, front)
    assert entry["labelled"] == other["held_out"] > 10
    assert entry["labelled_accuracy"] == pytest.approx(other["held_out_accuracy"])
    assert entry["labelled_miou"] == pytest.approx(other["held_out_miou"])
    assert entry["labelled_interval"][0] < entry["labelled_accuracy"] < entry["labelled_interval"][1]
    assert entry["most_frequent"]["class"] in MASK_CLASSES
    # Masks that cannot be used end no training that does not learn from them.
    assert plan.masks is not None
    broken = plan._replace(masks=plan.masks._replace(member="", folder=Location.of(str(tmp_path / "nowhere"))))
    entry = judge_own(broken, task, Reader(plan.pool, front.__call__), MASK_CLASSES)
    assert entry["not_judged"].startswith("no mask can be used, as ")
    assert "nowhere" in entry["not_judged"]


def test_another_order_must_prove_itself_on_the_other_half() -> None:
    generator = torch.Generator().manual_seed(0)
    answer_N = torch.randint(0, 5, (200,), generator=generator)
    for chance in (torch.randint(0, 5, (200,), generator=generator), answer_N, torch.zeros_like(answer_N)):
        assert other_order(answer_N, chance, 5) is None
    assert other_order(answer_N, (answer_N + 1) % 5, 5) == [4, 0, 1, 2, 3]
    # One half of the answers wrong at random, and too few images to say it.
    noisy = torch.where(torch.rand(200, generator=generator) < 0.5, (answer_N + 1) % 5, answer_N * 0)
    assert other_order(answer_N, noisy, 5) == [4, 0, 1, 2, 3]
    assert other_order(answer_N[:49], (answer_N[:49] + 1) % 5, 5) is None


def test_the_interval_counts_independent_groups() -> None:
    right_N, one_N = torch.arange(100) % 4 > 0, torch.ones(100)
    alone = share_of(right_N, one_N)
    # Wilson's, by hand.
    assert tuple(alone) == pytest.approx((0.75, 0.656, 0.825), abs=2e-3)
    clips = share_of(right_N.sort().values, one_N, torch.arange(100) // 10)
    assert clips.value == alone.value
    assert clips.low < 0.5
    assert clips.high > 0.88
    # Of masks images count, not their pixels.
    masks = share_of(torch.tensor([50, 100]), torch.tensor([100, 100]))
    assert masks.value == 0.75
    assert masks.high - masks.low > 0.5
    assert share_of(one_N[:5], one_N[:5]).low == pytest.approx(0.566, abs=1e-3)
    with pytest.raises(ValueError, match="no item has an answer"):
        share_of(torch.zeros(3), torch.zeros(3))


@pytest.mark.heavy
@pytest.mark.parametrize("kind", ["classes", "labels"])
def test_an_output_that_is_not_finite_is_not_right(make_campaign: MakeCampaign, kind: Any) -> None:
    plan = plan_training(make_campaign("train.task=classification"))
    task, reader = known_by_heart(plan, range(10), kind)
    network: Any = task.network
    lost = Lost(network.image_ND, network.answer_NC, range(10))
    entry = judge_own(plan, Task(lost, kind).eval(), reader, CLASSES)
    share = sum(label == "0" for label in plan.labels.values()) / len(plan.labels)
    assert entry["labelled_accuracy"] == pytest.approx(1 - share)
