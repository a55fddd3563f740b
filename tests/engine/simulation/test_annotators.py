"""Simulated annotators: an answer is the person's and the image's, and money buys answers."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from engine.errors import ConfigError, InputError
from engine.simulation.annotators import Crowd, matrices_of
from engine.simulation.experiment_parts import OraclePart
from engine.simulation.trial_campaign import ground_of
from engine.simulation.worlds import load
from tests.engine.simulation.test_experiment import read
from tests.engine.simulation.test_pixel_experiment import PIXELS, write_files

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


MATRICES = [{"a": {"a": 0.7, "c": 0.3}, "b": {"b": 1}, "c": {"a": 0.25, "b": 0.25, "c": 0.5}}] * 5 + [
    {"a": {"b": 1}, "b": {"c": 1}, "c": {"a": 1}}
]


def test_annotators_confuse_what_their_matrices_say() -> None:
    said_AKK = matrices_of(json.dumps(MATRICES).encode(), ["a", "b", "c"], 6)
    crowd = Crowd.of(OraclePart(annotators=6, matrices="x.json"), [[1, 2], [0, 2], [0, 1]], said_AKK)
    assert crowd is not None
    names = [("s.tar", f"{number:04d}") for number in range(3000)]
    for number, expected in enumerate(([0.7, 0, 0.3], [0, 1, 0], [0.25, 0.25, 0.5])):
        said = [answer for name in names for answer in crowd.answers(name, number, 6)]
        for person in range(6):
            own = [value for who, value in said if who == f"annotator-{person:03d}"]
            share = np.bincount(own, minlength=3) / len(own)
            wanted = expected if person < 5 else np.eye(3)[(number + 1) % 3]
            assert share == pytest.approx(wanted, abs=0.03)
            assert (share == 0).tolist() == (np.asarray(wanted) == 0).tolist()
    one = Crowd.of(OraclePart(annotators=2), [], matrices_of(json.dumps(MATRICES[:1]).encode(), ["a", "b", "c"], 2))
    assert one is not None
    assert one.said_AKK is not None
    assert one.said_AKK.shape == (2, 3, 3)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": 1}', "not a JSON list like"),
        ('[{"a": {"a": -1}}]', "not a JSON list like"),
        ("[{}, {}]", "2 matrices, and oracle.annotators=6; give so many, or one for all"),
        ('[{"a": {"a": 1}, "b": {"x": 1}}]', "'x' is no class; the classes: a, b"),
        ('[{"a": {"a": 1}}]', "matrix 1: the shares of 'b' add up to 0; make it 1"),
        ('[{"a": {"a": 0.5, "b": 0.4}, "b": {"b": 1}}]', "matrix 1: the shares of 'a' add up to 0.9; make it 1"),
    ],
)
def test_what_is_wrong_with_matrices_is_one_line(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        matrices_of(text.encode(), ["a", "b"], 6)


def test_matrices_are_a_file_of_the_experiment(tmp_path: Path) -> None:
    there = f'annotators = 6\nmatrices = "{tmp_path}/who.json"\n[test]'
    text = write_files(tmp_path).replace("[test]", there)
    with pytest.raises(InputError, match=r"who.json: no such file"):
        load(read(tmp_path, text))
    (tmp_path / "who.json").write_text('[{"0": {"1": 1}}]')
    with pytest.raises(InputError, match=r"who.json: matrix 1: the shares of '1' add up to 0; make it 1"):
        load(read(tmp_path, text))
    (tmp_path / "who.json").write_text('[{"0": {"1": 1}, "1": {"1": 1}}]')
    world = load(read(tmp_path, text))
    assert f"{tmp_path}/who.json" in str(world.files)
    crowd = ground_of(world, read(tmp_path, text), 0, f"{tmp_path}/first").crowd
    assert crowd is not None
    assert crowd.said_AKK is not None
    assert crowd.said_AKK[:, :, world.classes.index("1")].tolist() == [[1, 1]] * 6


def test_a_batch_is_its_answers(tmp_path: Path) -> None:
    text = PIXELS.format(tmp_path).replace("budget = 5", "budget = 6").replace("[test]", PEOPLE) + VOTES
    experiment = read(tmp_path, text)
    budgets = {one.name: experiment.config_of(one, 0).select.budget for one in experiment.strategies}
    assert budgets == {"random": 6, "lowest": 6, "three": 2}


@pytest.mark.parametrize(("budget", "share", "images"), [(300, 0.1, 91), (30, 0.1, 9), (30, 1.0, 5), (6, 1.0, 1)])
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
        ("handoff.annotators = 3", "handoff.annotators = 0", "handoff.annotators=0"),
        ("handoff.annotators = 3", "handoff.annotators = 3\nhandoff.gold_fraction = true", "handoff.gold_fraction"),
        ("handoff.annotators = 3", "handoff.annotators = 6\nhandoff.gold_fraction = 1.0", "set budget=12, or another"),
        ("handoff.annotators = 3", "handoff.annotators = 3\nhandoff.gold_fraction = 0.5", "set budget=3, or another"),
        ("accuracy = [0.5, 0.9]", "accuracy = [0.5]", "oracle.accuracy"),
        ("annotators = 6", "annotators = 6000", "oracle.annotators=6000"),
        ("annotators = 6\n", 'annotators = 6\nmatrices = "a"\n', "oracle.accuracy: oracle.matrices say how often"),
        (
            "annotators = 6\naccuracy = [0.5, 0.9]\n",
            'matrices = "a"\n',
            "oracle.matrices: are of annotators; set oracle",
        ),
        (
            "accuracy = [0.5, 0.9]",
            'matrices = "a"\nconfusions = [["0", "1"]]',
            "oracle.confusions: oracle.matrices say what is taken for what",
        ),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, old: str, new: str, words: str) -> None:
    text = PIXELS.format(tmp_path).replace("budget = 5", "budget = 6").replace("[test]", PEOPLE) + VOTES
    assert old in text
    with pytest.raises(ConfigError) as refused:
        read(tmp_path, text.replace(old, new))
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)
