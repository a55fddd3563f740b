"""Simulated annotators: an answer is the person's and the image's, and money buys answers."""

from pathlib import Path

import numpy as np
import pytest

from engine.errors import ConfigError
from engine.simulation.annotators import Crowd
from engine.simulation.experiment_parts import OraclePart
from tests.engine.simulation.test_experiment import read
from tests.engine.simulation.test_pixel_experiment import PIXELS

PEOPLE = "annotators = 6\naccuracy = [0.5, 0.9]\n[test]"
VOTES = '[[strategies]]\nname = "three"\nhandoff.annotators = 3\n'


def test_answers_are_those_of_the_person_and_the_image() -> None:
    crowd = Crowd.of(OraclePart(annotators=6, accuracy=[0.5, 0.9]), [[1], [0, 2], [1]])
    assert crowd is not None
    assert Crowd.of(OraclePart(), []) is None
    names = [("s.tar", f"{number:04d}") for number in range(2000)]
    answers = [list(crowd.answers(name, 1, 3)) for name in names]
    # Who asks one of them only gets the first answer; whoever asks again gets the same.
    assert [list(crowd.answers(name, 1, 1)) for name in names] == [three[:1] for three in answers]
    assert all(len({person for person, _ in three}) == 3 for three in answers)
    said = [answer for three in answers for answer in three]
    for number in range(6):
        own = [value == 1 for person, value in said if person == f"annotator-{number:03d}"]
        assert np.mean(own) == pytest.approx(0.5 + 0.08 * number, abs=0.05)
    assert {value for _, value in said} == {0, 1, 2}
    # A class is only taken for those of its group.
    assert {value for name in names for _, value in crowd.answers(name, 0, 3)} == {0, 1}


def test_a_batch_is_its_answers(tmp_path: Path) -> None:
    text = PIXELS.format(tmp_path).replace("budget = 5", "budget = 6").replace("[test]", PEOPLE) + VOTES
    experiment = read(tmp_path, text)
    budgets = {one.name: experiment.config_of(one, 0).select.budget for one in experiment.strategies}
    assert budgets == {"random": 6, "lowest": 6, "three": 2}


@pytest.mark.parametrize(("budget", "share", "images"), [(300, 0.1, 91), (30, 0.1, 9), (30, 1.0, 5), (3, 1.0, 1)])
def test_answers_to_gold_images_are_paid_for_too(tmp_path: Path, budget: int, share: float, images: int) -> None:
    text = PIXELS.format(tmp_path).replace("budget = 5", f"budget = {budget}").replace("[test]", PEOPLE)
    experiment = read(tmp_path, f"{text}{VOTES}handoff.gold_fraction = {share}\n")
    budgets = {one.name: experiment.config_of(one, 0).select.budget for one in experiment.strategies}
    assert budgets == {"random": budget, "lowest": budget, "three": images}


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("handoff.annotators = 3", "handoff.annotators = 7", "oracle.annotators=6 are fewer; raise that"),
        ("handoff.annotators = 3", "handoff.annotators = 4", "budget=6 answers are no whole number of images"),
        ("accuracy = [0.5, 0.9]", "accuracy = [0.5]", "oracle.accuracy"),
        ("annotators = 6", "annotators = 6000", "oracle.annotators=6000"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, old: str, new: str, words: str) -> None:
    text = PIXELS.format(tmp_path).replace("budget = 5", "budget = 6").replace("[test]", PEOPLE) + VOTES
    assert old in text
    with pytest.raises(ConfigError) as refused:
        read(tmp_path, text.replace(old, new))
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)
