"""What the storage refuses to give is no damage: it is named and left alone, and nobody is advised to delete it."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from engine.campaign.folder import Campaign
from tests.jobs.test_cli import vaal
from tests.rounds import make_round

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up its rights and take them back"),
]
COMMANDS = {"train": "report", "scores": "select", "ledger": "select", "selection": "export", "quarantine": "report"}
"""A command that reads a folder."""
NOBODY = 65534


@contextmanager
def denied(path: Path) -> Iterator[None]:
    """While the body runs, this process may not read the file or folder."""
    mode = path.stat().st_mode
    path.chmod(0)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        path.chmod(mode)


def files_of(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "running.json")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def make(folder: Path) -> Campaign:
    """A round that is selected, in folders that anybody may read, and nobody write to but their owner: NOBODY."""
    campaign = make_round(folder).campaign
    for path in [*folder.parents][:-1]:
        if not path.stat().st_mode & 0o001:
            path.chmod(path.stat().st_mode | 0o011)
    for path in (folder, *folder.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    # What the commands import, and a first look at all of them, while libraries can be read.
    copy = shutil.copytree(campaign.home.path, folder / "warm")
    assert [vaal(command, str(copy)).exit_code for command in ("status", "select", "export", "report")] == [0] * 4
    return campaign


def test_what_may_not_be_read_is_named_and_left_alone(tmp_path: Path) -> None:
    home = Path(make(tmp_path / "pool").home.path)
    paths = sorted(path for path in (home / "rounds/000").rglob("*") if path.suffix != ".safetensors")
    names = [path.relative_to(home / "rounds/000") for path in paths]
    num_refused = 0
    for name in names:
        before = files_of(home)
        for command in ("status", COMMANDS[name.parts[0]]):
            with denied(home / "rounds/000" / name):
                ended = vaal(command, str(home))
            assert ended.exception is None or isinstance(ended.exception, SystemExit), (name, ended.exception)
            assert before.items() <= files_of(home).items(), name
            if "Permission denied" in ended.output:
                num_refused += 1
                assert ended.exit_code == 4
                assert f"{home}/rounds/000" in ended.output
                assert not re.search("damaged|delete|restore|not a readable", ended.output), (name, ended.output)
        for made in ("handed_out", "handoff", "report"):
            shutil.rmtree(home / "rounds/000" / made, ignore_errors=True)
    assert num_refused >= 12
