"""How good a task model is that learns the labels of now."""

import pkgutil
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from engine.pool.mask_source import MaskSource, resized
from engine.simulation.learners import learner_of
from engine.simulation.pixel_learners import Training, classes_by, confusion_by, trained
from engine.simulation.pixel_pools import numbers_of
from engine.simulation.worlds import Items
from vaal.task.segmentation import class_ious, mean_iou

ACCURACY, MIOU = "accuracy", "miou"


class Judged(NamedTuple):
    """What is measured, its value from 0 to 1, and that of each class; None for a class without an item."""

    metric: str
    value: float
    by_class: list[float | None]

    def to_json(self, classes: list[str]) -> dict[str, Any]:
        """As an entry of a point."""
        by_class = {name: value for name, value in zip(classes, self.by_class, strict=True) if value is not None}
        return {self.metric: self.value, "classes": by_class}


def judge(
    training: Training, train: Items, label_N: NDArray[np.int64], test: Items, masks: MaskSource | None
) -> Judged:
    """Train a task model and compare what it says of the test set with what is true; the same for a seed on any machine
    of a kind. Initial weights depend on the seed alone, not on the labels.

    Args:
        label_N: the classes (N,) of the items to train on; of masks it is not used.
        masks: how masks are read, where the task model learns some.
    """
    sees = learner_of(training.task).sees
    if sees == "masks":
        assert masks is not None
        return _judge_masks(training, train, test, masks)
    if sees == "pixels":
        with threadpool_limits(1):
            network = trained(train.pixel_NSSC, label_N, training)
            found_M = classes_by(network, test.pixel_NSSC, training.device)
    else:
        learn = pkgutil.resolve_name(learner_of(training.task).function)
        with threadpool_limits(1):
            found_M = learn(train.vector_ND, label_N, test.vector_ND, training.num_classes, training.seed)
    is_right_M, true_M = found_M == test.label_N, test.label_N
    by_class = [
        float(is_right_M[true_M == c].mean()) if (true_M == c).any() else None for c in range(training.num_classes)
    ]
    return Judged(ACCURACY, float(is_right_M.mean()), by_class)


def _judge_masks(training: Training, train: Items, test: Items, masks: MaskSource) -> Judged:
    side = train.pixel_NSSC.shape[1]
    mask_NSS = np.stack([resized(numbers_of(mask, masks), side, side) for mask in train.mask_N])
    with threadpool_limits(1):
        network = trained(train.pixel_NSSC, mask_NSS, training)
        true = [numbers_of(mask, masks) for mask in test.mask_N]
        count_KK = confusion_by(network, test.pixel_NSSC, true, training.num_classes, training.device)
    return Judged(MIOU, mean_iou(count_KK) or 0.0, class_ious(count_KK))
