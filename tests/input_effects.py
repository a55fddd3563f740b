"""Options of embeddings, and where the change of each shows."""

from typing import Any

import numpy as np
import safetensors.torch
import torch

from engine.config.options import CampaignConfig
from engine.models.encoders import load_encoder
from tests.effects import Bench, Look
from tests.encoders import Blocks

ENCODER = {"encoder.model": "tests.encoders:Blocks", "encoder.size": 16, "image.channels": 3}


def sees_embeddings(bench: Bench, config: CampaignConfig) -> Any:
    return config.sees_embeddings


def embedded(bench: Bench, config: CampaignConfig) -> Any:
    """An image as the encoder of the configuration sees it."""
    if not config.encoder.model:
        return None
    pixels = np.random.default_rng(0).integers(0, 256, (1, config.encoder.size, config.encoder.size, 3), np.uint8)
    return load_encoder(config.encoder, "cpu").encoder(torch.from_numpy(pixels)).tolist()


def weights_of_an_encoder(bench: Bench) -> Any:
    safetensors.torch.save_file(Blocks().state_dict(), bench.folder / "encoder.safetensors")
    return {**ENCODER, "encoder.weights": f"{bench.folder}/encoder.safetensors"}


INPUT_EFFECTS: dict[str, tuple[Any, Look]] = {
    "pool.embeddings": ("member:npy", sees_embeddings),
    "encoder.model": ({**ENCODER, "encoder.model": "tests.encoders:Normalised"}, embedded),
    "encoder.arguments": ({**ENCODER, "encoder.arguments": {"length": 3}}, embedded),
    "encoder.weights": (weights_of_an_encoder, embedded),
    "encoder.size": ({**ENCODER, "encoder.size": 24}, embedded),
    "encoder.mean": ({**ENCODER, "encoder.mean": [0.0, 0.0, 0.0]}, embedded),
    "encoder.std": ({**ENCODER, "encoder.std": [1.0, 1.0, 1.0]}, embedded),
    "encoder.order": ({**ENCODER, "encoder.order": "bgr"}, embedded),
    "train.input": ({"train.input": "pixels", "pool.embeddings": "member:npy"}, sees_embeddings),
}
