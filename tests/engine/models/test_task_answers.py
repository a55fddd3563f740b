"""From labels to what a task learner is trained on."""

import pytest
import torch

from engine.errors import ConfigError, VaalError
from engine.models.task_answers import answers_of


def test_classes_are_numbered_in_the_order_of_their_names() -> None:
    found = answers_of("classes", ["dog", "cat", "dog"])
    assert found.classes == ["cat", "dog"]
    assert found.answer_N.tolist() == [1, 0, 1]
    assert found.answer_N.dtype == torch.int64


def test_named_classes_keep_their_order_also_of_those_without_an_image() -> None:
    found = answers_of("classes", ["dog", "cat"], ["dog", "horse", "cat"])
    assert found.classes == ["dog", "horse", "cat"]
    assert found.answer_N.tolist() == [0, 2]


def test_several_labels_an_image_are_a_row_of_yes_and_no() -> None:
    found = answers_of("labels", ['["cat", "dog"]', "[]", "bird", '["dog"]'])
    assert found.classes == ["bird", "cat", "dog"]
    assert found.answer_N.tolist() == [[0, 1, 1], [0, 0, 0], [1, 0, 0], [0, 0, 1]]


def test_what_cannot_be_learnt_is_refused_with_the_fix() -> None:
    words = r"""train.task=classification: the label '\["cat", "dog"\]' is a list of classes; .*train.task=labels"""
    with pytest.raises(ConfigError, match=words):
        answers_of("classes", ["cat", '["cat", "dog"]'])
    words = "label 'Dog' is not one of task.classes; did you mean 'dog'\\? task.classes has cat, dog; correct the label"
    with pytest.raises(ConfigError, match=words):
        answers_of("labels", ['["cat", "Dog"]'], ["cat", "dog"])
    with pytest.raises(ConfigError, match=r"task.classes has cat, dog; correct the label, or name it there$"):
        answers_of("classes", ["owl", "cat"], ["cat", "dog"])
    words = r"correct the label, or give a model with an output for each class \(.*task.weights.*, and name it there$"
    with pytest.raises(ConfigError, match=words):
        answers_of("classes", ["owl", "cat"], ["cat", "dog"], is_by_user=True)
    with pytest.raises(VaalError, match="needs two classes, the labels have 1; set it to none"):
        answers_of("classes", ["cat", "cat"])
    with pytest.raises(VaalError, match=r"train.task=labels needs labels with a class"):
        answers_of("labels", ["[]"])
    # A class may have such a name.
    assert answers_of("classes", ["[other]", "cat"]).classes == ["[other]", "cat"]
