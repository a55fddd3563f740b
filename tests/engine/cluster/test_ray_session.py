"""The connection to Ray: what cannot work is one line with the right advice, at once and never an endless wait."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from engine.cluster import head_watch, submission
from engine.cluster import ray_session as module
from engine.cluster.ray_session import _require_answer, ray_session, usable_cpus
from engine.errors import ConfigError, InputError
from tests.conftest import MakeCampaign
from tests.jobs.test_cli import refused
from tests.servers import free_port

REPOSITORY = Path(__file__).parents[3]
START = (
    "import os; os.cpu_count = lambda: 16\n"
    "from engine.cluster.ray_session import ray_session\n"
    "import ray\n"
    "with ray_session('local'): print('CPU', int(ray.cluster_resources()['CPU']))"
)

INSPECT = """
import json, os, pathlib, psutil, ray
from engine.cluster.ray_session import ray_session
with ray_session('local'):
    ray.get(ray.remote(lambda: 1).remote())
    family = [psutil.Process(), *psutil.Process().children(recursive=True)]
    sockets = [socket for one in family for socket in one.net_connections() if socket.status == 'LISTEN']
    token = os.environ['RAY_AUTH_TOKEN']
    session = pathlib.Path(ray._private.worker._global_node.get_session_dir_path())
    files = [str(path) for path in session.rglob('*') if path.is_file() and token.encode() in path.read_bytes()]
    found = {
        'addresses': [socket.laddr.ip.removeprefix('::ffff:') for socket in sockets], 'token': token, 'files': files,
        'mode': os.environ['RAY_AUTH_MODE'], 'programs': [word for one in family for word in one.cmdline()],
    }
found['after'] = [os.environ['RAY_AUTH_MODE'], os.environ['RAY_AUTH_TOKEN']]
print(json.dumps(found))
"""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for place in (module, head_watch):
        monkeypatch.setattr(place, "ANSWER_SECONDS", 0.3)
    monkeypatch.setattr(submission, "ANSWER_SECONDS", 0.3)


@pytest.fixture
def silent() -> Iterator[str]:
    """A server that takes connections and never says a word."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def web() -> Iterator[str]:
    """A server of HTTP/1."""
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def gateway() -> Iterator[str]:
    """A server of HTTP/2, as in front of many services, that knows nothing of Ray."""

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection, _ = server.accept()
                kept.append(connection)
                connection.sendall(b"\0\0\0\4\0\0\0\0\0")

    kept: list[socket.socket] = []
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
    for connection in kept:
        connection.close()


@pytest.mark.heavy
def test_an_address_where_no_cluster_answers_is_named_at_once(silent: str, web: str, gateway: str) -> None:
    started = time.monotonic()
    for address in (silent, f"127.0.0.1:{free_port()}", "nowhere.invalid:6379"):
        with pytest.raises(InputError, match=f"--address {address}: no Ray cluster answers there"):
            _require_answer(address)
    for address in (web, gateway):
        with pytest.raises(InputError, match=f"--address {address}: what answers there is no Ray cluster"):
            _require_answer(address)
    for address in ("nonsense", "ray://127.0.0.1:10001", "127.0.0.1:", "a b:1"):
        with pytest.raises(ConfigError, match=f"--address {address}: expected local, auto, or"), ray_session(address):
            raise AssertionError
    assert time.monotonic() - started < 2


def test_an_address_that_is_none_is_refused_where_ray_is_connected_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: True)
    with pytest.raises(ConfigError, match=r"--address s3:.*\*\*\*"), ray_session("s3://KEY:HIDDEN@bucket"):
        raise AssertionError


def test_a_job_server_that_answers_with_an_error_is_not_called_absent() -> None:
    # Without a do_GET every request is answered with 501.
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"127.0.0.1:{server.server_port}"
        why = r"what answers there reports 501 Server Error: .*; the cluster may still be starting"
        with pytest.raises(InputError, match=f"--address http://{address}: {why}"):
            submission.JobServer(address)
        server.shutdown()


def test_a_job_server_that_never_answers_is_named_at_once(silent: str) -> None:
    with pytest.raises(InputError, match=f"--address http://{silent}: no Ray job server answers there"):
        submission.JobServer(f"http://{silent}")
    with pytest.raises(InputError, match="--address http://nonsense: no Ray job server answers there"):
        submission.JobServer("nonsense")
    for address in ("ray://nowhere:1", "http://[bad"):
        with pytest.raises(ConfigError, match=r"--address \S+: "):
            submission.JobServer(address)


def started(prefix: list[str], code: str = START, **environment: str) -> subprocess.CompletedProcess[str]:
    words = [*prefix, sys.executable, "-c", code]
    environment = {**os.environ, **environment}
    return subprocess.run(words, capture_output=True, text=True, check=False, cwd=REPOSITORY, env=environment)


@pytest.mark.heavy
def test_a_private_ray_has_the_cpus_that_may_be_used_and_needs_no_home_that_can_be_written() -> None:
    ended = started(["taskset", "-c", "0"], HOME="/dev/null")
    assert ended.stdout == "CPU 2\n", ended.stderr


@pytest.mark.heavy
def test_a_private_ray_is_reached_from_this_machine_alone_and_its_token_is_in_no_file(tmp_path: Path) -> None:
    ended = started([], INSPECT, HOME=str(tmp_path), RAY_AUTH_MODE="disabled", RAY_AUTH_TOKEN="of-a-cluster")
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert set(found["addresses"]) == {"127.0.0.1"}, found
    # The control store, the raylet and a worker, at least.
    assert len(found["addresses"]) >= 3
    assert not [word for word in found["programs"] if word.endswith(("dashboard.py", "monitor.py"))]
    assert found["mode"] == "token"
    assert len(found["token"]) == 64
    assert found["files"] == []
    assert list(tmp_path.iterdir()) == []
    assert found["after"] == ["disabled", "of-a-cluster"]


def test_a_quota_of_the_container_bounds_the_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    for quota, expected in (
        (None, len(os.sched_getaffinity(0))),
        (1.5, 1),
        (0.5, 1),
        (64, len(os.sched_getaffinity(0))),
    ):
        monkeypatch.setattr("ray._private.utils._get_docker_cpus", lambda quota=quota: quota)
        assert usable_cpus() == expected


@pytest.mark.heavy
def test_a_temporary_folder_with_too_long_a_path_is_named(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 90)
    folder.mkdir()
    ended = started([], TMPDIR=str(folder))
    assert (
        f"ConfigError: TMPDIR={folder}: too long a path for Ray's sockets below it; export TMPDIR=/tmp" in ended.stderr
    )


def test_a_full_temporary_folder_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    late = RuntimeError("The current node timed out during startup.")
    assert "timed out during startup; is this machine overloaded?" in str(module._not_started(late))
    monkeypatch.setattr(module, "MIN_SCRATCH_BYTES", 1 << 60)
    assert f"RAY_TMPDIR={tmp_path}: " in str(module._not_started(late))
    assert "MB are free; free some, or export RAY_TMPDIR" in str(module._not_started(late))


@pytest.mark.usefixtures("local_ray")
def test_more_workers_than_cpus_are_refused_and_not_waited_for(make_campaign: MakeCampaign) -> None:
    home, num_cpus = str(make_campaign().home), max(2, usable_cpus())
    settings = ("--set", "train.batch_size=512", "--set", f"train.workers={num_cpus + 1}")
    line = refused(2, "train", home, *settings)
    assert f"train.workers={num_cpus + 1} is more than the {num_cpus} CPUs of this machine" in line
    assert f"--set train.workers={num_cpus}" in line
