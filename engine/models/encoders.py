"""A frozen encoder by its name in the configuration: a factory that the user names, and weights as safetensors."""

from typing import NamedTuple

import torch

from engine.config.input_options import EncoderConfig
from engine.errors import ConfigError
from engine.models.factories import load_weights, make_network
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
    named = f"encoder.model={config.model}"
    network = make_network("encoder", config.model, config.arguments)
    sha256 = load_weights(network, named, config.weights, sha256)
    encoder = Encoder(network, Preprocessing(config.mean, config.std, config.order == "bgr")).to(device)
    try:
        length = check_encoder(encoder, config.size)
    except EncoderError as error:
        raise ConfigError(f"{named}: {error}") from error
    return LoadedEncoder(encoder, length, sha256)
