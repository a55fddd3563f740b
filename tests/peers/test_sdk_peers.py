"""What we write for vendors is accepted by their own programs, each in an environment of its own."""

import hashlib
import importlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from PIL import Image

from engine.handoff import VENDORS
from engine.handoff.exchange import Outgoing, Question, Task
from tests.peers.environments import environment

PROGRAM = Path(__file__).parent / "validate.py"
IDS = ["c3cd54f297bba3375c802b3acb273dc9", "b5272d7b5542a7fc5449d068088a68c7", "a43811dd2213cf45207a9fe43a296db9"]
CLASSES = ["kettle", '<tea & "pot">', "=jug, ü"]


def refusals(peer: str, folders: list[Path]) -> list[str | None]:
    """Why a peer refuses folders; None for one that it accepts."""
    command = [environment(peer), PROGRAM, peer, *folders]
    ended = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    assert ended.returncode in (0, 1), ended.stderr[-3000:]
    found: list[str | None] = json.loads(ended.stdout or "null")
    assert found is not None, ended.stderr[-3000:]
    assert ended.returncode == any(found)
    return found


class Example(NamedTuple):
    """Files that a peer accepts, and changes to them that it refuses, each with a word of its refusal."""

    files: dict[str, Any]
    wrong: list[tuple[Callable[[dict[str, Any]], Any], str]]


LABELS = [{"name": name, "type": "tag", "attributes": []} for name in CLASSES]
CONFIG = """<View>
  <Image name="image" value="$image"/>
  <Choices name="class" toName="image" choice="single">
    <Choice value="kettle"/>
    <Choice value="&lt;tea &amp; &quot;pot&quot;&gt;"/>
    <Choice value="=jug, ü"/>
  </Choices>
</View>"""
GUESS = {"from_name": "class", "to_name": "image", "type": "choices", "value": {"choices": [CLASSES[1]]}}
VENDOR_OF = {"label-studio-sdk": "label-studio"}
"""The vendor whose folder a peer checks, where the names differ."""
SPOON = {"choices": ["spoon"]}
EXAMPLES = {
    "label-studio-sdk": Example(
        {
            "labeling_config.xml": CONFIG,
            "tasks.json": [
                {
                    "data": {"image": f"/data/local-files/?d=images/{item}.png", "item_id": item},
                    "predictions": [{"model_version": "prelabel", "result": [GUESS]}],
                }
                for item in IDS
            ],
        },
        [
            (lambda files: files["tasks.json"].pop(), "tasks and images differ"),
            (lambda files: files["tasks.json"][0]["data"].pop("image"), "not all that the configuration shows"),
            (lambda files: files["tasks.json"][0]["data"].update(image="images/x.png"), "no link"),
            (lambda files: files["tasks.json"][0]["predictions"][0]["result"][0].update(value=SPOON), "spoon"),
            (lambda files: files.update({"labeling_config.xml": CONFIG[:-3]}), "XML"),
            (lambda files: files.update({"labeling_config.xml": CONFIG.replace('"image" choice', '"x" choice')}), "x"),
        ],
    ),
    "cvat": Example(
        {
            "manifest.jsonl": [
                {"version": "1.1"},
                {"type": "images"},
                *({"name": f"images/{item}", "extension": ".png", "width": 48, "height": 32} for item in IDS),
            ],
            "task.json": {"name": "batch", "labels": LABELS, "consensus_replicas": 3},
            "labels.json": LABELS,
            "data.json": {
                "server_files": ["manifest.jsonl", *(f"images/{item}.png" for item in IDS)],
                "image_quality": 70,
                "sorting_method": "predefined",
            },
        },
        [
            (lambda files: files["manifest.jsonl"].pop(), "tasks and images differ"),
            (lambda files: files["manifest.jsonl"].pop(1), "type: "),
            (lambda files: files["manifest.jsonl"][2].update(extension="png"), "extension"),
            (lambda files: files["manifest.jsonl"][2].pop("width"), "width"),
            (lambda files: files["task.json"].update(replicas=3), "unknown keys"),
            (lambda files: files["task.json"].pop("name"), "name"),
            (lambda files: files["labels.json"][0].update(name="k" * 65), "64"),
            (lambda files: files["labels.json"][0].update(type="class"), "type of label"),
            (lambda files: files["data.json"].update(sorting_method="by name"), "sorting|by name"),
            (lambda files: files["data.json"]["server_files"].pop(), "differ"),
        ],
    ),
    "encord": Example(
        {
            "upload.json": {
                "images": [
                    {"objectUrl": f"s3://bucket/{item}.png", "title": item, "clientMetadata": {"item_id": item}}
                    for item in IDS
                ],
                "skip_duplicate_urls": True,
            }
        },
        [
            (lambda files: files["upload.json"]["images"].pop(), "tasks and images differ"),
            (lambda files: files["upload.json"]["images"][0].pop("objectUrl"), "object"),
            (lambda files: files["upload.json"].update(skip_duplicates=True), "less than what is written"),
            (lambda files: files["upload.json"]["images"][0].update(name="x"), "less than what is written"),
        ],
    ),
    "coco": Example(
        {
            "instances.json": {
                "images": [
                    {"id": number, "file_name": f"images/{item}.png", "width": 48, "height": 32}
                    for number, item in enumerate(IDS, 1)
                ],
                "categories": [{"id": number, "name": name} for number, name in enumerate(CLASSES, 1)],
                "annotations": [],
            }
        },
        [
            (lambda files: files["instances.json"]["images"].pop(), "tasks and images differ"),
            (lambda files: files["instances.json"]["images"][0].update(id=2), "id twice"),
            (lambda files: files["instances.json"]["images"][0].update(id="1"), "integer"),
            (lambda files: files["instances.json"]["images"][0].update(file_name="x.png"), "no such file"),
            (lambda files: files["instances.json"]["categories"][0].update(name=CLASSES[1]), "twice"),
            (lambda files: files["instances.json"].pop("images"), "images"),
        ],
    ),
    "imagefolder": Example(
        {"metadata.csv": "file_name,item_id\n" + "".join(f"images/{item}.png,{item}\n" for item in IDS)},
        [
            (
                lambda files: files.update({"metadata.csv": f"file_name,item_id\nimages/{IDS[0]}.png,{IDS[0]}\n"}),
                "images differ",
            ),
            (
                lambda files: files.update({"metadata.csv": files["metadata.csv"].replace("file_name", "file")}),
                "file_name",
            ),
            (
                lambda files: files.update({"metadata.csv": files["metadata.csv"].replace(f",{IDS[0]}", ",x")}),
                "another",
            ),
        ],
    ),
}


def write_images(folder: Path) -> None:
    """Our three images in images/."""
    (folder / "images").mkdir(parents=True)
    for shade, item in enumerate(IDS):
        Image.new("RGB", (48, 32), (shade, 0, 0)).save(folder / f"images/{item}.png")


def write(folder: Path, files: dict[str, Any]) -> Path:
    """A vendor's folder with images."""
    write_images(folder)
    for name, content in files.items():
        if isinstance(content, str):
            text = content
        elif name.endswith(".jsonl"):
            text = "".join(json.dumps(line) + "\n" for line in content)
        else:
            text = json.dumps(content)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize("peer", EXAMPLES)
def test_a_peer_accepts_what_is_right_and_nothing_else(peer: str, tmp_path: Path) -> None:
    environment(peer)
    example = EXAMPLES[peer]
    folders = [write(tmp_path / "right", example.files)]
    for number, (spoil, _) in enumerate(example.wrong):
        files = json.loads(json.dumps(example.files))
        spoil(files)
        folders.append(write(tmp_path / f"wrong-{number}", files))
    right, *wrong = refusals(peer, folders)
    assert right is None
    for why, (_, word) in zip(wrong, example.wrong, strict=True):
        assert why is not None
        assert any(part in why for part in word.split("|")), (why, word)


def outgoing(question: Question, annotators: int, place: str, prelabel: str, folder: Path) -> Outgoing:
    """A batch of our three images, at links of the form `place` or, where it is empty, in the folder."""
    tasks = []
    for priority, item in enumerate(IDS):
        content = (folder / f"images/{item}.png").read_bytes()
        file = f"images/{item}.png"
        link = place.format(file=f"{item}.png") or file
        found = (len(content), hashlib.sha256(content).hexdigest(), "image/png", 48, 32)
        tasks.append(Task(item, file, link, priority, *found, prelabel))
    return Outgoing("batch-0001", question, annotators, tasks)


KINDS = ("class", "classes", "boxes", "mask")
BATCHES = [
    *((Question(kind, CLASSES), 1, "", "") for kind in KINDS),  # type: ignore[arg-type]
    (Question("class", CLASSES, 'Which <vessel> is it?\nSay "jug" & pour.'), 3, "", ""),
    (Question("class", CLASSES), 1, "", CLASSES[1]),
    (Question("class", CLASSES), 1, "https://host/a%20folder/{file}?X-Amz-Expires=60&X-Amz-Signature=0a", ""),
    (Question("class", CLASSES, is_open=True), 1, "s3://bucket/prefix/{file}", ""),
]


@pytest.mark.parametrize("peer", EXAMPLES)
def test_a_peer_accepts_what_we_write(peer: str, tmp_path: Path) -> None:
    environment(peer)
    name = VENDOR_OF.get(peer, peer)
    vendor = importlib.import_module(VENDORS[name].module)
    folders = []
    for number, (question, annotators, place, prelabel) in enumerate(BATCHES):
        write_images(folder := tmp_path / f"batch-{number}")
        for name, content in vendor.write_tasks(outgoing(question, annotators, place, prelabel, folder)):
            (folder / name).write_bytes(content)
        if place and peer != "imagefolder":
            shutil.rmtree(folder / "images")
        folders.append(folder)
    found = refusals(peer, folders)
    assert found == [None] * len(BATCHES)
