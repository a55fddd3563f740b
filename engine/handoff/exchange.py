"""What goes out to a vendor and what comes back, in the words of no vendor."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import IO, Any, Literal, NamedTuple

Shape = dict[str, Any]
"""An object in an image: `label`, and one of `box` [left, top, width, height], `polygon` [[x, y], ...] or `mask`, a
vendor's own run lengths or the name of a file. Lengths are in pixels from the upper left corner of the image
as it is shown."""
Value = str | list[str] | list[Shape]
"""The value of an answer: a class, several classes, or shapes. An empty list says that there are none. A class that the
file gives by its place among those that were sent is a `engine.tables.values.ClassNumber`."""


class Question(NamedTuple):
    """What annotators are asked about each image.

    `is_open`: nobody named the classes, these are those of the labels, and others may come back.
    """

    task: Literal["class", "classes", "boxes", "mask"]
    classes: list[str]
    instructions: str = ""
    is_open: bool = False


class Task(NamedTuple):
    """An image to be labelled.

    `file` is its path below the vendor's folder, images/ITEM_ID.SUFFIX. `link` is where the annotators' program finds
    it: a URL, or `file` where images travel as files. `priority` is 0 for the most valuable one. Width and height are
    in pixels, of the image as programs show it: upright by its Exif orientation. `prelabel` is a class that a network
    guesses, or empty.
    """

    item_id: str
    file: str
    link: str
    priority: int
    size_bytes: int
    sha256: str
    media_type: str
    width: int
    height: int
    prelabel: str = ""


class Outgoing(NamedTuple):
    """A batch: its name for the vendor, the question, how many people label each image, and the tasks by priority."""

    name: str
    question: Question
    annotators: int
    tasks: list[Task]


class Answer(NamedTuple):
    """What a vendor's file says of one image, from one annotator.

    Args:
        where: the place in the file, for errors: "line 3", "task 17".
        item: the item_id, or a path whose file is named by it.
        value: None where there is no answer yet, or it was skipped.
        annotator: the vendor's own name of the person; it is hashed before it is kept. Empty: the vendor's final answer
            of all of them together.
        answer_id: the vendor's own name of the answer, the same in each later version of it; may be empty.
        skipped: a person looked at the image and gave no answer; `reason` may say why.
        fault: why this one cannot be taken, with the fix; empty if it can.
        raw: the vendor's own JSON of shapes.
        as_of: when the vendor wrote the file, where its answers have no times: of two that differ the later counts.
    """

    where: str
    item: str
    value: Value | None
    annotator: str = ""
    answer_id: str = ""
    answered_at: datetime | None = None
    seconds: float | None = None
    skipped: bool = False
    reason: str = ""
    fault: str = ""
    raw: str = ""
    as_of: datetime | None = None


@dataclass(frozen=True)
class AnswerFile:
    """A file of answers: alone, in a folder or in a zip archive.

    `place` names it in errors. `path` is its path below what the user named, with /; the file's name where it is alone.
    `open` gives a new stream from its start, `beside` one of another file by its path from this one's folder.
    """

    place: str
    path: str
    open: Callable[[], IO[bytes]]
    beside: Callable[[str], IO[bytes]] | None = None
