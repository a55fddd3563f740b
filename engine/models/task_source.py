"""Which task learner the user brings, as the driver sees it: what decides its scores, without loading it."""

from typing import Any

from engine.campaign.freshness import fingerprint
from engine.config.options import CampaignConfig

TASK_MODEL = "task model"
"""The name of what decides the task learner of the user, among the inputs of a training."""
MORE_OUTPUTS = "give a model with an output for each class (--set task.arguments=..., task.weights=...)"
"""What helps where labels have classes that the outputs of task.model do not have."""


def task_inputs(config: CampaignConfig) -> dict[str, Any]:
    """The options that decide the user's task learner, and what it answers, as JSON values for a fingerprint; empty
    without one. Its weights and what it makes of some images are in the train manifest: see `weights_of_task`."""
    if not config.task.model:
        return {}
    return {"task": {**config.task.model_dump(), "kind": config.task_kind}}


def weights_of_task(entry: dict[str, Any]) -> dict[str, str]:
    """The SHA-256 of the weights of the user's task learner and of its members, and of its probe, by names that no file
    of a train stage has; empty without one. `entry` is the `task` of a train manifest."""
    found = {_name(number): sha256 for number, sha256 in enumerate(entry.get("weights_sha256", []))}
    return found | ({_PROBE: fingerprint(probe=entry["probe"])} if "probe" in entry else {})


def known_weights(config: CampaignConfig, inputs: dict[str, str]) -> list[str]:
    """The SHA-256 of the weights of T and of its members among the inputs of the scores; empty where not known."""
    return [inputs.get(_name(number), "") for number in range(max(1, len(config.task.files)))]


_PROBE = "task-model-probe.safetensors"


def _name(number: int) -> str:
    return f"task-model-{number}.safetensors"
