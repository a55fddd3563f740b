"""Trained networks as safetensors files in a round's train folder: fp32, on the CPU, without pickle."""

import hashlib

import safetensors.torch
import torch
from torch import Tensor, nn

from engine.config import CampaignConfig
from engine.errors import InputError
from engine.storage import Location
from vaal.networks import PRESETS, VAE, Discriminators


def make_networks(config: CampaignConfig) -> tuple[VAE, Discriminators]:
    """The networks of a configuration with the initial weights of `train.seed`."""
    shape = PRESETS[config.train.preset]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.train.seed)
        vae = VAE(config.image.size, config.image.channels, shape)
        discriminators = Discriminators(config.train.folds, shape)
    return vae, discriminators


def weight_files(config: CampaignConfig) -> list[str]:
    """Names of the files that scoring reads."""
    return ["vae.safetensors", *(f"discriminator-{fold}.safetensors" for fold in range(config.train.folds))]


def save_networks(folder: Location, vae: dict[str, Tensor], discriminators: dict[str, Tensor]) -> dict[str, str]:
    """Write both state dicts, a file a discriminator. Returns SHA-256 by file name."""
    states = {"vae": vae}
    for name, tensor in discriminators.items():
        _, fold, rest = name.split(".", 2)
        states.setdefault(f"discriminator-{fold}", {})[rest] = tensor
    return {
        f"{name}.safetensors": (folder / f"{name}.safetensors").write_bytes(
            safetensors.torch.save({key: tensor.float().cpu().contiguous() for key, tensor in state.items()})
        )
        for name, state in states.items()
    }


def load_networks(folder: Location, config: CampaignConfig, sha256: dict[str, str]) -> tuple[VAE, Discriminators]:
    """The trained networks in eval mode, on the CPU. `sha256` is what the train stage's manifest says of each file.

    Raises:
        InputError: a file is missing, or is not the one that training wrote.
    """
    vae, discriminators = make_networks(config)
    modules: list[nn.Module] = [vae, *discriminators.folds]
    for name, module in zip(weight_files(config), modules, strict=True):
        content = (folder / name).read_bytes()
        if hashlib.sha256(content).hexdigest() != sha256[name]:
            raise InputError(
                f"{folder / name}: not the file that training wrote; delete {folder}/manifest.json and train again"
            )
        module.load_state_dict(safetensors.torch.load(content))
    return vae.eval(), discriminators.eval()
