"""With --log-format json, standard error is one JSON object a line: progress, what is said, and errors."""

import json
import logging
import sys
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

from engine.campaign.stages import run_stage
from engine.errors import InputError
from jobs import terminal
from jobs.logs import asked_format
from jobs.terminal import Outcome, Terminal, as_command
from tests.conftest import MakeCampaign, pretend_trained
from tests.fabricate import fabricate_scores
from tests.jobs.test_terminal import ended

VAAL = (sys.executable, "-m", "jobs")
FIELDS = ["time", "level", "campaign", "round", "stage", "event", "message"]


@pytest.fixture(autouse=True)
def _loggers_as_before() -> Iterator[None]:
    before = logging.getLogger().handlers[:]
    yield
    logging.getLogger().handlers = before
    logging.captureWarnings(capture=False)


def objects(text: str) -> list[dict[str, Any]]:
    """The lines of standard error. Raises where one is no object with the fields of all."""
    found = [json.loads(line) for line in text.splitlines()]
    for line in found:
        assert list(line)[: len(FIELDS)] == FIELDS
        assert datetime.fromisoformat(line["time"]).tzinfo == UTC
    return found


@pytest.mark.heavy
def test_a_stage_logs_its_begin_what_it_says_and_its_end_with_counts(make_campaign: MakeCampaign) -> None:
    campaign = make_campaign()
    pretend_trained(campaign)
    fabricate_scores(campaign, lambda _, keys: np.zeros(len(keys), np.float32))
    found = ended(*VAAL, "select", str(campaign.home), "--log-format", "json")
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith("Round 000: selected")
    begin, *said, end = objects(found.stderr)
    assert (begin["event"], begin["message"], end["event"], end["level"]) == ("begin", "select", "end", "info")
    assert end["counts"]["vaal_picked"] == 100
    assert said[-2]["message"].startswith("signal present")
    assert {(line["campaign"], line["round"], line["stage"]) for line in (begin, *said, end)} == {
        (campaign.home.url, 0, "select")
    }


@pytest.mark.heavy
def test_errors_are_objects_too(tmp_path: Path) -> None:
    found = ended(*VAAL, "status", "c", "--log-format=json", "--json", cwd=tmp_path)
    (line,) = objects(found.stderr)
    assert (line["level"], line["event"], line["exit_status"], found.returncode) == ("error", "error", 4, 4)
    assert (line["campaign"], line["round"], line["stage"]) == (f"{tmp_path}/c", None, None)
    assert json.loads(found.stdout) == {"error": line["message"].replace("python -m jobs", "vaal"), "exit_status": 4}
    for words in (["status", "--log-format", "json"], ["nonsense", "--log-format=json"]):
        (line,) = objects(ended(*VAAL, *words).stderr)
        assert (line["level"], line["exit_status"]) == ("error", 2)
    secret = "s3://me:hunter22@bucket/one"
    found = ended(*VAAL, "status", secret, "--log-format=json")
    assert objects(found.stderr)[0]["campaign"] is None
    assert "hunter22" not in found.stderr + found.stdout


@pytest.mark.filterwarnings("always")
def test_a_traceback_and_a_warning_do_not_break_the_lines(capsys: pytest.CaptureFixture[str]) -> None:
    def page(screen: Terminal) -> Outcome:
        screen.log("one\ntwo [bold]")
        warnings.warn("a library's own", stacklevel=1)
        raise InputError("nothing there")

    with pytest.raises(typer.Exit):
        as_command(page)(json=False, debug=True, log_format="json")
    said, warned, failed = objects(capsys.readouterr().err)
    assert said["message"] == "one\ntwo [bold]"
    assert (warned["level"], "a library's own" in warned["message"]) == ("warning", True)
    assert failed["message"] == "nothing there"
    assert failed["traceback"].startswith("Traceback")


def test_progress_has_a_share_the_seconds_left_and_counts(
    make_campaign: MakeCampaign, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal, "PLAIN_SECONDS", 0.0)
    monkeypatch.setattr(terminal, "MEASURED_SECONDS", 0.0)
    screen, campaign = Terminal(json=False, log_format="json"), make_campaign()
    with screen.running("score", campaign, "auto") as run:
        run.measure("vaal_stage", 1, stage="score")
        run.measure("vaal_items_scored", 40)
        run.measure("vaal_items_quarantined", 2, error="decode/truncated")
        run.on_progress(0.25, "40 items")
        run.on_progress(0.5, "80 items")
        run.log("a line")
    _, progress, said, end = objects(capsys.readouterr().err)
    assert progress["event"] == "progress"
    assert progress["message"].startswith("score 50% 80 items")
    assert (progress["share"], progress["seconds_left"], run.address) == (0.5, 0, "auto")
    assert progress["counts"] == end["counts"]
    assert end["counts"] == {"vaal_items_scored": 40, "vaal_items_quarantined": {"decode/truncated": 2}}
    assert "counts" not in said


def test_after_an_error_the_stage_is_still_named(
    make_campaign: MakeCampaign, capsys: pytest.CaptureFixture[str]
) -> None:
    screen, campaign = Terminal(json=False, log_format="json"), make_campaign()
    with pytest.raises(InputError) as error, screen.running("select", campaign) as run:
        run_stage("select", campaign, run)
    screen.failed(str(error.value), 4)
    begin, failed = objects(capsys.readouterr().err)
    assert (begin["event"], failed["stage"], failed["level"]) == ("begin", "select", "error")
    screen.log("later")


def test_the_format_is_found_in_a_command_line_that_cannot_be_read() -> None:
    for words, found in (
        (["x", "--log-format", "json"], "json"),
        (["x", "--log-format=json"], "json"),
        (["x", "json", "--log-format"], "text"),
        ([], "text"),
    ):
        assert asked_format(words) == found


def test_what_was_measured_for_a_moment_does_not_tell_the_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal, "PLAIN_SECONDS", 0.0)
    with Terminal(json=False, log_format="json").progress("train") as update:
        update(0.0, "step 0")
        update(0.1, "step 50")
    [progress] = objects(capsys.readouterr().err)
    assert (progress["message"], progress["seconds_left"]) == ("train 10% step 50", None)
