"""Samples of more than 8 bits, as 8 bits."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def to_bytes(samples_HW: NDArray[Any]) -> NDArray[np.uint8]:
    """Wide grey samples as 8 bits. Integers keep the high byte of the least depth, of 8, 10, 12, 14 and 16 bits, that
    holds them all; others are scaled from their least to their greatest value, or from 0 to 1 if they are within and
    not all below 1/16. Raises ValueError if one is not finite."""
    low, high = samples_HW.min(), samples_HW.max()
    if not np.isfinite([low, high]).all():
        raise ValueError("a sample is not a finite number")
    if samples_HW.dtype.kind in "iu" and low >= 0 and high < 1 << 16:
        depth = max(8, (int(high).bit_length() + 1) // 2 * 2)
        return (samples_HW >> (depth - 8)).astype(np.uint8)
    if low >= 0 and 1 / 16 <= high <= 1:
        low, high = 0, 1
    scale = 255 / (float(high) - float(low)) if high > low else 0.0
    return ((samples_HW.astype(np.float64) - float(low)) * scale).round().astype(np.uint8)
