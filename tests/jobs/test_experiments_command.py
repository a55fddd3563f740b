"""`python -m jobs.experiments`: the files that it reads and writes."""

import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from engine.simulation.experiments_page import page_of
from engine.simulation.simulate import CURVES_SCHEMA
from engine.simulation.variants import Variant
from jobs.experiments import main
from tests.jobs.test_experiments_page import EXPERIMENTS, PUBLISHED, ROOT, folder_of


def test_what_is_wrong_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = CURVES_SCHEMA.empty_table().replace_schema_metadata(Variant("unknown.toml", {}).metadata)
    pq.write_table(empty, tmp_path / "unknown.parquet")
    arguments = [f"{tmp_path}/page.md", f"{tmp_path}/unknown.parquet", "--experiments", str(EXPERIMENTS)]
    assert main(arguments) == 4
    assert f"{EXPERIMENTS}/unknown.toml: no such file; correct the path" in capsys.readouterr().err
    assert main([f"{tmp_path}/page.md", f"{tmp_path}/none.parquet"]) == 4
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "page.md").exists()
    (tmp_path / "unknown.parquet").rename(tmp_path / "digits.parquet")
    assert main([f"{tmp_path}/page", f"{tmp_path}/digits.parquet"]) == 2
    assert (
        capsys.readouterr().err
        == f"error: {tmp_path}/page: the charts go beside the page, into a folder of its name; end it in .md\n"
    )
    experiments, curves = folder_of(tmp_path, 6)
    is_kept = pc.or_(pc.not_equal(curves["strategy"], "random"), pc.not_equal(curves["seed"], 5))
    pq.write_table(curves.filter(is_kept), tmp_path / "digits.parquet")
    at = [f"{tmp_path}/page.md", f"{tmp_path}/digits.parquet", "--experiments", str(experiments)]
    assert main(at) == 4
    assert capsys.readouterr().err.startswith("error: digits.parquet: better has not the seeds and rounds of the")
    (tmp_path / "twice").mkdir()
    shutil.copy(tmp_path / "digits.parquet", tmp_path / "twice")
    assert main([*at[:2], f"{tmp_path}/twice/digits.parquet", *at[2:]]) == 2
    assert (
        f"digits.parquet: a file of that name is given before: {tmp_path}/digits.parquet; the name"
        in capsys.readouterr().err
    )


def test_a_page_of_another_name_has_its_charts_beside_it(tmp_path: Path) -> None:
    experiments, curves = folder_of(tmp_path, 2)
    pq.write_table(curves, tmp_path / "digits.parquet")
    assert main([f"{tmp_path}/page.md", f"{tmp_path}/digits.parquet", "--experiments", str(experiments)]) == 0
    linked = re.findall(r"\]\((page/[^)]*\.svg)\)", (tmp_path / "page.md").read_text())
    assert linked
    assert all((tmp_path / chart).is_file() for chart in linked)


def test_where_curves_were_made_is_said_of_those_alone(tmp_path: Path) -> None:
    experiments, curves = folder_of(tmp_path, 2)
    pq.write_table(curves, tmp_path / "digits.parquet")
    sha256 = hashlib.sha256((tmp_path / "digits.parquet").read_bytes()).hexdigest()
    file = tmp_path / "experiments/published.toml"
    ours = re.search(r"(?<=\[ran\.digits\]\nsha256 = \")\w+", file.read_text())
    assert ours
    file.write_text(file.read_text().replace(ours[0], sha256))
    at = [f"{tmp_path}/page.md", f"{tmp_path}/digits.parquet", "--experiments", str(experiments)]
    assert main(at) == 0
    assert "2 seeds. All runs on a CPU, two cores. With" in (tmp_path / "page.md").read_text()
    # Another file of the same name is of another machine.
    pq.write_table(curves.slice(0, len(curves)), tmp_path / "digits.parquet", compression="none")
    assert main(at) == 0
    assert "2 seeds. With" in (tmp_path / "page.md").read_text()


def test_charts_of_an_earlier_page_are_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    experiments, curves = folder_of(tmp_path, 2)
    pq.write_table(curves, tmp_path / "digits.parquet")
    at = [f"{tmp_path}/page.md", f"{tmp_path}/digits.parquet", "--experiments", str(experiments)]
    assert main(at) == 0
    assert not capsys.readouterr().err
    (tmp_path / "page/old.svg").touch()
    assert main(at) == 0
    assert capsys.readouterr().err == f"note: {tmp_path}/page has charts that this page does not show: old.svg\n"
    assert (tmp_path / "page/old.svg").exists()


@pytest.mark.parametrize("content", [b"no Parquet", None])
def test_what_is_no_curves_is_named(tmp_path: Path, content: bytes | None, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "digits.parquet"
    if content is None:
        pq.write_table(pa.table({"a": [1]}), file)
    else:
        file.write_bytes(content)
    assert main([f"{tmp_path}/page.md", str(file)]) in (2, 4)
    said = capsys.readouterr().err
    assert said.startswith(f"error: {file}: ")
    assert said.endswith("; give curves.parquet as vaal simulate writes it\n")


@pytest.mark.heavy
def test_the_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "jobs.experiments", str(tmp_path / "page.md")]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert (tmp_path / "page.md").read_text() == page_of(PUBLISHED, {})


def test_a_folder_of_own_experiments_needs_no_published_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, curves = folder_of(tmp_path, 2)
    (tmp_path / "own").mkdir()
    shutil.copy(tmp_path / "experiments/digits.toml", tmp_path / "own/mine.toml")
    made = Variant("mine.toml", {})
    pq.write_table(curves.replace_schema_metadata(made.metadata), tmp_path / "mine.parquet")
    assert main([f"{tmp_path}/page.md", f"{tmp_path}/mine.parquet", "--experiments", f"{tmp_path}/own"]) == 0
    assert capsys.readouterr().out == f"{tmp_path}/page.md: 1 file of curves, 1 chart\n"
    page = (tmp_path / "page.md").read_text()
    assert re.findall(r"^## (.*)", page, re.MULTILINE) == ["What was shown here", "Other experiments"]
    assert main([f"{tmp_path}/page.md", f"{tmp_path}/mine.parquet", "--experiments", f"{tmp_path}/none"]) == 4
    assert capsys.readouterr().err.endswith("none/mine.toml: no such file; correct the path of the experiment\n")
