"""Amazon SageMaker Ground Truth: an input manifest and the label categories; back comes output.manifest.

Ground Truth reads images from S3 alone. Without links the manifest has the images' paths: copy the folder images/ to
S3, and put its URL before each of them. The consolidated answer is final, and the verdict of a verification job is not
read. Nor are the workers' own answers, annotations/worker-response/iteration-N/NUMBER/TIME.json: NUMBER is the job's
own, and nothing in them names the image. Checked against the developer's guide, not against the service.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from engine.errors import ConfigError, InputError
from engine.handoff.exchange import Answer, AnswerFile, Outgoing, Question
from engine.handoff.formats.cells import columns_of, moment_or_none, rows_of, value_of
from engine.handoff.formats.task_files import in_files, json_file, json_line
from engine.tables.row_stream import Row
from engine.tables.values import text_of

_MOST_OBJECTS = {"class": 100_000, "classes": 100_000, "boxes": 100_000, "mask": 20_000}
_MOST_BYTES = 1 << 40
_MOST_CHARACTERS = 100_000
_MOST_IN_A_NAME = 256
_TYPES = {
    "class": "image-classification",
    "classes": "image-classification-multilabel",
    "boxes": "object-detection",
    "mask": "semantic-segmentation",
}
_META = "-metadata"


def write_tasks(batch: Outgoing) -> Iterable[tuple[str, bytes]]:
    """input.manifest, in as many files as a job's limit asks for, and label_categories.json."""
    classes = batch.question.classes
    if len(classes) < 2 and batch.question.task in ("class", "classes"):
        raise ConfigError(f"ground-truth needs two classes or more, not {len(classes)}; set handoff.question.classes")
    if long := [name for name in classes if len(name) > _MOST_IN_A_NAME]:
        raise ConfigError(
            f"class {long[0][:60]!r}... has {len(long[0])} characters, ground-truth takes 256; shorten it"
        )
    lines = [json_line({"source-ref": task.link, "item-id": task.item_id}) for task in batch.tasks]
    for task, line in zip(batch.tasks, lines, strict=True):
        if len(line) > _MOST_CHARACTERS:
            raise ConfigError(f"the link of {task.item_id} has {len(task.link):,} characters; give shorter links")
        if "://" in task.link and not task.link.startswith("s3://"):
            raise ConfigError(f"{task.link[:60]}: ground-truth reads S3 alone; give s3:// links, or export files")
    most = _MOST_OBJECTS[batch.question.task]
    yield from in_files("input.manifest", lines, most_bytes=_MOST_BYTES, most_lines=most)
    labels = {"document-version": "2018-11-28", "labels": [{"label": name} for name in classes]}
    yield "label_categories.json", json_file(labels)


def read_answers(file: AnswerFile, question: Question) -> Iterator[Answer]:
    """An output manifest, also that of a job that runs. Raises InputError for another file."""
    if "/worker-response/" in f"/{file.path}":
        raise InputError(f"{file.place}: a worker's answer names no image; give manifests/output/output.manifest")
    types: set[str] = set()
    for line, row in rows_of(file, "jsonl"):
        if "source-ref" not in row:
            raise InputError(f"{file.place}: line {line}: no 'source-ref'; give manifests/output/output.manifest")
        types |= {str(meta.get("type", _type(question))) for meta in _metas(row).values()}
        yield _answer(f"line {line}", row, question)
    if types and _type(question) not in types:
        raise InputError(f"{file.place}: answers of {min(types)!r}; give the manifest of a {_type(question)!r} job")


def is_mine(path: str, head: bytes) -> bool:
    """Whether its first line is a manifest's."""
    return path.endswith((".manifest", ".jsonl", ".json")) and "source-ref" in columns_of("head.jsonl", head)


def _answer(where: str, row: Row, question: Question) -> Answer:
    item, value, raw = "", None, ""
    try:
        item = text_of(row.get("item-id"), "item-id") or text_of(row["source-ref"], "source-ref")
        name = _attribute(row, question)
        meta = row[name + _META] if name else {}
        failure = text_of(meta.get("failure-reason"), "failure-reason")
        moment = moment_or_none(meta.get("creation-date"), "creation-date")
        if row.get(name) is not None and not failure:
            value, raw = value_of(_given(row[name], meta, question), question)
        job = text_of(meta.get("job-name"), "job-name")
    except InputError as error:
        return Answer(where, item, None, fault=str(error))
    skipped = bool(failure)
    return Answer(where, item, value, answer_id=job, answered_at=moment, skipped=skipped, reason=failure, raw=raw)


def _type(question: Question) -> str:
    return f"groundtruth/{_TYPES[question.task]}"


def _metas(row: Row) -> dict[str, dict[str, Any]]:
    """What each job of a chain says of its answer, by the name of the answer."""
    pairs = [(name, meta) for name, meta in row.items() if name.endswith(_META) and isinstance(meta, dict)]
    return {name.removesuffix(_META): meta for name, meta in pairs}


def _attribute(row: Row, question: Question) -> str:
    """The name of the newest answer to the question; empty if there is none. Raises InputError if none is newest."""
    own = [(name, meta) for name, meta in _metas(row).items() if meta.get("type", _type(question)) == _type(question)]
    found = sorted((str(meta.get("creation-date", "")), name) for name, meta in own)
    if len(found) > 1 and found[-1][0] == found[-2][0]:
        raise InputError(f"answers {found[-1][1]!r} and {found[-2][1]!r} are of the same time; keep one of them")
    return found[-1][1] if found else ""


def _given(answer: Any, meta: dict[str, Any], question: Question) -> Any:
    """The answer with names of classes, as `value_of` reads it. Raises InputError for a number of no class."""
    names = meta.get("class-map")

    def name_of(index: Any) -> str:
        if isinstance(names, dict) and str(index) in names:
            return str(names[str(index)])
        if str(index).isdecimal() and int(index) < len(question.classes):
            return question.classes[int(index)]
        raise InputError(f"class {index!r} has no name; put it into label_categories.json")

    if question.task == "class":
        return meta.get("class-name") or name_of(answer)
    if question.task == "classes" and isinstance(answer, list):
        return [name_of(index) for index in answer]
    if question.task == "boxes" and isinstance(answer, dict) and isinstance(answer.get("annotations"), list):
        return [_box(given, name_of) for given in answer["annotations"]]
    colors = meta.get("internal-color-map")
    if question.task == "mask" and isinstance(colors, dict) and all(isinstance(c, dict) for c in colors.values()):
        classes = [color for color in colors.values() if color.get("class-name") != "BACKGROUND"]
        return [{"label": c.get("class-name"), "mask": {"file": answer, "color": c.get("hex-color")}} for c in classes]
    raise InputError(f"the answer is {str(answer)[:60]!r}; give the manifest of a job for {question.task}")


def _box(given: Any, name_of: Callable[[Any], str]) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise InputError(f"a box is {str(given)[:60]!r}, and not an object; correct it")
    box = [given.get(side) for side in ("left", "top", "width", "height")]
    return {"label": name_of(given.get("class_id")), "box": box}
