"""Mini-batches with a discriminator refitted between them (Gissin and Shalev-Shwartz 2019, arXiv 1907.06347)."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vaal.checks import require_between, require_finite
from vaal.losses import discriminator_loss
from vaal.networks import PRESETS, perceptron

NUM_MINI_BATCHES = 10
STEPS = 200
"""Updates of a fit."""
BATCH_ITEMS = 256
"""Items of each pool in an update."""
LEARNING_RATE = 1e-3
BLOCK_ITEMS = 65_536
"""Candidates scored at a time."""


def choose_in_mini_batches(
    logit_M: NDArray[np.float32], latent_MZ: NDArray[np.float32], taken_LZ: NDArray[np.float32], b: int, seed: int
) -> NDArray[np.intp]:
    """Indices (b,) of candidates in order of choice: NUM_MINI_BATCHES parts of b, each the lowest labelled-logits left.

    The first part goes by the logits given. Before every other a new discriminator, the `small` preset's on latents
    scaled to a mean variance of 1, is fitted by Eq. 3 to tell the taken and the chosen items from the candidates left.
    It rescores these, so a candidate that resembles a choice ranks lower. Without taken items there are only choices.

    Deterministic for a seed, on one thread of a CPU; torch's global generator is left as it was. Ties go to the
    lowest index. O(M Z + M log M) time and O((M + L) Z) memory for each part, and a fit of STEPS updates.

    Raises ValueError if b is not from 0 to M, or a logit or a latent is not finite.
    """
    require_between("b", b, 0, len(logit_M))
    require_finite("candidate logits", logit_M)
    require_finite("candidate latents", latent_MZ)
    require_finite("taken latents", taken_LZ)
    if b == 0:
        return np.empty(0, np.intp)
    # Torch splits sums by the number of threads, and the parts round differently.
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _chosen(logit_M, *_scaled(latent_MZ, taken_LZ), b, seed)
    finally:
        torch.set_num_threads(num_threads)


def _chosen(logit_M: NDArray[np.float32], candidate_MZ: Tensor, taken: Tensor, b: int, seed: int) -> NDArray[np.intp]:
    left_N, logit_N = np.arange(len(logit_M)), logit_M
    chosen: list[NDArray[np.intp]] = []
    for number in range(min(b, NUM_MINI_BATCHES)):
        if chosen:
            labelled_LZ = torch.cat([taken, candidate_MZ[np.concatenate(chosen)]])
            logit_N = _rescored(labelled_LZ, candidate_MZ[left_N], [seed, number])
        # The sizes differ by at most one, larger ones first, and add up to b.
        size = (b + NUM_MINI_BATCHES - 1 - number) // NUM_MINI_BATCHES
        order_N = np.argsort(logit_N, kind="stable")
        chosen.append(left_N[order_N[:size]])
        left_N = np.sort(left_N[order_N[size:]])
    return np.concatenate(chosen)


def _scaled(latent_MZ: NDArray[np.float32], taken_LZ: NDArray[np.float32]) -> tuple[Tensor, Tensor]:
    """Candidates and taken items, less the candidates' mean, divided by their deviation over all units.

    A scale for each unit would give units that the VAE does not use as much weight as the others.
    """
    mean_Z = latent_MZ.mean(axis=0, dtype=np.float64).astype(np.float32)
    scaled = [pool - mean_Z for pool in (latent_MZ, taken_LZ)]
    deviation = np.sqrt(np.einsum("mz,mz->", scaled[0], scaled[0], dtype=np.float64) / latent_MZ.size)
    for pool in scaled:
        # Identical candidates have no deviation.
        pool /= np.float32(deviation or 1)
    return torch.from_numpy(scaled[0]), torch.from_numpy(scaled[1])


def _rescored(labelled_LZ: Tensor, unlabelled_NZ: Tensor, seed: list[int]) -> NDArray[np.float32]:
    """Labelled-logits (N,) of a discriminator that is fitted to these two pools."""
    words = np.random.SeedSequence(seed).generate_state(2, np.uint64)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(words[0]))
        network = perceptron(labelled_LZ.shape[1], PRESETS["small"])
    _fit(network, labelled_LZ, unlabelled_NZ, torch.Generator().manual_seed(int(words[1])))
    with torch.inference_mode():
        logits = [network(block_BZ)[:, 0] for block_BZ in torch.split(unlabelled_NZ, BLOCK_ITEMS)]
    scores: NDArray[np.float32] = torch.cat(logits).numpy()
    return scores


def _fit(network: nn.Module, labelled_LZ: Tensor, unlabelled_NZ: Tensor, generator: torch.Generator) -> None:
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    fold_B = torch.zeros(BATCH_ITEMS, dtype=torch.int64)
    with torch.enable_grad():
        for _ in range(STEPS):
            batch = [
                pool[torch.randint(len(pool), (BATCH_ITEMS,), generator=generator)]
                for pool in (labelled_LZ, unlabelled_NZ)
            ]
            labelled_BK, unlabelled_BK = network(torch.cat(batch)).chunk(2)
            optimizer.zero_grad()
            discriminator_loss(labelled_BK, unlabelled_BK, fold_B, fold_B).trained.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
