"""A mistake in the file of published figures is reported with its place in the file."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from engine.errors import ConfigError, InputError
from engine.simulation.experiments_page import page_of
from engine.simulation.published import read_published
from engine.storage.location import Location
from tests.engine.simulation.test_experiment import EXPERIMENTS

GIVEN = (EXPERIMENTS / "published.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ('sure = "read"', 'shure = "read"', r"figures\[0\]\.curves\[0\]\.sure: missing; .*\.shure: unknown key"),
        ('sure = "read"', 'sure = "certain"', r"figures\[0\]\.curves\[0\]\.sure='certain': give 'read', 'figure'"),
        ("values = [61.35,", 'values = ["x",', r"figures\[0\]\.curves\[0\]\.values\[0\]='x': not a number"),
        ('title = "CIFAR-10, accuracy"', "", r"figures\[0\]\.title: missing"),
        ("[ran.digits]", "[ran.digits", "not valid TOML: .*; correct it"),
        ('sha256 = "', 'sha256 = "A', r"ran\.\w+\.sha256="),
        ("experiments = [", "experiments = 3 # [", r"figures\[0\]\.experiments=3: not a list; give '"),
    ],
)
def test_a_mistake_is_reported_with_its_place(tmp_path: Path, old: str, new: str, fault: str) -> None:
    assert old in GIVEN
    file = tmp_path / "published.toml"
    file.write_text(GIVEN.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"published\.toml: {fault}"):
        read_published(Location.of(str(file)))


def test_curves_of_another_name_are_refused_with_the_right_one() -> None:
    curves = pq.read_table(EXPERIMENTS / "results/digits.parquet")
    with pytest.raises(InputError, match=r"curves\.parquet: made by digits\.toml; name it digits\.parquet"):
        page_of(Location.of(str(EXPERIMENTS)), {"curves": curves})
