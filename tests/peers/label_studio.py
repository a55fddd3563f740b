"""A real Label Studio on this machine, and what its people do."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.peers.environments import PEERS, environment
from tests.servers import free_port

DATA = PEERS / "label-studio-data"
ADMIN, *ANNOTATORS = ("admin", "ann", "ben", "cho")
START_SECONDS = 120
ANSWER_SECONDS = 120


class LabelStudio:
    """A running server.

    Args:
        url: where it answers.
        users: by name: `id`, `email` and `token`, a legacy one.
        served: the root of the local files that it may show; it has a folder images/.
    """

    def __init__(self, url: str, users: dict[str, dict[str, Any]], served: Path) -> None:
        self.url, self.users, self.served = url, users, served
        self._personal_tokens: dict[str, str] = {}
        self._session = requests.Session()
        # No proxy, and no password of ~/.netrc in place of the token.
        self._session.trust_env = False

    def call(self, method: str, path: str, user: str = ADMIN, **arguments: Any) -> requests.Response:
        """What the server answers to a user; an error of its is an error here, with its words."""
        headers = {"Authorization": f"Token {self.users[user]['token']}"}
        answer = self._session.request(method, self.url + path, headers=headers, timeout=ANSWER_SECONDS, **arguments)
        if not answer.ok:
            raise requests.HTTPError(f"{method} {path}: {answer.status_code}: {answer.text[:2000]}", response=answer)
        return answer

    def personal_token(self, user: str = ADMIN) -> str:
        """A personal access token: what the page "Account & settings" shows. A user has one; it is shown once."""
        if user not in self._personal_tokens:
            self._personal_tokens[user] = self.call("POST", "/api/token/", user, json={}).json()["token"]
        return self._personal_tokens[user]

    def create_project(self, config: str, annotators: int = 1) -> int:
        """A project for a labelling configuration."""
        settings = {"title": "peer", "label_config": config, "maximum_annotations": annotators}
        return int(self.call("POST", "/api/projects/", json=settings).json()["id"])

    def show_images(self, project: int, folder: Path) -> None:
        """Let a project's tasks name the files of a folder that is in the served one. Its files become no tasks."""
        self.call("POST", "/api/storages/localfiles", json={"project": project, "path": str(folder)})

    def import_tasks(self, project: int, file: Path) -> int:
        """Import a file, as the page "Import" does. Returns how many tasks there are in it."""
        with file.open("rb") as stream:
            answer = self.call("POST", f"/api/projects/{project}/import", files={file.name: stream})
        return int(answer.json()["task_count"])

    def tasks(self, project: int) -> dict[str, int]:
        """The server's numbers of a project's tasks by item_id."""
        return {item_id: number for number, item_id in self.numbers(project).items()}

    def numbers(self, project: int) -> dict[int, str]:
        """The item_ids of a project's tasks by the server's numbers; an item may be there twice."""
        answer = self.call("GET", "/api/tasks", params={"project": project, "page_size": 100_000})
        return {task["id"]: task["data"]["item_id"] for task in answer.json()["tasks"]}

    def annotate(self, user: str, task: int, *classes: str, control: str = "class", seconds: float = 4.2) -> int:
        """A user's new answer. Returns its number."""
        return self.submit(user, task, [chosen(control, *classes)], lead_time=seconds)

    def submit(self, user: str, task: int, result: list[dict[str, Any]], **fields: Any) -> int:
        """A user's new answer of any kind. Returns its number."""
        answer = {"result": result, **fields}
        return int(self.call("POST", f"/api/tasks/{task}/annotations/", user, json=answer).json()["id"])

    def correct(self, user: str, annotation: int, *classes: str, control: str = "class") -> None:
        """A user's second thoughts: changes an answer that there is."""
        self.call("PATCH", f"/api/annotations/{annotation}/", user, json={"result": [chosen(control, *classes)]})

    def draft(self, user: str, task: int, *classes: str, control: str = "class") -> None:
        """A user chooses, and does not submit."""
        self.call("POST", f"/api/tasks/{task}/drafts", user, json={"result": [chosen(control, *classes)]})

    def withdraw(self, user: str, annotation: int) -> None:
        """Delete an answer."""
        self.call("DELETE", f"/api/annotations/{annotation}/", user)

    def skip(self, user: str, task: int) -> int:
        """A user gives no answer. Returns the number of the annotation that says so."""
        return self.submit(user, task, [], was_cancelled=True, lead_time=1.5)

    def image(self, user: str, task: int) -> bytes:
        """The bytes that a user's browser gets for a task's image."""
        link = self.call("GET", f"/api/tasks/{task}/", user).json()["data"]["image"]
        return self.call("GET", link, user).content

    def export(self, project: int, kind: str = "JSON") -> bytes:
        """The export of all tasks, those without answers too."""
        wanted = {"exportType": kind, "download_all_tasks": "true"}
        return self.call("GET", f"/api/projects/{project}/export", params=wanted).content


def chosen(control: str, *classes: str) -> dict[str, Any]:
    """The result of choosing classes, as the page in the browser sends it."""
    return {"from_name": control, "to_name": "image", "type": "choices", "value": {"choices": list(classes)}}


@contextmanager
def label_studio(scratch: Path) -> Iterator[LabelStudio]:
    """A server on a copy of the prepared data, in a folder that it may fill."""
    python = environment("label-studio")
    if not (DATA / "users.json").exists():
        pytest.skip("run make peer-label-studio")
    home, served, port = scratch / "data", scratch / "served", free_port()
    shutil.copytree(DATA, home)
    (served / "images").mkdir(parents=True)
    variables = {"LOCAL_FILES_SERVING_ENABLED": "true", "LOCAL_FILES_DOCUMENT_ROOT": str(served)}
    program = Path(__file__).parent / "label-studio/prepare.py"
    with (home / "log.txt").open("wb") as log:
        server = subprocess.Popen(
            [python, program, home, str(port)],
            env=os.environ | variables, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
        try:
            url = f"http://127.0.0.1:{port}"
            _wait(url, server, home / "log.txt")
            yield LabelStudio(url, json.loads((home / "users.json").read_text()), served)
        finally:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def _wait(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and server.poll() is None:
        try:
            if requests.get(f"{url}/health", timeout=5).ok:
                return
        except requests.ConnectionError:
            time.sleep(0.1)
    pytest.fail(f"Label Studio did not start: {log.read_text()[-3000:]}")
