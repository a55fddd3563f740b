"""A cell says the same as text and as JSON; what is no answer is a fault with its fix."""

import json
from typing import Any

import pytest

from engine.errors import InputError
from engine.handoff.exchange import Question
from engine.handoff.formats.cells import flag_of, seconds_of, value_of

CLASS, CLASSES = Question("class", ["cat", "a|b", "[x"]), Question("classes", ["cat", "dog", "a|b", "[x"])
BOXES, MASK = Question("boxes", ["cat", "dog"]), Question("mask", ["cat"])
CORNERS = {"label": "1", "polygon": [[0, 0], [1, 0], [1, 1]]}
BOX = {"label": "cat", "box": [1, 2.5, 3, 4]}


@pytest.mark.parametrize(
    ("question", "cell", "value"),
    [
        (CLASS, " cat ", "cat"), (CLASS, "3.0", "3"), (CLASS, 3.0, "3"), (CLASS, False, "false"), (CLASS, "a|b", "a|b"),
        (CLASS, "[x", "[x"), (CLASS, "nan", None), (CLASS, "", None), (CLASS, None, None), (CLASS, float("nan"), None),
        (CLASSES, "dog|cat", ["cat", "dog"]), (CLASSES, "dog", ["dog"]), (CLASSES, '["dog", "dog"]', ["dog"]),
        (CLASSES, ["dog", 3.0], ["3", "dog"]), (CLASSES, 3, ["3"]), (CLASSES, "a|b", ["a|b"]), (CLASSES, "[x", ["[x"]),
        (CLASSES, "[]", []), (CLASSES, [], []), (CLASSES, " ", None), (CLASSES, None, None), (CLASSES, "NaN", None),
        (BOXES, [BOX], [BOX]), (BOXES, json.dumps([BOX]), [BOX]), (BOXES, [{**BOX, "polygon": None, "id": 7}], [BOX]),
        (BOXES, "[]", []), (BOXES, "", None),
        (BOXES, json.dumps([{**CORNERS, "label": 1.0}]), [CORNERS]),
        (MASK, "masks/./a.png", [{"label": "cat", "mask": "masks/a.png"}]),
        (MASK, [{"label": "dog", "mask": {"counts": [1, 2]}}], [{"label": "dog", "mask": {"counts": [1, 2]}}]),
    ],
)  # fmt: skip
def test_a_cell_as_the_value_of_an_answer(question: Question, cell: Any, value: Any) -> None:
    found, raw = value_of(cell, question)
    assert found == value
    assert bool(raw) == (question.task in ("boxes", "mask") and value is not None and "masks" not in str(cell))


def test_raw_is_what_the_vendor_said_and_a_mask_of_many_classes_names_none() -> None:
    assert json.loads(value_of([{**BOX, "id": 7}], BOXES)[1]) == [{**BOX, "id": 7}]
    assert value_of("a.png", Question("mask", ["a", "b"]))[0] == [{"label": "", "mask": "a.png"}]


@pytest.mark.parametrize(
    ("question", "cell", "message"),
    [
        (CLASS, ["cat"], "label is several values"),
        (CLASS, "a\nb", "label is 'a.nb', with a line break"),
        (CLASSES, "cat||dog", "label has an empty class; take it out"),
        (CLASSES, [None], "label has an empty class"),
        (CLASSES, '["cat"', "label is .* and not a JSON list; correct it"),
        (CLASSES, "[" * 10_000, "label is .* and not a JSON list"),
        (BOXES, "cat", "label is 'cat', and not a JSON list"),
        (BOXES, {"label": "cat"}, "label is .* and not a list of shapes"),
        (BOXES, [1], "label: shape 1 is 1, and not an object"),
        (BOXES, [BOX, {"label": "cat"}], "label: shape 2 has label; give label and one of box, polygon, mask"),
        (BOXES, [{"box": [1, 2, 3, 4]}], "label: shape 1 has box; give label"),
        (BOXES, [{**BOX, "mask": "a.png"}], "label: shape 1 has label, box, mask; "),
        (BOXES, [{"label": "cat", "box": [1, 2, 0, 4]}], r"box is \[1, 2, 0, 4\]; give \[left, top, width, height\]"),
        (BOXES, '[{"label": "cat", "box": [1, 2, NaN, 4]}]', "box is "),
        (BOXES, '[{"label": "cat", "box": [1, 2, 1e999, 4]}]', "box is "),
        (BOXES, [{"label": "cat", "box": [1, 2, 3, True]}], "box is "),
        (BOXES, [{"label": "cat", "polygon": [[0, 0], [1, 1]]}], "polygon is .*; give three or more points"),
        (MASK, "../a.png", "label: mask is '../a.png'; give the name of a PNG file beside the answers"),
        (MASK, "/a.png", "label: mask is "),
        (MASK, "a.jpg", "label: mask is "),
    ],
)
def test_what_is_no_answer_is_named_in_one_line(question: Question, cell: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        value_of(cell, question)
    assert "\n" not in str(caught.value)
    assert ";" in str(caught.value)


def test_seconds_and_flags() -> None:
    assert [seconds_of(cell, "seconds") for cell in ("4.5", 3, None, "")] == [4.5, 3.0, None, None]
    assert [flag_of(cell, "skipped") for cell in (True, "TRUE", 1, "yes", "0", "", None)] == [True] * 4 + [False] * 3
    for cell in ("soon", -1, "inf", "nan!"):
        with pytest.raises(InputError, match=r"seconds is .*"):
            seconds_of(cell, "seconds")
    with pytest.raises(InputError, match="skipped is 'maybe'; write true or false"):
        flag_of("maybe", "skipped")
