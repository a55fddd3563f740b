"""A strategy with a seed is a real campaign, whose points are on disk and are never made twice."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from engine.campaign.folder import Campaign
from engine.campaign.labels import identities, read_labels
from engine.campaign.opening import open_campaign
from engine.campaign.stages import QUIET
from engine.errors import ConfigError
from engine.selection.select import select
from engine.simulation import scratch, trials
from engine.simulation.experiment import Experiment
from engine.simulation.setups import Setup
from engine.simulation.spreading import spread, turns_of
from engine.simulation.strategies import Strategy
from engine.simulation.trial_campaign import ground_of
from engine.simulation.trials import Point, Trial, play, trials_of
from engine.simulation.worlds import World, load
from engine.storage.location import Location
from tests.engine.simulation.test_experiment import DIGITS, read

SMALL = DIGITS.replace("rounds = 2", 'rounds = 2\ntasks = ["linear", "knn"]')


class Played:
    """An experiment on digits, its world and its trials in a folder."""

    def __init__(self, folder: Path, text: str = SMALL) -> None:
        self.experiment: Experiment = read(folder, text)
        self.world: World = load(self.experiment)
        self.trials = trials_of(self.experiment, self.world, Location.of(str(folder)))
        self.ground = ground_of(self.world, self.experiment, 0, self.trials[0].first_folder)
        self.setup: Setup = self.ground.setup

    def of(self, strategy: str, seed: int = 0) -> Trial:
        return next(trial for trial in self.trials if (trial.strategy, trial.seed) == (strategy, seed))

    def play(self, strategy: str, on_round: Callable[[], None] = lambda: None) -> list[Point]:
        return play(self.of(strategy), self.experiment, self.ground, on_round)


def timeless(value: Any) -> Any:
    """A point without the seconds that things took."""
    if isinstance(value, list):
        return [timeless(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    return {name: timeless(inner) for name, inner in value.items() if not name.startswith("seconds")}


@pytest.mark.heavy
def test_a_trial_is_a_campaign_that_buys_its_budget_every_round(tmp_path: Path) -> None:
    played = Played(tmp_path)
    points = played.play("lowest")
    assert [point["num_labels"] for point in points] == [50, 70, 90]
    assert all(0 < point["tasks"][task]["accuracy"] <= 1 for point in points for task in ("linear", "knn"))
    assert {"auc", "speaks", "distance"} <= points[1].keys()
    home = Location(f"{played.of('lowest').folder}/campaign")
    labels = read_labels(home)
    assert len(set(identities(labels))) == len(labels) == 90
    picks = [pq.read_table(f"{home}/rounds/{number:03d}/selection/selection.parquet") for number in (0, 1)]
    assert not set(identities(picks[0])) & set(identities(picks[1]))
    # The oracle's answers, to these images.
    truth = dict(
        zip(zip(played.setup.pool.shard_N, played.setup.pool.key_N, strict=True), played.setup.answer_N, strict=True)
    )
    said = dict(zip(identities(labels), labels["label"].to_pylist(), strict=True))
    assert all(played.world.classes[truth[item]] == label for item, label in said.items())


@pytest.mark.heavy
def test_all_picks_of_random_are_a_random_sample(tmp_path: Path) -> None:
    played = Played(tmp_path)
    played.play("random")
    picks = pq.read_table(f"{played.of('random').folder}/campaign/rounds/000/selection/selection.parquet")
    assert set(picks["arm"].to_pylist()) == {"control"}


@pytest.mark.heavy
def test_what_is_done_is_never_done_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points = Played(tmp_path).play("lowest")
    made: list[None] = []
    again = Played(tmp_path)
    assert again.play("lowest", lambda: made.append(None)) == points
    assert trials.done(again.of("lowest"), again.experiment) == points
    assert not trials.done(again.of("random"), again.experiment)
    assert not made
    # One more round is one more round, and one more strategy leaves the others alone.
    longer = Played(tmp_path, SMALL.replace("rounds = 2", "rounds = 3") + '[[strategies]]\nname = "new"\n')
    assert not trials.done(longer.of("lowest"), longer.experiment)
    assert longer.play("lowest", lambda: made.append(None))[:3] == points
    assert len(made) == 1
    # One more task is fitted to the labels of then, and nothing is bought.
    wider = Played(tmp_path, SMALL.replace('"linear", "knn"', '"linear", "knn", "mlp"'))
    monkeypatch.setattr(trials, "select", None)
    assert not trials.done(wider.of("lowest"), wider.experiment)
    found = wider.play("lowest")
    assert [set(point["tasks"]) for point in found] == [{"linear", "knn", "mlp"}] * 3
    assert [point["tasks"]["linear"] for point in found] == [point["tasks"]["linear"] for point in points]


@pytest.mark.heavy
def test_trials_of_a_seed_share_the_first_point_and_seeds_do_not(tmp_path: Path) -> None:
    played = Played(tmp_path)
    random, lowest, other = played.of("random"), played.of("lowest"), played.of("lowest", 1)
    assert random.first_folder == lowest.first_folder != other.first_folder
    assert len({random.folder, lowest.folder, other.folder}) == 3
    first = played.play("random")[0]
    made: list[None] = []
    assert played.play("lowest", lambda: made.append(None))[0] == first
    assert len(made) == 2


@pytest.mark.heavy
def test_trials_that_train_alike_share_the_first_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = '[[strategies]]\nname = "{}"\ntrain.task = "classification"\nselect.duplicates = "{}"\n'
    text = SMALL.replace("rounds = 2", "rounds = 1") + task.format("task", "off") + task.format("too", "exact")
    played, rounds = Played(tmp_path, text), list[str]()
    folders = [played.of(name).opening_folder for name in ("random", "lowest", "task", "too")]
    # Random trains nothing, which is like nobody.
    assert folders[2] == folders[3]
    assert len({*folders}) == 3
    (tmp_path / "alone").mkdir()
    alone = Played(tmp_path / "alone", text).play("too")
    original = scratch.train_and_score

    def counted(campaign: Campaign, *rest: Any) -> Any:
        rounds.append(campaign.home.url)
        return original(campaign, *rest)

    monkeypatch.setattr(scratch, "train_and_score", counted)
    for name in ("random", "lowest", "task"):
        played.play(name)
    assert [url.removesuffix("/campaign") for url in rounds] == folders[:3]
    assert timeless({"points": played.play("too")}) == timeless({"points": alone})
    assert len(rounds) == 3
    # What makes something for others comes in a turn before them.
    first, second, rest = turns_of([trial for trial in played.trials if trial.seed == 0])
    assert [[trial.strategy for trial in turn] for turn in (first, second, rest)] == [
        ["random"], ["lowest", "task"], ["too"]
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "is_same"),
    [
        ("rounds = 2", "rounds = 5", True),
        ("seeds = 6", "seeds = 9", True),
        ('name = "lowest"', 'name = "paper"', True),
        ("select.diversity", "score.workers = 3\nselect.diversity", True),
        ("budget = 20", "budget = 21", False),
        ("count = 50", "count = 51", False),
        ("size = 300", "size = 301", False),
        ('"none"', '"gumbel"', False),
        ("select.diversity", "select.control_fraction = 0.1\nselect.diversity", False),
        ("[test]", "[oracle]\nnoise = 0.1\n[test]", False),
    ],
)
def test_a_trial_is_new_where_what_decides_it_is(tmp_path: Path, old: str, new: str, is_same: bool) -> None:
    folders = [Played(tmp_path, text).trials[1].folder for text in (SMALL, SMALL.replace(old, new))]
    assert (folders[0] == folders[1]) == is_same


@pytest.mark.heavy
def test_a_trial_that_is_killed_anywhere_goes_on_as_if_nothing_had_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = timeless({"points": Played(tmp_path).play("lowest")})
    names = ("write_table", "write_json", "write_bytes")
    originals = {name: getattr(Location, name) for name in names}
    left = [0]

    def dying(name: str) -> Callable[..., str]:
        def write(self: Location, content: Any) -> str:
            left[0] -= 1
            if not left[0]:
                raise KeyboardInterrupt
            done: str = originals[name](self, content)
            return done

        return write

    for name in names:
        monkeypatch.setattr(Location, name, dying(name))
    shutil.rmtree(tmp_path / "runs")
    shutil.rmtree(tmp_path / "first")
    shutil.rmtree(tmp_path / "openings")
    # Every run dies some writes after the one before did; the last one is not disturbed.
    for writes in (1, 2, 3, 5, 7, 9, 11, 13, 17, 19, 23, 10_000):
        left[0] = writes
        try:
            points = Played(tmp_path).play("lowest")
        except KeyboardInterrupt:
            continue
    assert timeless({"points": points}) == whole


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("file", "untimed"),
    [
        ("rounds/001/seconds.json", (2, "train_and_score")),
        ("rounds/001/scores/manifest.json", (2, "train_and_score")),
        ("rounds/000/scores/manifest.json", (1, "train_and_score")),
        ("rounds/001/selection/manifest.json", (2, "select")),
    ],
)
def test_a_step_that_a_killed_run_had_begun_has_no_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, untimed: tuple[int, str]
) -> None:
    original = Location.write_json

    def dying(self: Location, content: dict[str, Any]) -> str:
        if self.url.endswith(file):
            raise KeyboardInterrupt
        return original(self, content)

    with monkeypatch.context() as patch:
        patch.setattr(Location, "write_json", dying)
        with pytest.raises(KeyboardInterrupt):
            Played(tmp_path).play("lowest")
    points = Played(tmp_path).play("lowest")
    assert [point["num_labels"] for point in points] == [50, 70, 90]
    steps = [(place, step) for place in (1, 2) for step in ("train_and_score", "select")]
    assert [step for step in steps if f"seconds_{step[1]}" not in points[step[0]]] == [untimed]


@pytest.mark.heavy
def test_a_selection_is_what_the_command_makes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    played, compared = Played(tmp_path), list[bool]()

    def both(campaign: Campaign) -> None:
        copy = tmp_path / f"copy-{campaign.round}"
        shutil.copytree(campaign.home.path, copy)
        opened = open_campaign(str(copy))
        select(opened)
        select(campaign)
        files = [
            home / f"rounds/{campaign.round:03d}/selection/selection.parquet" for home in (opened.home, campaign.home)
        ]
        compared.append(files[0].read_bytes() == files[1].read_bytes())

    monkeypatch.setattr(trials, "select", both)
    played.play("lowest")
    assert compared == [True, True]


def test_labels_in_one_fold_are_refused_in_words(tmp_path: Path) -> None:
    text = SMALL.replace("count = 50", "count = 1")
    assert text != SMALL
    with pytest.raises(ConfigError, match="all 1 labelled images fall into one fold"):
        Played(tmp_path, text).play("lowest")


def test_strategies_are_options_of_campaigns() -> None:
    assert Strategy.model_validate({"name": "a", "select": {"diversity": "none"}}).options == {
        "select.diversity": "none"
    }


@pytest.mark.heavy
def test_without_first_labels_a_campaign_picks_the_first_batch_and_the_next_by_its_rule(tmp_path: Path) -> None:
    played = Played(tmp_path, SMALL.replace('kind = "random"\ncount = 50', 'kind = "empty"'))
    assert not len(played.setup.first)
    points = played.play("lowest")
    assert [point["num_labels"] for point in points] == [20, 40]
    home = Location(f"{played.of('lowest').folder}/campaign")
    manifests = [(home / f"rounds/{number:03d}/selection/manifest.json").read_bytes() for number in (0, 1)]
    options = [json.loads(content)["config"]["select"] for content in manifests]
    assert [(one["acquisition"], one["diversity"]) for one in options] == [("random", "herding"), ("vaal", "none")]
    with pytest.raises(ConfigError, match=r"first_labels.count=5: of kind empty there is none; leave it out"):
        read(tmp_path, SMALL.replace('kind = "random"\ncount = 50', 'kind = "empty"\ncount = 5'))


@pytest.mark.heavy
@pytest.mark.usefixtures("local_ray")
def test_on_a_cluster_trials_are_tasks_and_their_points_the_same(tmp_path: Path) -> None:
    text = SMALL.replace("rounds = 2", "rounds = 1")
    (tmp_path / "alone").mkdir()
    alone, there = Played(tmp_path / "alone", text), Played(tmp_path, text)
    trials = [trial for trial in there.trials if trial.seed == 0]
    found = spread(trials, there.experiment, there.world, QUIET, 2)
    assert set(found) == {trial.folder for trial in trials}
    for trial in trials:
        assert timeless({"points": found[trial.folder]}) == timeless({"points": alone.play(trial.strategy)})
