"""The value of an answer, from the labels and shapes that a vendor's file gives an image."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from engine.errors import InputError, one_line
from engine.handoff.exchange import Answer, Question, Shape, Value


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


def with_read(answer: Answer, read: Callable[[], tuple[Value, str]], what: str, program: str) -> Answer:
    """The answer with the value and the raw shapes that `read` gives. Its InputError is a fault, which names what was
    read, and the vendor's program to correct it in."""
    try:
        value, raw = read()
    except InputError as error:
        return answer._replace(fault=f"{what} has {error}; correct it in {program} and export again")
    return answer._replace(value=value, raw=raw)


def one_of(found: Sequence[str]) -> str:
    """The only class found. Raises InputError if there is none, or more than one."""
    if len(found) != 1:
        raise InputError(f"the classes {', '.join(map(repr, found))}, not one" if found else "no class")
    return found[0]


def duration(value: Any) -> float | None:
    """A length of time in seconds; None for anything else."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) and value >= 0 else None


def box(label: str, left: Any, top: Any, width: Any, height: Any) -> Shape:
    """A box, in pixels. Raises TypeError or ValueError for what is no box."""
    sides = [_pixels(side) for side in (left, top, width, height)]
    if min(sides[2:]) < 0:
        raise ValueError(f"a box of {width} by {height} pixels")
    return {"label": label, "box": sides}


def outline(label: str, rings: Sequence[Sequence[tuple[Any, Any]]], raw: Any) -> Shape:
    """A polygon, or, where several rings are one object, as with holes, a mask that is the vendor's own form of it.

    Raises TypeError or ValueError for what is no polygon.
    """
    checked = [[[_pixels(x), _pixels(y)] for x, y in ring] for ring in rings]
    if not checked or min(map(len, checked)) < 3:
        raise ValueError("a polygon of less than three points")
    return {"label": label, "polygon": checked[0]} if len(checked) == 1 else {"label": label, "mask": raw}


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


def _pixels(value: Any) -> float:
    """Raises TypeError or ValueError for what is no length."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{value!r} is no length in pixels")
    if not math.isfinite(value):
        raise ValueError(f"{value!r} is no length in pixels")
    return value
