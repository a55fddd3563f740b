"""The images of an XML file of CVAT, read as a stream, without a tree."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any
from xml.parsers.expat import ExpatError, ParserCreate

from engine.errors import InputError
from engine.handoff.exchange import Answer, AnswerFile, Question, Shape
from engine.handoff.formats.answer_values import box, outline, with_value
from engine.handoff.formats.task_files import compact
from engine.tables.values import moment_of

_PIECE_BYTES = 1 << 16
_JOB = ["annotations", "meta", "job"]
_DUMPED = ["annotations", "meta", "dumped"]
_OF_JOB = (["id"], ["assignee", "username"])
"""What of a job is read: its number on the server, and the person that it is assigned to, if there is one."""


def read_images(file: AnswerFile, question: Question, fix: str) -> Iterator[Answer]:
    """An answer for each image: of a job's export those of its assignee, else of the job; of others the final ones.

    Raises InputError, with the fix, for a file that is truncated or something else.
    """
    images = _Images(file, question, fix)
    with file.open() as stream:
        while piece := stream.read(_PIECE_BYTES):
            yield from images.parse(piece)
        yield from images.parse(b"", is_last=True)


class _Images:
    """The parser's handlers. They see one element at a time, and keep what belongs to the image that is open."""

    def __init__(self, file: AnswerFile, question: Question, fix: str) -> None:
        self.place, self.question, self.fix = file.place, question, fix
        self.answers: list[Answer] = []
        self.path: list[str] = []
        self.image, self.tags, self.shapes = Answer("", "", None), list[str](), list[dict[str, str]]()
        self.is_job, self.text, self.of_job = False, "", dict[str, str]()
        self.as_of: datetime | None = None
        self.parser = ParserCreate()
        self.parser.StartElementHandler, self.parser.EndElementHandler = self._start, self._end
        self.parser.CharacterDataHandler = self._say
        # Entities are declared in a DOCTYPE: a few lines of them expand to any size.
        self.parser.StartDoctypeDeclHandler = lambda *_: self._refuse("a DOCTYPE, which CVAT never writes")

    def parse(self, piece: bytes, *, is_last: bool = False) -> list[Answer]:
        try:
            self.parser.Parse(piece, is_last)
        except (ExpatError, LookupError, ValueError) as error:
            raise InputError(f"{self.place}: not complete XML ({error}); {self.fix} again") from error
        done, self.answers = self.answers, []
        return done

    def _refuse(self, what: str) -> None:
        raise InputError(f"{self.place}: line {self.parser.CurrentLineNumber}: {what}; {self.fix}")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if not self.path and name != "annotations":
            self._refuse(f"<{name}>, where CVAT has <annotations>")
        elif self.path == ["annotations"] and name == "track":
            self._refuse("a <track>, as in CVAT for video")
        elif self.path == ["annotations"] and name == "image":
            self.image = self._opened(attributes.get("name", ""))
            self.tags, self.shapes = [], []
        elif self.path == ["annotations", "image"] and name == "tag":
            self.tags.append(attributes.get("label", ""))
        elif self.path == ["annotations", "image"]:
            self.shapes.append({"type": name, **attributes})
        self.path.append(name)
        self.is_job |= self.path == _JOB
        self.text = ""

    def _say(self, text: str) -> None:
        if self._is_of_job() or self.path == _DUMPED:
            self.text += text

    def _is_of_job(self) -> bool:
        return self.path[: len(_JOB)] == _JOB and self.path[len(_JOB) :] in _OF_JOB

    def _opened(self, name: str) -> Answer:
        """The image, with whose answer it is."""
        place = f"line {self.parser.CurrentLineNumber}"
        if not self.is_job:
            return Answer(place, name, None, as_of=self.as_of)
        if not self.of_job.get("id"):
            self._refuse("a <job> without an <id>")
        job = f"job {self.of_job['id']}"
        return Answer(place, name, None, annotator=self.of_job.get("username") or job, answer_id=job, as_of=self.as_of)

    def _end(self, name: str) -> None:
        if self._is_of_job():
            self.of_job[name] = self.text.strip()
        elif self.path == _DUMPED and self.text.strip():
            try:
                self.as_of = moment_of(self.text.strip(), self.place)
            except InputError:
                # Without a time of the file, its answers are as new as the ingest.
                self.as_of = None
        self.path.pop()
        if self.path == ["annotations"] and name == "image":
            if not self.image.item:
                self.image = self.image._replace(fault=f"an image without a name; {self.fix}")
            answer = with_value(self.image, self.question, self.tags, map(_shape, self.shapes))
            is_raw = isinstance(answer.value, list) and self.question.task in ("boxes", "mask")
            self.answers.append(answer._replace(raw=compact(self.shapes)) if is_raw else answer)


def _shape(given: dict[str, str]) -> Shape:
    """Raises KeyError or ValueError for what is no box, polygon or mask, or lacks a part."""
    kind, label = given["type"], given["label"]
    if kind == "polygon":
        points = [point.split(",") for point in given["points"].split(";")]
        return outline(label, [[(float(x), float(y)) for x, y in points]], None)
    if kind == "mask":
        mask: dict[str, Any] = {name: int(given[name]) for name in ("left", "top", "width", "height")}
        return {"label": label, "mask": mask | {"rle": [int(length) for length in given["rle"].split(",")]}}
    if kind != "box":
        raise ValueError(f"a <{kind}> is no box, polygon or mask")
    left, top, right, bottom = (float(given[name]) for name in ("xtl", "ytl", "xbr", "ybr"))
    found = box(label, left, top, right - left, bottom - top)
    # Degrees, clockwise around the centre.
    return found | ({"rotation": float(given["rotation"])} if float(given.get("rotation", 0)) else {})
