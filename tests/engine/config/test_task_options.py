"""Options of the user's own task learner: what does not fit together is refused by name."""

from typing import Any

import pytest

from engine.config.options import CampaignConfig
from engine.config.toml import override, parse_config, to_toml
from engine.errors import ConfigError

MODEL = {"task.model": "package.module:factory"}


def config(**values: Any) -> CampaignConfig:
    return override(
        CampaignConfig(), {**MODEL, **{key.replace("__", "."): value for key, value in values.items()}}, "test"
    )


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"task__model": "package.module"}, "task.model=package.module: give package.module:factory"),
        ({"task__std": [0.5, 0.5]}, "task.std has 2 numbers, task.mean 1; give as many"),
        (
            {"task__mean": [0.5, 0.5], "task__std": [0.5, 0.5]},
            "task.mean has 2 numbers, image.channels=3; give one for each channel, or one for all",
        ),
        ({"task__order": "bgr", "image__channels": 1}, "task.order=bgr is for 3 channels, image.channels=1"),
        ({"task__size": 3}, "task.size"),
        ({"train__task": "none"}, "task.model=package.module:factory is a task learner, and train.task=none"),
        (
            {"pool__embeddings": "member:npy"},
            "on embeddings the task learner is a linear head that is trained here; leave it out, or see pixels: "
            "--set train.input=pixels",
        ),
        ({"task__classes": ["a", "b", "a"]}, "task.classes names a twice; name each output once, in their order"),
        ({"task__mean": 0.5}, "task.mean"),
        (
            {"task__arguments": "resnet50"},
            "task.arguments='resnet50': not a table of texts and numbers; give "
            "--set 'task.arguments={name = \"resnet50\", num_classes = 10}'",
        ),
        (
            {"task__arguments": {"sizes": [1, 2]}},
            "task.arguments={sizes = [1, 2]}: not a table of texts and numbers; give --set 'task.arguments={name",
        ),
    ],
)
def test_what_does_not_fit_is_refused_by_name(values: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        config(**values)
    assert text in str(refused.value)
    assert "\n" not in str(refused.value)


def test_on_pixels_beside_embeddings_it_may_be_given() -> None:
    made = config(pool__embeddings="member:npy", train__input="pixels")
    assert (made.has_task, made.task_kind) == (True, "classes")


@pytest.mark.parametrize(
    ("task", "asked", "kind"),
    [
        ("auto", "class", "classes"), ("auto", "classes", "classes"), ("classification", "class", "classes"),
        ("labels", "classes", "labels"), ("segmentation", "mask", "segmentation"),
    ],
)  # fmt: skip
def test_train_task_says_what_it_answers(task: str, asked: str, kind: str) -> None:
    made = config(train__task=task, handoff__question__task=asked, task__classes=["a", "b"])
    assert (made.has_task, made.task_kind) == (True, kind)


def test_with_it_margins_are_scored_without_being_asked_for() -> None:
    assert config().acquisitions(has_task=True) == ["vaal", "margin"]


def test_scores_of_members_are_for_candidates_where_there_are_several_weights() -> None:
    assert not config(task__weights="a.safetensors").is_dear("vote_entropy")
    assert config(task__weights=["a.safetensors", "b.safetensors"]).is_dear("vote_entropy")


def test_it_is_written_and_read_again() -> None:
    for weights in ("", "a.safetensors", ["a.safetensors", "b.safetensors"]):
        made = config(task__weights=weights, task__arguments={"name": "resnet18", "num_classes": 3}, task__size=64)
        assert parse_config(to_toml(made).encode(), "x") == made
        assert made.task.files == ([weights] if isinstance(weights, str) else weights) * bool(weights)


def test_a_task_learners_features_do_not_show_which_pictures_are_alike() -> None:
    assert config(score__acquisition=["vaal", "margin"], select__acquisition="margin").latents_show_pictures
    alone = config(score__acquisition=["margin"], select__acquisition="margin")
    assert not alone.latents_show_pictures
    assert override(alone, {"task.model": "", "pool.embeddings": "member:npy"}, "test").latents_show_pictures
