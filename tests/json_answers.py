"""What tests of vendors' JSON share: names, and what all must refuse."""

import json
from collections.abc import Callable, Iterator

import pytest
from hypothesis import strategies as st

from engine.errors import InputError
from engine.handoff.exchange import Answer, AnswerFile, Question
from tests.vendor_files import answer_file

ITEM_IDS = st.text("0123456789abcdef", min_size=32, max_size=32)
_LETTERS = st.characters(exclude_categories=("Cs", "Cc", "Cn", "Zl", "Zp"))
_AWKWARD = st.sampled_from(["=1+1", '"', "<b>&amp;", "a,b", "a|b", "'", "-", "@x", "é", "日本", "007", "null", "{}"])
CLASS_NAMES = st.one_of(st.text(_LETTERS, min_size=1, max_size=12).map(str.strip).filter(bool), _AWKWARD)
Read = Callable[[AnswerFile, Question], Iterator[Answer]]


def require_refused(read: Read, question: Question, whole: str, *, cuts_at_lines: bool = False) -> None:
    """What is cut off, in another encoding or no JSON is an InputError in one line that names the file."""
    data = whole.encode()
    total = len(list(read(answer_file(data), question)))
    for cut in sorted({*range(1, 40), *range(40, len(data) - 2, max(1, len(data) // 60)), len(data.rstrip()) - 1}):
        if cuts_at_lines and whole.encode()[:cut].rstrip().count(b"\n") and _is_whole(data[:cut]):
            assert len(list(read(answer_file(data[:cut]), question))) < total
            continue
        refuse(read, data[:cut], question, "cut off|not valid JSON|empty")
    refuse(read, b"", question, "empty")
    refuse(read, b" \n", question, "empty")
    refuse(read, whole.encode("utf-16"), question, "UTF-8")
    refuse(read, data.replace(b"kettle", b"k\xe9ttle"), question, "UTF-8")
    refuse(read, b"PK\x03\x04" + data, question, "not JSON")
    refuse(read, b"item_id,label\n1,kettle\n", question, "not JSON")
    refuse(read, b"[1, 2]", question, "not an object")
    refuse(read, b'{"item_id": "a", "label": "kettle"}\n', question, "export|give the tasks")
    refuse(read, b"[" * 100_000, question, "nested too deeply")
    refuse(read, b'[{"a":' + b'{"a":' * 1_000_000, question, "nested too deeply")
    refuse(read, data.rstrip() + b"}", question, "not valid JSON")


def refuse(read: Read, data: bytes, question: Question, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        list(read(answer_file(data), question))
    assert str(caught.value).startswith("/in/answers.json: ")
    assert "\n" not in str(caught.value)
    assert ";" in str(caught.value)


def _is_whole(data: bytes) -> bool:
    try:
        return all(json.loads(line) for line in data.decode().splitlines())
    except ValueError:
        return False
