"""The task learner that the user brings: a network by a factory, its weights as safetensors, tried before use."""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from engine.config.options import CampaignConfig
from engine.errors import ConfigError
from engine.models.factories import load_weights, make_network
from engine.models.task_source import MORE_OUTPUTS
from vaal.acquisition import ACQUISITIONS
from vaal.frozen_encoder import Preprocessing
from vaal.network_trial import noise_pixels
from vaal.task.admission import TaskError, check_task
from vaal.task.model import Task


class LoadedTask(NamedTuple):
    """A task learner on its device, with its members; the number of its outputs; how it gets pixels (B, H, W, C) uint8,
    of task.size; and the SHA-256 of its weights and of each member's: of the file, or without one of those that the
    factory gives."""

    task: Task
    num_classes: int
    preprocessing: Preprocessing
    sha256: list[str]


def load_task(config: CampaignConfig, device: torch.device | str, sha256: Sequence[str] = ()) -> LoadedTask:
    """The task learner of a configuration with task.model, in eval mode on a device, tried on a few images.

    Args:
        sha256: those of the weights which were used before, if they are known.

    Raises:
        ConfigError: the factory cannot be imported or fails, or makes no task learner (see
            `vaal.task.admission.check_task`), or one without what the scores ask for.
        InputError: the weights are missing, no safetensors, or those of another network or another time.
    """
    options, known = config.task, [*sha256]
    named = f"task.model={options.model}"
    files = options.files or [""]
    assert config.task_kind is not None
    networks = [make_network("task", options.model, options.arguments) for _ in files]
    if len({id(network) for network in networks}) < len(networks):
        raise ConfigError(f"{named}: returns one network for all members; make one at each call")
    known += [""] * (len(files) - len(known))
    found = [load_weights(*given) for given in zip(networks, [named] * len(files), files, known, strict=False)]
    if len({*found}) < len(found):
        number = next(number for number, one in enumerate(found) if one in found[:number])
        fix = "name networks that were trained apart"
        raise ConfigError(f"task.weights: {files[number]} and {files[found.index(found[number])]} are the same; {fix}")
    task = Task(networks[0], config.task_kind, networks[1:], options.std).eval().requires_grad_(False).to(device)
    preprocessing = preprocessing_of(config)
    pixels = noise_pixels(options.size or config.image.size, config.image.channels).to(device)
    names = config.acquisitions(has_task=True)
    needs = {need for name in names for need in ACQUISITIONS[name].needs}
    asked = {"with_gradient": "gradient" in needs, "with_dropout": config.draws_network}
    try:
        count = check_task(task, preprocessing(pixels), **asked)
    except TaskError as error:
        raise ConfigError(f"{named}: {error}") from error
    if len(options.classes) not in (0, count):
        more = f", or {MORE_OUTPUTS}" if len(options.classes) > count else ""
        counts = f"has {count} outputs, task.classes names {len(options.classes)}"
        raise ConfigError(f"{named}: {counts}; name each output, in order{more}")
    for name in names:
        if "linear" in ACQUISITIONS[name].needs and task.linear is None:
            why = "needs a head that is one linear layer, and this has another"
            raise ConfigError(f"{named}: score.acquisition={name} {why}; leave it out, or give a model whose head is")
    return LoadedTask(task, count, preprocessing, found)


def preprocessing_of(config: CampaignConfig) -> Preprocessing:
    """From pixels to the input of the user's task learner."""
    return Preprocessing(config.task.mean, config.task.std, config.task.order == "bgr")
