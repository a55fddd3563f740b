"""Whatever is in a file, and wherever it is cut off: answers, faults, or one line that names the file."""

import json
import pkgutil
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import InputError
from engine.handoff import VENDORS
from engine.handoff.exchange import Answer, Question
from tests.engine.handoff.vendors.table_batches import VESSELS
from tests.vendor_files import answer_file

TABS = "INPUT:item_id\tOUTPUT:label\tASSIGNMENT:worker_id\n"
OBJECT = {"item-id": "a", "source-ref": "s3://b/a.png", "x": 1, "x-metadata": {"class-name": "jug", "job-name": "j"}}
FILES = [
    ("generic", "a.csv", 'item_id,label,annotator\na,jug,"é"\nb,kettle,x\n', 2),
    ("generic", "a.jsonl", '{"item_id": "a", "label": "jug"}\n{"item_id": "b", "label": "é"}\n', 2),
    ("imagefolder", "metadata.csv", "file_name,label,more\na.png,jug,x\nb.png,jug,y\n", 2),
    ("tsv", "a.tsv", f'{TABS}a\tjug\tw1\nb\t"jug"\tw2\n', 2),
    ("ground-truth", "a.manifest", f"{json.dumps(OBJECT)}\n{json.dumps(OBJECT)}\n", 2),
]
TASKS = get_args(Question.__annotations__["task"])
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["jug", "a\n", "0", "../x", "\ud800", "=1"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["label", "box", "annotations"]), inner)
    ),
    max_leaves=6,
)
METAS = st.dictionaries(
    st.sampled_from(
        ["class-name", "class-map", "type", "failure-reason", "creation-date", "job-name", "internal-color-map"]
    ),
    VALUES,
)


def read(vendor: str, path: str, content: bytes, question: Question = VESSELS) -> list[Answer] | str:
    """The answers, or the error: one line that names the file."""
    answers = pkgutil.resolve_name(f"{VENDORS[vendor].module}:read_answers")
    try:
        return list(answers(answer_file(content, path), question))
    except InputError as error:
        text = str(error)
    assert text.startswith(f"/in/{path}: ")
    assert "\n" not in text
    return text


@pytest.mark.parametrize(("vendor", "path", "text", "num_rows"), FILES)
def test_a_file_cut_at_any_byte_is_refused_but_in_its_last_value(
    vendor: str, path: str, text: str, num_rows: int
) -> None:
    whole = text.encode()
    expected = read(vendor, path, whole)
    assert len(expected) == num_rows
    for end in range(len(whole)):
        found = read(vendor, path, whole[:end])
        if not isinstance(found, str):
            # Only the last value of a line that is cut off cannot be told from a whole one.
            assert [answer._replace(annotator="") for answer in found] == [
                answer._replace(annotator="") for answer in expected[: len(found)]
            ]


@given(st.sampled_from(TASKS), st.sampled_from([7, "a"]), VALUES, METAS | VALUES)
def test_any_values_are_answers_faults_or_refused(task: Any, item: Any, value: Any, meta: Any) -> None:
    question = Question(task, ["jug", "kettle"])
    rows = {
        ("generic", "a.jsonl"): {"item_id": item, "label": value, "annotator": meta, "seconds": value, "skipped": meta},
        ("imagefolder", "metadata.jsonl"): {"file_name": item, "label": value},
        ("ground-truth", "a.manifest"): {"source-ref": item, "x": value, "x-metadata": meta},
    }
    for (vendor, path), row in rows.items():
        found = read(vendor, path, json.dumps(row).encode(), question)
        if not isinstance(found, str):
            (answer,) = found
            assert "\n" not in answer.fault
            assert not answer.fault or (";" in answer.fault and answer.value is None)


@given(st.sampled_from(FILES), st.binary(max_size=6), st.integers(0, 60))
def test_a_file_with_any_bytes_in_it_is_read_or_refused(file: tuple[str, str, str, int], noise: bytes, at: int) -> None:
    vendor, path, text, _ = file
    content = text.encode()
    read(vendor, path, content[:at] + noise + content[at:])
