"""What the plan of a task learner refuses of labels, naming the image, before anything trains or is loaded."""

from typing import Any

import pytest

from engine.campaign.folder import Campaign
from engine.campaign.labels import POSITIONS_SCHEMA
from engine.campaign.packed_positions import Positions
from engine.errors import ConfigError
from engine.models.task_words import LEAST_TO_JUDGE
from engine.pool.identity import ALONE, Groups
from engine.tables.scores import to_table
from engine.training.plan import plan_training
from engine.training.task_plan import plan_task, split_for_task
from tests.small import make_small, with_settings

CLASSES: dict[str, Any] = {"train__task": "classification"}
EMBEDDINGS: dict[str, Any] = {"train__input": "embeddings", "pool__embeddings": "member:npy"}
BY_USER: dict[str, Any] = {"task__model": "nowhere.at_all:factory", "score__acquisition": ["vaal", "margin"]}
LABELS: dict[str, Any] = {"train__task": "labels", "handoff__question__task": "classes"}


def positions_at(keys: list[str], shard: str = "s-0.tar") -> Positions:
    return Positions.of(to_table([(shard, key, number, 0, None) for number, key in enumerate(keys)], POSITIONS_SCHEMA))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    return make_small(tmp_path_factory.mktemp("plan") / "small")


def plan(campaign: Campaign, labels: list[str], **settings: Any) -> None:
    given = with_settings(campaign, **settings)
    positions = positions_at([f"{number:03d}" for number in range(len(labels))])
    plan_task(given.config, frozenset(), lambda: labels, positions, ALONE)


@pytest.mark.parametrize("settings", [CLASSES, BY_USER, CLASSES | EMBEDDINGS, LABELS], ids=str)
def test_a_label_that_is_no_class_is_named_with_its_image(small: Campaign, settings: dict[str, Any]) -> None:
    plan(small, ["cat", "cow"], **settings, task__classes=["cat", "cow"])
    with pytest.raises(ConfigError, match=r"^s-0.tar: item 001: .*'dog'.*task.classes has cat, cow"):
        plan(small, ["cat", "dog", "dog"], **settings, task__classes=["cat", "cow"])


@pytest.mark.parametrize("several", ['["a", "b"]', '["a"]', "[]"])
@pytest.mark.parametrize("settings", [CLASSES, BY_USER, CLASSES | EMBEDDINGS], ids=str)
def test_a_list_where_one_class_is_learnt_is_named_with_its_image(
    small: Campaign, settings: dict[str, Any], several: str
) -> None:
    with pytest.raises(ConfigError, match=r"^s-0.tar: item 002: .* is a list of classes; learn these with"):
        plan(small, ["cat", "dog", several], **settings)


def test_labels_that_are_notes_teach_nothing_and_stop_nothing(small: Campaign) -> None:
    plan(small, ["a note", "[]"], **EMBEDDINGS)
    plan(small, ["a note", "[]"])


def test_the_whole_plan_has_the_images_in_the_order_of_their_labels(small: Campaign) -> None:
    found = plan_training(with_settings(small, **CLASSES))
    assert found.task is not None
    names = [found.task.classes[number] for number in found.task.answer_N.tolist()]
    assert names == [found.labels[position[:2]] for position in found.positions]


@pytest.mark.parametrize("pattern", ["", r"^([0-9]+)-"])
def test_from_so_many_labelled_images_or_groups_on_one_is_held_out(pattern: str) -> None:
    groups, held_out = Groups(pattern), set[tuple[int, bool]]()
    for first in range(0, 900, 30):
        for count in (LEAST_TO_JUDGE - 1, LEAST_TO_JUDGE, 12):
            keys = [f"{first + n}-{frame}" for n in range(count) for frame in range(3 if pattern else 1)]
            training, judging = split_for_task(groups, positions_at(keys, "s.tar"))
            assert sorted([*training, *judging]) == list(range(len(keys)))
            assert len(training)
            held_out.add((count, bool(judging)))
            if pattern:
                assert not {keys[n][:-2] for n in training} & {keys[n][:-2] for n in judging}
    # With fewer it is left to the hash.
    few = LEAST_TO_JUDGE - 1
    assert held_out == {(few, False), (few, True), (LEAST_TO_JUDGE, True), (12, True)}
