"""What a real Label Studio does with tasks, and what its export holds: what the reader of its exports relies on."""

import json
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image

from tests.peers.label_studio import LabelStudio

KEPT = Path(__file__).parent / "label-studio/export.json"
"""A real export of `answered`: tests of the reader need no server."""
IDS = ["c3cd54f297bba3375c802b3acb273dc9", "b5272d7b5542a7fc5449d068088a68c7", "a43811dd2213cf45207a9fe43a296db9"]
CONFIG = """<View>
  <Header value="Which vessel is it?"/>
  <Image name="image" value="$image"/>
  <Choices name="class" toName="image" choice="single" required="true">
    <Choice value="kettle"/>
    <Choice value="&lt;tea &amp; pot&gt;"/>
    <Choice value="=jug, &quot;ü&quot;"/>
  </Choices>
</View>"""
POT, JUG = "<tea & pot>", '=jug, "ü"'


@pytest.fixture(scope="module")
def tasks(server: LabelStudio) -> Path:
    """A file of tasks, which name three images relatively."""
    for shade, item in enumerate(IDS):
        Image.new("RGB", (48, 32), (shade, 0, 0)).save(server.served / f"images/{item}.png")
    rows = [{"data": {"image": f"/data/local-files/?d=images/{item}.png", "item_id": item}} for item in IDS]
    file = server.served / "tasks.json"
    file.write_text(json.dumps(rows))
    return file


@pytest.fixture(scope="module")
def project(server: LabelStudio, tasks: Path) -> int:
    made = server.create_project(CONFIG, annotators=3)
    server.show_images(made, server.served / "images")
    assert server.import_tasks(made, tasks) == 3
    return made


@pytest.fixture(scope="module")
def answered(server: LabelStudio, project: int) -> dict[str, dict[str, Any]]:
    """The export by item_id: three answers, a draft, a skip."""
    first, second, third = (server.tasks(project)[item] for item in IDS)
    server.annotate("ann", first, "kettle", seconds=4.25)
    server.annotate("ben", first, POT)
    corrected = server.annotate("cho", first, "kettle")
    before = exported(server, project)[IDS[0]]["annotations"]
    server.correct("cho", corrected, JUG)
    server.draft("ann", second, "kettle")
    server.skip("ben", third)
    server.withdraw("cho", server.annotate("cho", third, "kettle"))
    return exported(server, project) | {"before": {"annotations": before}}


def exported(server: LabelStudio, project: int) -> dict[str, dict[str, Any]]:
    return {task["data"]["item_id"]: task for task in json.loads(server.export(project))}


def by(task: dict[str, Any], server: LabelStudio, user: str) -> dict[str, Any]:
    """The only annotation of a user."""
    (found,) = (one for one in task["annotations"] if one["completed_by"] == server.users[user]["id"])
    return dict(found)


def test_a_relative_link_leads_to_the_image(server: LabelStudio, project: int) -> None:
    for item, task in server.tasks(project).items():
        assert server.image("ann", task) == (server.served / f"images/{item}.png").read_bytes()


def test_a_project_shows_images_of_its_own_storage_only(server: LabelStudio, tasks: Path) -> None:
    """And the root of the served files cannot be one: images lie in a folder in it."""
    project = server.create_project(CONFIG)
    with pytest.raises(requests.HTTPError, match="cannot be the same as LOCAL_FILES_DOCUMENT_ROOT"):
        server.show_images(project, server.served)
    server.show_images(project, server.served / "images")
    assert server.import_tasks(project, tasks) == 3
    assert server.tasks(project).keys() == set(IDS), "the storage made tasks of its files"


def test_each_annotator_has_an_answer(server: LabelStudio, answered: dict[str, Any]) -> None:
    task = answered[IDS[0]]
    assert len(task["annotations"]) == 3
    for user, expected in (("ann", "kettle"), ("ben", POT), ("cho", JUG)):
        annotation = by(task, server, user)
        (result,) = annotation["result"]
        assert (result["from_name"], result["type"]) == ("class", "choices")
        assert result["value"] == {"choices": [expected]}
        assert not annotation["was_cancelled"]
    assert by(task, server, "ann")["lead_time"] == 4.25


def test_a_corrected_answer_keeps_its_name(server: LabelStudio, answered: dict[str, Any]) -> None:
    old, new = (by(answered[name], server, "cho") for name in ("before", IDS[0]))
    assert old["result"] != new["result"]
    assert old["unique_id"] == new["unique_id"]
    assert old["id"] == new["id"]
    assert old["created_at"] == new["created_at"]
    assert old["updated_at"] < new["updated_at"]
    untouched = [by(answered[name], server, "ann") for name in ("before", IDS[0])]
    assert untouched[0] == untouched[1]


def test_a_draft_is_no_answer(answered: dict[str, Any]) -> None:
    assert answered[IDS[1]]["annotations"] == []
    assert len(answered[IDS[1]]["drafts"]) == 1


def test_a_skipped_task_says_so(server: LabelStudio, answered: dict[str, Any]) -> None:
    task = answered[IDS[2]]
    assert len(task["annotations"]) == 1
    skipped = by(task, server, "ben")
    assert skipped["was_cancelled"]
    assert skipped["result"] == []


def test_the_short_exports_lose_skips(server: LabelStudio, project: int, answered: dict[str, Any]) -> None:
    """Why the reader refuses them."""
    short = json.loads(server.export(project, "JSON_MIN"))
    assert IDS[2] in answered
    assert IDS[2] not in {row["item_id"] for row in short}


def test_the_kept_export_has_the_form_of_a_real_one(
    server: LabelStudio, project: int, answered: dict[str, Any], tmp_path: Path
) -> None:
    new = tmp_path / "export.json"
    new.write_bytes(server.export(project))
    assert form(json.loads(KEPT.read_bytes())) == form(json.loads(new.read_bytes())), f"copy {new} to {KEPT}"


def form(value: Any) -> Any:
    """The names in a JSON value, and the types of what they name."""
    if isinstance(value, dict):
        return {name: form(part) for name, part in value.items()}
    if isinstance(value, list):
        return [form(part) for part in value]
    return type(value).__name__


def test_the_server_takes_any_answer(server: LabelStudio, tasks: Path) -> None:
    """Classes that nobody asked for, other controls, nothing at all, and one person's answers again and again."""
    project = server.create_project(CONFIG, annotators=1)
    server.import_tasks(project, tasks)
    task = server.tasks(project)[IDS[0]]
    server.annotate("ann", task, "kettle")
    server.annotate("ann", task, "spoon")
    server.annotate("ann", task, "kettle", control="vessel")
    server.submit("ann", task, [])
    annotations = exported(server, project)[IDS[0]]["annotations"]
    assert [one["completed_by"] for one in annotations] == [server.users["ann"]["id"]] * 4
    assert [one["was_cancelled"] for one in annotations] == [False] * 4


def test_the_same_file_twice_makes_each_task_twice(server: LabelStudio, tasks: Path) -> None:
    """So an export may hold an item twice."""
    project = server.create_project(CONFIG)
    for _ in range(2):
        server.import_tasks(project, tasks)
    found = [task["data"]["item_id"] for task in json.loads(server.export(project))]
    assert sorted(found) == sorted(IDS * 2)


def test_personal_tokens_work(server: LabelStudio, project: int) -> None:
    refreshed = requests.post(
        f"{server.url}/api/token/refresh/", json={"refresh": server.personal_token()}, timeout=20
    ).json()
    headers = {"Authorization": f"Bearer {refreshed['access']}"}
    found = requests.get(f"{server.url}/api/projects/{project}", headers=headers, timeout=20)
    assert found.json()["id"] == project
