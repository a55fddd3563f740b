"""One strategy with one seed: a whole campaign, one round after another, and what is measured of it.

All that was done is in files. A trial that was killed goes on where it was; one that is done costs a look.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from engine.campaign.folder import Campaign, is_complete
from engine.campaign.freshness import fingerprint, source_fingerprint
from engine.campaign.handed_out import current_batches
from engine.campaign.manifests import SelectionManifest, TrainManifest, read_committed, read_manifest
from engine.campaign.scored_shards import LEDGER
from engine.config.options import CampaignConfig
from engine.config.section import result_values
from engine.pool.mask_source import mask_inputs
from engine.selection.select import select
from engine.simulation.devices import on_device
from engine.simulation.experiment import Experiment
from engine.simulation.measuring import judge
from engine.simulation.pixel_learners import Training
from engine.simulation.trial_campaign import KINDS, Ground, TrialCampaign, at_round, seconds_of, timed
from engine.simulation.worlds import World
from engine.storage.documents import read_document
from engine.storage.location import Location
from vaal.acquisition import ACQUISITIONS
from vaal.diversity import DIVERSIFIERS, WITHOUT_SIGNAL

CODE = ("engine.simulation.trials", "engine.selection.select")
"""Modules that decide, with all that they import, what a trial gives."""
OPENING = ("train", "quarantine", LEDGER, "scores")
"""The folders of the first round that trials share, the last one last."""
Point = dict[str, Any]
"""What was measured at one number of labels: `num_labels`, by task accuracies, and figures of the batch before it."""


class Trial(NamedTuple):
    """A strategy with a seed. `folder` is named after a fingerprint of all that decides its rounds; `first_folder`
    after one of what decides the point before the first of them, which trials of a seed share; `opening_folder` after
    one of what decides training and scoring of the first round, which those with equal options of these share."""

    strategy: str
    seed: int
    config: CampaignConfig
    kind: str
    folder: str
    first_folder: str
    opening_folder: str


def trials_of(experiment: Experiment, world: World, home: Location) -> list[Trial]:
    """All trials of an experiment, seed by seed. Strategies with the same options share theirs."""
    made = experiment.model_dump(exclude={"rounds", "seeds", "tasks", "strategies", "campaign"})
    # The number of rounds decides nothing but whether there are enough items: a simulation may be made longer.
    image = result_values(experiment.image)
    first = fingerprint(
        experiment=made, files=world.files, image=image, code=source_fingerprint(CODE, []), **mask_inputs(world.masks)
    )[:16]
    found = []
    for strategy in experiment.strategies:
        kind, config = experiment.kind_of(strategy), experiment.config_of(strategy, 0)
        options, rows = _options(config), [KINDS[kind], config.method, *_scores(config)]
        opening = fingerprint(
            first=first,
            options={**options, "select": {}, "labels": {}, "handoff": {}},
            code=source_fingerprint(CODE, rows),
        )
        own = fingerprint(first=first, options=options, code=source_fingerprint(CODE, [*rows, *_rules(config)]))
        for seed in range(experiment.seeds):
            names = ("runs", own[:16]), ("first", first), ("openings", opening[:16])
            folders = (f"{home}/{name}/{key}/{seed:04d}" for name, key in names)
            found.append(Trial(strategy.name, seed, experiment.config_of(strategy, seed), kind, *folders))
    return sorted(found, key=lambda trial: trial.seed)


def _options(config: CampaignConfig) -> dict[str, Any]:
    sections = {
        name: getattr(config, name) for name in ("image", "labels", "task", "train", "score", "select", "handoff")
    }
    values = {name: result_values(section) for name, section in sections.items()}
    values["train"].pop("seed"), values["select"].pop("seed")
    # What is asked of masks is in the fingerprint of the first point.
    values["handoff"].pop("question")
    return values


def _scores(config: CampaignConfig) -> list[Any]:
    """The rows of the tables that training and scoring use: the code that they name counts too."""
    return [ACQUISITIONS[name] for name in config.acquisitions(has_task=config.has_task)]


def _rules(config: CampaignConfig) -> list[Any]:
    """The rows of the tables that the selection uses."""
    rows: list[Any] = [DIVERSIFIERS[config.diversity]]
    return rows + [WITHOUT_SIGNAL[name] for name in (config.select.when_no_signal,) if name in WITHOUT_SIGNAL]


def done(trial: Trial, experiment: Experiment) -> list[Point]:
    """The points of a trial that was played to its end; none of another one."""
    files = [_file_of(trial, number) for number in range(experiment.first_point, experiment.rounds + 1)]
    points = [read_document(file, dict[str, Any]) for file in files if file.exists()]
    is_done = len(points) == len(files) and all({*experiment.tasks} <= {*point["tasks"]} for point in points)
    return points if is_done else []


def _file_of(trial: Trial, number: int) -> Location:
    """The file of a point; the one before the first batch is that of all strategies."""
    return Location.of(trial.first_folder if number == 0 else trial.folder) / f"point-{number:03d}.json"


def play(trial: Trial, experiment: Experiment, ground: Ground, on_round: Callable[[], None]) -> list[Point]:
    """The points of a trial: before its first batch, if there are labels then, and after each. `on_round` is called
    after each that was made."""
    made = KINDS[trial.kind].make(Location.of(trial.folder) / "campaign", ground, trial.config)
    points = []
    for number in range(experiment.first_point, experiment.rounds + 1):
        file = _file_of(trial, number)
        point = read_document(file, dict[str, Any]) if file.exists() else {}
        missing = [task for task in experiment.tasks if task not in point.get("tasks", {})]
        if missing:
            made.create()
            if number and made.campaign.round < number:
                _buy(made, trial)
            point = {"tasks": {}, **(point or _figures(made, number))}
            point["tasks"] |= _judged(made, number, missing, experiment, trial.seed)
            file.write_json(point)
            on_round()
        points.append(point)
    return points


def _buy(made: TrialCampaign, trial: Trial) -> None:
    """One round: train, score, select, and the oracle's labels of what was picked."""
    campaign = made.campaign
    if not is_complete(campaign.stage("scores")):
        if campaign.round == 0:
            _take_over(campaign, _opening(made, trial))
        else:
            _train_and_score(made)
    # What is out at annotators could not be picked again.
    if not is_complete(campaign.stage("selection")):
        with timed(campaign, "select", "selection"):
            select(campaign)
    picks = read_committed(campaign.stage("selection"), "selection.parquet")
    made.answer(campaign, picks)
    # Scores take most of a campaign's space, and its next rounds do not read them.
    campaign.stage("scores").clear()


def _train_and_score(made: TrialCampaign) -> None:
    campaign = made.campaign
    with timed(campaign, "train_and_score", "train", "scores"):
        made.train_and_score(campaign)
    campaign.stage("train/checkpoint").clear()


def _opening(made: TrialCampaign, trial: Trial) -> Campaign:
    """A campaign of which the first round is trained and scored, for all trials that would do that alike."""
    home = Location.of(trial.opening_folder) / "campaign"
    opening = KINDS[trial.kind].make(home, made.ground, trial.config)
    opening.create()
    if not is_complete(opening.campaign.stage("scores")):
        _train_and_score(opening)
    return opening.campaign


def _take_over(campaign: Campaign, opening: Campaign) -> None:
    """Copy what the first round's training and scoring left; a stage's manifest last, and the scores' last of all."""
    names = ["pool/shards.parquet"]
    names += ["rounds/000/seconds.json"] * (opening.round_home / "seconds.json").exists()
    for stage in OPENING:
        files = [*opening.stage(stage).children()]
        names += [f"rounds/000/{stage}/{name}" for name in sorted(files, key=lambda name: name == "manifest.json")]
    for name in names:
        (campaign.home / name).write_bytes((opening.home / name).read_bytes())


def _figures(made: TrialCampaign, number: int) -> Point:
    """The number of labels, and what is known of the batch before this point."""
    setup, num_classes = made.setup, len(made.classes)
    place_L, _ = made.labelled(before=number)
    point: Point = {"num_labels": len(place_L)}
    if made.ground.crowd:
        out = (batch for earlier in range(number) for batch in current_batches(made.home, earlier))
        sent = sum(batch.manifest["counts"]["images"] for batch in out)
        point["answers"] = len(setup.first) + sent * made.config.handoff.annotators
    shares = [np.bincount(setup.pool.label_N[place], minlength=num_classes) for place in (place_L, slice(None))]
    labels_C, pool_C = (count_C / count_C.sum() for count_C in shares)
    if num_classes > 1:
        point["distance"] = float(np.abs(labels_C - pool_C).sum() / 2)
    if not number:
        return point
    campaign = at_round(made.campaign, number - 1)
    selection, trained = (
        read_manifest(campaign, "selection", SelectionManifest),
        read_manifest(campaign, "train", TrainManifest),
    )
    before = made.labelled(before=number - 1)[0]
    bought = np.setdiff1d(place_L, before)
    if setup.missing:
        point["share_missing"] = float(np.isin(setup.pool.label_N[bought], list(setup.missing)).mean())
    point |= {"auc": trained["diagnosis"]["auc"], "speaks": float(selection["signal"] == "present")}
    if (lacking := selection.get("gate", {}).get("lacking")) is not None:
        point["lacking"] = lacking
    return point | {f"seconds_{name}": value for name, value in seconds_of(campaign).items()}


def _judged(
    made: TrialCampaign, number: int, tasks: Sequence[str], experiment: Experiment, seed: int
) -> dict[str, Any]:
    """By task: what it is measured by, that of each class, of those without a first label, and the seconds."""
    setup, world = made.setup, made.ground.world
    place_L, label_L = made.labelled(before=number)
    steps, found = 0 if experiment.task_steps == "auto" else experiment.task_steps, {}
    for task in tasks:
        begin = time.perf_counter()
        training = Training(task, len(world.learned), seed, steps, experiment.device)
        known = setup.pool.take(place_L)
        judged = on_device(experiment.device, judge, training, known, label_L, setup.test, world.masks)
        entry = judged.to_json(world.learned)
        missing = [judged.by_class[c] for c in sorted(setup.missing) if judged.by_class[c] is not None]
        found[task] = {**entry, "missing": missing, "seconds": time.perf_counter() - begin}
    return found
