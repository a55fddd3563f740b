"""The user's task learner as the driver tries it: before a campaign is made, before training, and before scoring."""

import importlib.util
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from engine.campaign.labels import Identity
from engine.campaign.stages import QUIET, Log
from engine.config.options import CampaignConfig
from engine.config.texts import plural, some
from engine.errors import ConfigError, InputError
from engine.models.factories import MissingPackageError, drawn_weights, sha256_of
from engine.models.task_answers import answers_of_items
from engine.models.task_models import LoadedTask, load_task
from engine.models.task_source import MORE_OUTPUTS
from vaal.network_trial import exact, noise_pixels

PROBES = 4
"""Numbers that stand for what a network makes of an image."""
PROBE_TOLERANCE = 1e-3
"""Largest difference of a probe's numbers between machines, as a share of the largest one."""
MOST_CLASSES = 20
"""Classes of the labels that are named."""


class Trial(NamedTuple):
    """What a task learner is: the number of its outputs, the SHA-256 of its weights and of each member's, and numbers
    that another network, or other code of this one, would not give."""

    num_classes: int
    sha256: list[str]
    probe: list[list[float]]


_TRIED: dict[str, Trial] = {}
"""The task learners that this process has loaded, by what is asked of them: each is loaded once."""


def try_task(config: CampaignConfig, known: Sequence[str] = ()) -> Trial:
    """Load the task learner of a configuration on the CPU, and try it; where this process did so before, only look at
    its files. `known` are the SHA-256 of its weights, if they are known.

    Raises as `load_task`, and ConfigError where nobody named its weights, and the factory draws them at random.
    """
    before, options = _TRIED.get(config.asks_of_task), config.task
    if before and tuple(known) in ((), tuple(before.sha256)) and _are_files(options.files, before.sha256, known):
        return before
    loaded = load_task(config, "cpu", known)
    if not options.files and (drawn := drawn_weights(loaded.task.network, "task", options.model, options.arguments)):
        why = f"the factory draws weights at random, other ones at each call ({some(drawn)}): scores would be noise"
        fix = "name the file of the trained ones: --set task.weights=URL of a safetensors file"
        raise ConfigError(f"task.model={options.model}: task.weights is empty, and {why}; {fix}")
    found = _TRIED[config.asks_of_task] = Trial(loaded.num_classes, loaded.sha256, _probe(config, loaded))
    return found


def _are_files(files: list[str], sha256: list[str], known: Sequence[str]) -> bool:
    """Whether files of weights are those of a trial. Raises InputError where they are not those that are known."""
    found = [sha256_of(file, expected) for file, expected in zip(files, known or [""] * len(files), strict=False)]
    return not files or found == sha256


def note_on_weights(config: CampaignConfig) -> str:
    """What is to be known where nobody named the weights; else empty."""
    if not config.task.model or config.task.files:
        return ""
    return f"task.model={config.task.model}: task.weights is empty, so T has the weights that its factory gives"


def try_for_init(config: CampaignConfig, log: Log = QUIET.log) -> Trial | None:
    """As `try_task`, before a campaign is made or its options change. None, which is logged, where this machine lacks a
    package: those that train and score may have it."""
    try:
        return try_task(config)
    except MissingPackageError as error:
        log(f"{error}. task.model was not checked on this machine; vaal train checks it where it runs")
        return None


def require_as_trained(config: CampaignConfig, entry: dict[str, Any], advice: str) -> None:
    """Raises InputError, which ends with `advice`, where the task learner is not the one that a train manifest's `task`
    is of, and what `try_task` raises."""
    found = try_task(config, entry.get("weights_sha256", []))
    if not (change := _change(entry.get("probe", []), found.probe)) <= PROBE_TOLERANCE:
        model = config.task.model
        why = f"task.model={model}: with the same weights it gives other outputs than when the round was trained"
        where = f"{_file_of(model)} changed since, or code that it imports"
        raise InputError(f"{why} (by {change:.1%}): {where}; restore it, or {advice}")


def is_as_trained(config: CampaignConfig, entry: dict[str, Any]) -> bool:
    """Whether the task learner, as it is now, is the one that a train manifest's `task` is of. Raises as `try_task`."""
    found = try_task(config)
    return (
        found.sha256 == entry.get("weights_sha256") and _change(entry.get("probe", []), found.probe) <= PROBE_TOLERANCE
    )


def task_entry(config: CampaignConfig, labels: Iterable[str]) -> dict[str, Any]:
    """What the train manifest says of the user's task learner: its classes, weights and probe. It is loaded for that,
    on the CPU, and so refused before anything trains. `labels` are those of the labelled images.

    Raises ConfigError and InputError as `try_task`, and ConfigError if nothing names the outputs.
    """
    require_names(config)
    found = try_task(config)
    classes = classes_of_outputs(config, labels, found.num_classes)
    return {"classes": classes, "weights_sha256": found.sha256, "probe": found.probe}


def require_names(config: CampaignConfig) -> None:
    """Raises ConfigError where labels cannot name the outputs, and task.classes does not."""
    if not config.task_classes and config.task_kind != "classes":
        raise ConfigError(f"train.task={config.train.task}: labels do not list all outputs; name them in task.classes")


def classes_of_outputs(config: CampaignConfig, labels: Iterable[str], num_outputs: int) -> list[str]:
    """The classes in the order of the outputs. Raises ConfigError where there are not as many."""
    if config.task_classes:
        return config.task_classes
    counts = Counter(labels)
    if num_outputs == len(counts):
        return sorted(counts)
    rarest = [f"{name} ({count:,})" for name, count in sorted(counts.items(), key=lambda pair: (pair[1], pair[0]))]
    why = f"has {num_outputs} outputs, the labels have {plural(len(counts), 'class')}"
    fix = "name those of the outputs in task.classes, in order"
    if num_outputs < len(counts):
        more = f"{len(counts) - num_outputs} more than there are outputs"
        why = f"{why}, {more}; the rarest first, with their images: {some(rarest, MOST_CLASSES)}"
        fix = f"{MORE_OUTPUTS}, or correct the labels"
    raise ConfigError(f"task.model={config.task.model}: {why}; {fix}")


def require_outputs_for(config: CampaignConfig, labels: dict[Identity, str], num_outputs: int) -> None:
    """Raises ConfigError where a label has no output, as training does, before a campaign is made."""
    require_names(config)
    if config.task_kind == "segmentation":
        return
    answers_of_items(config, list(labels.values()), list(labels))
    classes_of_outputs(config, labels.values(), num_outputs)


def _probe(config: CampaignConfig, loaded: LoadedTask) -> list[list[float]]:
    """What the networks make of the same few images each time: of features, and of logits, PROBES numbers an image."""
    pixels = noise_pixels(config.task.size or config.image.size, config.image.channels)
    task, found = loaded.task, list[list[float]]()
    with torch.no_grad(), exact(pixels.device):
        for network in task.networks:
            feature_B = network.features(loaded.preprocessing(pixels)).float()
            found += [_projected(values_B) for values_B in (feature_B, task.head(feature_B, network))]
    return found


def _projected(value_B: Tensor) -> list[float]:
    """Numbers that change with any value of an item."""
    value_BK = value_B.double().flatten(1)
    place_K = torch.arange(1, value_BK.shape[1] + 1, dtype=torch.float64)
    # Frequencies without a common period.
    wave_KP = torch.cos(place_K[:, None] * torch.arange(1, PROBES + 1, dtype=torch.float64).sqrt())
    found: list[float] = (value_BK @ wave_KP / len(place_K) ** 0.5).flatten().tolist()
    return found


def _change(before: list[list[float]], now: list[list[float]]) -> float:
    """The largest change of a probe, as a share of the largest number of its part; none without one before."""
    if not before:
        return 0.0
    if [len(part) for part in before] != [len(part) for part in now]:
        return 1.0
    pairs = [(torch.tensor(then), torch.tensor(part)) for then, part in zip(before, now, strict=True)]
    return max(float((part - then).abs().max() / then.abs().max().clamp_min(1e-12)) for then, part in pairs)


def _file_of(model: str) -> str:
    module = model.partition(":")[0]
    spec = importlib.util.find_spec(module)
    return spec.origin if spec and spec.origin else module
