"""One item's embedding: a vector of float32, from the bytes of a .npy file or a row of a table, or an error."""

import io
from functools import lru_cache
from tokenize import TokenError

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from engine.errors import one_line

MAX_LENGTH = 65_536
"""Most components of a vector. A longer one is an image or a feature map."""
_MAX_HEADER_BYTES = 4096
_MAGIC = b"\x93NUMPY"
_VERSION_END = len(_MAGIC) + 2
_FLOAT_BYTES = (2, 4, 8)


class VectorError(ValueError):
    """An item without a usable vector. The text is one line, the same in every run.

    `kind` groups failures in tables: NotNpy, Pickled, WrongType, WrongShape (the file); WrongLength, NotFinite, AllZero
    (the vector); NoVector, TwoVectors (the item's rows in a table).
    """

    def __init__(self, kind: str, text: str) -> None:
        # Both are arguments of the exception, so that it stays whole on its way between processes.
        super().__init__(kind, text)
        self.kind, self.text = kind, text

    def __str__(self) -> str:
        return self.text


def parse_npy(content: bytes) -> NDArray[np.float32]:
    """The vector (D,) float32 of a .npy file with one array (D,) or (1, D) of float16, float32 or float64.

    A value beyond float32 becomes infinite: see `check_vector`. Nothing of the file is executed, and no memory is taken
    that the file does not fill.

    Raises VectorError: NotNpy (no .npy, or cut off), Pickled (Python objects), WrongType, or WrongShape.
    """
    if not content.startswith(_MAGIC):
        raise VectorError("NotNpy", "not a .npy file; save the vector with numpy.save")
    # The length of the text follows the version, in 2 bytes of version 1, else in 4.
    begin = _VERSION_END + (2 if content[len(_MAGIC) : len(_MAGIC) + 1] == b"\x01" else 4)
    dtype, shape, begin = _header(content[: begin + int.from_bytes(content[_VERSION_END:begin], "little")])
    if dtype.hasobject:
        raise VectorError("Pickled", "a .npy of pickled Python objects, which are not read; save an array of float32")
    if dtype.kind != "f" or dtype.itemsize not in _FLOAT_BYTES:
        raise VectorError("WrongType", f"a .npy of {dtype}; save float16 or float32")
    if not 1 <= len(shape) <= 2 or (len(shape) == 2 and shape[0] != 1) or not 1 <= shape[-1] <= MAX_LENGTH:
        raise VectorError("WrongShape", f"a .npy of shape {shape}; save one vector of up to {MAX_LENGTH} numbers")
    found, wanted = len(content) - begin, shape[-1] * dtype.itemsize
    if found != wanted:
        raise VectorError("NotNpy", f"a .npy with {found} bytes of numbers, {wanted} by its header")
    return to_float32(np.frombuffer(content, dtype, offset=begin))


def to_float32(values: NDArray[np.floating]) -> NDArray[np.float32]:
    """The same values as float32, in the byte order of this machine; infinite where they are too large."""
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(values, np.float32)


@lru_cache(maxsize=64)
def _header(head: bytes) -> tuple[np.dtype, tuple[int, ...], int]:
    """Type and shape of the array, and where its numbers begin, of a file up to there. Kept, because the files of a
    pool have the same, and NumPy compiles the text: a third of the time of scoring."""
    stream = io.BytesIO(head)
    try:
        major, _ = npy.read_magic(stream)
        # A header of version 3 has names of fields that are no Latin letters: no vector has.
        read = npy.read_array_header_1_0 if major == 1 else npy.read_array_header_2_0
        shape, _, dtype = read(stream, max_header_size=_MAX_HEADER_BYTES)
    except (ValueError, TypeError, SyntaxError, TokenError, RecursionError, MemoryError, OverflowError) as error:
        why = one_line(error).partition(". ")[0]
        raise VectorError("NotNpy", f"damaged: not the header of a .npy file: {why}") from error
    return dtype, shape, stream.tell()


def check_vector(vector_D: NDArray[np.float32], length: int) -> None:
    """Raises VectorError: WrongLength, NotFinite, or AllZero, which is what encoders leave for an image that failed."""
    if len(vector_D) != length:
        raise VectorError("WrongLength", f"a vector of {len(vector_D)} numbers, the pool's have {length}")
    for fault in faults_of_rows(vector_D[None]).values():
        raise fault


def faults_of_rows(matrix_ND: NDArray[np.float32]) -> dict[int, VectorError]:
    """The fault of each row of a matrix that has one, as `check_vector` raises it, by the row's number."""
    is_finite_ND = np.isfinite(matrix_ND)
    faults = {}
    for row in np.flatnonzero(~is_finite_ND.all(1)):
        count = int((~is_finite_ND[row]).sum())
        text = f"{count} of {matrix_ND.shape[1]} numbers of the vector are not finite in float32"
        faults[int(row)] = VectorError("NotFinite", text)
    for row in np.flatnonzero(~matrix_ND.any(1)):
        faults[int(row)] = VectorError("AllZero", "all numbers of the vector are 0")
    return faults
