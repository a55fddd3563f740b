"""What scores and selection ask for that is not there."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from engine.config.select_options import RULE
from engine.config.texts import list_setting
from engine.config.train_options import KINDS, QUESTIONS, WITH_DROPOUT
from vaal.acquisition import ACQUISITIONS
from vaal.diversity import DIVERSIFIERS

if TYPE_CHECKING:
    from engine.config.options import CampaignConfig

LISTED = "score.acquisition"
_GRADIENTS = {"feature_MD", "answer_MC"}
TASK_FIX = (
    "--set train.task=classification, labels or segmentation to train one here, or --set task.model=... for yours"
)
"""How to have a task learner."""


def faults_of_scores(config: "CampaignConfig") -> Iterator[str]:
    """What is wrong with the scores that a configuration asks for, and how it chooses by them."""
    yield from _lists(config)
    yield from _task(config)
    yield from _scores(config)
    yield from _choice(config)


def _lists(config: "CampaignConfig") -> Iterator[str]:
    listed, ranks = config.score.acquisition, config.select.acquisition
    if len(set(listed)) < len(listed):
        yield f"score.acquisition={listed}: name each acquisition once"
    if ranks == "vaal" and ranks not in listed:
        fix = f"--set select.acquisition={listed[0]}, or add vaal to score.acquisition"
        yield f"score.acquisition={listed} does not have select.acquisition={ranks}; {fix}"


def _task(config: "CampaignConfig") -> Iterator[str]:
    task, asked = config.train.task, config.handoff.question.task
    if task in KINDS and asked != QUESTIONS[KINDS[task]]:
        fix = f"--set handoff.question.task={QUESTIONS[KINDS[task]]}"
        yield f"train.task={task} does not learn from answers of handoff.question.task={asked}; {fix}"


def _scores(config: "CampaignConfig") -> Iterator[str]:
    for name in config.acquisitions(has_task=config.has_task):
        if "task" in ACQUISITIONS[name].needs and not config.has_task:
            yield f"{_asking(config, name)} needs a task learner: {TASK_FIX}"
        if config.task_kind in ACQUISITIONS[name].not_for:
            yield f"score.acquisition={name} is not for train.task={config.train.task}; leave it out"
    if config.draws_network and config.sees_embeddings:
        yield "score.dropout=network: a linear head on embeddings has no layer of dropout; use features"
    elif config.draws_network and not config.task.model and config.task_network not in WITH_DROPOUT:
        other = "" if config.task_kind == "segmentation" else f", or train.task_network={WITH_DROPOUT[0]}"
        why = f"train.task_network={config.task_network} has no layer of dropout"
        yield f"score.dropout=network: {why}; --set score.dropout=features{other}"


def _asking(config: "CampaignConfig", name: str) -> str:
    """The option, as it was set, that asks for a score. What decides between equal scores is asked for by another."""
    listed, ranks = config.score.acquisition, config.select.acquisition
    names = [other for other in (name, *ACQUISITIONS) if name in (other, ACQUISITIONS[other].ties)]
    if asking := next((other for other in names if other == ranks and other not in listed), ""):
        return f"select.acquisition={asking}"
    return f"{LISTED}={next(other for other in names if other in listed)}"


def _choice(config: "CampaignConfig") -> Iterator[str]:
    diversity, needs = config.diversity, set(DIVERSIFIERS[config.diversity].needs)
    names = config.acquisitions(has_task=config.has_task)
    named = f"select.diversity={diversity}"
    if "predicted_M" in needs and not any("task" in ACQUISITIONS[name].needs for name in names):
        fix = f"{list_setting(LISTED, ['vaal', 'margin'])}, with a task learner: {TASK_FIX}"
        yield f"{named} needs predicted classes: {fix}"
    if "predicted_M" in needs and config.task_kind == "segmentation":
        yield f"{named}: an image with a mask has many classes; use --set score.reduction=class_balanced"
    if needs & _GRADIENTS and not config.has_task:
        yield f"{named} needs a task learner: {TASK_FIX}"
    if needs & _GRADIENTS and config.task_kind == "segmentation":
        yield f"{named} is for one gradient an image, and a mask has one a pixel; use herding"
    if (diversity == RULE or "logit_M" in needs) and config.select.acquisition != "vaal":
        why = "chooses by VAAL's discriminators"
        yield f"{named} {why}, not by select.acquisition={config.select.acquisition}; use auto"
    ranks = config.select.acquisition
    if diversity == "power" and ranks != "vaal" and ACQUISITIONS[ranks].worthless is None:
        yield f"{named}: no value of {ranks} is that of an image worth nothing; use soft_rank"
