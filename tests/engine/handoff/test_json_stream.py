"""JSON of any length is read in bounded memory; what is nested too deeply is refused, whatever its texts hold."""

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import InputError
from engine.handoff.exchange import AnswerFile
from engine.handoff.formats.json_stream import MOST_OPEN, read_items, read_values


def file_of(content: bytes | str, piece_bytes: int = 1 << 20) -> AnswerFile:
    data = content.encode() if isinstance(content, str) else content

    class Pieces(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(piece_bytes if size is None or size < 0 else min(size, piece_bytes))

    return AnswerFile("a.json", "a.json", lambda: Pieces(data))


TEXTS = st.lists(st.text('[]{}"\\a', max_size=6), max_size=5)


@given(st.lists(st.fixed_dictionaries({"x": TEXTS}), min_size=1, max_size=5), st.integers(4, 9), st.booleans())
def test_a_list_and_lines_are_the_same_values(values: list[object], piece_bytes: int, has_mark: bool) -> None:
    mark = "\ufeff" if has_mark else ""
    for text in (
        json.dumps(values),
        json.dumps(values, indent=1),
        "".join(json.dumps(value) + "\n" for value in values),
    ):
        # A piece holds the mark of UTF-8.
        assert list(read_values(file_of(mark + text, max(3, piece_bytes)))) == values


@pytest.mark.parametrize("text", ["[" * 5, '\\"[', "{{\\\\"])
@pytest.mark.parametrize("piece_bytes", [1, 3, 64, 1 << 16])
def test_brackets_in_texts_do_not_count(text: str, piece_bytes: int) -> None:
    """Nor where a piece ends within a text, or within an escape."""
    entry = '{"name": "' + text + '"}'
    whole = '{"images": [' + ", ".join([entry] * 2 * MOST_OPEN) + '], "annotations": [1, 2]}'
    assert list(read_items(file_of(whole, piece_bytes), "annotations.item")) == [1, 2]


@pytest.mark.parametrize("piece_bytes", [3, 1 << 16])
@pytest.mark.parametrize("opening", ["[", '{"a":', '[{"]]]]": "}}", "a":'])
def test_what_is_nested_too_deeply_is_refused(opening: str, piece_bytes: int) -> None:
    for prefix in ("", "item", "images.item"):
        with pytest.raises(InputError, match=r"^a.json: after record 0: .*nested too deeply; export"):
            list(read_items(file_of(opening * (MOST_OPEN + 1), piece_bytes), prefix))
