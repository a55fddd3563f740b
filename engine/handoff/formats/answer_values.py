"""The value of an answer, from the labels and shapes that a vendor's file gives an image."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from engine.errors import one_line
from engine.handoff.exchange import Answer, Question, Shape


def with_value(
    answer: Answer, question: Question, labels: Iterable[Any], shapes: Iterable[Shape], *, is_done: bool = False
) -> Answer:
    """The answer with its value: of the labels for class and classes, of the shapes for boxes and mask. Only those that
    the question asks for are looked at.

    `is_done`: the file says that the image was labelled, so that no labels and no shapes are an answer too. Without it
    they are no answer yet.

    What cannot be read is a fault: labels and shapes may raise KeyError, TypeError, ValueError and AttributeError.
    """
    try:
        if question.task in ("boxes", "mask"):
            found = _asked(question, shapes)
            return answer._replace(value=found if found or is_done else None)
        names = sorted({_name(label) for label in labels})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else one_line(error)
        return answer._replace(fault=f"cannot be read: {what}; correct it, or take the image out of the file")
    if question.task == "classes":
        return answer._replace(value=names if names or is_done else None)
    if len(names) > 1:
        return answer._replace(fault=f"several classes, {', '.join(map(repr, names[:5]))}; leave one")
    return answer._replace(value=names[0] if names else None)


def box(label: str, left: Any, top: Any, width: Any, height: Any) -> Shape:
    """A box, in pixels. Raises ValueError for what is no box."""
    corner, size = [_number(left), _number(top)], [_number(width), _number(height)]
    if min(size) < 0:
        raise ValueError(f"a box of {size[0]} by {size[1]} pixels")
    return {"label": label, "box": corner + size}


def outline(label: str, rings: Sequence[Sequence[tuple[Any, Any]]], raw: Any) -> Shape:
    """A polygon, or, where several rings are one object, as with holes, a mask that is the vendor's own form of it.

    Raises ValueError for what is no polygon.
    """
    rounded = [[[_number(x), _number(y)] for x, y in ring] for ring in rings]
    if not rounded or min(map(len, rounded)) < 3:
        raise ValueError("a polygon of less than three points")
    return {"label": label, "polygon": rounded[0]} if len(rounded) == 1 else {"label": label, "mask": raw}


def _asked(question: Question, shapes: Iterable[Shape]) -> list[Shape]:
    found = list(shapes)
    if question.task == "mask" and any("box" in shape for shape in found):
        raise ValueError("a box, where masks are asked for")
    return found


def _name(label: Any) -> str:
    """Classes that are digits are numbers in some files."""
    if not isinstance(label, (str, int)) or not str(label).strip():
        raise ValueError(f"{label!r} is no class")
    return str(label)


def _number(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{value!r} is no length in pixels")
    return number
