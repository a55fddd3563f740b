"""The JSON export of a project, from a Label Studio server."""

import os
import random
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import requests

from engine.errors import ConfigError, InputError, one_line
from engine.handoff.exchange import AnswerFile
from engine.storage.location import masked

TOKEN_VARIABLE = "LABEL_STUDIO_API_KEY"
ANSWER_SECONDS = (5.0, 10.0)
"""For the connection, and for an answer to a small request."""
EXPORT_SECONDS = (5.0, 3600.0)
"""The server makes the whole export before it sends the first byte: 5 minutes for 60,000 tasks."""
ATTEMPTS = 5
FIRST_WAIT_S = 0.5
"""Before the second try. Waits double: with all tries a server that is not there is reported within 20 seconds."""
LONGEST_WAIT_S = 30.0
_BUSY = {408, 425, 429, 500, 502, 503, 504}
_CHUNK_BYTES = 1 << 20
_MOST_NAMED = 20


def token_of_environment() -> str:
    """The access token. Raises ConfigError if there is none."""
    if token := os.environ.get(TOKEN_VARIABLE, "").strip():
        return token
    raise ConfigError(f"{TOKEN_VARIABLE} is not set; {_advice('copy')}")


def _advice(verb: str) -> str:
    return f"{verb} an access token of Label Studio (your icon, Account & Settings) and export {TOKEN_VARIABLE}=TOKEN"


@contextmanager
def fetch(url: str, project: int | None, token: str) -> Iterator[AnswerFile]:
    """The export of all tasks of a project, in a temporary file that is deleted at the end.

    Args:
        url: where the server is: http://host:8080.
        project: its id; None for the only project that there is.
        token: a personal access token, or a legacy token.

    Raises:
        ConfigError: the URL is none, the token is refused, or there are several projects and none is named.
        InputError: no server answers (within 20 seconds), or there is no such project.
    """
    server = _Server(url, token)
    server.require_answer()
    number = server.only_project() if project is None else project
    with tempfile.TemporaryDirectory(prefix="label-studio-") as folder:
        path = Path(folder, f"project-{number}.json")
        with path.open("wb") as stream:
            server.export(number, stream)
        yield AnswerFile(f"{server.name}/projects/{number}", path.name, lambda: path.open("rb"))


class _Server:
    def __init__(self, url: str, token: str) -> None:
        if not re.match(r"https?://[^/?#]", url):
            raise ConfigError(f"--url {masked(url)}: not the URL of a server, like http://127.0.0.1:8080")
        self._url, self._token = url.rstrip("/"), token
        self.name = masked(self._url)

    def require_answer(self) -> None:
        """Raises InputError if nothing answers."""
        self._ask("GET", "/api/version/").close()

    def only_project(self) -> int:
        projects = self._projects()
        if len(projects) == 1:
            return int(projects[0]["id"])
        if not projects:
            raise InputError(f"{self.name}: no project that this token can see; use the token of one of its members")
        raise ConfigError(f"{self.name}: {len(projects)} projects; name one with --project: {_named(projects)}")

    def export(self, project: int, stream: BinaryIO) -> None:
        """Writes the JSON export of all tasks, those without annotations too."""
        query = {"exportType": "JSON", "download_all_tasks": "true"}
        for tries_left in reversed(range(ATTEMPTS)):
            with self._ask("GET", f"/api/projects/{project}/export", query, self._authorization()) as response:
                if response.status_code == requests.codes.not_found:
                    named = _named(self._projects()) or "none"
                    raise InputError(f"{self.name}: no project {project}; --project is one of: {named}")
                self._require_ok(response)
                try:
                    stream.seek(0)
                    stream.truncate()
                    for chunk in response.iter_content(_CHUNK_BYTES):
                        stream.write(chunk)
                    return
                except requests.RequestException as error:
                    if not tries_left:
                        raise InputError(f"{self.name}: the export broke off: {_cause(error)}; try again") from error

    def _projects(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        authorization = self._authorization()
        while True:
            query = {"page": str(len(found) // 100 + 1), "page_size": "100", "include": "id,title"}
            page = self._json(self._ask("GET", "/api/projects/", query, authorization))
            found += page["results"]
            if not page.get("next"):
                return found

    def _authorization(self) -> str:
        """The header's value. A personal access token is exchanged for one that is valid for minutes."""
        if re.fullmatch(r"[0-9a-f]{40}", self._token):
            return f"Token {self._token}"
        response = self._ask("POST", "/api/token/refresh/", json={"refresh": self._token})
        return f"Bearer {self._json(response)['access']}"

    def _json(self, response: requests.Response) -> dict[str, Any]:
        with response:
            self._require_ok(response)
            try:
                return dict(response.json())
            except (requests.RequestException, TypeError, ValueError) as error:
                raise InputError(f"{self.name}: no Label Studio server answers there: {one_line(error)}") from error

    def _require_ok(self, response: requests.Response) -> None:
        status = response.status_code
        if status in (requests.codes.unauthorized, requests.codes.forbidden):
            raise ConfigError(f"{self.name}: refuses the token ({status}); {_advice('copy')}")
        if response.is_redirect:
            raise ConfigError(f"{self.name}: moved to {masked(response.headers['Location'])}; give --url that server")
        if status != requests.codes.ok:
            raise InputError(f"{self.name}: {status} {one_line(Exception(response.text[:200]))}; see the server's log")

    def _ask(
        self, method: str, path: str, query: dict[str, str] | None = None, authorization: str = "", json: Any = None
    ) -> requests.Response:
        """The answer, whatever its status. Answers of a busy server are waited out. Raises InputError without one."""

        def sign(request: requests.PreparedRequest) -> requests.PreparedRequest:
            # Not a header: a password in ~/.netrc would replace it.
            request.headers.update({"Authorization": authorization} if authorization else {})
            return request

        timeout = EXPORT_SECONDS if path.endswith("/export") else ANSWER_SECONDS
        options: dict[str, Any] = {"params": query, "json": json, "timeout": timeout, "auth": sign, "stream": True}
        for tries_left in reversed(range(ATTEMPTS)):
            try:
                response = requests.request(method, f"{self._url}{path}", allow_redirects=False, **options)
            except (requests.ConnectionError, requests.Timeout) as error:
                raise InputError(f"{self.name}: no server answers: {_cause(error)}; check --url") from error
            except (requests.RequestException, ValueError) as error:
                raise ConfigError(f"--url {self.name}: {_cause(error)}; give it as http://host:8080") from error
            if response.status_code not in _BUSY or not tries_left:
                return response
            response.close()
            _wait(response.headers.get("Retry-After", ""), ATTEMPTS - tries_left - 1)
        raise AssertionError


def _wait(retry_after: str, attempt: int) -> None:
    wait_s = float(retry_after) if retry_after.isdecimal() else FIRST_WAIT_S * 2**attempt * random.uniform(0.5, 1.5)
    time.sleep(min(wait_s, LONGEST_WAIT_S))


def _cause(error: Exception) -> str:
    """The innermost error's text: those of the libraries name it last, after their own."""
    while error.__cause__ is not None or error.__context__ is not None:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return one_line(error) or type(error).__name__


def _named(projects: list[dict[str, Any]]) -> str:
    names = [f"{project['id']} ({project['title']})" for project in projects[:_MOST_NAMED]]
    return ", ".join([*names, *(["..."] if len(projects) > _MOST_NAMED else [])])
