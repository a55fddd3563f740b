"""Amazon SageMaker Ground Truth: an input manifest and the label categories; back comes output.manifest.

Ground Truth reads images from S3 alone. Without links the manifest has the images' paths: copy the folder images/ to
S3, and put its URL before each of them. The consolidated answer is final, and the verdict of a verification job is not
read. Nor are the workers' own answers, annotations/worker-response/iteration-N/NUMBER/TIME.json: NUMBER is the job's
own, and nothing in them names the image. Checked against the developer's guide, not against the service.
"""

from collections.abc import Iterable, Iterator

from engine.errors import ConfigError, InputError
from engine.handoff.exchange import Answer, AnswerFile, Outgoing, Question
from engine.handoff.formats.cells import columns_of, rows_of
from engine.handoff.formats.output_manifest import answer_of, metas_of, type_of
from engine.handoff.formats.task_files import in_files, json_file, json_line

_MOST_OBJECTS = {"class": 100_000, "classes": 100_000, "boxes": 100_000, "mask": 20_000}
_MOST_BYTES = 1 << 40
_MOST_CHARACTERS = 100_000
_MOST_IN_A_NAME = 256


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
        types |= {str(meta.get("type", type_of(question))) for meta in metas_of(row).values()}
        yield answer_of(f"line {line}", row, question)
    if types and type_of(question) not in types:
        raise InputError(f"{file.place}: answers of {min(types)!r}; give the manifest of a {type_of(question)!r} job")


def is_mine(path: str, head: bytes) -> bool:
    """Whether its first line is a manifest's."""
    return path.endswith((".manifest", ".jsonl", ".json")) and "source-ref" in columns_of("head.jsonl", head)
