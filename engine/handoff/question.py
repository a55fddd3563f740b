"""The labelling question of a batch."""

import pyarrow.compute as pc

from engine.campaign.folder import Campaign
from engine.campaign.handed_out import all_batches
from engine.campaign.labels import read_snapshot
from engine.errors import ConfigError
from engine.handoff.exchange import Question
from engine.tables.values import class_name


def question_of(campaign: Campaign) -> Question:
    """The question of handoff.question; its classes are by default labels.classes, and else those of the labels.

    Raises ConfigError where images went out with another task, because labels of two kinds are of no use together.
    """
    asked, allowed = campaign.config.handoff.question, campaign.config.labels.classes
    for batch in all_batches(campaign.home, campaign.round + 1):
        before = batch.manifest["sending"]["question"]["task"]
        if before != asked.task:
            why = f"handoff.question.task={asked.task}: {batch.record} went out with task {before}"
            raise ConfigError(f"{campaign.home}: {why}; set it back, or begin another campaign for the other task")
    classes = [class_name(name) for name in asked.classes or (allowed if isinstance(allowed, list) else [])]
    if classes:
        return Question(asked.task, list(dict.fromkeys(classes)), asked.instructions)
    snapshot = read_snapshot(campaign.home)
    if allowed == "from-init":
        return Question(asked.task, sorted(set(snapshot.first_classes)), asked.instructions)
    # Labels of shapes are no classes.
    known = sorted(pc.unique(snapshot.labels["label"]).to_pylist()) if asked.task == "class" else []
    return Question(asked.task, known, asked.instructions, is_open=True)
