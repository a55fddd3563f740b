"""What the task learner guesses of the images of a batch, for vendors that are to see it."""

import pyarrow as pa

from engine.campaign.folder import Campaign
from engine.campaign.labels import Identity, identities
from engine.campaign.manifests import TrainManifest, read_manifest
from engine.config.score_faults import TASK_FIX
from engine.errors import ConfigError
from engine.handoff.exchange import Question
from engine.models.predictions import predictions


def prelabels_of(campaign: Campaign, question: Question, rows: pa.Table) -> dict[Identity, str]:
    """The class that the task learner finds most likely, by (shard, key); gold images have one too.

    Raises ConfigError where there is no task learner, or no class is asked for.
    """
    if question.task != "class":
        raise ConfigError(f"handoff.prelabels: guesses are classes, and handoff.question.task={question.task}")
    classes = read_manifest(campaign, "train", TrainManifest).get("task", {}).get("classes")
    if not classes:
        raise ConfigError(f"{campaign.stage('train')}: handoff.prelabels needs a task learner: {TASK_FIX}")
    items = identities(rows)
    predicted, why = predictions(campaign, items)
    if why:
        raise ConfigError(f"{campaign.stage('scores')}: handoff.prelabels: {why}")
    return {item: classes[number] for item, number in predicted.items() if classes[number] in question.classes}
