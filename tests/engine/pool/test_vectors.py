"""A vector is read exactly, or refused with a name; whatever the bytes are, nothing else happens."""

import io
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.pool.vectors import MAX_LENGTH, VectorError, _header, check_vector, faults_of_rows, parse_npy


def npy(array: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


class Bomb:
    def __reduce__(self) -> Any:
        return pytest.fail, ("the file was executed",)


VECTOR = np.random.default_rng(0).normal(size=16)
GOOD = npy(VECTOR.astype(np.float16))


@pytest.mark.parametrize("dtype", ["<f2", ">f2", "<f4", ">f4", "<f8", ">f8"])
@pytest.mark.parametrize("shape", [(16,), (1, 16)])
def test_numbers_are_those_of_the_file(dtype: str, shape: tuple[int, ...]) -> None:
    stored = VECTOR.astype(dtype).reshape(shape)
    found = parse_npy(npy(stored))
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, stored.astype(np.float32).ravel())


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "NotNpy"),
        (b"PK\x03\x04", "NotNpy"),
        (pickle.dumps(VECTOR), "NotNpy"),
        (GOOD[:-1], "NotNpy"),
        (GOOD + b"\0", "NotNpy"),
        (GOOD[:20], "NotNpy"),
        (GOOD.replace(b"(16,)", b"(1e9)"), "NotNpy"),
        (GOOD.replace(b"'descr'", b"'other'"), "NotNpy"),
        (GOOD.replace(b"(16,),", b"(10**9"), "NotNpy"),
        (b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65535, "NotNpy"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\x7f" + b"(" * 9000, "NotNpy"),
        (npy(np.array([Bomb()], object), allow_pickle=True), "Pickled"),
        (npy(np.zeros(4, [("a", object)]), allow_pickle=True), "Pickled"),
        (npy(np.arange(4)), "WrongType"),
        (npy(np.zeros(4, "V2")), "WrongType"),
        (npy(np.zeros(4, complex)), "WrongType"),
        (npy(np.zeros(4, np.longdouble)), "WrongType"),
        (npy(np.zeros(4, [("a", "f4")])), "WrongType"),
        (npy(np.float32(1)), "WrongShape"),
        (npy(np.zeros((2, 8), np.float32)), "WrongShape"),
        (npy(np.zeros((1, 1, 8), np.float32)), "WrongShape"),
        (npy(np.zeros(0, np.float32)), "WrongShape"),
        (npy(np.zeros(MAX_LENGTH + 1, np.float16)), "WrongShape"),
        (GOOD.replace(b"(16,), ", b"(1<<40,"), "NotNpy"),
        (GOOD.replace(b"(16,), }   ", b"(99999,), }"), "WrongShape"),
        (GOOD.replace(b"(16,)", b"(17,)"), "NotNpy"),
        (GOOD.replace(b"(16,)", b"(-6,)"), "WrongShape"),
    ],
)
def test_another_file_is_refused_by_kind(content: bytes, kind: str) -> None:
    with pytest.raises(VectorError) as refused:
        parse_npy(content)
    assert refused.value.kind == kind
    assert str(refused.value)
    assert "\n" not in str(refused.value)


@given(st.integers(0, len(GOOD) - 1), st.integers(0, 255), st.integers(0, len(GOOD)))
def test_damaged_bytes_end_in_a_vector_error_or_in_numbers(place: int, value: int, end: int) -> None:
    content = bytearray(GOOD)
    content[place] = value
    for damaged in (bytes(content), bytes(content[:end])):
        fault = None
        try:
            assert parse_npy(damaged).dtype == np.float32
        except VectorError as error:
            fault = str(error)
        assert fault is None or (fault and "\n" not in fault)


@pytest.mark.parametrize(
    ("vector", "kind"),
    [
        (np.ones(3), "WrongLength"),
        (np.array([1, np.nan, 1, 1]), "NotFinite"),
        (np.array([1, -np.inf, 1, 1]), "NotFinite"),
        (np.array([1e39, 1, 1, 1]), "NotFinite"),
        (np.zeros(4), "AllZero"),
        (-np.zeros(4), "AllZero"),
    ],
)
def test_a_useless_vector_is_refused_by_kind(vector: Any, kind: str) -> None:
    with pytest.raises(VectorError) as refused:
        check_vector(parse_npy(npy(vector.astype(np.float64))), 4)
    assert refused.value.kind == kind


def test_what_float16_could_not_hold_is_not_finite() -> None:
    with np.errstate(over="ignore"), pytest.raises(VectorError, match="1 of 2 numbers") as refused:
        check_vector(parse_npy(npy(np.array([70000, 1]).astype(np.float16))), 2)
    assert refused.value.kind == "NotFinite"


def test_faults_of_a_matrix_are_those_of_its_rows() -> None:
    matrix = np.array([[1, 0], [0, 0], [np.inf, np.nan], [0, 1e-45]], np.float32)
    found = faults_of_rows(matrix)
    assert {row: fault.kind for row, fault in found.items()} == {1: "AllZero", 2: "NotFinite"}
    for row, vector in enumerate(matrix):
        fault = None
        try:
            check_vector(vector, 2)
        except VectorError as error:
            fault = error.args
        assert fault == (found[row].args if row in found else None)


def test_an_error_stays_whole_between_processes() -> None:
    error = pickle.loads(pickle.dumps(VectorError("NotNpy", "why")))
    assert (error.kind, str(error)) == ("NotNpy", "why")


def test_the_header_that_files_share_is_read_once_and_their_numbers_each_time() -> None:
    arrays = [np.full(24, number, np.float32) for number in range(1, 6)]
    before = _header.cache_info().misses
    for array in arrays:
        np.testing.assert_array_equal(parse_npy(npy(array)), array)
    assert _header.cache_info().misses <= before + 1
    with pytest.raises(VectorError, match="92 bytes of numbers, 96 by its header"):
        parse_npy(npy(arrays[0])[:-4])
