"""The labelling question of a batch."""

import pyarrow.compute as pc

from engine.campaign.classes import classes_of, names_in_all
from engine.campaign.folder import Campaign
from engine.campaign.handed_out import all_batches
from engine.campaign.labels import read_snapshot
from engine.errors import ConfigError
from engine.handoff.exchange import Question


def question_of(campaign: Campaign) -> Question:
    """The question of handoff.question; its classes are by default labels.classes, and else those of the labels,
    where it asks for classes.

    Raises ConfigError where images went out with another task, because labels of two kinds are of no use together.
    """
    asked = campaign.config.handoff.question
    for batch in all_batches(campaign.home, campaign.round + 1):
        before = batch.manifest["sending"]["question"]["task"]
        if before != asked.task:
            why = f"handoff.question.task={asked.task}: {batch.record} went out with task {before}"
            raise ConfigError(f"{campaign.home}: {why}; set it back, or begin another campaign for the other task")
    if classes := classes_of(campaign.config, lambda: read_snapshot(campaign.home).first_labels).names:
        return Question(asked.task, classes, asked.instructions)
    known = list[str]()
    if asked.task in ("class", "classes"):
        # Labels of shapes, and those of masks in files, need not name classes.
        known = names_in_all(pc.unique(read_snapshot(campaign.home).labels["label"]).to_pylist(), asked.task)
    return Question(asked.task, known, asked.instructions, is_open=True)
