"""The centres of a round's clusters, as a safetensors file in the train folder."""

import math

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from engine.storage.location import Location
from vaal.centres import MOST_LATENTS, Centres, k_means, quantise, scale_of

CENTRES_FILE = "centres.safetensors"
ITEMS_A_CENTRE = 6
"""Fewer items of the sample for each centre would make a centre of every item."""


def make_centres(latent_NZ: Tensor, num_centres: int, seed: int) -> Centres | None:
    """Centres of a sample of the unlabelled pool: `num_centres`, or one for ITEMS_A_CENTRE items if that is fewer.

    The same for the same latents and seed, on any machine. None where a latent has more than MOST_LATENTS units, or
    there is no finite one.
    """
    latent_NZ = latent_NZ.cpu().float()
    latent_NZ = latent_NZ[torch.isfinite(latent_NZ.half()).all(dim=1)]
    if not len(latent_NZ) or latent_NZ.shape[1] > MOST_LATENTS:
        return None
    middle_Z, scale = scale_of(latent_NZ)
    x_NZ = quantise(latent_NZ.half().float(), middle_Z, scale)
    num_centres = max(1, min(num_centres, len(x_NZ) // ITEMS_A_CENTRE))
    return Centres(k_means(x_NZ, num_centres, seed), middle_Z, scale)


def sample_of_pool(unlabelled_NZ: Tensor, labelled_NZ: Tensor, num_unlabelled: int, seed: int) -> Tensor:
    """Latents of a sample of the whole pool: those of unlabelled items, with as large a share of the labelled ones.

    Centres of unlabelled items alone lie nearer to these than to others, and the gate would take that for a difference
    between the pools.

    Args:
        unlabelled_NZ: a sample of `num_unlabelled` items.
        labelled_NZ: all labelled items.
    """
    if not len(labelled_NZ):
        return unlabelled_NZ
    num_labelled = len(labelled_NZ) * min(1.0, len(unlabelled_NZ) / max(1, num_unlabelled))
    chosen = np.random.default_rng([seed, 1]).permutation(len(labelled_NZ))[: math.ceil(num_labelled)]
    return torch.cat([unlabelled_NZ, labelled_NZ[torch.from_numpy(np.sort(chosen))]])


def save_centres(folder: Location, centres: Centres) -> dict[str, str]:
    """Write the file. Returns its SHA-256 by its name."""
    tensors = {
        "centre_CZ": centres.centre_CZ.to(torch.int8).contiguous(),
        "middle_Z": centres.middle_Z.contiguous(),
        "scale": centres.scale.reshape(1).contiguous(),
    }
    return {CENTRES_FILE: (folder / CENTRES_FILE).write_bytes(safetensors.torch.save(tensors))}


def load_centres(folder: Location, sha256: dict[str, str], device: torch.device | str = "cpu") -> Centres | None:
    """The centres of a train folder; None where training wrote none. `sha256` is by file name.

    Raises InputError if the file is missing, or is not the one that training wrote.
    """
    if CENTRES_FILE not in sha256:
        return None
    advice = f"delete {folder}/manifest.json and train again"
    found = safetensors.torch.load((folder / CENTRES_FILE).read_verified(sha256[CENTRES_FILE], advice))
    centres = Centres(found["centre_CZ"].float(), found["middle_Z"], found["scale"].reshape(()))
    return centres.to(torch.device(device))
