"""Networks that users bring: made by a factory that they name, with weights as safetensors. Nothing is unpickled."""

import hashlib
import importlib.util
import pkgutil
from collections.abc import Iterable, Mapping
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

from engine.config.texts import ARGUMENTS, some
from engine.errors import ConfigError, InputError, one_line
from engine.storage.location import Location


class MissingPackageError(ConfigError):
    """A factory that asks for a package which is not installed on this machine."""


def make_network(section: str, model: str, arguments: Mapping[str, Any], seed: int = 0) -> nn.Module:
    """The network that the options `model` and `arguments` of a section of the configuration name.

    Draws from no stream of random numbers but its own, that of `seed`. Raises ConfigError if the factory cannot be
    imported or fails, or returns no network; MissingPackageError if a package is missing for that.
    """
    named = f"{section}.model={model}"
    try:
        factory = pkgutil.resolve_name(model)
    except (Exception, SystemExit) as error:
        # Importing runs a module of the user's, which may raise anything.
        why = f"{named}: cannot be imported: {_described(error)}"
        if package := _missing_package(error):
            fix = f"install {package} here, run in the folder that it is in, or correct the name"
            raise MissingPackageError(f"{why}; {fix}") from error
        raise ConfigError(f"{why}; give package.module:factory") from error
    try:
        # A factory may draw initial weights.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = factory(**arguments)
    except (Exception, SystemExit) as error:
        why = f"{named}: fails with {section}.arguments={arguments}: {_described(error)}"
        if isinstance(error, ConfigError):
            why = str(error)
        elif isinstance(error, TypeError):
            # Most likely its arguments are not those of the table.
            why += f"; its arguments are a table: {ARGUMENTS.format(f'{section}.arguments')}"
        raise (MissingPackageError if _missing_package(error) else ConfigError)(why) from error
    if not isinstance(network, nn.Module):
        raise ConfigError(f"{named}: returns {type(network).__name__}, not a torch.nn.Module")
    return network


def drawn_weights(network: nn.Module, section: str, model: str, arguments: Mapping[str, Any]) -> list[str]:
    """The names of the tensors of a network that its factory draws at random: another call, with another seed, gives
    other values. Empty for a factory that loads its weights. Raises as `make_network`."""
    again = make_network(section, model, arguments, seed=1).state_dict()
    own = {name: tensor.cpu() for name, tensor in network.state_dict().items()}
    return [name for name, tensor in own.items() if name not in again or not torch.equal(tensor, again[name].cpu())]


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
    content, found = _read(location, sha256)
    try:
        state = safetensors.torch.load(content)
    except SafetensorError as error:
        raise InputError(f"{location}: not a whole safetensors file: {one_line(error)}") from error
    faults = _misfits(network.state_dict(), state)
    if faults:
        why = _other_prefix(network.state_dict(), state, f"{location}") or "; ".join(faults)
        raise InputError(f"{location}: not the weights of {named}: {why}")
    if bad := next((name for name, tensor in state.items() if not torch.isfinite(tensor).all()), ""):
        raise InputError(f"{location}: {bad} has numbers that are not finite; name other weights")
    network.load_state_dict(state)
    return found


def sha256_of(weights: str, sha256: str = "") -> str:
    """The SHA-256 of a file of weights. Raises InputError if it is missing, or `sha256` is known and another one."""
    return _read(Location.of(weights), sha256)[1]


def _read(location: Location, sha256: str) -> tuple[bytes, str]:
    """The content of a file of weights and its SHA-256, which `sha256` is if it is known."""
    content = location.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if sha256 not in ("", found):
        raise InputError(f"{location}: not the weights that were used before (its SHA-256 differs); restore them")
    return content, found


def _missing_package(error: BaseException | None) -> str:
    """The package that this machine lacks, if that is why something was raised; empty for a wrong name in one that is
    there."""
    while error is not None:
        if isinstance(error, ModuleNotFoundError) and error.name:
            package = error.name.partition(".")[0]
            if importlib.util.find_spec(package) is None:
                return package
        error = error.__cause__ or error.__context__
    return ""


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


def _other_prefix(own: Mapping[str, Any], given: Mapping[str, Any], file: str) -> str:
    """Why the names of weights do not fit where they differ by what they begin with alone, and what helps; else
    empty."""
    # Another name than the file's: it is mapped into memory while it is read.
    write = (
        "write them once with the names of the network, and name that file: import safetensors.torch as s; "
        "s.save_file({{{}: t for n, t in s.load_file({!r}).items(){}}}, 'renamed.safetensors')"
    )
    if prefix := _prefix(own, given):
        why = f"the names in the file begin with {prefix!r}, and those of the network do not"
        return f"{why}; {write.format(f'n.removeprefix({prefix!r})', file, f' if n.startswith({prefix!r})')}"
    if prefix := _prefix(given, own):
        why = f"the names of the network begin with {prefix!r}, and those in the file do not"
        return f"{why}; {write.format(f'{prefix!r} + n', file, '')}"
    return ""


def _prefix(names: Iterable[str], longer: Iterable[str]) -> str:
    """What makes each of these names one of the longer ones, as "module."; empty where nothing does."""
    first, *others = names
    known = set(longer)
    candidates = (name.removesuffix(first) for name in known if name.endswith(f".{first}"))
    return min((start for start in candidates if all(f"{start}{name}" in known for name in others)), default="")
