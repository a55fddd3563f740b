"""A task learner that a user brings is what scores need, or is refused in one line that says why not."""

from typing import Any

import pytest
import torch
from torch import nn

from tests import tasks
from tests.tasks import Pixels, Plain, ready
from vaal.frozen_encoder import Preprocessing
from vaal.network_trial import noise_pixels
from vaal.task.admission import TaskError, check_task
from vaal.task.kinds import Kind
from vaal.task.model import Task

X = Preprocessing([0.5], [0.5])(noise_pixels(8, 3))


def seeded(make: Any, *arguments: Any) -> nn.Module:
    torch.manual_seed(0)
    network: nn.Module = make(*arguments)
    return network


REFUSED: list[tuple[Any, Kind, str]] = [
    (tasks.Headless, "classes", "Headless has no head; give features"),
    (nn.Flatten, "classes", "Flatten has no features; give features"),
    (tasks.MapFeatures, "classes", "features returns (7, 3, 8, 8) of float32 for 7 images, not (batch, components) of"),
    (tasks.PairFeatures, "classes", "features returns tuple, not one tensor (batch, components)"),
    (tasks.WholeFeatures, "classes", "features returns (7, 6) of int64 for 7 images"),
    (tasks.PairHead, "classes", "head returns tuple, not one tensor (batch, classes)"),
    (Plain, "segmentation", "features returns (7, 6) of float32 for 7 images, not (batch, components, height, width)"),
    (Pixels, "classes", "features returns (7, 6, 4, 4) of float32"),
    (tasks.Pooled, "segmentation", "head returns (7, 4) of float32 for 7 images, not (batch, classes, height, width)"),
    (tasks.Enlarged, "segmentation", "head returns logits (8, 8) of features (4, 4); leave out what enlarges them"),
    (tasks.Ending, "classes", "features fails on inputs (7, 3, 8, 8): 0"),
    (tasks.Failing, "classes", "features fails on inputs (7, 3, 8, 8): no way"),
    (lambda: Plain(1), "classes", "has one output; give one for each class"),
    (tasks.Mixing, "classes", "mixes the images of a batch, or draws at random: seven at once differ"),
    (tasks.AlwaysTraining, "classes", "mixes the images of a batch, or draws at random: seven at once differ"),
    (tasks.Drawing, "classes", "mixes the images of a batch, or draws at random: seven at once differ"),
    (tasks.Infinite, "classes", "returns features that are not finite; do its weights fit?"),
    (tasks.SameFeatures, "classes", "returns the same features for all images; do its weights fit?"),
    (tasks.ZeroHead, "classes", "returns the same logits for all images; do its weights fit?"),
    (tasks.Softmax, "classes", "returns probabilities, not logits; leave out the softmax or sigmoid"),
    (lambda: tasks.Softmax("sigmoid"), "labels", "returns probabilities, not logits; leave out the softmax or sigmoid"),
    (tasks.PixelSoftmax, "segmentation", "returns probabilities, not logits"),
]


@pytest.mark.parametrize(("make", "kind", "text"), REFUSED, ids=[f"{n}-{row[1]}" for n, row in enumerate(REFUSED)])
def test_another_network_is_refused_in_one_line(make: Any, kind: Kind, text: str) -> None:
    with pytest.raises(TaskError) as refused:
        check_task(ready(seeded(make), kind), X)
    assert str(refused.value).startswith(text)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("kind", ["classes", "labels", "segmentation"])
def test_a_task_learner_passes_and_its_outputs_are_counted(kind: Kind) -> None:
    network = seeded(Pixels) if kind == "segmentation" else seeded(Plain, 5, 3, 0.5)
    count = check_task(ready(network, kind), X, with_gradient=True, with_dropout=kind != "segmentation")
    assert count == (4 if kind == "segmentation" else 5)
    # Its one logit is between 0 and 1 for all images, and yet no probability.
    assert check_task(ready(seeded(Plain, 1), "labels"), X) == 1


def test_what_only_some_scores_need_is_asked_for_with_them() -> None:
    for make in (tasks.WithoutGradient, tasks.InferenceOnly, tasks.Rounded):
        task = ready(seeded(make))
        assert check_task(task, X) == 5
        with pytest.raises(TaskError, match=r"gives no gradient of its logits by the input, which score.acquisition"):
            check_task(task, X, with_gradient=True)
    for make, why in ((tasks.FunctionalDropout, "no dropout"), (tasks.UnusedDropout, "two draws")):
        task = ready(seeded(make))
        assert check_task(task, X) == 5
        with pytest.raises(TaskError, match=rf"cannot be drawn by its dropout \(score.dropout=network\): .*{why}"):
            check_task(task, X, with_dropout=True)


def test_every_member_is_tried_and_all_have_the_same_outputs() -> None:
    def committee(*members: nn.Module) -> Task:
        return Task(seeded(Plain), "classes", members).eval().requires_grad_(False)

    assert check_task(committee(Plain(), Plain()), X) == 5
    with pytest.raises(TaskError, match="member 3: returns probabilities"):
        check_task(committee(Plain(), tasks.Softmax()), X)
    with pytest.raises(TaskError, match=r"the members have \[5, 4\] outputs, not the same number"):
        check_task(committee(Plain(4)), X)


def test_nothing_of_the_network_is_changed() -> None:
    task = ready(seeded(Plain, 5, 3, 0.5))
    before = {name: value.clone() for name, value in task.state_dict().items()}
    x = X.clone()
    check_task(task, x, with_gradient=True, with_dropout=True)
    assert not any(part.training for part in task.modules())
    assert not any(weight.requires_grad or weight.grad is not None for weight in task.parameters())
    assert not x.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in task.state_dict().items())
    torch.testing.assert_close(x, X, rtol=0, atol=0)
