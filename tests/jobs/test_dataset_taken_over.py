"""Two runs of `vaal dataset` into one folder, of which the first is paused for too long."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from engine.campaign import heartbeat
from tests.jobs.test_cli import vaal
from tests.trees import TREES

PAUSED = """
import os, signal, sys
from engine.campaign import heartbeat
from engine.datasets import converting
from jobs.__main__ import main

heartbeat.BEAT_SECONDS = 0.1
complete = converting.complete

def paused(*args):
    os.kill(os.getpid(), signal.SIGSTOP)
    return complete(*args)

converting.complete = paused
sys.argv[0] = "vaal"
main()
"""
"""The command, which stops before it completes what it has written."""


@pytest.mark.heavy
def test_a_run_that_was_paused_for_too_long_ends_as_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0.1)
    monkeypatch.setattr(heartbeat, "PATIENCE_SECONDS", 1.0)
    TREES["caltech256"](tmp_path / "in")
    command = ["dataset", "caltech256", str(tmp_path / "in"), str(tmp_path / "out")]
    first = subprocess.Popen([sys.executable, "-c", PAUSED, *command], stderr=subprocess.PIPE, text=True)
    try:
        assert os.WIFSTOPPED(os.waitpid(first.pid, os.WUNTRACED)[1])
        second = vaal(*command)
        assert second.exit_code == 0, second.output
        (line,) = [line for line in second.stderr.splitlines() if line.startswith("waiting")]
        other = f"another run (dataset), process {first.pid} on {socket.gethostname()}"
        assert line == f"waiting up to 1 s for a sign of life of {other}; Ctrl-C ends this"
        first.send_signal(signal.SIGCONT)
        _, said = first.communicate(timeout=60)
    finally:
        first.kill()
        first.wait()
    assert first.returncode == 5, said
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    why = "gone while this run was at work: another run took over and has ended, or somebody deleted it"
    assert errors == [f"error: {tmp_path}/out/running.json: {why}; run the same command again"]
    assert "Complete already" in vaal(*command).stdout
