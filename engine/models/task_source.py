"""Which task learner the user brings, as the driver sees it: what decides its scores, without loading it."""

import hashlib
import importlib.util
from pathlib import Path
from typing import Any

from engine.config.options import CampaignConfig
from engine.errors import ConfigError

TASK_MODEL = "task model"
"""The name of what decides the task learner of the user, among the inputs of a training."""
MORE_OUTPUTS = "give a model with an output for each class (--set task.arguments=..., task.weights=...)"
"""What helps where labels have classes that the outputs of task.model do not have."""


def task_inputs(config: CampaignConfig) -> dict[str, Any]:
    """What decides the user's task learner but for its weights, as JSON values for a fingerprint; empty without one.

    The options, what it answers, and the SHA-256 of the source of the module that the factory is in. Raises ConfigError
    if that module cannot be found.
    """
    if not config.task.model:
        return {}
    source = _source_of(config.task.model)
    return {"task": {**config.task.model_dump(), "kind": config.task_kind, "source": source}}


def weights_of_task(entry: dict[str, Any]) -> dict[str, str]:
    """The SHA-256 of the weights of the user's task learner and of its members, by names that no file of a train stage
    has; empty without one. `entry` is the `task` of a train manifest."""
    return {_name(number): sha256 for number, sha256 in enumerate(entry.get("weights_sha256", []))}


def known_weights(config: CampaignConfig, inputs: dict[str, str]) -> list[str]:
    """The SHA-256 of the weights of T and of its members among the inputs of the scores; empty where not known."""
    return [inputs.get(_name(number), "") for number in range(max(1, len(config.task.files)))]


def _name(number: int) -> str:
    return f"task-model-{number}.safetensors"


def _source_of(model: str) -> str:
    module, named = model.partition(":")[0], f"task.model={model}"
    try:
        spec = importlib.util.find_spec(module)
    except (Exception, SystemExit) as error:
        # Finding a module imports the packages that it is in.
        raise ConfigError(f"{named}: {module} cannot be imported: {error}; give package.module:factory") from error
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        raise ConfigError(f"{named}: there is no module {module} here; install it, or run where it is")
    return hashlib.sha256(Path(spec.origin).read_bytes()).hexdigest()
