"""The networks of a configuration, and trained ones as safetensors files in a round's train folder.

Files hold fp32 tensors and no pickle.
"""

import pkgutil
from collections.abc import Callable
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from engine.config.options import CampaignConfig
from engine.errors import VaalError
from engine.storage.location import Location
from vaal.assembly import Networks, Sizes
from vaal.methods import METHODS, TASK_FILE
from vaal.task import Classifier


def make_networks(config: CampaignConfig) -> Networks:
    """The networks of a configuration's method with the initial weights of `train.seed`."""
    train, image = config.train, config.image
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(train.seed)
        networks: Networks = pkgutil.resolve_name(METHODS[train.method].networks)(
            Sizes(train.preset, image.size, image.channels, train.folds)
        )
    return networks


def score_function(config: CampaignConfig) -> Callable[[Networks, Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The score of a configuration's method, as in `vaal.acquisition`."""
    function: Callable[[Networks, Tensor, Tensor], tuple[Tensor, Tensor]]
    function = pkgutil.resolve_name(METHODS[config.train.method].score)
    return function


def make_classifier(config: CampaignConfig, num_classes: int) -> Classifier:
    """The task learner with the initial weights of `train.seed`.

    Raises:
        VaalError: there is only one class.
    """
    if num_classes < 2:
        raise VaalError(f"train.task=classification needs two classes, the labels hold {num_classes}; set it to none")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.train.seed)
        return Classifier(config.image.size, config.image.channels, num_classes)


def to_input(pixels_NHWC: np.ndarray[Any, np.dtype[np.uint8]], device: torch.device) -> Tensor:
    """Pixels as the networks take them: (N, C, H, W) float32 in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(pixels_NHWC)).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1


def require_finite(state: dict[str, Tensor], name: str, when: str = "") -> None:
    """Raises VaalError that names the state, and when it was, where a tensor of it is not finite."""
    for key, tensor in state.items():
        if not torch.isfinite(tensor).all():
            raise VaalError(f"training: {when}{key} of {name} is not finite; lower train.learning_rate and train again")


def save_weights(folder: Location, modules: dict[str, nn.Module]) -> dict[str, str]:
    """Write a file a module. Returns SHA-256 by file name.

    Raises:
        VaalError: a weight is not finite; nothing is written.
    """
    states = {name: module.state_dict() for name, module in modules.items()}
    for name, state in states.items():
        require_finite(state, name)
    return {
        name: (folder / name).write_bytes(
            safetensors.torch.save({key: tensor.float().cpu().contiguous() for key, tensor in state.items()})
        )
        for name, state in states.items()
    }


def read_weights(folder: Location, name: str, sha256: str | None) -> dict[str, Tensor]:
    """The tensors of a file of weights. Raises InputError when it is missing, or is not the one that training wrote."""
    advice = f"delete {folder}/manifest.json and train again"
    return safetensors.torch.load((folder / name).read_verified(sha256, advice))


def load_networks(
    folder: Location, config: CampaignConfig, sha256: dict[str, str], *, with_task: bool = False
) -> Networks:
    """The trained networks in eval mode, on the CPU, with the task learner if that is asked for.

    `sha256` is what the train stage's manifest says of each file.

    Raises:
        InputError: a file is missing, or is not the one that training wrote.
    """
    networks = make_networks(config)
    states = {name: read_weights(folder, name, sha256.get(name)) for name in networks.files()}
    if with_task:
        states[TASK_FILE] = read_weights(folder, TASK_FILE, sha256.get(TASK_FILE))
        num_classes = len(states[TASK_FILE]["to_logits.bias"])
        networks = networks._replace(task=make_classifier(config, num_classes))
    for name, module in networks.files().items():
        module.load_state_dict(states[name])
    return networks.eval()
