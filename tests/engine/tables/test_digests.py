"""Hashes in memory are those of files."""

import hashlib

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.tables import digests
from engine.tables.digests import DIGEST, digest_of, packed, unpacked

TEXTS = st.lists(st.none() | st.binary(min_size=16, max_size=16).map(bytes.hex), max_size=20)


@given(TEXTS, st.integers(0, 5))
def test_they_come_back_whatever_is_null_or_sliced(texts: list[str | None], begin: int) -> None:
    column = pa.array(texts, pa.string())
    for some in (column.slice(begin), pa.chunked_array([column, column.slice(begin)])):
        hashes = packed(some)
        assert hashes.type == DIGEST
        assert [value and value.hex() for value in hashes.to_pylist()] == some.to_pylist()
        assert unpacked(hashes).to_pylist() == some.to_pylist()
        assert unpacked(pa.chunked_array([hashes]).slice(begin)).to_pylist() == some.to_pylist()[begin:]


@pytest.mark.parametrize("text", ["", "0" * 31, "0" * 33, "g" * 32, "é" * 16, " " * 32, "0 " * 16])
def test_what_is_no_hash_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"hash|hexa|width|ascii|codec"):
        packed(pa.array([text]))


@given(st.lists(st.lists(st.binary(min_size=16, max_size=16) | st.just(bytes(16)), max_size=20), max_size=4))
def test_a_digest_is_that_of_the_sorted_texts_in_any_parts(parts: list[list[bytes]]) -> None:
    texts = sorted({value.hex() for part in parts for value in part})
    arrays = [pa.array([bytes(16), *part], DIGEST).slice(1) for part in parts]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digests, "_BLOCK", 3)
        assert digest_of(arrays) == hashlib.sha256("\n".join(texts).encode()).hexdigest()
