"""Batches for vendors, and the files that they would send back."""

import hashlib
import io
from collections.abc import Callable
from itertools import chain, count
from types import ModuleType
from typing import Literal

import pytest
from hypothesis import strategies as st

from engine.errors import InputError
from engine.handoff.exchange import Answer, AnswerFile, Outgoing, Question, Task
from tests.endless import Endless

CLASSES = ["kettle", 'tea "pot", <big>', "=1+1", "Jüg & co|;"]

item_ids = st.lists(st.text("0123456789abcdef", min_size=32, max_size=32), min_size=1, max_size=8, unique=True)
class_names = st.lists(
    st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), min_size=1, max_size=64)
    .map(str.strip)
    .filter(lambda name: name and not name.isspace() and "priority" not in name),
    min_size=1,
    max_size=5,
    unique=True,
)
"""Any that a campaign takes: Unicode with quotes, commas and angle brackets."""
people = st.sampled_from(["a@x.org", "b+c@x.org", "worker-7", 'Ann, "A" <é>'])


def task_of(item_id: str, priority: int = 0, base: str = "") -> Task:
    file = f"images/{item_id}.png"
    link = f"{base}{item_id}.png" if base else file
    return Task(item_id, file, link, priority, 100, "0" * 64, "image/png", 48, 32)


def item_id(number: int) -> str:
    return hashlib.md5(str(number).encode()).hexdigest()


def batch_of(
    task: Literal["class", "classes", "boxes", "mask"] = "class",
    ids: list[str] | None = None,
    classes: list[str] | None = None,
    annotators: int = 1,
    base: str = "",
) -> Outgoing:
    ids = [item_id(number) for number in range(3)] if ids is None else ids
    question = Question(task, classes or CLASSES, "Look at the handle.")
    return outgoing(question, ids, links=base, annotators=annotators)


def outgoing(question: Question, ids: list[str], *, links: str = "", annotators: int = 1) -> Outgoing:
    """A batch of those items. `links`: a URL below which the images are; without it they travel as files."""
    tasks = [task_of(name, number, links) for number, name in enumerate(ids)]
    return Outgoing("Vessels-r000-b000", question, annotators, tasks)


def written(vendor: ModuleType, batch: Outgoing) -> dict[str, bytes]:
    """The vendor's files by name; the same bytes each time."""
    files: dict[str, bytes] = dict(vendor.write_tasks(batch))
    assert dict(vendor.write_tasks(batch)) == files
    assert b"priority" not in b"".join(files.values())
    return files


def answer_file(content: bytes | str, path: str = "answers.json") -> AnswerFile:
    data = content.encode() if isinstance(content, str) else content
    return AnswerFile(f"/in/{path}", path, lambda: io.BytesIO(data))


def answers(vendor: ModuleType, content: bytes | str, path: str, question: Question) -> list[Answer]:
    return list(vendor.read_answers(answer_file(content, path), question))


def refused(vendor: ModuleType, content: bytes | str, path: str, question: Question) -> str:
    """The one line that says why a file is refused."""
    with pytest.raises(InputError) as error:
        answers(vendor, content, path, question)
    text = str(error.value)
    assert text.startswith(f"/in/{path}: ")
    assert ";" in text
    assert "\n" not in text
    return text


def assert_no_cut_is_taken(vendor: ModuleType, content: str, path: str, question: Question) -> None:
    """A file that ends early is refused, wherever it was cut."""
    whole = content.rstrip().encode()
    for end in {0, 1, 5, *range(10, len(whole), max(1, len(whole) // 50)), len(whole) - 1}:
        refused(vendor, whole[:end], path, question)


def endless_file(path: str, head: str, row: str | Callable[[int], str]) -> AnswerFile:
    """A file that never ends: a reader that answers does not wait for all of it."""

    def opened() -> io.BufferedReader:
        rows = (row if isinstance(row, str) else row(number) for number in count())
        return io.BufferedReader(Endless(map(str.encode, chain([head], rows))))

    return AnswerFile(f"/in/{path}", path, opened)
