"""Networks that users bring: made by a factory that they name, with weights as safetensors. Nothing is unpickled."""

import hashlib
import pkgutil
from collections.abc import Mapping
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

from engine.config.texts import some
from engine.errors import ConfigError, InputError, one_line
from engine.storage.location import Location


def make_network(section: str, model: str, arguments: Mapping[str, Any]) -> nn.Module:
    """The network that the options `model` and `arguments` of a section of the configuration name.

    Draws from no stream of random numbers but its own. Raises ConfigError if the factory cannot be imported or fails,
    or returns no network.
    """
    named = f"{section}.model={model}"
    try:
        factory = pkgutil.resolve_name(model)
    except (Exception, SystemExit) as error:
        # Importing runs a module of the user's, which may raise anything.
        raise ConfigError(f"{named}: cannot be imported: {_described(error)}; give package.module:factory") from error
    try:
        # A factory may draw initial weights.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = factory(**arguments)
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{named}: fails with {section}.arguments={arguments}: {_described(error)}") from error
    if not isinstance(network, nn.Module):
        raise ConfigError(f"{named}: returns {type(network).__name__}, not a torch.nn.Module")
    return network


def load_weights(network: nn.Module, named: str, weights: str, sha256: str = "") -> str:
    """Give a network its weights: those of a safetensors file, or with an empty name its own.

    Args:
        named: the option and value that name the network, for errors.
        sha256: that of the weights which were used before, if it is known.

    Returns: the SHA-256 of the file, or of the network's own weights.

    Raises InputError if the weights are missing, no safetensors, or those of another network or another time.
    """
    if not weights:
        return _own_weights(network, named, sha256)
    location = Location.of(weights)
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
        raise InputError(f"{location}: not the weights of {named}: {'; '.join(faults)}")
    if bad := next((name for name, tensor in state.items() if not torch.isfinite(tensor).all()), ""):
        raise InputError(f"{location}: {bad} has numbers that are not finite; name other weights")
    network.load_state_dict(state)
    return found


def _described(error: BaseException) -> str:
    return f"{type(error).__name__}: {one_line(error)}" if str(error) else type(error).__name__


def _own_weights(network: nn.Module, named: str, sha256: str) -> str:
    state = {name: tensor.cpu().contiguous() for name, tensor in network.state_dict().items()}
    found = hashlib.sha256(safetensors.torch.save({name: state[name].clone() for name in sorted(state)})).hexdigest()
    if sha256 not in ("", found):
        why = "its factory gives other weights than before; restore them, or name a file in"
        raise InputError(f"{named}: {why} {named.partition('.')[0]}.weights")
    return found


def _misfits(own: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """What is missing, unexpected or of another shape, each with the first names."""
    shapes = [
        f"{name} is {tuple(given[name].shape)}, not {tuple(tensor.shape)}"
        for name, tensor in own.items()
        if name in given and given[name].shape != tensor.shape
    ]
    groups = {
        "missing": [name for name in own if name not in given],
        "unexpected": sorted(name for name in given if name not in own),
        "other shapes": shapes,
    }
    return [f"{len(names)} {kind} ({some(names)})" for kind, names in groups.items() if names]
