"""`vaal submit` on a real local Ray head with its dashboard: the same command, its log, its exit status."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray.job_submission import JobSubmissionClient

from engine.campaign.folder import is_complete
from engine.campaign.stages import COMMANDS_WITH_RAY
from engine.cluster.submission import entrypoint, run_job
from engine.errors import ConfigError, InputError
from tests.conftest import MakeCampaign, pretend_trained
from tests.servers import free_port

BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the job server of a Ray head that was started by the command line."""
    port, dashboard, agent = free_port(), free_port(), free_port()
    # Whoever has a token in the home folder would start a head that asks for it.
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "RAY_AUTH_MODE": "disabled"}
    options = [f"--port={port}", f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}"]
    options += ["--num-cpus=2", "--disable-usage-stats", "--block"]
    log = (tmp_path_factory.mktemp("head") / "log").open("w")
    words = [BIN / "ray", "start", "--head", *options]
    # In a session of its own, for `ray stop` would end every other Ray on this machine too.
    process = subprocess.Popen(words, env=environment, stdout=log, stderr=log, start_new_session=True)
    address = f"http://127.0.0.1:{dashboard}"
    deadline = time.monotonic() + 90
    while not takes_jobs(address):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.5)
    yield address
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


@pytest.mark.timeout(300)
def test_a_round_as_a_ray_job(head: str, make_campaign: MakeCampaign) -> None:
    campaign = make_campaign()
    pretend_trained(campaign)
    words = [sys.executable, "-m", "jobs", "submit", "--address", head, "--", "round", str(campaign.home)]
    done = subprocess.run([*words, "--set", "select.budget=30"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Round 000: scored" in done.stdout
    assert is_complete(campaign.stage("report"))
    assert (campaign.stage("selection") / "selection.parquet").read_table().num_rows == 30

    failed = run_job(entrypoint(["select", str(campaign.home / "nowhere")], COMMANDS_WITH_RAY), head, lambda _: None)
    assert (failed.status, failed.exit_status) == ("FAILED", 4)


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
