"""The labelling question of a batch."""

from functools import cache

import pyarrow.compute as pc

from engine.campaign.classes import classes_of, names_in_all
from engine.campaign.folder import Campaign
from engine.campaign.handed_out import all_batches
from engine.campaign.labels import Snapshot, read_snapshot
from engine.errors import ConfigError
from engine.handoff.exchange import Question


def question_of(campaign: Campaign, snapshot: Snapshot | None = None) -> Question:
    """The question of handoff.question; its classes are by default labels.classes, and else those of the labels,
    where it asks for classes. `snapshot` are the labels, if they are read already.

    Raises ConfigError where images went out with another task, because labels of two kinds are of no use together.
    """
    asked = campaign.config.handoff.question
    for batch in all_batches(campaign.home, campaign.round + 1):
        before = batch.manifest["sending"]["question"]["task"]
        if before != asked.task:
            why = f"handoff.question.task={asked.task}: {batch.record} went out with task {before}"
            raise ConfigError(f"{campaign.home}: {why}; set it back, or begin another campaign for the other task")
    labels = cache(lambda: snapshot or read_snapshot(campaign.home, ["shard", "key", "label", "round"]))
    if classes := classes_of(campaign.config, lambda: labels().first_labels).names:
        return Question(asked.task, classes, asked.instructions)
    known = list[str]()
    if asked.task in ("class", "classes"):
        # Labels of shapes, and those of masks in files, need not name classes.
        known = names_in_all(pc.unique(labels().labels["label"]).to_pylist(), asked.task)
    return Question(asked.task, known, asked.instructions, is_open=True)
