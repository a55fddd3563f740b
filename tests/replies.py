"""What each vendor sends back: a class for each image, by one annotator where the vendor says who it was."""

import io
import json
import zipfile
from collections.abc import Callable
from typing import Any
from xml.sax.saxutils import quoteattr

Labels = dict[str, str]
ANN = "ann.smith@vendor.example"
PNG = b"\x89PNG\r\n\x1a\n"


def _json_lines(rows: list[Any]) -> bytes:
    return "".join(f"{json.dumps(row)}\n" for row in rows).encode()


def _generic(labels: Labels) -> dict[str, bytes]:
    rows = [{"item_id": item_id, "label": name, "annotator": ANN} for item_id, name in labels.items()]
    return {"answers.jsonl": _json_lines(rows)}


def _coco(labels: Labels) -> dict[str, bytes]:
    names = sorted(set(labels.values()))
    images = [
        {"id": n, "file_name": f"images/{item_id}.png", "width": 8, "height": 8} for n, item_id in enumerate(labels)
    ]
    boxes = [
        {"id": n, "image_id": n, "category_id": names.index(name), "bbox": [0, 0, 8, 8], "area": 64, "iscrowd": 0}
        for n, name in enumerate(labels.values())
    ]
    categories = [{"id": n, "name": name} for n, name in enumerate(names)]
    return {"instances.json": json.dumps({"images": images, "annotations": boxes, "categories": categories}).encode()}


def _cvat(labels: Labels) -> dict[str, bytes]:
    images = "".join(
        f'<image id="{n}" name="images/{item_id}.png" width="8" height="8"><tag label={quoteattr(name)}/></image>\n'
        for n, (item_id, name) in enumerate(labels.items())
    )
    meta = f"<version>1.1</version>\n<meta><task><owner><username>{ANN}</username></owner></task></meta>\n"
    return {"annotations.xml": f'<?xml version="1.0"?>\n<annotations>\n{meta}{images}</annotations>\n'.encode()}


def _encord(labels: Labels) -> dict[str, bytes]:
    rows = []
    for item_id, name in labels.items():
        by = {"createdAt": "Tue, 17 Jan 2023 11:44:53 UTC", "createdBy": ANN, "classificationHash": "h"}
        unit = {"data_title": item_id, "width": 8, "height": 8, "labels": {"objects": [], "classifications": [by]}}
        said = {"name": "class", "value": "class", "answers": [{"name": name, "value": name}]}
        rows.append({
            "label_hash": f"row-{item_id}", "data_title": item_id, "data_units": {"u": unit}, "object_answers": {},
            "classification_answers": {"h": {"classificationHash": "h", "classifications": [said]}},
        })  # fmt: skip
    return {"labels.json": json.dumps(rows).encode()}


def _ground_truth(labels: Labels) -> dict[str, bytes]:
    metadata = {
        "confidence": 0.8, "type": "groundtruth/image-classification", "human-annotated": "yes",
        "job-name": "labeling-job/b7", "creation-date": "2026-11-20T12:00:00.000005",
    }  # fmt: skip
    rows = [
        {"source-ref": f"s3://b/{item_id}.png", "item-id": item_id, "class": 0,
         "class-metadata": {"class-name": name, **metadata}}
        for item_id, name in labels.items()
    ]  # fmt: skip
    return {"output.manifest": _json_lines(rows)}


def _imagefolder(labels: Labels) -> dict[str, bytes]:
    return {f"{name}/{item_id}.png": PNG for item_id, name in labels.items()}


def _label_studio(labels: Labels) -> dict[str, bytes]:
    tasks = []
    for number, (item_id, name) in enumerate(labels.items(), 1):
        said = {"from_name": "class", "to_name": "image", "type": "choices", "value": {"choices": [name]}}
        annotation = {
            "id": number, "unique_id": f"u-{item_id}", "completed_by": {"id": ANN, "email": ANN, "first_name": "Ann"},
            "result": [said], "was_cancelled": False, "lead_time": 4.2, "updated_at": "2026-11-20T10:00:05.2Z",
        }  # fmt: skip
        tasks.append({"id": number, "data": {"item_id": item_id}, "annotations": [annotation], "predictions": []})
    return {"export.json": json.dumps(tasks).encode()}


def _labelbox(labels: Labels) -> dict[str, bytes]:
    rows = []
    for item_id, name in labels.items():
        said = {"name": "class", "value": "class", "radio_answer": {"name": name, "value": name}}
        label = {
            "id": f"lb-{item_id}", "label_details": {"created_by": ANN, "updated_at": "2026-11-20T10:00:05.000+00:00"},
            "performance_details": {"seconds_to_create": 4},
            "annotations": {"objects": [], "classifications": [said], "relationships": []},
        }  # fmt: skip
        rows.append({"data_row": {"global_key": item_id}, "projects": {"p": {"labels": [label]}}})
    return {"export.ndjson": _json_lines(rows)}


def _scale(labels: Labels) -> dict[str, bytes]:
    tasks = [
        {
            "task_id": f"t-{item_id}", "type": "textcollection", "status": "completed", "unique_id": item_id,
            "metadata": {"item_id": item_id}, "completed_at": "2026-11-20T10:00:06.000Z",
            "response": {"annotations": {"class": {"type": "category", "field_id": "class", "response": [[name]]}}},
        }
        for item_id, name in labels.items()
    ]  # fmt: skip
    return {"tasks.json": json.dumps(tasks).encode()}


def _tsv(labels: Labels) -> dict[str, bytes]:
    rows = [
        "INPUT:image\tINPUT:item_id\tOUTPUT:label\tASSIGNMENT:assignment_id\tASSIGNMENT:worker_id\tASSIGNMENT:status\t"
        "ASSIGNMENT:started\tASSIGNMENT:submitted"
    ]
    times = "2026-11-20T10:00:01\t2026-11-20T10:00:05"
    rows += [f"x\t{item_id}\t{name}\tasg-{item_id}\t{ANN}\tAPPROVED\t{times}" for item_id, name in labels.items()]
    return {"assignments.tsv": "".join(f"{row}\n" for row in rows).encode()}


def _v7(labels: Labels) -> dict[str, bytes]:
    def file(item_id: str, name: str) -> bytes:
        slots = [{"type": "image", "slot_name": "0", "width": 8, "height": 8, "source_files": []}]
        item = {"name": f"{item_id}.png", "path": "/", "source_info": {}, "slots": slots}
        people = [{"email": ANN, "full_name": "Ann Smith"}]
        tag = {"id": f"tag-{item_id}", "name": name, "tag": {}, "annotators": people}
        schema = "https://darwin-public.s3.eu-west-1.amazonaws.com/darwin_json/2.0/schema.json"
        return json.dumps({"version": "2.0", "schema_ref": schema, "item": item, "annotations": [tag]}).encode()

    return {f"{item_id}.json": file(item_id, name) for item_id, name in labels.items()}


REPLIES: dict[str, Callable[[Labels], dict[str, bytes]]] = {
    "generic": _generic, "coco": _coco, "cvat": _cvat, "encord": _encord, "ground-truth": _ground_truth,
    "imagefolder": _imagefolder, "label-studio": _label_studio, "labelbox": _labelbox, "scale": _scale, "tsv": _tsv,
    "v7": _v7,
}  # fmt: skip
"""By vendor: the contents of the files that it sends back, by path."""


def zipped(files: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in files.items():
            archive.writestr(path, data)
    return content.getvalue()
