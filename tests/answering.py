"""What each vendor sends back to the task files that it was given: a class for each image, in the vendor's own format.

The files are made as the vendors' programs make them from what they were sent: every name of an image and of a class is
read from the written files.
"""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

from engine.tables.harmless import harmless, restored

Answered = Iterator[tuple[str, str]]
"""Names of files and their contents."""
Pick = Callable[[str, list[str]], str]
"""The class that is given to an image, by its item_id and the classes that the vendor was sent."""
WHEN = "2026-11-20T10:00:05.000Z"


def _json(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text())


def _parts(folder: Path, name: str) -> Iterable[Path]:
    """The file of this name, or its parts."""
    stem, _, suffix = name.rpartition(".")
    return sorted([*folder.glob(name), *folder.glob(f"{stem}-*.{suffix}")])


def _lines(folder: Path, name: str) -> Iterator[Any]:
    for file in _parts(folder, name):
        with file.open() as lines:
            yield from map(json.loads, lines)


def _rows(file: Path, mark: str = ",") -> Iterator[dict[str, str]]:
    with file.open(newline="") as lines:
        yield from csv.DictReader(lines, delimiter=mark)


def _table(rows: Iterable[dict[str, str]], mark: str = ",") -> str:
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=mark)
    for number, row in enumerate(rows):
        if not number:
            writer.writerow(row)
        writer.writerow(row.values())
    return out.getvalue()


def _listed(records: Iterable[Any]) -> str:
    return json.dumps(list(records), ensure_ascii=False)


def generic(folder: Path, pick: Pick) -> Answered:
    classes = _json(folder, "question.json")["classes"]
    rows = _rows(folder / "tasks.csv")
    yield "a.csv", _table({"item_id": row["item_id"], "label": harmless(pick(row["item_id"], classes))} for row in rows)


def coco(folder: Path, pick: Pick) -> Answered:
    parts = _json(folder, "instances.json")
    numbers = {entry["name"]: entry["id"] for entry in parts["categories"]}
    given = (numbers[pick(image["item_id"], list(numbers))] for image in parts["images"])
    pairs = enumerate(zip(parts["images"], given, strict=True), 1)
    annotations = [{"id": number, "image_id": image["id"], "category_id": one} for number, (image, one) in pairs]
    yield "a.json", json.dumps(parts | {"annotations": annotations})


def cvat(folder: Path, pick: Pick) -> Answered:
    classes = [label["name"] for label in _json(folder, "labels.json")]
    images = [line for line in _lines(folder, "manifest.jsonl") if "name" in line]

    def image(number: int, entry: dict[str, Any]) -> str:
        name, label = f"{entry['name']}{entry['extension']}", pick(entry["name"].rpartition("/")[2], classes)
        size = f'width="{entry["width"]}" height="{entry["height"]}"'
        return f'<image id="{number}" name={quoteattr(name)} {size}><tag label={quoteattr(label)} source="manual"/></image>\n'

    meta = "<version>1.1</version><meta><task><id>1</id></task></meta>\n"
    text = "".join(image(number, entry) for number, entry in enumerate(images))
    yield "a.xml", f'<?xml version="1.0" encoding="utf-8"?>\n<annotations>{meta}{text}</annotations>\n'


def encord(folder: Path, pick: Pick) -> Answered:
    (attribute,) = _json(folder, "ontology.json")["classifications"][0]["attributes"]
    classes = [option["label"] for option in attribute["options"]]

    def row(title: str) -> dict[str, Any]:
        by = {"createdAt": "Fri, 20 Nov 2026 10:00:05 UTC", "createdBy": "a@x.org"}
        here = [{"classificationHash": "h", "name": "q", **by}]
        unit = {"data_hash": "u", "data_title": title, "labels": {"objects": [], "classifications": here}}
        said = {"name": attribute["name"], "answers": [{"name": pick(title, classes), "value": "v"}]}
        answers = {"h": {"classificationHash": "h", "classifications": [said]}}
        head = {"label_hash": f"row-{title}", "branch_name": "main", "data_hash": "u", "data_title": title}
        return head | {"data_units": {"u": unit}, "object_answers": {}, "classification_answers": answers}

    titles = (
        entry["title"] for file in _parts(folder, "upload.json") for entry in json.loads(file.read_text())["images"]
    )
    yield "a.json", _listed(map(row, titles))


def ground_truth(folder: Path, pick: Pick) -> Answered:
    classes = [entry["label"] for entry in _json(folder, "label_categories.json")["labels"]]

    def line(row: dict[str, Any]) -> str:
        label = pick(row["item-id"], classes)
        meta = {"class-name": label, "job-name": "labeling-job/j", "type": "groundtruth/image-classification"}
        meta |= {"human-annotated": "yes", "confidence": 0.9, "creation-date": "2026-11-20T10:00:05.000000"}
        return json.dumps(row | {"j": classes.index(label), "j-metadata": meta}) + "\n"

    yield "output.manifest", "".join(map(line, _lines(folder, "input.manifest")))


def imagefolder(folder: Path, pick: Pick) -> Answered:
    classes = (folder / "classes.txt").read_text().splitlines()
    rows = (row | {"label": pick(Path(row["file_name"]).stem, classes)} for row in _rows(folder / "metadata.csv"))
    yield "metadata.csv", _table({name: harmless(cell) for name, cell in row.items()} for row in rows)


def label_studio(folder: Path, pick: Pick) -> Answered:
    controls = ElementTree.parse(folder / "labeling_config.xml").getroot().find("Choices")
    assert controls is not None
    classes = [str(choice.get("value")) for choice in controls]

    def exported(number: int, task: dict[str, Any]) -> dict[str, Any]:
        value = {"choices": [pick(task["data"]["item_id"], classes)]}
        result = {"from_name": controls.get("name"), "to_name": "image", "type": "choices", "value": value}
        annotation = {"id": number, "completed_by": 5, "result": [result], "was_cancelled": False, "updated_at": WHEN}
        annotation |= {"lead_time": 4.2, "unique_id": f"00000000-0000-4000-8000-{number:012}"}
        return {"id": number, "annotations": [annotation], "drafts": [], "predictions": [], **task}

    tasks = (task for file in _parts(folder, "tasks.json") for task in json.loads(file.read_text()))
    yield "a.json", _listed(exported(number, task) for number, task in enumerate(tasks, 1))


def labelbox(folder: Path, pick: Pick) -> Answered:
    (question,) = _json(folder, "ontology.json")["classifications"]
    classes = [option["label"] for option in question["options"]]

    def line(number: int, row: dict[str, Any]) -> str:
        answer = {"feature_id": "f", "name": pick(row["global_key"], classes), "value": "v", "classifications": []}
        asked = {"name": question["name"], "value": question["name"], "radio_answer": answer}
        label = {"label_kind": "Default", "id": f"lb{number}", "performance_details": {"seconds_to_create": 4}}
        label |= {"label_details": {"created_at": WHEN, "updated_at": WHEN, "created_by": "w@x.org"}}
        label |= {"annotations": {"objects": [], "classifications": [asked], "relationships": []}}
        project = {"prj": {"name": "p", "labels": [label], "project_details": {}}}
        return json.dumps({"data_row": {"id": f"dr{number}", **row}, "projects": project}) + "\n"

    rows = (row for file in _parts(folder, "data_rows.json") for row in json.loads(file.read_text()))
    yield "a.ndjson", "".join(line(number, row) for number, row in enumerate(rows))


def scale(folder: Path, pick: Pick) -> Answered:
    def line(number: int, request: dict[str, Any]) -> str:
        (field,) = request["fields"]
        said = [pick(request["unique_id"], [choice["value"] for choice in field["choices"]])]
        response = {field["field_id"]: {"type": "category", "field_id": field["field_id"], "response": [said]}}
        done = {"task_id": f"t{number}", "status": "completed", "completed_at": WHEN}
        return json.dumps(request | done | {"response": {"annotations": response}}) + "\n"

    requests = _lines(folder, "tasks.jsonl")
    yield "a.jsonl", "".join(line(number, request) for number, request in enumerate(requests))


def tsv(folder: Path, pick: Pick) -> Answered:
    classes = _json(folder, "project.json")["task_spec"]["output_spec"]["label"]["allowed_values"]

    def row(number: int, task: dict[str, str]) -> dict[str, str]:
        inputs = {name: cell for name, cell in task.items() if name.startswith("INPUT:")}
        label = pick(restored(task["INPUT:item_id"]), classes)
        more = {"worker_id": "w", "assignment_id": f"a{number}", "status": "APPROVED"}
        return inputs | {"OUTPUT:label": harmless(label)} | {f"ASSIGNMENT:{name}": cell for name, cell in more.items()}

    tasks = (task for file in _parts(folder, "tasks.tsv") for task in _rows(file, "\t"))
    yield "a.tsv", _table((row(number, task) for number, task in enumerate(tasks)), "\t")


def v7(folder: Path, pick: Pick) -> Answered:
    classes = [entry["name"] for entry in _json(folder, "classes.json")]
    items = (item for request in _lines(folder, "register_items.jsonl") for item in request["items"])
    for item in items:
        stem = Path(item["name"]).stem
        tag = {"id": f"tag-{stem}", "name": pick(stem, classes), "tag": {}, "annotators": [{"email": "a@x.org"}]}
        slots = [{"type": "image", "slot_name": "0", "width": 8, "height": 8, "source_files": []}]
        about = {"name": item["name"], "path": item["path"], "source_info": {"item_id": stem}, "slots": slots}
        schema = "https://darwin-public.s3.eu-west-1.amazonaws.com/darwin_json/2.0/schema.json"
        document = {"version": "2.0", "schema_ref": schema, "item": about, "annotations": [tag]}
        yield f"{stem}.json", json.dumps(document)


VENDORS: dict[str, Callable[[Path, Pick], Answered]] = {
    "generic": generic,
    "coco": coco,
    "cvat": cvat,
    "encord": encord,
    "ground-truth": ground_truth,
    "imagefolder": imagefolder,
    "label-studio": label_studio,
    "labelbox": labelbox,
    "scale": scale,
    "tsv": tsv,
    "v7": v7,
}


def answer(vendor: str, sent: Path, pick: Pick, back: Path) -> None:
    """Write into the folder `back` what a vendor sends back to the folder that it was sent."""
    back.mkdir(parents=True)
    for name, content in VENDORS[vendor](sent, pick):
        (back / name).write_bytes(content.encode())
