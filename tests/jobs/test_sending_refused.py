"""What cannot be sent or taken back is refused in one line, with its exit status, and nothing is written."""

import hashlib
import shutil
from pathlib import Path

import pytest

from engine.campaign.folder import Campaign
from engine.handoff.export import export
from tests.jobs.test_cli import refused, vaal
from tests.small import copied, make_small


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    return make_small(tmp_path_factory.mktemp("refused"))


@pytest.fixture
def home(base: Campaign, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("engine.campaign.heartbeat.SETTLING_SECONDS", 0.0)
    return Path(copied(base, tmp_path / "campaign").home.path)


def contents(home: Path) -> dict[str, str]:
    files = (file for file in home.rglob("*") if file.is_file())
    return {str(file.relative_to(home)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def is_refused(home: Path, status: int, *words: str) -> str:
    before = contents(home)
    command = "handoff" if {*words[:1]} & {"recall", "expire", "--batch"} else "export"
    line = refused(status, command, str(home), *words)
    assert contents(home) == before
    return line


SET = "--set"
CASES = [
    (2, ["--stratum", "x"], "needs select.stratify"),
    (2, ["--disputed"], "nothing is disputed"),
    (2, ["--share", "0"], "no pick fits --share or --stratum"),
    (2, ["--refresh-links"], "nothing went to generic in this round"),
    (2, ["--refresh-links", "--limit", "3"], "takes no --limit"),
    (2, [SET, "handoff.images=ftp://host/x"], "give files, or a URL"),
    (2, [SET, "handoff.images=https://user:word@host/x"], "has a password or options"),
    (2, [SET, "handoff.prelabels=true"], "needs a task learner"),
    (2, [SET, "handoff.price=1", SET, "handoff.money_limit=4"], "--limit 4"),
    (2, [SET, "handoff.price=1", SET, "handoff.money_limit=0.5"], "nothing more can be sent"),
    (2, [SET, "handoff.question={classes=['one']}", "--to", "ground-truth"], "needs two classes or more"),
    (2, [SET, "handoff.question={classes=['a','$b']}", "--to", "label-studio"], "takes $ for a variable"),
    (2, [SET, f"handoff.question={{classes=['{'c' * 300}','b']}}", "--to", "cvat"], "shorten its name"),
    (2, [SET, "handoff.annotators=90", "--to", "cvat"], "ask fewer"),
    (2, [SET, "handoff.question={classes=['a','a']}"], "name each class once"),
    (2, ["recall", "--batch", "nobody-000"], "no batch 'nobody-000'"),
    (2, ["expire", "--batch", "generic-000"], "only with recall"),
    (2, ["--batch", "generic-000"], "only with recall or expire"),
]


@pytest.mark.parametrize(("status", "words", "text"), CASES, ids=[" ".join(words)[:60] for _, words, _ in CASES])
def test_a_refusal_is_one_line_and_writes_nothing(home: Path, status: int, words: list[str], text: str) -> None:
    assert text in is_refused(home, status, *words)


@pytest.mark.parametrize("words", [["--to", "nobody"], ["--limit", "0"], ["--limit", "x"], ["--share", "1.1"]])
def test_a_wrong_argument_is_a_usage_error(home: Path, words: list[str]) -> None:
    before = contents(home)
    assert vaal("export", str(home), *words).exit_code == 2
    assert contents(home) == before


def test_a_pool_that_is_gone_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.campaign.heartbeat.SETTLING_SECONDS", 0.0)
    campaign = make_small(tmp_path / "world")
    for shard in (tmp_path / "world").glob("*.tar"):
        shutil.move(shard, tmp_path)
    assert "gone" in is_refused(Path(campaign.home.path), 4)
    assert "no campaign here" in refused(4, "export", str(tmp_path / "nowhere"))


def test_what_is_out_already_is_not_sent_to_another_vendor(base: Campaign, tmp_path: Path) -> None:
    campaign = copied(base, tmp_path / "campaign")
    export(campaign)
    line = is_refused(Path(campaign.home.path), 2, "--to", "tsv")
    assert "was sent already (generic-000)" in line
    assert "recall --batch generic-000 --pick-again" in line
