"""The export of a project by HTTP. The server is a stand-in for Label Studio's endpoints, not Label Studio itself."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from engine.errors import ConfigError, InputError
from engine.handoff import label_studio_api
from engine.handoff.exchange import Question
from engine.handoff.label_studio_api import TOKEN_VARIABLE, fetch, token_of_environment
from engine.handoff.vendors.label_studio import read_answers
from tests.servers import free_port

LEGACY = "0123456789abcdef" * 2 + "01234567"
PERSONAL = "eyJhbGciOiJIUzI1NiJ9.eyJ0b2tlbl90eXBlIjoicmVmcmVzaCJ9.c2lnbmF0dXJl"
TASKS: list[dict[str, Any]] = [
    {"id": n, "data": {"image": "x", "item_id": f"{n:032x}"}, "annotations": []} for n in range(300)
]
EXPORT = json.dumps(TASKS).encode()


@dataclass
class Server:
    """What the stand-in does, and what it was asked. `failures` are sent first, one an answer: a status, or "cut"."""

    url: str = ""
    projects: list[dict[str, Any]] = field(default_factory=lambda: [{"id": 3, "title": "Vessels"}])
    failures: list[int | str] = field(default_factory=list)
    is_other: bool = False
    redirect: str = ""
    asked: list[str] = field(default_factory=list)


class Handler(BaseHTTPRequestHandler):
    state: Server

    def log_message(self, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.state.asked.append(self.path)
        if self.path != "/api/token/refresh/" or sent != {"refresh": PERSONAL}:
            self.answer(401, b'{"detail":"Token is invalid"}')
        else:
            self.answer(200, b'{"access":"for-minutes"}')

    def do_GET(self) -> None:
        path, query = urlsplit(self.path).path, parse_qs(urlsplit(self.path).query)
        self.state.asked.append(path)
        if path == "/api/version/":
            self.answer(200, b"{}")
        elif self.state.redirect:
            self.answer(302, b"", Location=self.state.redirect)
        elif self.headers["Authorization"] not in (f"Token {LEGACY}", "Bearer for-minutes"):
            self.answer(401, b'{"detail":"Invalid token."}')
        elif self.state.is_other:
            self.answer(200, b"<html>Welcome</html>")
        elif self.state.failures:
            self.fail(self.state.failures.pop(0))
        elif path == "/api/projects/":
            first = (int(query["page"][0]) - 1) * 100
            page = self.state.projects[first : first + 100]
            following = "http://elsewhere/" if first + 100 < len(self.state.projects) else None
            self.answer(200, json.dumps({"results": page, "next": following}).encode())
        elif path in {f"/api/projects/{project['id']}/export" for project in self.state.projects}:
            assert query == {"exportType": ["JSON"], "download_all_tasks": ["true"]}
            self.answer(200, EXPORT)
        else:
            self.answer(404, b'{"detail":"No Project matches the given query."}')

    def fail(self, failure: int | str) -> None:
        if isinstance(failure, int):
            self.answer(failure, b"busy or broken", **{"Retry-After": "0"})
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(EXPORT)))
        self.end_headers()
        self.wfile.write(EXPORT[: len(EXPORT) // 2])
        self.close_connection = True

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def standing_in() -> Iterator[Server]:
    state = Server()
    http = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"state": state}))
    state.url = f"http://127.0.0.1:{http.server_port}"
    # The server looks every so often whether it is to stop.
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(label_studio_api, "FIRST_WAIT_S", 0.0)
    with standing_in() as state:
        yield state


def fetched(server: Server, project: int | None = 3, token: str = LEGACY) -> bytes:
    with fetch(server.url, project, token) as file, file.open() as stream:
        return stream.read()


def one_line_of(caught: pytest.ExceptionInfo[Exception]) -> str:
    text = str(caught.value)
    assert "\n" not in text
    assert LEGACY not in text
    assert PERSONAL not in text
    return text


@pytest.mark.parametrize("token", [LEGACY, PERSONAL])
def test_both_kinds_of_token_fetch_all_tasks(server: Server, token: str) -> None:
    with fetch(f"{server.url}/", 3, token) as file:
        assert file.place == f"{server.url}/projects/3"
        with file.open() as first, file.open() as second:
            assert first.read() == second.read() == EXPORT
            path = Path(first.name)
        answers = list(read_answers(file, Question("class", ["kettle"])))
    assert [answer.item for answer in answers] == [task["data"]["item_id"] for task in TASKS]
    assert not path.exists()
    assert not path.parent.exists()


def test_the_only_project_needs_no_name(server: Server) -> None:
    assert fetched(server, None) == EXPORT
    server.projects = [{"id": n, "title": f"P{n}"} for n in range(1, 131)]
    with pytest.raises(
        ConfigError, match=r"130 projects; name one with --project: 1 \(P1\), 2 \(P2\).*, \.\.\."
    ) as caught:
        fetched(server, None)
    one_line_of(caught)
    server.projects = []
    with pytest.raises(InputError, match="no project that this token can see"):
        fetched(server, None)


def test_a_project_that_is_not_there_names_those_that_are(server: Server) -> None:
    with pytest.raises(InputError, match=r"no project 9; --project is one of: 3 \(Vessels\)") as caught:
        fetched(server, 9)
    one_line_of(caught)


@pytest.mark.parametrize("token", ["f" * 40, "eyJ.not.valid"])
def test_a_token_that_is_refused(server: Server, token: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"refuses the token \(401\); copy .* export {TOKEN_VARIABLE}=TOKEN"
    ) as caught:
        fetched(server, 3, token)
    assert token not in one_line_of(caught)


def test_the_token_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, f" {LEGACY}\n")
    assert token_of_environment() == LEGACY
    monkeypatch.delenv(TOKEN_VARIABLE)
    with pytest.raises(ConfigError, match=f"{TOKEN_VARIABLE} is not set; copy"):
        token_of_environment()


def test_a_password_for_the_host_does_not_replace_the_token(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login someone password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert fetched(server) == EXPORT


def test_a_busy_server_is_asked_again(server: Server) -> None:
    server.failures = [429, 503, 502]
    assert fetched(server) == EXPORT
    server.failures = [503] * 99
    with pytest.raises(InputError, match="503 busy or broken; see the server's log"):
        fetched(server)
    assert len(server.failures) == 99 - label_studio_api.ATTEMPTS


def test_an_export_that_breaks_off_is_fetched_again_from_its_start(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So that what came before the break was written.
    monkeypatch.setattr(label_studio_api, "_CHUNK_BYTES", 100)
    server.failures = ["cut", "cut"]
    assert fetched(server) == EXPORT
    server.failures = ["cut"] * 99
    with pytest.raises(InputError, match=r"the export broke off: .*; try again") as caught:
        fetched(server)
    one_line_of(caught)


def test_another_error_is_reported_at_once(server: Server) -> None:
    server.failures = [418]
    with pytest.raises(InputError, match="418 busy or broken"):
        fetched(server)


def test_where_nothing_answers(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    start = time.monotonic()
    with pytest.raises(InputError, match=r"no server answers: .*refused.*; check --url") as caught:
        fetched(Server(url=f"http://127.0.0.1:{free_port()}"))
    one_line_of(caught)
    monkeypatch.setattr(label_studio_api, "ANSWER_SECONDS", (0.1, 0.1))
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(InputError, match=r"no server answers: .*timed out"),
    ):
        fetched(Server(url=f"http://127.0.0.1:{silent.getsockname()[1]}"))
    assert time.monotonic() - start < 5


def test_bounds_that_report_a_missing_server_within_20_seconds() -> None:
    longest_waits = sum(1.5 * label_studio_api.FIRST_WAIT_S * 2**n for n in range(label_studio_api.ATTEMPTS - 1))
    assert longest_waits < 20
    assert sum(label_studio_api.ANSWER_SECONDS) < 20


def test_what_is_no_label_studio_server(server: Server) -> None:
    server.is_other = True
    with pytest.raises(InputError, match="no Label Studio server answers there"):
        fetched(server, None)
    with fetch(server.url, 3, LEGACY) as file, pytest.raises(InputError, match="not JSON, it begins with b'<html>"):
        list(read_answers(file, Question("class", [])))


def test_the_token_does_not_follow_to_another_server(server: Server) -> None:
    with standing_in() as other:
        server.redirect = f"{other.url}/api"
        with pytest.raises(ConfigError, match=rf"moved to {other.url}/api; give --url that server"):
            fetched(server)
        assert other.asked == []


@pytest.mark.parametrize("url", ["localhost:8080", "ftp://host", "http://", "", "http://[::1", "http://a b:80x"])
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(ConfigError, match=r"--url .*http://") as caught:
        fetched(Server(url=url))
    one_line_of(caught)


def test_passwords_in_a_url_are_not_shown() -> None:
    with pytest.raises(InputError, match="no server answers") as caught:
        fetched(Server(url=f"http://me:secret@127.0.0.1:{free_port()}"))
    assert "secret" not in str(caught.value)
