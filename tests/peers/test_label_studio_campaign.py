"""The whole trip: a campaign's picks through a real Label Studio and back, until the next round selects."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from engine.campaign.opening import open_campaign
from engine.tables.selections import SELECTION_SCHEMA
from tests.peers.label_studio import ANNOTATORS, LabelStudio
from tests.rounds import Made, make_round, score_and_pick

PICKS, GOLD, PEOPLE = 8, 2, 3
CLASSES = ["x", "y", "=z, ü"]
X, Y, Z = CLASSES
SETTINGS = {
    "handoff.annotators": PEOPLE,
    "handoff.gold_fraction": GOLD / PICKS,
    "handoff.question.classes": json.dumps(CLASSES),
    "handoff.question.instructions": '"Which <vessel> is it?"',
}
pytestmark = pytest.mark.heavy


@dataclass
class Trip:
    """A campaign, the server with a project of its picks, and their item_ids: the picks by priority, and the gold."""

    made: Made
    server: LabelStudio
    project: int = 0
    picks: tuple[str, ...] = ()
    gold: tuple[str, ...] = ()

    @property
    def home(self) -> Path:
        return Path(self.made.campaign.home.path)

    def ended(self, *arguments: str, token: str = "") -> "subprocess.CompletedProcess[str]":
        """A command of the campaign, as a person types it; the token is one of the environment."""
        variables = {name: value for name, value in os.environ.items() if name != "LABEL_STUDIO_API_KEY"}
        variables |= {"LABEL_STUDIO_API_KEY": token} if token else {}
        command = [sys.executable, "-m", "jobs", arguments[0], str(self.home), *arguments[1:]]
        return subprocess.run(command, capture_output=True, text=True, env=variables, check=False)

    def vaal(self, *arguments: str, token: str = "") -> dict[str, Any]:
        done = self.ended(*arguments, "--json", token=token)
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    def ingest(self) -> dict[str, Any]:
        """Fetch from the server. The numbers of the ingest that are not 0, without those of this trip's every one."""
        token = self.server.users["admin"]["token"]
        counts = self.vaal(
            "ingest", "--from", "label-studio", "--url", self.server.url, "--project", str(self.project), token=token
        )
        sums = ("answers", "known", "rounds")
        return {name: count for name, count in counts.items() if count and name not in sums}

    def labels(self) -> dict[str, str]:
        """The label of each pick that has one."""
        listed = self.vaal("labels", "list")["labels"]
        return {row["item_id"]: row["label"] for row in listed if row["item_id"] in self.picks}

    def import_batch(self) -> dict[str, int]:
        """What a user does with the vendor's folder. Returns the numbers of the new tasks by item_id."""
        folder = self.home / "rounds/000/handoff/label-studio"
        shutil.copytree(folder / "images", self.server.served / "images", dirs_exist_ok=True)
        if not self.project:
            self.project = self.server.create_project((folder / "labeling_config.xml").read_text(), annotators=PEOPLE)
            self.server.show_images(self.project, self.server.served / "images")
        tasks = json.loads((folder / "tasks.json").read_bytes())
        before = set(self.server.numbers(self.project))
        assert self.server.import_tasks(self.project, folder / "tasks.json") == len(tasks)
        new = self.server.numbers(self.project)
        return {item_id: number for number, item_id in new.items() if number not in before}

    def answer(self, task: int, *classes: str | None) -> list[int]:
        """An answer of each annotator in turn; None skips. Returns their numbers."""
        return [
            self.server.annotate(user, task, name) if name else self.server.skip(user, task)
            for user, name in zip(ANNOTATORS, classes, strict=False)
        ]


@pytest.fixture(scope="module")
def trip(server: LabelStudio, tmp_path_factory: pytest.TempPathFactory) -> Trip:
    return Trip(make_round(tmp_path_factory.mktemp("trip"), budget=PICKS), server)


def test_picks_go_out_and_trusted_labels_come_back(trip: Trip) -> None:  # noqa: PLR0915 - one story
    server = trip.server
    sent = trip.vaal("export", "--to", "label-studio", *settings())
    assert (sent["counts"]["images"], sent["counts"]["gold"]) == (PICKS + GOLD, GOLD)
    numbers = trip.import_batch()
    known = picked(trip)
    trip.picks = tuple(item_id for item_id in numbers if item_id in known)
    trip.gold = tuple(numbers.keys() - known)
    assert (len(trip.picks), len(trip.gold)) == (PICKS, GOLD)
    for item_id, number in numbers.items():
        shown = server.image("ann", number)
        assert shown == next((trip.home / "rounds/000/handoff/label-studio/images").glob(f"{item_id}.*")).read_bytes()
    task = [numbers[item_id] for item_id in trip.picks]

    # Nobody has answered.
    assert trip.ingest() == {"blank": PICKS + GOLD, "out": PICKS}

    # In the middle: all answered of four, who contradict each other on one; one person is at the fifth.
    for place, name in ((0, X), (3, Y), (6, Z)):
        trip.answer(task[place], name, name, name)
    contradicting = trip.answer(task[1], X, Y, Z)
    trip.answer(task[2], Y)
    server.draft("ben", task[7], Y)
    in_middle = 4 * PEOPLE + 1
    middle = {"new": 3, "votes": in_middle, "blank": PICKS + GOLD - 5, "out": PICKS - 3, "disputed": 1}
    assert trip.ingest() == middle | {"new_classes": [Z, Y]}
    assert trip.labels() == dict(zip((trip.picks[place] for place in (0, 3, 6)), (X, Y, Z), strict=True))

    # Skips, a correction, a contradiction that stays; the gold images, of which cho gets one wrong.
    server.annotate("ben", task[2], Y)
    server.skip("cho", task[2])
    server.correct("ben", contradicting[1], X)
    trip.answer(task[4], None, None, X)
    trip.answer(task[5], X, Y, Z)
    trip.answer(task[7], Y, Y, Y)
    trip.answer(numbers[trip.gold[0]], X, X, X)
    trip.answer(numbers[trip.gold[1]], X, X, Y)
    end = trip.ingest()
    versions, more, skips = 1, 2 + 3 * PEOPLE + GOLD * PEOPLE, 1 + 2
    assert end == {
        "new": 3,  # The corrected one, the one that one person skipped, and the one on which all agree.
        "repeated": in_middle - versions,
        "out": 1,
        "votes": more + versions,
        "versions": versions,
        "skipped": skips,
        "disputed": 1,
    }
    settled = dict(zip(trip.picks, (X, X, Y, Y, None, None, Z, Y), strict=True))
    assert trip.labels() == {item_id: label for item_id, label in settled.items() if label}
    again = trip.ingest()
    assert again == {"repeated": in_middle + more, "out": 1, "disputed": 1}
    shown = trip.vaal("handoff")
    (batch,) = shown["batches"]
    assert batch["states"] == {"settled": 6, "disputed": 1, "skipped": 1}
    (disputed,) = shown["disputed"]
    assert (disputed["item_id"], disputed["votes"]) == (trip.picks[5], {X: 1, Y: 1, Z: 1})
    assert (shown["round"]["total"], shown["round"]["done"], shown["round"]["is_due"]) == (PICKS, PICKS - 1, False)


@pytest.mark.parametrize(
    ("wrong", "status", "text"),
    [
        ({"token": "0" * 40}, 2, "refuses the token (401); "),
        ({"token": "abc.def.ghi"}, 2, "refuses the token (401); "),
        ({"token": ""}, 2, "LABEL_STUDIO_API_KEY"),
        ({"project": "999999"}, 4, "no project 999999; --project is one of: "),
        ({"url": "http://127.0.0.1:9"}, 4, "no server answers: "),
    ],
)
def test_what_the_server_refuses_is_one_line(wrong: dict[str, str], status: int, text: str, trip: Trip) -> None:
    right = {"token": trip.server.users["admin"]["token"], "url": trip.server.url, "project": str(trip.project)}
    used = right | wrong
    done = trip.ended(
        "ingest", "--from", "label-studio", "--url", used["url"], "--project", used["project"], token=used["token"]
    )
    (line,) = done.stderr.splitlines()
    assert done.returncode == status, line
    assert line.startswith("error: ")
    assert text in line
    assert not done.stdout
    assert not used["token"] or used["token"] not in line


def test_more_people_settle_what_is_disputed_and_the_round_ends(trip: Trip) -> None:
    item_id = trip.picks[5]
    sent = trip.vaal("export", "--disputed", "--to", "label-studio")
    assert sent["counts"]["images"] - sent["counts"]["gold"] == 1
    numbers = trip.import_batch()
    assert item_id in numbers
    assert len(numbers) == sent["counts"]["images"]
    trip.answer(numbers[item_id], Y, Y)
    one_missing = trip.ingest()
    assert (one_missing["votes"], one_missing["out"], one_missing.get("new", 0)) == (2, 1, 0)
    trip.server.annotate("cho", numbers[item_id], Y)
    last = trip.ingest()
    assert (last["votes"], last["new"], last["is_closed"]) == (1, 1, True)
    assert "out" not in last
    assert "disputed" not in last
    assert trip.labels()[item_id] == Y
    again = trip.ingest()
    assert not {"votes", "new", "replaced", "out"} & again.keys()
    assert trip.vaal("status")["round"] == 1


def test_a_late_correction_is_a_label_of_the_round_that_ended(trip: Trip) -> None:
    tasks = json.loads(trip.server.export(trip.project))
    (task,) = (task for task in tasks if task["data"]["item_id"] == trip.picks[7])
    for user in ANNOTATORS:
        (number,) = (one["id"] for one in task["annotations"] if one["completed_by"] == trip.server.users[user]["id"])
        trip.server.correct(user, number, Z)
    late = trip.ingest()
    assert (late["votes"], late["versions"], late["replaced"]) == (PEOPLE, PEOPLE, 1)
    assert "is_closed" not in late
    assert trip.labels()[trip.picks[7]] == Z
    assert trip.vaal("status")["round"] == 1


def test_the_next_round_picks_nothing_that_was_sent(trip: Trip) -> None:
    """Neither what has a label now nor what was skipped."""
    opened = open_campaign(str(trip.home))
    assert opened.round == 1
    score_and_pick(trip.made._replace(campaign=opened))
    later = picked(trip, 1)
    assert len(later) == PICKS
    assert not later & set(trip.picks)


def picked(trip: Trip, number: int = 0) -> set[str]:
    """The item_ids of a round's selection."""
    file = trip.made.campaign.home / f"rounds/{number:03d}/selection/selection.parquet"
    return set(file.read_table().cast(SELECTION_SCHEMA)["item_id"].to_pylist())


def settings() -> list[str]:
    return [word for name, value in SETTINGS.items() for word in ("--set", f"{name}={value}")]
