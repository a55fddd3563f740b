"""The call at the end of a stage, against a real server: what it gets, when it is called again, and that no secret of
its URL is shown or kept where others look."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from typer.testing import CliRunner

from engine.campaign import hooks
from engine.campaign.folder import Campaign
from engine.campaign.opening import open_campaign
from engine.campaign.stages import Run, complete_stage
from engine.config.hook_options import shown
from jobs.cli import app
from tests.conftest import MakeCampaign, pretend_trained
from tests.fabricate import fabricate_scores
from tests.servers import free_port

SECRET = "T000-hush"
pytestmark = pytest.mark.heavy


class Listener(NamedTuple):
    """A server's URL with a secret in it, and the calls that it got: path, Authorization, and content."""

    url: str
    calls: list[tuple[str, str | None, Any]]


@contextmanager
def listening(*answers: int) -> Iterator[Listener]:
    """A server that gives these answers, and then the last one again and again."""
    calls: list[tuple[str, str | None, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            calls.append((self.path, self.headers["Authorization"], content))
            status = answers[min(len(calls), len(answers)) - 1]
            self.send_response(status)
            if status == 302:
                self.send_header("Location", "/elsewhere")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield Listener(f"http://127.0.0.1:{server.server_port}/services/{SECRET}", calls)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def dripping(answer: bytes) -> Iterator[int]:
    """The port of a server that begins an answer, and then sends a byte now and then."""
    is_over = threading.Event()

    def answer_one() -> None:
        with suppress(OSError), server.accept()[0] as connection:
            connection.recv(1 << 16)
            connection.sendall(answer)
            while not is_over.wait(0.05):
                connection.sendall(b"x")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=answer_one)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            is_over.set()
            thread.join()


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "WAITS", (0.0, 0.0, 0.0))


def scored(make_campaign: MakeCampaign) -> Campaign:
    campaign = make_campaign()
    pretend_trained(campaign)
    fabricate_scores(campaign, lambda _, keys: np.zeros(len(keys), np.float32))
    return campaign


def select(campaign: Campaign, url: str) -> tuple[bool, list[str]]:
    """Whether the stage did anything, and the lines that it logged about the call."""
    lines: list[str] = []
    opened = open_campaign(str(campaign.home), [f"hooks.on_stage={url}"])
    changed = complete_stage("select", opened, Run(log=lines.append)).changed
    assert SECRET not in "".join(lines)
    return changed, [line for line in lines if "hooks" in line]


def test_a_stage_that_did_something_calls_once(make_campaign: MakeCampaign) -> None:
    campaign = scored(make_campaign)
    with listening(200) as listener:
        assert select(campaign, listener.url) == (True, [])
        assert select(campaign, listener.url) == (False, [])
    ((path, _, content),) = listener.calls
    manifest = json.loads((campaign.stage("selection") / "manifest.json").read_bytes())
    assert path == f"/services/{SECRET}"
    assert content == {
        "campaign": campaign.home.url, "round": 0, "stage": "select", "counts": manifest["counts"],
        "completed_at": manifest["completed_at"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("answers", "num_calls", "said"),
    [
        ((503, 429, 500, 200), 4, ""),
        ((500,), 4, "answered 500"),
        ((404,), 1, "answered 404"),
        ((302, 200), 1, "answered 302"),
    ],
)
def test_a_call_is_tried_again_three_times_where_that_may_help(
    make_campaign: MakeCampaign, answers: tuple[int, ...], num_calls: int, said: str
) -> None:
    campaign = scored(make_campaign)
    with listening(*answers) as listener:
        changed, lines = select(campaign, listener.url)
    assert changed
    assert len(listener.calls) == num_calls
    where = listener.url.partition("/services")[0]
    why = f"hooks.on_stage={where}/***: {said} at the end of select; the round goes on without the call"
    assert lines == ([why] if said else [])


@pytest.mark.parametrize(
    "url", ["http://user:{secret}@127.0.0.1:{port}/x", "http://{secret}@[/", "https://127.0.0.1:{port}/{secret}"]
)
def test_a_server_that_is_not_there_ends_nothing(make_campaign: MakeCampaign, url: str) -> None:
    changed, (line,) = select(scored(make_campaign), url.format(secret=SECRET, port=free_port()))
    assert changed
    assert line.startswith("hooks.on_stage=")
    assert "the round goes on" in line


def test_the_url_may_be_in_a_variable(make_campaign: MakeCampaign, monkeypatch: pytest.MonkeyPatch) -> None:
    campaign = scored(make_campaign)
    with listening(200) as listener:
        monkeypatch.setenv("MY_HOOK", listener.url.replace("http://", "http://me:word@"))
        assert select(campaign, "env:MY_HOOK") == (True, [])
    assert listener.calls[0][1] == "Basic bWU6d29yZA=="
    monkeypatch.delenv("MY_HOOK")
    (campaign.stage("selection") / "manifest.json").delete()
    assert select(campaign, "env:MY_HOOK")[1] == [
        "hooks.on_stage=env:MY_HOOK: the variable is not set here, so nothing was called; set it, and pass it to jobs"
    ]


@pytest.mark.parametrize(
    ("url", "text"),
    [
        (f"https://me:pa/{SECRET}@host/x", "https://me/***"),
        (f"https://me:{SECRET}@host:8443/x", "https://host:8443/***"),
        (f"http://[::1]:80?{SECRET}", "http://[::1]:80/***"),
        ("env:MY_HOOK", "env:MY_HOOK"),
    ],
)
def test_scheme_and_host_alone_are_shown(url: str, text: str) -> None:
    assert shown(url) == text


def test_what_a_variable_holds_is_not_shown(make_campaign: MakeCampaign, monkeypatch: pytest.MonkeyPatch) -> None:
    campaign = scored(make_campaign)
    monkeypatch.setenv("MY_HOOK", f"hooks.example.com/{SECRET}")
    why = "hooks.on_stage=env:MY_HOOK: the variable holds no http:// or https:// URL, so nothing was called; correct it"
    assert select(campaign, "env:MY_HOOK") == (True, [f"{why}, and pass it to jobs"])


@pytest.mark.parametrize("answer", [b"HTTP/1.1 200 OK\r\nX-a: ", b"HTTP/1.1 500 No\r\nContent-Length: 99999\r\n\r\n"])
def test_an_answer_without_an_end_holds_nothing_up(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "ANSWER_SECONDS", 0.5)
    with dripping(answer) as port:
        began = time.monotonic()
        fault = hooks._post(f"http://127.0.0.1:{port}/", {})
        assert time.monotonic() - began < 3
    assert fault == (("no answer within 0 s" if b"200" in answer else "answered 500"), True)


def test_no_secret_of_the_url_is_shown_or_kept_in_a_manifest(make_campaign: MakeCampaign) -> None:
    campaign, url = scored(make_campaign), f"http://u:{SECRET}@127.0.0.1:{free_port()}/{SECRET}"
    select(campaign, url)
    for words in (
        ["status"],
        ["status", "--json"],
        ["select"],
        ["select", "--json"],
        ["report", "--set", "hooks.on_stage=ftp://" + SECRET, "--debug"],
    ):
        done = CliRunner().invoke(app, [words[0], str(campaign.home), *words[1:]])
        assert SECRET not in done.output
        assert "127.0.0.1" in done.output or words[0] != "status"
    kept = [path for path in Path(campaign.home.path).rglob("*.*") if SECRET.encode() in path.read_bytes()]
    assert [path.name for path in kept] == ["overrides.json"]
