"""The networks of a configuration, and trained weights as safetensors files (fp32) in a round's train folder."""

import pkgutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from engine.config.options import CampaignConfig
from engine.errors import InputError, VaalError
from engine.models.task_networks import make_task_network
from engine.storage.location import Location
from vaal.acquisition.summary import Summary
from vaal.assembly import Networks, Sizes
from vaal.ensembles import EnsembleDiscriminators
from vaal.linear_head import LinearHead
from vaal.methods import EMBEDDING_FILE, PROJECTION_FILE, SUMMARY, TASK_FILE
from vaal.networks import NetworkShape
from vaal.refit import FittedDiscriminators
from vaal.standardise import Standardiser
from vaal.task.model import Task
from vaal.task.projection import Projection


def make_networks(config: CampaignConfig, vector_length: int = 0) -> Networks:
    """The networks of a configuration's method with the initial weights of `train.seed`, for pixels, or for latents
    of embeddings, of this length. None where no score needs them."""
    if not config.needs_method:
        return Networks()
    train, image = config.train, config.image
    sizes = Sizes(train.preset, image.size, image.channels, train.folds, vector_length)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(train.seed)
        networks: Networks = pkgutil.resolve_name(config.method.networks)(sizes)
    return networks


def made_at_last(config: CampaignConfig, networks: Networks) -> Networks:
    """The same networks with the discriminators that are fitted at the end, where they are, without their weights."""
    folds = config.train.folds
    if not config.needs_method:
        return networks
    if config.fits_at_once:
        return networks._replace(discriminators=FittedDiscriminators(folds, networks.num_latents))
    if config.refits_ensembles:
        shape = replace(shape_of(config), num_latents=networks.num_latents)
        return networks._replace(discriminators=EnsembleDiscriminators(folds, shape))
    return networks


def shape_of(config: CampaignConfig) -> NetworkShape:
    """The shape of a configuration's networks."""
    return Sizes(config.train.preset, config.image.size, config.image.channels, config.train.folds).shape


def score_function(config: CampaignConfig) -> Callable[[Networks, Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The score of a configuration's method, as in `vaal.acquisition`."""
    function: Callable[[Networks, Tensor, Tensor], tuple[Tensor, Tensor]]
    function = pkgutil.resolve_name(config.method.score)
    return function


def make_classifier(config: CampaignConfig, num_classes: int, num_inputs: int = 0) -> Task:
    """The task learner that the engine trains, with the initial weights of `train.seed`; on `num_inputs` of embeddings
    a linear head."""
    kind = config.task_kind or "classes"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.train.seed)
        if num_inputs:
            return Task(LinearHead(num_inputs, num_classes), kind, unit_C=(1.0,))
        name, image = config.task_network, config.image
        return Task(make_task_network(name, image.size, image.channels, num_classes), kind)


def to_input(pixels_NHWC: np.ndarray[Any, np.dtype[np.uint8]], device: torch.device) -> Tensor:
    """Pixels as input of the networks: (N, C, H, W) float32 in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(pixels_NHWC)).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1


def require_finite(state: dict[str, Tensor], name: str, when: str = "") -> None:
    """Raises VaalError, which begins with `when`, if a tensor of the state with this name is not finite."""
    for key, tensor in state.items():
        if not torch.isfinite(tensor).all():
            raise VaalError(f"training: {when}{key} of {name} is not finite; lower train.learning_rate and train again")


def save_weights(folder: Location, modules: dict[str, nn.Module]) -> dict[str, str]:
    """Write a file for each module. Returns SHA-256 by file name.

    Raises VaalError if a weight is not finite; nothing is written.
    """
    contents = {}
    for name, module in modules.items():
        state = {key: tensor.float().cpu().contiguous() for key, tensor in module.state_dict().items()}
        require_finite(state, name)
        contents[name] = safetensors.torch.save(state)
    return {name: (folder / name).write_bytes(content) for name, content in contents.items()}


def load_networks(
    folder: Location, config: CampaignConfig, sha256: dict[str, str], *, with_task: bool = False
) -> Networks:
    """The trained networks in eval mode, on the CPU, with or without the task learner.

    `sha256` is by file name, as in the train manifest.

    Raises InputError if a file is missing, or is not the one that training wrote, or an earlier version wrote it for
    another network.
    """
    advice = f"delete {folder}/manifest.json and train again"

    @cache
    def read(name: str) -> dict[str, Tensor]:
        state: dict[str, Tensor] = safetensors.torch.load((folder / name).read_verified(sha256.get(name), advice))
        return state

    embedding = Standardiser.of(read(EMBEDDING_FILE)) if config.sees_embeddings else None
    num_inputs = embedding.num_latents if embedding is not None else 0
    networks, first = make_networks(config, num_inputs), "discriminator-0.safetensors"
    # An older version fitted none at the end, whatever the option's default is now.
    if first not in networks.files() or read(first).keys() != networks.files()[first].state_dict().keys():
        networks = made_at_last(config, networks)
    if not config.needs_method and not config.sees_embeddings:
        networks = networks._replace(projection=Projection(read(PROJECTION_FILE)["matrix"]))
    names = [*networks.files(), *([TASK_FILE] if with_task else [])]
    states = {name: read(name) for name in names}
    networks = networks._replace(embedding=embedding)
    if with_task:
        states[TASK_FILE] = _with_interface(states[TASK_FILE])
        num_classes = len(states[TASK_FILE]["network.head.bias"])
        networks = networks._replace(task=make_classifier(config, num_classes, num_inputs))
    for name, state in states.items():
        try:
            networks.files()[name].load_state_dict(state)
        except RuntimeError as error:
            # The network of a preset may be another one since.
            raise InputError(f"{folder / name}: weights of another network than this version's; {advice}") from error
    kept = [name for name in sha256 if name.startswith(SUMMARY)]
    summaries = {name.removeprefix(SUMMARY).partition(".")[0]: Summary(read(name)) for name in kept}
    return networks._replace(summaries=summaries).ready()


def _with_interface(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state of a `Task`, also of a task learner that an older version trained."""
    if "temperature" in state:
        return state
    found = {f"network.{name.replace('to_logits.', 'head.')}": tensor for name, tensor in state.items()}
    return {**found, "temperature": torch.ones(())}
