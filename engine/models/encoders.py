"""A frozen encoder by its name in the configuration: a factory that the user names, and weights as safetensors."""

import hashlib
import pkgutil
from typing import Any, NamedTuple

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

from engine.config.input_options import EncoderConfig
from engine.errors import ConfigError, InputError, one_line
from engine.storage.location import Location
from vaal.frozen_encoder import Encoder, EncoderError, Preprocessing, check_encoder


class LoadedEncoder(NamedTuple):
    """An encoder on its device, the number D of components of its embeddings, and the SHA-256 of its weights: of
    their file, or without one of those that the factory gives."""

    encoder: Encoder
    length: int
    sha256: str


def load_encoder(config: EncoderConfig, device: torch.device | str, sha256: str = "") -> LoadedEncoder:
    """The encoder of a configuration, in eval mode on a device, tried on a few images.

    Args:
        sha256: that of the weights which were used before, if it is known.

    Raises:
        ConfigError: the factory cannot be imported or fails, makes no network, or one that is no encoder: see
            `vaal.frozen_encoder.check_encoder`.
        InputError: the weights are missing, no safetensors, or those of another network or another time.

    Without encoder.weights, the weights that the factory gives count in their place.
    """
    network = _make(config)
    sha256 = _load_weights(network, config, sha256) if config.weights else _own_weights(network, config, sha256)
    encoder = Encoder(network, Preprocessing(config.mean, config.std, config.order == "bgr")).to(device)
    try:
        length = check_encoder(encoder, config.size)
    except EncoderError as error:
        raise ConfigError(f"encoder.model={config.model}: {error}") from error
    return LoadedEncoder(encoder, length, sha256)


def _make(config: EncoderConfig) -> nn.Module:
    named = f"encoder.model={config.model}"
    try:
        factory = pkgutil.resolve_name(config.model)
    except Exception as error:
        # Importing runs a module of the user's, which may raise anything.
        raise ConfigError(f"{named}: cannot be imported: {_described(error)}; give package.module:factory") from error
    try:
        # A factory may draw initial weights.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = factory(**config.arguments)
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"{named}: fails with encoder.arguments={config.arguments}: {_described(error)}") from error
    if not isinstance(network, nn.Module):
        raise ConfigError(f"{named}: returns {type(network).__name__}, not a torch.nn.Module")
    return network


def _described(error: Exception) -> str:
    return f"{type(error).__name__}: {one_line(error)}" if str(error) else type(error).__name__


def _load_weights(network: nn.Module, config: EncoderConfig, sha256: str) -> str:
    """Load the weights; returns the SHA-256 of their file."""
    location = Location.of(config.weights)
    content = location.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if sha256 not in ("", found):
        raise InputError(f"{location}: not the weights that were used before (its SHA-256 differs); restore them")
    try:
        state = safetensors.torch.load(content)
    except SafetensorError as error:
        raise InputError(f"{location}: not a whole safetensors file: {one_line(error)}") from error
    faults = _misfits(network.state_dict(), state)
    if faults:
        raise InputError(f"{location}: not the weights of encoder.model={config.model}: {'; '.join(faults)}")
    network.load_state_dict(state)
    return found


def _own_weights(network: nn.Module, config: EncoderConfig, sha256: str) -> str:
    """The SHA-256 of the weights that the factory gave."""
    state = {name: tensor.cpu().contiguous() for name, tensor in network.state_dict().items()}
    found = hashlib.sha256(safetensors.torch.save({name: state[name].clone() for name in sorted(state)})).hexdigest()
    if sha256 not in ("", found):
        why = "its factory gives other weights than before; restore them, or name a file in encoder.weights"
        raise InputError(f"encoder.model={config.model}: {why}")
    return found


def _misfits(own: dict[str, Any], given: dict[str, Any]) -> list[str]:
    """What is missing, unexpected or of another shape, each with the first names."""
    shapes = [
        f"{name} is {tuple(given[name].shape)}, not {tuple(tensor.shape)}"
        for name, tensor in own.items()
        if name in given and given[name].shape != tensor.shape
    ]
    groups = {
        "missing": [name for name in own if name not in given],
        "unexpected": [name for name in given if name not in own],
        "other shapes": shapes,
    }
    return [f"{len(names)} {kind} ({_first(names)})" for kind, names in groups.items() if names]


def _first(names: list[str]) -> str:
    return ", ".join(names[:2]) + (", ..." if len(names) > 2 else "")
