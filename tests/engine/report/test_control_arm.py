"""What the control arm shows of the pool, from campaigns whose task learner and labels are known."""

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from engine.campaign.folder import Campaign
from engine.campaign.labels import read_snapshot
from engine.campaign.ledger import read_ledger
from engine.campaign.opening import open_campaign
from engine.handoff.choice import ALL
from engine.handoff.export import export
from engine.report.arms import HARDER, NOT_KEPT, gains_of
from engine.report.control_arm import MASKS, ControlArm, control_arm
from engine.report.control_words import MOST_ROUNDS, control_lines, control_values, read_control
from engine.report.page import render
from engine.report.report import report
from engine.storage.location import Location
from jobs.cli import app
from tests.judged import Pick, answer, is_right, make_judged, pick, picks_of, play, pool, truth, without_predictions
from tests.small import copied
from vaal.proportions import Share, wilson

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    return play(tmp_path_factory.mktemp("three"), 3)


def of(campaign: Campaign) -> ControlArm:
    snapshot = read_snapshot(campaign.home)
    return read_control(campaign, snapshot, read_ledger(campaign, snapshot))


def controls(campaign: Campaign, arm: str = "control") -> list[Pick]:
    return [row for row in picks_of(campaign) if row["arm"] == arm]


def test_each_round_is_judged_by_its_own_task_learner(three: Campaign) -> None:
    found = of(three)
    assert [one.round for one in found.rounds] == [0, 1, 2]
    assert [one.learned for one in found.rounds] == [6, 46, 86]
    for one in found.rounds:
        assert (one.picked, one.labelled, one.missing) == (20, 20, {})
        assert one.gain.known is not None
        for arm in ("control", "query"):
            picks = controls(replace(three, round=one.round), arm)
            right = sum(is_right(row["shard"], row["key"], one.round) for row in picks)
            assert getattr(one.gain.known, arm) == wilson(right, 20)
        control, query, gain = one.gain.known.control, one.gain.known.query, one.gain.known.gain
        assert control and query and gain  # noqa: PT018
        assert gain.value == pytest.approx(control.value - query.value)
    assert found.forecast is not None
    # The first round learned from too few labels.
    assert (found.forecast.labels, found.forecast.more, found.forecast.judged) == (126, 40, 40)


def test_the_classes_of_the_pool_are_those_of_all_control_arms_and_of_what_is_labelled(three: Campaign) -> None:
    """The estimate of each round by its definition, and the mean of the three with the stated weights."""
    shares, weights = [], []
    labelled = {item for item in pool() if item[0] == "s-0.tar"}
    known = [("s-0.tar", key) for _, key in sorted(labelled)[:6]]
    first = Counter({"cat": 3, "dog": 3})
    given: dict[tuple[str, str], str] = {}
    for number in range(3):
        left = 240 - 6 - len(given)
        dogs = [truth(row["shard"], row["key"]) == "dog" for row in controls(replace(three, round=number))]
        before = first["dog"] + sum(label == "dog" for label in given.values())
        shares.append((before + left * sum(dogs) / len(dogs)) / 240)
        weights.append(len(dogs) / left**2)
        given |= {
            (row["shard"], row["key"]): truth(row["shard"], row["key"])
            for row in picks_of(replace(three, round=number))
        }
    assert not set(known) & set(given)
    expected = sum(share * weight for share, weight in zip(shares, weights, strict=True)) / sum(weights)
    cat, dog = of(three).classes
    assert (cat.name, dog.name) == ("cat", "dog")
    assert dog.share.value == pytest.approx(expected)
    assert dog.share.total == 60
    assert cat.share.value + dog.share.value == pytest.approx(1)
    assert dog.share.low < sum(truth(*item) == "dog" for item in pool()) / 240 < dog.share.high


def test_what_is_not_back_is_counted_and_left_out(tmp_path: Path) -> None:
    campaign = pick(make_judged(tmp_path))
    assert of(campaign).why == "none of the 20 control picks has a label yet"
    why, few, worth = control_lines(of(campaign))
    assert (why, few[:10], few[-32:]) == (of(campaign).why, "round 000:", "at worst, and ±10 points take 93")
    assert worth == "Worth buying more? It takes 3 rounds with control labels to tell, and there is none"
    assert control_values(of(campaign))["rounds"][0]["missing"] == {"not sent": 20}
    export(campaign, vendor="generic", wish=ALL)
    answer(campaign, [*controls(campaign)[:5], *controls(campaign, "query")])
    (one,) = of(campaign).rounds
    assert (one.picked, one.labelled, sum(one.missing.values())) == (20, 5, 15)
    assert one.gain.known is not None
    assert one.gain.known.control is not None
    assert one.gain.known.control.total == 5
    (line, *_) = control_lines(of(campaign))
    assert line.startswith("round 000: 5 of 20 labels back (15 out); accuracy on the pool ")
    answer(campaign, controls(campaign)[5:9], lambda *_: "")
    assert control_values(of(campaign))["rounds"][0]["missing"] == {"out": 11, "skipped": 4}


def test_what_the_task_learner_was_trained_on_is_not_judged(three: Campaign, tmp_path: Path) -> None:
    campaign = copied(three, tmp_path / "campaign")
    trained = replace(campaign, round=1).stage("train") / "manifest.json"
    manifest = json.loads(trained.read_bytes())
    manifest["inputs"] = read_snapshot(campaign.home).files
    trained.write_json(manifest)
    found = of(campaign).rounds
    assert found[0].gain.known == of(three).rounds[0].gain.known
    assert found[1].gain.known == (None, None, None)
    assert found[1].labelled == 20


def test_without_a_task_learner_the_classes_are_left(tmp_path: Path) -> None:
    campaign = pick(make_judged(tmp_path), has_task=False)
    answer(campaign, picks_of(campaign))
    found = of(campaign)
    assert found.forecast is not None
    assert found.next_batch == "it takes 3 rounds with control labels to tell, and there is none"
    assert found.rounds[0].gain.no_known.startswith("no classes were learned")
    assert [one.name for one in found.classes] == ["cat", "dog"]


def test_without_a_control_arm_it_says_what_one_would_show(tmp_path: Path) -> None:
    campaign = make_judged(tmp_path, select__control_fraction=0)
    assert of(campaign).rounds == []
    (line,) = control_lines(of(campaign))
    assert line.endswith("--set select.control_fraction=0.05")
    assert "how often the task learner is right" in line


def test_of_masks_status_and_page_say_that_control_picks_tell_nothing(tmp_path: Path) -> None:
    campaign = pick(make_judged(tmp_path))
    answer(campaign, picks_of(campaign))
    question = campaign.config.handoff.question.model_copy(update={"task": "mask"})
    handoff = campaign.config.handoff.model_copy(update={"question": question})
    campaign = replace(campaign, config=campaign.config.model_copy(update={"handoff": handoff}))
    assert control_lines(of(campaign)) == [MASKS]
    report(campaign)
    text = (campaign.stage("report") / "report.html").read_bytes().decode()
    assert f"{MASKS[0].upper()}{MASKS[1:]}." in text
    assert "The rule’s picks against random ones" not in text


def test_of_several_labels_an_image_each_has_its_share_and_the_likeliest_is_judged(tmp_path: Path) -> None:
    campaign = pick(make_judged(tmp_path, handoff__question={"task": "classes"}, names=('["cat"]', '["dog"]')))

    def several(shard: str, key: str) -> str:
        return json.dumps(["cat", "dog"] if key.endswith("1") else [] if key.endswith("2") else [truth(shard, key)])

    answer(campaign, picks_of(campaign), several)
    found, picks = of(campaign), controls(campaign)
    labels = [json.loads(several(row["shard"], row["key"])) for row in picks]
    (one,) = found.rounds
    assert one.labelled == 20
    assert one.gain.known is not None
    guess = [truth(r["shard"], r["key"]) if is_right(r["shard"], r["key"], 0) else None for r in picks]
    other = {"cat": "dog", "dog": "cat"}
    guess = [name or other[truth(row["shard"], row["key"])] for name, row in zip(guess, picks, strict=True)]
    right = [name in label for name, label in zip(guess, labels, strict=True) if label]
    assert one.gain.known.control == wilson(sum(right), len(right))
    dog = next(one for one in found.classes if one.name == "dog")
    assert dog.share.value == pytest.approx((3 + 234 * sum("dog" in label for label in labels) / 20) / 240)


def test_picks_of_an_earlier_version_are_judged_by_the_scores_and_not_in_the_status(
    three: Campaign, tmp_path: Path
) -> None:
    campaign = copied(three, tmp_path / "campaign")
    without_predictions(replace(campaign, round=1))
    assert [one.gain.no_known for one in of(campaign).rounds] == ["", NOT_KEPT, ""]
    assert "no accuracy: its selection does not have the predictions of all its picks" in control_lines(of(campaign))[1]
    # The shares of some of its picks would be taken for those of all.
    without_predictions(replace(campaign, round=2), kept=7)
    assert [one.gain.no_known for one in of(campaign).rounds] == ["", NOT_KEPT, NOT_KEPT]
    snapshot = read_snapshot(campaign.home)
    found = control_arm(campaign, snapshot, gains_of(campaign, snapshot, range(3)))
    assert [one.gain.known for one in found.rounds] == [one.gain.known for one in of(three).rounds]


def test_scores_that_are_gone_change_nothing(three: Campaign, tmp_path: Path) -> None:
    campaign = copied(three, tmp_path / "campaign")
    for number in range(3):
        folder = replace(campaign, round=number).stage("scores")
        for name in folder.children():
            (folder / name).delete()
    assert control_values(of(campaign)) == control_values(of(three))


def test_a_damaged_selection_is_why_nothing_is_shown(three: Campaign, tmp_path: Path) -> None:
    campaign = copied(three, tmp_path / "campaign")
    file = Location(f"{campaign.home.path}/rounds/001/selection/selection.parquet")
    snapshot = read_snapshot(campaign.home)
    # What was sent is read from the records of batches, not from the selection.
    ledger = read_ledger(campaign, snapshot)
    file.write_bytes(b"not this one")
    assert control_lines(read_control(campaign, snapshot, ledger)) == [
        f"{file}: not the file that was committed (its SHA-256 differs); restore it from a copy"
    ]


def test_the_command_shows_it(three: Campaign) -> None:
    home = str(three.home)
    done = CliRunner().invoke(app, ["status", home, "--json"])
    assert json.loads(done.stdout)["control_arm"]["rounds"][0]["accuracy_on_pool"]["total"] == 20
    shown = CliRunner().invoke(app, ["status", home]).output
    assert "control arm  " in shown
    assert f"  {control_lines(of(open_campaign(home)))[0]}" in shown


def test_the_lines_are_for_a_person_and_the_values_for_a_program(three: Campaign) -> None:
    found = of(three)
    lines, values = control_lines(found), control_values(found)
    assert json.loads(json.dumps(values)) == values
    assert lines[0].startswith("round 000: 20 of 20 labels back; accuracy on the pool ")
    assert re.search(r" after 6 labels; rule’s picks harder for the task learner by −?\d+ points \(", lines[0])
    cat, dog = (f"{one.name}: {one.share.text}" for one in found.classes)
    assert lines[3] == f"classes of the pool (95% intervals of all classes together): {cat}; {dog}"
    text = values["next_batch"]["text"]
    assert lines[4].startswith("round 002: 20 judged control labels say next to nothing of the pool: a share of it,")
    assert lines[5] == f"Worth buying more? {text[0].upper()}{text[1:]}"
    assert values["rounds"][2]["accuracy_on_pool"]["total"] == 20
    many = found._replace(rounds=found.rounds * 3)
    assert control_lines(many)[0] == f"earlier rounds: {9 - MOST_ROUNDS}, see the report"


def test_status_and_page_say_how_much_harder_the_picks_were_in_the_same_words(three: Campaign) -> None:
    one = of(three).rounds[0]
    assert one.gain.known is not None
    known = one.gain.known._replace(gain=Share(-0.21, -0.33, 0.36, 40))
    found = of(three)._replace(rounds=[one._replace(gain=replace(one.gain, known=known))])
    words = "−21 points (−33 to 36): cannot be told apart"
    assert control_lines(found)[0].endswith(f"; {HARDER} {words}")
    page = render("control.html.j2", control=found, pictures={"right": "", "right-dark": ""})
    assert f"<td>{words}</td>" in page
    assert HARDER in page
