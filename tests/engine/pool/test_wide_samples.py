"""Grey images of more than 8 bits are neither black nor saturated, whatever depth they use."""

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from engine.config.input_options import ImageConfig
from engine.pool.images import DecodeError, decode
from tests.engine.pool.test_images import encode

IMAGE = ImageConfig(size=16, channels=1, suffixes=["png", "tif"])
RAMP = np.linspace(0, 1, 256).reshape(16, 16)


def decoded(samples: NDArray[np.generic], kind: str = "TIFF") -> NDArray[np.uint8]:
    return decode(encode(Image.fromarray(samples), kind), IMAGE)[..., 0]


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_integers_keep_the_high_byte_of_the_depth_that_they_use(bits: int, kind: str) -> None:
    deep = (RAMP * ((1 << bits) - 1)).astype(np.uint16)
    np.testing.assert_array_equal(decoded(deep, kind), deep >> (bits - 8))


@pytest.mark.parametrize(
    "samples",
    [RAMP, RAMP * 3000 - 1000, RAMP * 1e-3 + 5],
    ids=["from 0 to 1", "negative ones", "a narrow range"],
)
def test_floats_are_scaled(samples: NDArray[np.float64]) -> None:
    np.testing.assert_allclose(decoded(samples.astype(np.float32)), RAMP * 255, atol=1.5)


def test_integers_of_32_bits_are_scaled() -> None:
    np.testing.assert_allclose(decoded((RAMP * 2e9 - 1e9).astype(np.int32)), RAMP * 255, atol=1)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_without_a_value_are_refused(value: float) -> None:
    samples = RAMP.astype(np.float32)
    samples[3, 4] = value
    with pytest.raises(DecodeError, match="not a finite number"):
        decoded(samples)


def test_a_black_image_is_black() -> None:
    assert not decoded(np.zeros((16, 16), np.float32)).any()
    assert not decoded(np.zeros((16, 16), np.uint16)).any()
