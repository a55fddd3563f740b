"""The user's task learner as the driver tries it: once, with the reason where it is refused, and by what it answers."""

import sys
from pathlib import Path
from typing import Any

import pytest

from engine.errors import ConfigError, InputError
from engine.models import task_trial
from engine.models.task_models import load_task
from engine.models.task_trial import (
    note_on_weights,
    require_as_trained,
    require_outputs_for,
    task_entry,
    try_for_init,
    try_task,
)
from tests.engine.models.test_task_models import MORE, config, saved

LABELS = {"train.task": "labels", "handoff.question.task": "classes", "handoff.question.classes": [*"abcde"]}


@pytest.fixture(autouse=True)
def _nothing_was_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_trial, "_TRIED", {})


def own(**options: Any) -> Any:
    """A task learner whose factory has the weights."""
    return config("trained", **options)


def test_the_outputs_have_the_names_of_task_classes_or_of_the_labels() -> None:
    entry = task_entry(own(), [*"edcbaabc"])
    assert entry["classes"] == [*"abcde"]
    assert entry["weights_sha256"] == load_task(own(), "cpu").sha256
    assert task_entry(own(classes=["3.0", *"zyxw"]), ["z"])["classes"] == ["3", *"zyxw"]
    with pytest.raises(
        ConfigError, match="has 5 outputs, the labels have 2 classes; name those of the outputs in task"
    ):
        task_entry(own(), ["a", "b"])
    rarest = r"1 more than there are outputs; the rarest first, with their images: c \(1\), a \(2\), b \(2\), "
    with pytest.raises(ConfigError, match=f"has 5 outputs, the labels have 6 classes, {rarest}.*; {MORE}, or correct"):
        task_entry(own(), [*"abcdefabdef"])
    assert task_entry(own(arguments={"num_classes": 6}), [*"abcdef"])["classes"] == [*"abcdef"]
    with pytest.raises(
        ConfigError, match=r"train.task=labels: labels do not list all outputs; name them in task.class"
    ):
        task_entry(own(**LABELS), ["a"])


@pytest.mark.parametrize(("model", "drawn"), [("Plain", r"mix.0.weight, mix.0.bias, head.weight and 1 more")])
def test_weights_that_nobody_named_and_the_factory_draws_are_refused(tmp_path: Path, model: str, drawn: str) -> None:
    why = rf"task.weights is empty, and the factory draws weights at random, .* \({drawn}\).*--set task.weights=URL"
    for given in (model, "other_each_time"):
        with pytest.raises(ConfigError, match=why):
            try_task(config(given))
    try_task(config(model, weights=saved(tmp_path, 1)))
    # One that loads them by itself may be right, and is named.
    try_task(own())
    assert "task.weights is empty, so T has the weights that its factory gives" in note_on_weights(own())
    assert not note_on_weights(config(model, weights=saved(tmp_path, 1)))


@pytest.mark.parametrize("model", ["no_such_package:x", "asks_for_a_package"])
def test_before_a_campaign_is_made_a_package_may_be_missing_and_a_wrong_name_may_not(model: str) -> None:
    said: list[str] = []
    assert try_for_init(config(model), said.append) is None
    assert "no_such_package" in said[0]
    assert said[0].endswith("was not checked on this machine; vaal train checks it where it runs")
    for wrong in ("tests.no_such_module:x", "Nothing", "Softmax"):
        with pytest.raises(ConfigError):
            try_for_init(config(wrong), said.append)
    assert len(said) == 1


def test_the_first_labels_are_refused_by_their_item() -> None:
    items = {("a.tar", str(number)): name for number, name in enumerate("abcdea")}
    require_outputs_for(own(), items, 5)
    with pytest.raises(ConfigError, match=r"^a.tar: item 4: label 'e' is not one of task.classes.*, or give a model"):
        require_outputs_for(own(classes=[*"abcdx"]), items, 5)
    with pytest.raises(ConfigError, match="labels do not list all outputs"):
        require_outputs_for(own(**LABELS), items, 5)


def test_it_is_loaded_once_and_its_files_are_looked_at_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []

    def counting(*given: Any) -> Any:
        calls.append(given)
        return load_task(*given)

    monkeypatch.setattr(task_trial, "load_task", counting)
    mine = config(weights=saved(tmp_path, 1))
    entry = task_entry(mine, [*"abcde"])
    require_as_trained(mine, entry, "train")
    assert try_task(mine).probe == entry["probe"]
    assert len(calls) == 1
    # Another score asks for other things of it.
    try_task(config(weights=saved(tmp_path, 1), **{"score.acquisition": ["vaal", "margin_drop"]}))
    assert len(calls) == 2
    Path(mine.task.files[0]).write_bytes(Path(saved(tmp_path, 2)).read_bytes())
    with pytest.raises(InputError, match=r"1.safetensors: not the weights that were used before"):
        require_as_trained(mine, entry, "train")
    assert try_task(mine).sha256 != entry["weights_sha256"]


def test_code_that_answers_otherwise_is_refused_and_another_line_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    body = "from tests.tasks import Plain\nclass Own(Plain):\n    def features(self, x):\n        "
    file = tmp_path / "mine_own.py"
    weights = saved(tmp_path, 1)

    def as_written(text: str) -> Any:
        file.write_text(body + text)
        sys.modules.pop("mine_own", None)
        task_trial._TRIED.clear()
        return config("mine_own:Own", weights=weights)

    entry = task_entry(as_written("return super().features(x)\n"), [*"abcde"])
    require_as_trained(as_written("return super().features(x)  # as before\n"), entry, "train")
    for text in ("return super().features(x).relu()\n", "return 1.01 * super().features(x)\n"):
        with pytest.raises(InputError) as refused:
            require_as_trained(as_written(text), entry, "train with it: NOW")
        line = str(refused.value)
        assert (
            "task.model=mine_own:Own: with the same weights it gives other outputs than when the round was trained"
            in line
        )
        assert f"{file} changed since, or code that it imports; restore it, or train with it: NOW" in line
