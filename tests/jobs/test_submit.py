"""`vaal submit` on a real local Ray head: the same command, its log, its exit status; pool and campaign on S3."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq
import pytest
from pyarrow import fs
from ray.job_submission import JobStatus, JobSubmissionClient
from typer.testing import CliRunner, Result

from engine.simulation.demo_pools import DemoPool
from jobs.cli import app
from tests.conftest import MakeCampaign
from tests.processes import wait_until
from tests.servers import free_port, s3_server

BIN = Path(sys.executable).parent


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[fs.FileSystem]:
    """An S3 server with an empty bucket, and the variables that lead this process and what it starts there."""
    with s3_server("bucket") as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield fs.S3FileSystem(
            endpoint_override=environment["AWS_ENDPOINT_URL"], access_key="key", secret_key="secret", region="us-east-1"
        )


class Head(NamedTuple):
    """A Ray head that was started by the command line; `address` is that of its job server, `cluster` its own."""

    address: str
    cluster: str
    process: subprocess.Popen[bytes]

    def wait(self) -> str:
        """The address, once jobs are taken."""
        wait_until(lambda: takes_jobs(self.address), self.process.poll)
        return self.address


@pytest.fixture
def head(tmp_path: Path, s3: fs.FileSystem) -> Iterator[Head]:
    """A head that has just been started. What it runs finds the S3 server."""
    # Whoever has a token in the home folder would start a head that asks for it.
    with started_head(tmp_path, RAY_AUTH_MODE="disabled") as found:
        yield found


@contextmanager
def started_head(tmp_path: Path, **variables: str) -> Iterator[Head]:
    port, dashboard, agent = free_port(), free_port(), free_port()
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", **variables}
    options = [f"--port={port}", f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}"]
    options += ["--num-cpus=2", "--disable-usage-stats", "--block"]
    words = [BIN / "ray", "start", "--head", *options]
    with (tmp_path / "head.log").open("w") as log:
        # In a session of its own, for `ray stop` would end every other Ray on this machine too.
        process = subprocess.Popen(words, env=environment, stdout=log, stderr=log, start_new_session=True)
    yield Head(f"http://127.0.0.1:{dashboard}", f"127.0.0.1:{port}", process)
    # The whole group at once: on a signal to itself alone, `ray start --block` lingers.
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(30)
    # Left behind, it leads Ray's own state queries on this machine to a cluster that is no more.
    current = Path("/tmp/ray/ray_current_cluster")
    if current.exists() and current.read_text().endswith(f":{port}"):
        current.unlink()


def takes_jobs(address: str) -> bool:
    """Whether the job server answers and has an agent to run jobs."""
    try:
        client = JobSubmissionClient(address)
        job = client.submit_job(entrypoint="true")
    except (ConnectionError, RuntimeError):
        return False
    while not client.get_job_status(job).is_terminal():
        time.sleep(0.2)
    return True


@contextmanager
def forwarded(head: Head) -> Iterator[tuple[str, Callable[[], None]]]:
    """An address that leads to the head's job server, and what cuts all connections through it for two seconds."""
    host, _, port = head.address.removeprefix("http://").partition(":")
    pairs, is_open = list[socket.socket](), threading.Event()
    is_open.set()
    server = socket.create_server(("127.0.0.1", 0))

    def pump(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def serve() -> None:
        with suppress(OSError):
            while True:
                near = server.accept()[0]
                if not is_open.is_set():
                    near.close()
                    continue
                far = socket.create_connection((host, int(port)))
                pairs.extend((near, far))
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=pump, args=ends, daemon=True).start()

    def cut() -> None:
        is_open.clear()
        for end in pairs:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        threading.Timer(2.0, is_open.set).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.getsockname()[1]}", cut
    finally:
        server.close()


def vaal(*arguments: str) -> Result:
    """A command in this process. It starts no Ray."""
    return CliRunner().invoke(app, list(arguments))


def fill(s3: fs.FileSystem, pool: DemoPool, labels: Path) -> str:
    """Put three shards of the digits on S3, because a server in Python takes its time over a request.

    Writes their labels, and returns the pattern of the shards.
    """
    files = sorted(Path(pool.shards[0]).parent.glob("*.tar"))[:3]
    for file in files:
        with s3.open_output_stream(f"bucket/pool/{file.name}") as stream:
            stream.write(file.read_bytes())
    with pool.labels.open() as rows:
        labels.write_text("".join(row for row in rows if row.startswith(("shard,", *(file.name for file in files)))))
    return "s3://bucket/pool/digits-{00000..00002}.tar"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_round_on_s3_as_a_ray_job(s3: fs.FileSystem, head: Head, pool: DemoPool, tmp_path: Path) -> None:
    campaign, labels = "s3://bucket/campaigns/one", str(tmp_path / "labels.csv")
    shards = fill(s3, pool, Path(labels))
    settings = [w for setting in (*pool.settings, "train.max_steps=12") for w in ("--set", setting)]
    made = vaal("init", campaign, "--pool", shards, "--labels", labels, *settings, "--json")
    assert json.loads(made.stdout)["config"]["pool"]["root"] == "s3://bucket/pool", made.output
    assert "already holds a campaign" in vaal("init", campaign, "--pool", shards, "--labels", "x").stderr
    missing = vaal("init", campaign + "2", "--pool", "s3://bucket/pool/no-*.tar", "--labels", labels)
    assert (missing.exit_code, "no shard matches" in missing.stderr) == (4, True)

    address = head.wait()
    with ThreadPoolExecutor() as threads:
        # In a process of its own: two commands in one would share their output.
        failed = threads.submit(asked, "submit", "--address", address, "--", "select", f"{tmp_path}/nowhere")
        done = vaal("submit", "--address", address, "--", "round", campaign, "--set", "select.budget=30")
    assert failed.result().returncode == 4
    assert done.exit_code == 0, done.output
    assert "Round 000: scored" in done.stdout
    state = json.loads(vaal("status", campaign, "--json").stdout)
    assert all(stage["complete"] for stage in state["rounds"][0]["stages"].values())
    picks = pq.read_table("bucket/campaigns/one/rounds/000/selection/selection.parquet", filesystem=s3).to_pylist()
    assert len(picks) == 30
    images = s3.get_file_info(fs.FileSelector("bucket/campaigns/one/rounds/000/handoff/generic/images"))
    assert {info.base_name for info in images} == {f"{pick['item_id']}.png" for pick in picks}


def require_left_alone_by_ctrl_c(address: str, words: tuple[str, ...], name: str, client: JobSubmissionClient) -> None:
    left = subprocess.Popen(
        [sys.executable, "-m", "jobs", "submit", "--address", address, *words], stderr=subprocess.PIPE, text=True
    )
    wait_until(lambda: "transductive" in client.get_job_logs(name))
    left.send_signal(signal.SIGINT)
    assert f"job {name} goes on; follow it: " in left.communicate(timeout=20)[1]
    assert left.returncode == 1
    assert client.get_job_status(name) == JobStatus.RUNNING


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_job_is_submitted_once_followed_through_a_lost_connection_and_stopped(
    s3: fs.FileSystem, head: Head, pool: DemoPool, tmp_path: Path
) -> None:
    campaign, labels = "s3://bucket/campaigns/two", str(tmp_path / "labels.csv")
    shards, address = fill(s3, pool, Path(labels)), head.wait()
    settings = [*pool.settings, "train.max_steps=100000", "train.epochs=9999"]
    options = [word for setting in settings for word in ("--set", setting)]
    # The labels go along.
    made = vaal("submit", "--address", address, "--", "init", campaign, "--pool", shards, "--labels", labels, *options)
    assert (made.exit_code, f"sent along: {labels}" in made.stderr) == (0, True), made.output
    words = ("--", "train", campaign)
    with forwarded(head) as (forward, cut):
        first = json.loads(vaal("submit", "--no-wait", "--json", "--address", forward, *words).stdout)
        name = first["submission_id"]
        assert re.fullmatch("vaal-two-train-[0-9a-f]{8}", name)
        client = JobSubmissionClient(address)
        # Without a scheme, and in a process of its own, for its output.
        follower = ["submit", "--address", forward.removeprefix("http://"), *words]
        again = subprocess.Popen(
            [sys.executable, "-m", "jobs", *follower], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        wait_until(lambda: "transductive" in client.get_job_logs(name))
        cut()
        time.sleep(3)
        stopped = vaal("submit", "--stop", name, "--address", address)
        assert (stopped.exit_code, "Job stopped" in stopped.stdout) == (0, True), stopped.output
        output, errors = again.communicate(timeout=60)
    assert again.returncode == 1
    assert f"the same command runs already: following job {name}" in errors
    assert "the connection is lost, the job goes on; trying again" in errors
    assert "INFO" not in errors
    log = client.get_job_logs(name)
    assert "error: interrupted; completed work is kept" in log
    assert "SIGTERM" not in log
    # What was shown before is not shown again.
    assert output.count("error: interrupted") == 1
    assert output.count("transductive") == log.count("transductive")
    assert [job.submission_id for job in client.list_jobs() if job.submission_id.startswith("vaal-two-train")] == [name]
    assert client.get_job_info(name).metadata["campaign"] == campaign
    later = vaal("submit", "--no-wait", "--json", "--address", address, *words)
    assert json.loads(later.stdout)["submission_id"] == f"{name}-2"
    require_left_alone_by_ctrl_c(address, words, f"{name}-2", client)
    assert vaal("submit", "--stop", f"{name}-2", "--address", address).exit_code == 0
    assert "Job had ended before: stopped" in vaal("submit", "--stop", name, "--address", address).stdout
    missing = vaal("submit", "--follow", "nothing", "--address", address)
    assert (missing.exit_code, "no such job; see: ray job list" in missing.stderr) == (4, True)


@pytest.mark.slow
@pytest.mark.heavy
def test_a_cluster_that_wants_a_token_says_how_to_give_it(tmp_path: Path, make_campaign: MakeCampaign) -> None:
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a" * 64}
    how, home = "export RAY_AUTH_MODE=token RAY_AUTH_TOKEN=TOKEN", str(make_campaign().home)
    with started_head(tmp_path, **token) as head:
        words = ("submit", "--address", head.address, "--", "status", str(tmp_path))
        wait_until(lambda: "no Ray job server" not in asked(*words).stderr)
        for given in ({}, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "b" * 64}, {"RAY_AUTH_MODE": "token"}):
            refused = asked(*words, **given)
            assert (refused.returncode, how in refused.stderr) == (4, True), refused.stderr
            assert "Traceback" not in refused.stderr
            refused = asked("plan", home, "--address", head.cluster, **given)
            assert (refused.returncode, how in refused.stderr) == (4, True), refused.stderr
        # The status of the command, which finds no campaign there.
        wait_until(lambda: "no campaign" in asked(*words, **token).stdout)


def asked(*words: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """A command whose environment has no token but this one."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    environment = {**kept, "HOME": "/nowhere", **variables}
    return subprocess.run(
        [sys.executable, "-m", "jobs", *words],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_what_is_wrong_with_a_job_is_one_line() -> None:
    address = f"127.0.0.1:{free_port()}"
    refused = vaal("submit", "--address", address, "--", "round", "s3://b/c")
    assert (refused.exit_code, f"--address http://{address}: no Ray job server answers there" in refused.stderr) == (
        4,
        True,
    )
    for words in ((), ("--follow", "a", "--stop", "b"), ("--stop", "a", "round", "s3://b/c")):
        refused = vaal("submit", "--address", address, *words)
        assert (refused.exit_code, "give one of a command, --follow JOB and --stop JOB" in refused.stderr) == (2, True)
    refused = asked("submit", "--address", address, "round", "s3://b/c", "--until", "train")
    assert (refused.returncode, "submit -- round CAMPAIGN" in refused.stderr) == (2, True)
    refused = vaal("submit", "--working-dir", "/proc/nowhere", "--address", address, "--", "round", "s3://b/c")
    assert (refused.exit_code, "--working-dir /proc/nowhere: no such folder" in refused.stderr) == (4, True)
    refused = vaal("submit", "--env", "NOT_SET_HERE", "--address", address, "--", "round", "s3://b/c")
    assert (refused.exit_code, "--env NOT_SET_HERE: give KEY=VALUE" in refused.stderr) == (2, True)
