"""A model of one's own on the command line: refused when it is named, in one line, and with nothing left behind."""

from pathlib import Path

import pytest

from engine.campaign.opening import open_campaign
from engine.simulation.demo_pools import DemoPool
from tests.jobs.test_cli import init, refused, vaal

CLASSES = "task.classes=['0','1','2','3','4','5','6']"
OWN = ("image.channels=3", "task.model=tests.tasks:trained", "task.arguments={num_classes=7}")


def named(*settings: str) -> list[str]:
    return [word for setting in settings for word in ("--set", setting)]


@pytest.mark.parametrize(
    ("settings", "status", "why"),
    [
        (("task.model=tests.tasks:Nothing",), 2, "task.model=tests.tasks:Nothing: cannot be imported: AttributeError"),
        (("task.arguments={classes=7}",), 2, "its arguments are a table: --set 'task.arguments={name = "),
        (("task.weights=nowhere.safetensors",), 4, "nowhere.safetensors: "),
        (("task.model=tests.tasks:Plain",), 2, "task.weights is empty, and the factory draws weights at random"),
        ((CLASSES.replace("'6'", "'6','7'"),), 2, "has 7 outputs, task.classes names 8; name each output"),
        ((CLASSES.replace("'6'", "'x'"),), 2, "label '6' is not one of task.classes; "),
        (("task.arguments={num_classes=6}",), 2, "has 6 outputs, the labels have 7 classes, 1 more than there are"),
        (("train.task=labels", "handoff.question.task=classes"), 2, "name them in task.classes"),
    ],
)
def test_init_refuses_what_training_would_and_leaves_nothing(
    tmp_path: Path, pool: DemoPool, settings: tuple[str, ...], status: int, why: str
) -> None:
    home = tmp_path / "c"
    assert why in refused(status, *init(home, pool, *named(*OWN, *settings)))
    assert not [path for path in home.rglob("*") if path.is_file()]


def test_init_goes_on_without_a_package_that_others_may_have(tmp_path: Path, pool: DemoPool) -> None:
    made = vaal(
        *init(tmp_path / "c", pool, *named(*OWN, "task.arguments={}", "task.model=tests.tasks:asks_for_a_package"))
    )
    assert made.exit_code == 0, made.output
    said = " ".join(made.stderr.split())
    assert "No module named 'no_such_package'" in said
    assert "task.model was not checked on this machine; vaal train checks it where it runs" in said
    assert (tmp_path / "c/campaign.toml").exists()


@pytest.mark.heavy
def test_an_option_that_it_cannot_serve_is_refused_by_the_command_that_sets_it(tmp_path: Path, pool: DemoPool) -> None:
    home = str(tmp_path / "c")
    made = vaal(*init(tmp_path / "c", pool, *named(*OWN, "score.acquisition=['vaal','bald']")))
    assert made.exit_code == 0, made.output
    assert "so T has the weights that its factory gives" in " ".join(made.stderr.split())
    for command in (("handoff", home), ("export", home), ("score", home)):
        line = refused(2, *command, "--set", "score.dropout=network")
        assert "task.model=tests.tasks:trained: cannot be drawn by its dropout (score.dropout=network)" in line
    assert open_campaign(home).config.score.dropout == "features"
    # What it can serve is kept.
    assert vaal("handoff", home, "--set", "task.arguments={num_classes=7,drop=0.5}").exit_code == 0
    assert open_campaign(home, ["score.dropout=network"]).config.draws_network
