"""What a person reads: errors of one line, commands that can be copied, and how to look back at a round."""

import errno
import json
import os
import re
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from unittest.mock import ANY

import numpy as np
import pytest
import typer

from engine.config.texts import plural
from engine.handoff import VENDORS
from engine.storage.location import Location
from jobs.cli import complete_explain
from jobs.terminal import Outcome, Terminal, as_called, as_command
from tests.conftest import MakeCampaign, pretend_trained
from tests.fabricate import fabricate_scores
from tests.jobs.test_cli import refused, vaal


def ended(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(words, capture_output=True, text=True, check=False, cwd=cwd, env=environment)


@pytest.mark.parametrize("command", ["export", "round", "ingest"])
def test_help_breaks_no_name_of_a_vendor(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    words = set(re.findall(r"[\w-]+", ended(sys.executable, "-m", "jobs", command, "--help").stdout))
    assert words >= {*VENDORS}


def test_a_usage_error_is_one_line_and_the_version_is_printed() -> None:
    program = (sys.executable, "-m", "jobs")
    for words, text in (
        (["export", "c", "--to", "nobody"], "Invalid value for '--to': 'nobody' is not one of "),
        (["status"], "Missing argument 'CAMPAIGN'"),
        (["nonsense"], "No such command 'nonsense'"),
    ):
        found = ended(*program, *words)
        assert (found.returncode, found.stdout, found.stderr.count("\n")) == (2, "", 1), found.stderr
        assert found.stderr.startswith(f"error: {text}")
    found = ended(*program, "--version")
    assert (found.returncode, found.stdout) == (0, f"vaal {version('vaal')}\n")


def test_printed_commands_begin_as_the_program_was_called(tmp_path: Path) -> None:
    script = tmp_path / "bin/vaal"
    script.parent.mkdir()
    script.write_text(f"#!{sys.executable}\nfrom jobs.__main__ import main\nmain()\n")
    script.chmod(0o755)
    for words, shown in (
        ((str(script),), "bin/vaal"),
        (("bin/vaal",), "bin/vaal"),
        ((sys.executable, "-m", "jobs"), "python -m jobs"),
    ):
        found = ended(*words, "status", "c", cwd=tmp_path)
        assert found.stderr == (
            f"error: {tmp_path}/c: no campaign here; correct the path, or make one: "
            f"{shown} init {tmp_path}/c --pool URL --labels FILE\n"
        )


def test_an_interrupt_while_modules_load_is_one_line(tmp_path: Path) -> None:
    # What importing a module does when Ctrl-C comes in the middle of it.
    (tmp_path / "typer.py").write_text("raise KeyboardInterrupt\n")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from jobs.__main__ import main; main()"
    found = ended(sys.executable, "-c", code)
    assert (found.returncode, found.stderr.count("\n")) == (1, 1), found.stderr
    assert found.stderr.startswith("error: interrupted")


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_threads_that_an_interrupt_ends_print_nothing(number: str) -> None:
    code = (
        "import os, signal, threading, time\n"
        "import jobs.cli, jobs.__main__\n"
        "def run():\n"
        "    gone = threading.Event()\n"
        "    def work():\n"
        "        gone.wait()\n"
        "        raise RuntimeError('its queue is closed')\n"
        "    thread = threading.Thread(target=work)\n"
        "    thread.start()\n"
        "    try:\n"
        f"        os.kill(os.getpid(), signal.{number})\n"
        "        time.sleep(60)\n"
        "    finally:\n"
        "        gone.set()\n"
        "        thread.join()\n"
        "jobs.cli.main = run\n"
        "jobs.__main__.main()\n"
    )
    found = ended(sys.executable, "-c", code)
    assert (found.returncode, found.stderr.count("\n")) == (1, 1), found.stderr
    assert found.stderr.startswith("error: interrupted")


def test_nothing_of_a_library_aborts_a_command_that_is_done() -> None:
    # As the destructor of a thread of Arrow or of Ray does that still lives.
    code = (
        "import atexit, ctypes, sys\n"
        "libc = ctypes.CDLL(None)\n"
        "libc.__cxa_atexit(libc.abort, None, None)\n"
        "import jobs.cli, jobs.__main__\n"
        "def run():\n"
        "    atexit.register(print, 'Ray is shut down', end='')\n"
        "    print('done', end=' ')\n"
        "    sys.exit(3)\n"
        "jobs.cli.main = run\n"
        "jobs.__main__.main()\n"
    )
    found = ended(sys.executable, "-c", code)
    assert (found.returncode, found.stdout, found.stderr) == (3, "done Ray is shut down", "")


def test_a_full_disk_is_an_error_and_no_traceback(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "jobs", "status", str(tmp_path), "--json"]
        found = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (found.returncode, found.stderr.count("\n")) == (4, 1), found.stderr


def test_one_of_a_thing_is_not_many() -> None:
    assert [plural(number, "shard") for number in (0, 1, 2000)] == ["0 shards", "1 shard", "2,000 shards"]


def test_a_new_round_that_has_only_begun_offers_to_look_back(make_campaign: MakeCampaign, tmp_path: Path) -> None:
    campaign = make_campaign()
    pretend_trained(campaign)
    fabricate_scores(campaign, lambda _, keys: np.arange(len(keys), dtype=np.float32))
    home = str(campaign.home)
    assert vaal("select", home).exit_code == 0
    pick = (campaign.stage("selection") / "selection.parquet").read_table().to_pylist()[0]
    answers = tmp_path / "answers.csv"
    answers.write_text(f"item_id,label\n{pick['item_id']},7\n")
    assert vaal("export", home).exit_code == 0
    assert vaal("ingest", home, str(answers), "--set", "labels.close_when=0.01").exit_code == 0
    assert f"look back: vaal report {home} --round 0" in refused(4, "report", home)
    look = f"look back: vaal select {home} --round 0 --explain {pick['item_id']}"
    assert look in refused(4, "select", home, "--explain", pick["item_id"], "")
    shown = f"{pick['shard']} {pick['key']}: picked"
    assert shown in vaal("select", home, "--explain", pick["item_id"], "", "--round", "0").stdout
    assert "--explain nobody: picked in no round up to 0" in refused(
        4, "select", home, "--explain", "nobody", "", "--round", "0"
    )
    for extra in (["--set", "select.budget=5"], ["--force"]):
        assert "--explain: explains what was picked" in refused(
            2, "select", home, "--explain", pick["shard"], pick["key"], *extra
        )
    assert "--round: only with --explain" in refused(2, "select", home, "--round", "0")


def test_an_item_is_explained_by_its_id_alone() -> None:
    assert complete_explain(["select", "c", "--explain", "id"]) == ["select", "c", "--explain", "id", ""]
    assert complete_explain(["select", "--explain", "id", "--json", "c"])[2:4] == ["id", ""]
    for unchanged in (["select", "c"], ["select", "--explain", "a.tar", "k", "c"]):
        assert complete_explain(unchanged) == unchanged
    for words in (["--explain"], ["--explain", "--json"]):
        with pytest.raises(typer.BadParameter, match="give SHARD KEY, or the ITEM_ID of a pick"):
            complete_explain(["select", "c", *words])


@pytest.mark.heavy
def test_with_json_a_failure_is_an_object_too(tmp_path: Path) -> None:
    program = (sys.executable, "-m", "jobs")
    for words, status in (
        (["status", str(tmp_path), "--json"], 4),
        (["status", "--json"], 2),
        (["init", "c", "--labels", "l", "--set", "train.epochss=1", "--json"], 2),
    ):
        found = ended(*program, *words)
        assert json.loads(found.stdout) == {"error": ANY, "exit_status": status}
        assert (found.returncode, found.stderr.count("\n")) == (status, 1)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/scratch/x"), "/scratch/x: No space left on device; fix"),
        (OSError(errno.EMFILE, "Too many open files"), "the system: Too many open files; fix that and run"),
        (SystemExit(0), r"unforeseen SystemExit at test_terminal.py:\d+: 0; run it again with --debug"),
        (KeyError("loss"), r"unforeseen KeyError at test_terminal.py:\d+: 'loss'; run it again with --debug"),
        (RuntimeError("many\nlines " * 1000), r"unforeseen RuntimeError at test_terminal.py:\d+: many lines many"),
        (KeyboardInterrupt(), "interrupted; completed work is kept"),
    ],
)
def test_an_error_that_nobody_foresaw_is_one_line(
    error: BaseException, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def page(_: Terminal) -> Outcome:
        raise error

    with pytest.raises(typer.Exit) as caught:
        as_command(page)(json=True, debug=False)
    printed = capsys.readouterr()
    assert caught.value.exit_code == 1
    assert re.fullmatch(f"error: {text}.{{0,600}}\n", printed.err), printed.err
    assert json.loads(printed.out)["exit_status"] == 1
    if isinstance(error, Exception):
        with pytest.raises(typer.Exit):
            as_command(page)(json=False, debug=True)
        assert "Traceback" in capsys.readouterr().err


@pytest.mark.heavy
@pytest.mark.parametrize(("is_json", "begin"), [(True, '{"text": '), (False, "made of x")])
def test_a_reader_that_has_seen_enough_is_no_error(is_json: bool, begin: str) -> None:
    code = (
        "from jobs.terminal import Outcome, as_command\n"
        "outcome = Outcome('made of x', {str(n): 'x' * 1000 for n in range(1000)}, {'text': 'x' * 1_000_000})\n"
        f"as_command(lambda screen: outcome)(json={is_json}, debug=False)"
    )
    words = f"{shlex.quote(sys.executable)} -c {shlex.quote(code)} | head -c 9"
    found = ended("bash", "-c", words, cwd=Path(__file__).parents[2])
    assert found.stdout == begin
    assert "error" not in found.stderr


@pytest.mark.heavy
def test_nobody_who_reads_is_no_traceback(tmp_path: Path) -> None:
    found = ended("bash", "-c", f"{shlex.quote(sys.executable)} -m jobs status {tmp_path} >&-")
    assert (found.returncode, found.stderr.count("\n")) == (4, 1), found.stderr


def test_names_with_colons_and_spaces_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Terminal(json=False)
    screen.show(Outcome("a:cat:b", {"next": f"vaal round {Location('/x/a:cat: b').quoted}"}, {}))
    screen.failed("no campaign at a:dog:b", 1)
    found = capsys.readouterr()
    assert found.out.splitlines() == ["a:cat:b", "  next  vaal round '/x/a:cat: b'"]
    assert "a:dog:b" in found.err


def test_a_fact_that_is_a_list_has_a_line_for_each(capsys: pytest.CaptureFixture[str]) -> None:
    Terminal(json=False).show(Outcome("Forgotten", {"left": ["one", "vaal status c"], "images": 1000}, {}))
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:3] == ["  left    one", f"          {as_called('vaal status c')}"]
    assert lines[3] == "  images  1,000"
