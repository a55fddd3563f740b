"""`vaal pack`: what it prints is what to do next, and what it refuses is one line with its status."""

import json
import shlex
from pathlib import Path

import pytest

from engine.campaign.labels import read_labels
from engine.campaign.stages import COMMANDS_WITH_RAY
from engine.cluster.job_command import job_command
from engine.storage.location import Location
from jobs.cli import PAGES
from tests.jobs.test_cli import refused, vaal
from tests.packed import fill


def test_the_command_that_is_printed_at_the_end_makes_a_campaign(tmp_path: Path) -> None:
    fill(tmp_path / "in here", [f"{name}/{n}.png" for name in ("cat", "dog") for n in range(3)] + ["x.png", "y.png"])
    (tmp_path / "in here/z.txt").write_text("")
    (tmp_path / "in here/cat/0.v2.png").write_bytes((tmp_path / "in here/x.png").read_bytes())
    words = ("pack", str(tmp_path / "in here"), str(tmp_path / "po ol"), "--classes-from-folders")
    shown = vaal(*words)
    assert shown.exit_code == 0, shown.output
    lines = [line.strip() for line in shown.stdout.splitlines()]
    assert lines[0] == f"Packed: {tmp_path}/po ol"
    facts = dict(line.split(maxsplit=1) for line in lines[1:])
    assert (facts["images"], facts["with"], facts["not"]) == ("8", "images  1 x .v2.png", "packed   1 x .txt")
    assert facts["labels"] == "6 of 2 classes: cat, dog"
    # Of a list: the last line, whatever is before it.
    command = shlex.split(lines[-1].removeprefix("next").strip())
    made = vaal(*command[command.index("init") :], "--set", "select.budget=1", "--set", "image.size=8")
    assert made.exit_code == 0, made.output
    assert len(read_labels(Location(f"{tmp_path}/campaign"))) == 6
    again = json.loads(vaal(*words, "--json").stdout)
    assert (again["shards"], again["images"], again["total"], again["classes"]) == ([], 0, 8, {"cat": 3, "dog": 3})
    fill(tmp_path / "in here", ["new.png"])
    added = vaal(*words).stdout
    assert "pool CAMPAIGN refresh takes the new shards" in added
    home = f"{tmp_path}/campaign"
    assert added.endswith(f"vaal pool {home} refresh && vaal labels {home} add '{tmp_path}/po ol/labels.csv'\n")


def test_what_is_not_acceptable_is_packed_and_ends_with_3(tmp_path: Path) -> None:
    fill(tmp_path / "in", ["a.png"])
    (tmp_path / "in/b.png").write_bytes(b"text")
    line = refused(3, "pack", str(tmp_path / "in"), str(tmp_path / "pool"))
    assert "1 of 2 images (50.0%) could not be packed: 1 x NotAnImage; --max-bad-fraction=0.05 is the limit" in line
    assert (tmp_path / "pool/shard-000000.tar").exists()
    shown = vaal("pack", str(tmp_path / "in"), str(tmp_path / "pool"), "--max-bad-fraction", "0.5")
    assert shown.exit_code == 0, shown.output
    assert f"failures     1, see {tmp_path}/pool/failures.parquet" in shown.stdout


@pytest.mark.parametrize(
    ("words", "status", "line"),
    [
        (["absent"], 4, "absent: no such file or folder"),
        (["in"], 4, "in: no images in it; correct the path"),
        (["https://host/x.csv?token=SECRET"], 2, "https://host/x.csv?***: has a password or options"),
        (["l.csv", "--labels", "l.csv"], 2, "l.csv: is the source; give --labels another FILE"),
    ],
)
def test_what_is_refused_is_one_line(
    words: list[str], status: int, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    (tmp_path / "l.csv").write_text("path\na.png\n")
    assert line in refused(status, "pack", words[0], "pool", *words[1:])
    assert (tmp_path / "l.csv").read_text() == "path\na.png\n"


def test_labels_go_where_they_are_wanted_and_formats_are_named(tmp_path: Path) -> None:
    fill(tmp_path / "in", ["cat/1.png"])
    (tmp_path / "in/cat/2.gif").write_bytes(b"GIF89a of sorts")
    where = str(tmp_path / "labels.csv")
    words = ("pack", str(tmp_path / "in"), str(tmp_path / "pool"), "--classes-from-folders", "--labels", where)
    found = json.loads(vaal(*words, "--json").stdout)
    assert found["labels"] == where
    assert Path(where).read_text().splitlines()[1:] == ["shard-000000.tar,cat/1,cat", "shard-000000.tar,cat/2,cat"]
    assert not (tmp_path / "pool/labels.csv").exists()
    assert found["next"].endswith('--set \'image.suffixes=["jpg","jpeg","png","webp","gif"]\'')


def test_a_list_is_sent_along_with_a_job(tmp_path: Path) -> None:
    file = tmp_path / "l.csv"
    file.write_text("url\nhttps://host/a.png\n")
    job = job_command(["pack", str(file), "s3://bucket/pool"], PAGES, COMMANDS_WITH_RAY)
    assert job.line == "python -m jobs pack l.csv s3://bucket/pool --address auto"
    assert job.files == {"l.csv": file}
