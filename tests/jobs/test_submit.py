"""`vaal submit` on a real local Ray head: the same command, its log, its exit status; pool and campaign on S3."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq
import pytest
from pyarrow import fs
from ray.job_submission import JobSubmissionClient
from typer.testing import CliRunner, Result

from engine.campaign.stages import COMMANDS_WITH_RAY
from engine.cluster.submission import entrypoint, run_job
from engine.errors import ConfigError, InputError
from engine.simulation.demo_pools import DemoPool
from jobs.cli import app
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
    """A Ray head that was started by the command line; `address` is that of its job server."""

    address: str
    process: subprocess.Popen[bytes]

    def wait(self) -> str:
        """The address, once jobs are taken."""
        deadline = time.monotonic() + 90
        while not takes_jobs(self.address):
            assert self.process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.5)
        return self.address


@pytest.fixture
def head(tmp_path: Path, s3: fs.FileSystem) -> Iterator[Head]:
    """A head that has just been started. What it runs finds the S3 server."""
    port, dashboard, agent = free_port(), free_port(), free_port()
    # Whoever has a token in the home folder would start a head that asks for it.
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "RAY_AUTH_MODE": "disabled"}
    options = [f"--port={port}", f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}"]
    options += ["--num-cpus=2", "--disable-usage-stats", "--block"]
    words = [BIN / "ray", "start", "--head", *options]
    with (tmp_path / "head.log").open("w") as log:
        # In a session of its own, for `ray stop` would end every other Ray on this machine too.
        process = subprocess.Popen(words, env=environment, stdout=log, stderr=log, start_new_session=True)
    yield Head(f"http://127.0.0.1:{dashboard}", process)
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
        line = entrypoint(["select", f"{tmp_path}/nowhere"], COMMANDS_WITH_RAY)
        failed = threads.submit(run_job, line, address, lambda _: None)
        done = vaal("submit", "--address", address, "--", "round", campaign, "--set", "select.budget=30")
    assert (failed.result().status, failed.result().exit_status) == ("FAILED", 4)
    assert done.exit_code == 0, done.output
    assert "Round 000: scored" in done.stdout
    state = json.loads(vaal("status", campaign, "--json").stdout)
    assert all(stage["complete"] for stage in state["rounds"][0]["stages"].values())
    picks = pq.read_table("bucket/campaigns/one/rounds/000/selection/selection.parquet", filesystem=s3).to_pylist()
    assert len(picks) == 30
    images = s3.get_file_info(fs.FileSelector("bucket/campaigns/one/rounds/000/handoff/generic/images"))
    assert {info.base_name for info in images} == {f"{pick['item_id']}.png" for pick in picks}


def test_the_entrypoint_is_the_same_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert entrypoint(["round", "s3://b/c"], COMMANDS_WITH_RAY) == "python -m jobs round s3://b/c --address auto"
    assert entrypoint(["status", "my campaign"], COMMANDS_WITH_RAY) == f"python -m jobs status '{tmp_path}/my campaign'"
    joined = entrypoint(["select", "c"], COMMANDS_WITH_RAY)
    assert joined == f"python -m jobs select {tmp_path}/c --address auto"
    with pytest.raises(ConfigError, match="--address: give it once"):
        entrypoint(["round", "c", "--address", "auto"], COMMANDS_WITH_RAY)


def test_no_job_server_is_named() -> None:
    address = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(InputError, match=f"--address {address}: no Ray job server answers there"):
        run_job("true", address, lambda _: None)
