"""What we write for Label Studio, through a real one and back: the same images, the same classes, the same people."""

import json
import random
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import pytest
from PIL import Image

from engine.errors import ConfigError, InputError
from engine.handoff import label_studio_api as api
from engine.handoff.exchange import Answer, AnswerFile, Outgoing, Question, Task
from engine.handoff.vendors import label_studio as vendor
from tests.peers.label_studio import LabelStudio

CLASSES = ["=jug, ü", '<tea & "pot">', "kettle", "5 % off", "it's a 'pan'", "夜"]
WIDTH, HEIGHT = 80, 50


def batch(server: LabelStudio, kind: Literal["class", "classes", "boxes", "mask"], prelabel: str = "") -> Outgoing:
    """Three images in the served folder, and a question about them."""
    tasks = []
    for priority in range(3):
        item = random.randbytes(16).hex()
        file = f"images/{item}.png"
        Image.new("RGB", (WIDTH, HEIGHT), (priority, 0, 0)).save(server.served / file)
        tasks.append(Task(item, file, file, priority, 0, "", "image/png", WIDTH, HEIGHT, prelabel))
    return Outgoing("batch-0001", Question(kind, CLASSES, "Which <vessel> is it?"), 3, tasks)


def imported(server: LabelStudio, batch: Outgoing, folder: Path) -> int:
    """A project that was made with the files that we write, as a user would make it."""
    for name, content in vendor.write_tasks(batch):
        (folder / name).write_bytes(content)
    project = server.create_project((folder / "labeling_config.xml").read_text(), annotators=3)
    server.show_images(project, server.served / "images")
    assert server.import_tasks(project, folder / "tasks.json") == len(batch.tasks)
    return project


def answers(content: bytes, question: Question) -> Iterator[Answer]:
    assert vendor.is_mine("export.json", content[: 1 << 16])
    return vendor.read_answers(AnswerFile("export.json", "export.json", lambda: BytesIO(content)), question)  # type: ignore[no-any-return]


def test_three_people_answer_and_all_their_answers_come_back(server: LabelStudio, tmp_path: Path) -> None:
    out = batch(server, "class")
    project = imported(server, out, tmp_path)
    numbers, items = server.tasks(project), [task.item_id for task in out.tasks]
    for item in items:
        assert server.image("ben", numbers[item]) == (server.served / f"images/{item}.png").read_bytes()
    names = {server.users[user]["id"]: user for user in server.users}
    expected: dict[tuple[str, str], Any] = {(items[1], ""): None}
    for user, name in zip(("ann", "ben", "cho"), CLASSES[:3], strict=True):
        server.annotate(user, numbers[items[0]], name)
        expected[items[0], user] = name
    server.skip("ann", numbers[items[2]])
    server.correct("ben", server.annotate("ben", numbers[items[2]], CLASSES[3]), CLASSES[4])
    expected |= {(items[2], "ann"): None, (items[2], "ben"): CLASSES[4]}
    found = list(answers(server.export(project), out.question))
    assert not any(answer.fault for answer in found)
    assert {(one.item, names[int(one.annotator)] if one.annotator else ""): one.value for one in found} == expected
    assert [one.skipped for one in found] == [
        one.item == items[2] and names[int(one.annotator)] == "ann" for one in found
    ]


def test_a_correction_has_the_name_and_a_later_time(server: LabelStudio, tmp_path: Path) -> None:
    out = batch(server, "class")
    project = imported(server, out, tmp_path)
    task = server.tasks(project)[out.tasks[0].item_id]
    annotation = server.annotate("ann", task, CLASSES[0], seconds=2.5)
    before, after = [], []
    for found in (before, after):
        found += [one for one in answers(server.export(project), out.question) if one.value]
        server.correct("ann", annotation, CLASSES[5])
    (old,), (new,) = before, after
    assert (old.value, new.value) == (CLASSES[0], CLASSES[5])
    assert old.answer_id == new.answer_id
    assert old.annotator == new.annotator
    assert old.seconds == new.seconds == 2.5
    assert old.answered_at is not None
    assert new.answered_at is not None
    assert old.answered_at < new.answered_at


def test_classes_that_nobody_asked_for_come_back_as_they_are(server: LabelStudio, tmp_path: Path) -> None:
    """The server takes them; whether they are taken is not the reader's business. Nothing at all is a fault."""
    out = batch(server, "class")
    project = imported(server, out, tmp_path)
    numbers = server.tasks(project)
    first, second, third = (numbers[task.item_id] for task in out.tasks)
    server.annotate("ann", first, "spoon")
    server.submit("ann", second, [])
    server.annotate("ann", third, *CLASSES[:2])
    spoon, nothing, both = answers(server.export(project), out.question)
    assert spoon.value == "spoon"
    assert nothing.value is None
    assert nothing.fault
    assert both.value is None
    assert both.fault


def test_several_classes(server: LabelStudio, tmp_path: Path) -> None:
    out = batch(server, "classes")
    project = imported(server, out, tmp_path)
    server.annotate("ann", server.tasks(project)[out.tasks[1].item_id], *CLASSES[4:1:-1])
    found = {one.item: one.value for one in answers(server.export(project), out.question)}
    assert found == {task.item_id: None for task in out.tasks} | {out.tasks[1].item_id: sorted(CLASSES[2:5])}


def test_shapes_come_back_in_pixels(server: LabelStudio, tmp_path: Path) -> None:
    out = batch(server, "boxes")
    project = imported(server, out, tmp_path)
    region = {"to_name": "image", "original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0}
    box = {"x": 10, "y": 20, "width": 25, "height": 50, "rotation": 0, "rectanglelabels": [CLASSES[1]]}
    polygon = {"points": [[0, 0], [50, 0], [50, 100]], "closed": True, "polygonlabels": [CLASSES[5]]}
    result = [
        region | {"id": "a", "from_name": "box", "type": "rectanglelabels", "value": box},
        region | {"id": "b", "from_name": "polygon", "type": "polygonlabels", "value": polygon},
    ]
    server.submit("ann", server.tasks(project)[out.tasks[0].item_id], result)
    (found,) = (one for one in answers(server.export(project), out.question) if one.value is not None)
    assert found.value == [
        {"label": CLASSES[1], "box": [8, 10, 20, 25]},
        {"label": CLASSES[5], "polygon": [[0, 0], [40, 0], [40, 50]]},
    ]
    assert json.loads(found.raw)


def test_a_mask_comes_back_as_it_was_drawn(server: LabelStudio, tmp_path: Path) -> None:
    out = batch(server, "mask")
    project = imported(server, out, tmp_path)
    brush = {"format": "rle", "rle": [0, 1, 2, 255], "brushlabels": [CLASSES[0]]}
    region = {"to_name": "image", "original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0}
    result = [region | {"id": "a", "from_name": "mask", "type": "brushlabels", "value": brush}]
    server.submit("ann", server.tasks(project)[out.tasks[0].item_id], result)
    (found,) = (one for one in answers(server.export(project), out.question) if one.value is not None)
    (shape,) = found.value
    assert shape["label"] == CLASSES[0]
    assert shape["mask"]["rle"] == brush["rle"]


def test_a_guess_is_shown_and_is_no_answer(server: LabelStudio, tmp_path: Path) -> None:
    out = batch(server, "class", prelabel=CLASSES[1])
    project = imported(server, out, tmp_path)
    for number in server.tasks(project).values():
        (prediction,) = server.call("GET", f"/api/predictions/?task={number}").json()
        assert prediction["result"][0]["value"]["choices"] == [CLASSES[1]]
    assert [one.value for one in answers(server.export(project), out.question)] == [None] * 3


@pytest.mark.parametrize("kind", ["legacy", "personal"])
def test_the_export_is_fetched(kind: str, server: LabelStudio, tmp_path: Path) -> None:
    out = batch(server, "class")
    project = imported(server, out, tmp_path)
    server.annotate("ann", server.tasks(project)[out.tasks[0].item_id], CLASSES[1])
    token = server.users["ben"]["token"] if kind == "legacy" else server.personal_token()
    with api.fetch(server.url, project, token) as file, file.open() as stream:
        fetched = list(answers(stream.read(), out.question))
    assert fetched == list(answers(server.export(project), out.question))


def test_what_cannot_be_fetched_is_explained(server: LabelStudio) -> None:
    token = server.users["ben"]["token"]
    with (
        pytest.raises(InputError, match="no project 999999; --project is one of: "),
        api.fetch(server.url, 999999, token),
    ):
        pass
    for wrong in ("0" * 40, "abc.def.ghi"):
        with pytest.raises(ConfigError, match="refuses the token"), api.fetch(server.url, 1, wrong):
            pass
