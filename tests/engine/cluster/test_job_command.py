"""A command as a Ray job: its line, its id, and the files that go along."""

from pathlib import Path

import pytest

from engine.campaign.stages import COMMANDS_WITH_RAY
from engine.cluster.job_command import JobCommand, copied, job_command
from engine.errors import ConfigError, InputError
from jobs.cli import PAGES


def job_of(*words: str) -> JobCommand:
    return job_command([*words], PAGES, COMMANDS_WITH_RAY)


def line_of(*words: str) -> str:
    return job_of(*words).line


def test_a_job_is_the_same_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert line_of("round", "s3://b/c") == "python -m jobs round s3://b/c --address auto"
    assert line_of("status", "my campaign") == f"python -m jobs status '{tmp_path}/my campaign'"
    assert line_of("select", "c") == f"python -m jobs select {tmp_path}/c --address auto"
    assert job_of("round", "s3://b/c").key == job_of("round", "s3://b/c").key
    keys = {job_of(*words).key for words in (("round", "s3://b/c"), ("round", "s3://b/d"), ("score", "s3://b/c"))}
    assert len(keys) == 3
    with pytest.raises(ConfigError, match="--address: give it once"):
        job_of("round", "c", "--address", "auto")
    with pytest.raises(ConfigError, match=r"rounds: no such command; a job runs one of clean, .*round"):
        job_of("rounds", "c")


def test_local_files_go_along_under_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one").mkdir()
    for name in ("labels.csv", "one/labels.csv", "one/model.py"):
        (tmp_path / name).write_text(name)
    job = job_of("init", "s3://b/c", "--labels", "labels.csv", "--set", "pool.metadata=one/labels.csv")
    assert job.line == "python -m jobs init s3://b/c --labels labels.csv --set pool.metadata=1-labels.csv"
    (tmp_path / "sent").mkdir()
    copied(job.files, tmp_path / "sent", "")
    assert [(tmp_path / "sent" / name).read_text() for name in ("labels.csv", "1-labels.csv")] == [
        "labels.csv", "one/labels.csv",
    ]  # fmt: skip
    inside = job_command(["ingest", "s3://b/c", "one/labels.csv"], ["ingest"], [], "one")
    assert (inside.line, inside.files) == ("python -m jobs ingest s3://b/c labels.csv", {})
    with pytest.raises(InputError, match=r"^labels.csv: not in --working-dir one, all that the job finds; copy it"):
        job_command(["ingest", "s3://b/c", "labels.csv"], ["ingest"], [], "one")
    monkeypatch.setattr("engine.cluster.job_command.MOST_BYTES", 5)
    with pytest.raises(InputError, match=r"^labels.csv: 0 MB, too much to send with a job; put it on an object store"):
        job_of("ingest", "s3://b/c", "labels.csv")
