"""From labels, as a campaign keeps them, to the answers that a task learner is trained on."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from engine.campaign.classes import Classes, joined, names_in
from engine.config.options import CampaignConfig
from engine.errors import ConfigError, VaalError
from engine.models.task_source import MORE_OUTPUTS
from vaal.task.kinds import Kind


class LabelError(ConfigError):
    """A label that a task learner cannot learn, and the number of the first item that has it."""

    def __init__(self, why: str, number: int) -> None:
        super().__init__(why)
        self.number = number


class Answers(NamedTuple):
    """The classes in the order of the logits, and the answer of each of N labelled items: for classes (N,) int64, for
    labels (N, C) float32 of 0 and 1."""

    classes: list[str]
    answer_N: Tensor


def answers_of(kind: Kind, labels: Sequence[str], named: Sequence[str] = (), *, is_by_user: bool = False) -> Answers:
    """The answers that labels are.

    Args:
        labels: of each item: a class; or of kind labels a JSON list of classes, where anything else is one class.
        named: the classes in the order of the logits (task.classes); without it those of the labels, sorted.
        is_by_user: the outputs are those of task.model, which has no more of them.

    Raises:
        LabelError: a label of several classes where one is wanted, or one that is not among those named.
        VaalError: there are too few classes: two, or of kind labels one.
    """
    # Millions of labels are few different ones.
    found = {label: names_in(label, "classes") if kind == "labels" else [label] for label in dict.fromkeys(labels)}
    several = next((label for label in found if kind != "labels" and _is_list(label)), None)
    if several is not None:
        fix = (
            "learn these with --set train.task=labels --set handoff.question.task=classes, or give each image one class"
        )
        why = f"train.task=classification: the label {several[:60]!r} is a list of classes"
        raise LabelError(f"{why}; {fix}", labels.index(several))
    classes = Classes(list(named), "task.classes")
    for name in sorted({name for names in found.values() for name in names}):
        if fault := classes.fault(name):
            fix = f"or {MORE_OUTPUTS}, and name it there" if is_by_user else "or name it there"
            why = joined(fault, f"task.classes has {', '.join(named)}; correct the label, {fix}")
            first = next(label for label, names in found.items() if name in names)
            raise LabelError(why, labels.index(first))
    names = list(named) or sorted({name for part in found.values() for name in part})
    require_classes(len(names), kind)
    place = {name: number for number, name in enumerate(names)}
    if kind != "labels":
        return Answers(names, torch.from_numpy(np.fromiter((place[label] for label in labels), np.int64, len(labels))))
    answer_NC = torch.zeros(len(labels), len(names))
    for row, label in enumerate(labels):
        answer_NC[row, [place[name] for name in found[label]]] = 1
    return Answers(names, answer_NC)


def answers_of_items(config: CampaignConfig, labels: Sequence[str], items: Sequence[tuple[Any, ...]]) -> Answers:
    """As `answers_of`, by a configuration. `items` begin with (shard, key): an error names the first that has it."""
    assert config.task_kind is not None
    try:
        return answers_of(config.task_kind, labels, config.task_classes, is_by_user=bool(config.task.model))
    except LabelError as error:
        shard, key, *_ = items[error.number]
        raise ConfigError(f"{shard}: item {key}: {error}") from error


def require_classes(num_classes: int, kind: Kind = "classes") -> None:
    """Raises VaalError if there are fewer than two classes; of kind labels, none."""
    if kind == "labels" and not num_classes:
        raise VaalError("train.task=labels needs labels with a class, and there are none; set it to none")
    if kind != "labels" and num_classes < 2:
        raise VaalError(f"train.task=classification needs two classes, the labels have {num_classes}; set it to none")


def _is_list(label: str) -> bool:
    """Whether a label is the text of a list, as several classes are kept, or one of several, or none."""
    return label.startswith("[") and names_in(label, "classes") != [label]
