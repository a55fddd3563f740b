"""Classes that come back and that the outputs of the task learner do not have are named at once, with what helps."""

from pathlib import Path

import pytest

from engine.campaign.folder import Campaign
from engine.campaign.handed_out import batches
from engine.errors import ConfigError
from engine.handoff.export import export
from engine.training.plan import plan_training
from tests.sendings import take_in
from tests.small import copied, make_small

MODEL = {"task__model": "tests.tasks:trained", "task__arguments": {"num_classes": 2}, "task__classes": ["cat", "dog"]}
MORE = "give a model with an output for each class (--set task.arguments=..., task.weights=...)"
WILL = "the next training will refuse these labels; correct them, or"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    campaign = make_small(tmp_path_factory.mktemp("outputs"), **MODEL)
    export(campaign)
    return campaign


@pytest.mark.parametrize(
    ("settings", "note"),
    [
        ({"task__classes": []}, f"task.model has no output for owl: {WILL} {MORE}"),
        ({}, f"task.model has no output for owl: {WILL} {MORE}, and name them in task.classes"),
        ({"task__classes": ["cat", "owl"]}, ""),
        ({"task__model": "", "train__task": "classification"},
         f"task.classes does not name owl: {WILL} name them there"),
        ({"task__model": "", "task__classes": []}, ""),
    ],
)  # fmt: skip
def test_a_new_class_without_an_output_is_named_when_it_comes(
    base: Campaign, tmp_path: Path, settings: dict[str, object], note: str
) -> None:
    campaign = copied(base, tmp_path / "campaign", **settings)
    item_id = batches(campaign.home, 0)[0].images()["item_id"][0]
    (tmp_path / "a.csv").write_text(f"item_id,label\n{item_id},owl\n")
    said: list[str] = []
    assert take_in(campaign, tmp_path / "a.csv", log=said.append).new_classes == ["owl"]
    assert [line for line in said if line.startswith("task.")] == ([note] if note else [])
    if not settings:
        # Naming it alone does not help, and no warning says so.
        with pytest.raises(ConfigError, match=r"'owl' is not one of task.classes; .* give a model with an output"):
            plan_training(campaign)
