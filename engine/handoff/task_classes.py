"""Classes that come back and that the task learner cannot answer."""

from contextlib import suppress

from engine.campaign.folder import Campaign, is_complete
from engine.campaign.manifests import TrainManifest, read_manifest
from engine.config.texts import some
from engine.errors import ConfigError, InputError
from engine.models.task_source import MORE_OUTPUTS


def note_on_outputs(campaign: Campaign, new_classes: list[str]) -> str:
    """Why the next training will refuse labels of these classes, and what helps; "" if it will not, as far as is
    known: task.classes names the outputs, else the training of the round does, where the network is the user's."""
    config = campaign.config
    known, has_model = config.task_classes, bool(config.task.model)
    # The answers are in by now: a damaged manifest is for those to report who need it.
    with suppress(InputError, ConfigError):
        if has_model and not known and is_complete(campaign.stage("train")):
            known = read_manifest(campaign, "train", TrainManifest).get("task", {}).get("classes", [])
    unknown = [name for name in new_classes if name not in known] if config.has_task else []
    if not known or not unknown:
        return ""
    why = "task.model has no output for" if has_model else "task.classes does not name"
    fix = MORE_OUTPUTS if has_model else "name them there"
    if has_model and config.task_classes:
        fix += ", and name them in task.classes"
    return f"{why} {some(unknown)}: the next training will refuse these labels; correct them, or {fix}"
