"""How a network that others made is tried: on noise, all items at once and one at a time, with exact arithmetic.

Shape suffixes: B batch, H height, W width, C image channels, K values of an item.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

TOLERANCE = 1e-4
"""Largest difference between an item's result alone and in a batch, as a share of the largest value."""
BATCH = 7


def noise_pixels(size: int, num_channels: int) -> Tensor:
    """Seven images (B, H, W, C) uint8, always the same."""
    generator = torch.Generator().manual_seed(0)
    # Noise of every size of blocks: a network need not tell fine noise apart.
    shape = (BATCH, size, size, num_channels)
    fine = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    coarse = torch.randint(0, 256, (BATCH, 1, 1, num_channels), dtype=torch.uint8, generator=generator)
    return fine // 2 + coarse // 2


def device_of(network: nn.Module) -> torch.device:
    """Where a network is; the CPU for one without tensors."""
    return next((tensor.device for tensor in network.state_dict().values()), torch.device("cpu"))


def exact(device: torch.device) -> AbstractContextManager[None]:
    """Arithmetic without rounded numbers, whose products would differ by more than the tolerance from one batch size to
    another."""
    return torch.backends.cudnn.flags(allow_tf32=False) if device.type == "cuda" else nullcontext()


def fault_of(together_BK: Tensor, alone_BK: Tensor, values: str, whole: str) -> str:
    """Why what a network returns of items, all at once and one at a time, cannot be used, in words; empty where it can:
    it is finite, not the same for all, and an item's does not depend on the others in its batch, or on chance.

    `values` and `whole` name what it returns: "components", of an "embedding".
    """
    if not torch.isfinite(together_BK).all():
        return f"returns {values} that are not finite; do its weights fit?"
    scale = float(together_BK.abs().max())
    difference = float((together_BK - alone_BK).abs().max())
    if not difference <= TOLERANCE * scale:
        return (
            f"mixes the images of a batch, or draws at random: seven at once differ from one at a time by "
            f"{difference:.2g}, where the largest of its {values} is {scale:.2g}; give one whose images do not meet"
        )
    if float((together_BK - together_BK[:1]).abs().max()) <= TOLERANCE * scale:
        return f"returns the same {whole} for all images; do its weights fit?"
    return ""
