"""A folder of images with metadata.csv, as `datasets` reads it; back comes a folder a class, or metadata with labels.

A class whose name is no folder's, or is "images", goes into the column `label` of the metadata. In a folder a class
each image has one class. Those that lie in images/ or in no folder are not labelled yet, nor are those in train/,
validation/ and test/ where these are no classes.
"""

from collections.abc import Iterable, Iterator

from engine.errors import InputError
from engine.handoff.exchange import Answer, AnswerFile, Outgoing, Question
from engine.handoff.formats.cells import columns_of, form_of, rows_of, stem_of, value_of
from engine.handoff.formats.cut_off import whole
from engine.handoff.formats.task_files import csv_lines
from engine.pool.formats import FORMATS, format_of
from engine.tables.harmless import restored
from engine.tables.row_stream import Row
from engine.tables.values import class_of, text_of

_SUFFIXES = tuple(f".{suffix}" for form in FORMATS for suffix in form.suffixes)
_UNLABELLED = ("", "images", "train", "validation", "test")
_SENT = {"file_name", "prelabel"}
_PLACE = "image"


def write_tasks(batch: Outgoing) -> Iterable[tuple[str, bytes]]:
    """metadata.csv in the order of the names, and classes.txt."""
    has_prelabels = any(task.prelabel for task in batch.tasks)
    tasks = sorted(batch.tasks, key=lambda task: task.file)
    names = ["file_name", *(["prelabel"] if has_prelabels else [])]
    rows = ([task.file, *([task.prelabel] if has_prelabels else [])] for task in tasks)
    yield "metadata.csv", b"".join(csv_lines([names, *rows]))
    yield "classes.txt", "".join(f"{name}\n" for name in batch.question.classes).encode()


def read_answers(file: AnswerFile, question: Question) -> Iterator[Answer]:
    """One image, whose folder is its class, or metadata.csv, .jsonl or .parquet with file_name and label.

    The metadata that were sent have no labels, and say that nothing is labelled. Raises InputError for another file.
    """
    folder, _, name = file.path.rpartition("/")
    if name.lower().endswith(_SUFFIXES):
        yield _of_folder(name, folder.rpartition("/")[2], question)
    elif (form := form_of(name)) and stem_of(name) == "metadata":
        is_text = form in ("csv", "tsv")
        rows = rows_of(file, form, [("file_name",)] if is_text else [("file_name",), ("label",)])
        checked = ((row, _of_row(file.place, line, row, question, is_text)) for line, row in rows)
        yield from whole(checked, "label", question)
    elif name not in ("classes.txt", "instructions.txt"):
        raise InputError(f"{file.place}: no image and no metadata; give a folder a class, or metadata.csv")


def is_mine(path: str, head: bytes) -> bool:
    """Whether it is an image, or metadata with the column file_name."""
    if form_of(path) == "parquet":
        return head.startswith(b"PAR1") and stem_of(path) == "metadata"
    is_image = path.lower().endswith(_SUFFIXES) and format_of(head) is not None
    return is_image or (stem_of(path) == "metadata" and "file_name" in columns_of(path, head))


def _of_folder(name: str, folder: str, question: Question) -> Answer:
    if question.task not in ("class", "classes"):
        return Answer(_PLACE, name, None)
    try:
        label = class_of(folder, "the folder")
    except InputError as error:
        return Answer(_PLACE, name, None, fault=str(error))
    if folder in _UNLABELLED and (folder == "images" or label not in question.classes):
        label = ""
    return Answer(_PLACE, name, None if not label else [label] if question.task == "classes" else label)


def _of_row(place: str, line: int, row: Row, question: Question, is_text: bool) -> Answer:
    """Raises InputError where the table has no labels, and is not the one that was sent."""
    if is_text and "label" not in row and not row.keys() <= _SENT:
        raise InputError(f"{place}: no column 'label' among {', '.join(map(repr, row))}; add it")
    where = f"line {line}"
    item, label = "", row.get("label")
    try:
        item = text_of(row.get("file_name"), "file_name")
        value, raw = value_of(restored(label) if is_text and label else label, question)
    except InputError as error:
        return Answer(where, item, None, fault=str(error))
    return Answer(where, item, value, raw=raw, fault="" if item else "no 'file_name'; write it, or take the row out")
