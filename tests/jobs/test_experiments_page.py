"""The page about published experiments is what the command makes of the files, and shows them all."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from engine.errors import InputError
from engine.simulation.experiments_page import charts_of, page_of
from engine.simulation.measuring import MADE_BY
from engine.simulation.simulate import CURVES_SCHEMA
from engine.storage.location import Location
from jobs.experiments import main
from tests.engine.simulation.test_simulate import made_up

ROOT = Path(__file__).parents[2]
EXPERIMENTS = ROOT / "experiments"
PUBLISHED = Location.of(str(EXPERIMENTS))


def folder_of(folder: Path, seeds: int) -> tuple[Location, pa.Table]:
    """The shipped experiments with one made up in the place of the digits', and its curves."""
    shutil.copytree(EXPERIMENTS, folder / "experiments", ignore=shutil.ignore_patterns("results"))
    _, curves = made_up(folder, seeds)
    (folder / "experiment.toml").rename(folder / "experiments/digits.toml")
    return Location.of(f"{folder}/experiments"), curves


def test_the_page_in_docs_is_that_of_the_files() -> None:
    curves = {file.stem: pq.read_table(file) for file in sorted((EXPERIMENTS / "results").glob("*.parquet"))}
    page = (ROOT / "docs/experiments.md").read_text()
    assert page_of(PUBLISHED, curves) == page
    linked = set(re.findall(r"\]\(experiments/([^)]*\.svg)\)", page))
    assert linked == {file.name for file in (ROOT / "docs/experiments").iterdir()} == set(charts_of(curves))


def test_every_experiment_of_a_published_figure_is_on_the_page() -> None:
    page = page_of(PUBLISHED, {})
    names = {file.stem for file in EXPERIMENTS.glob("*.toml")} - {"published"}
    shown = {name for name in names if not name.startswith(("cifar10-embeddings", "cifar10-pixels"))}
    assert all(f"experiments/{name}.toml" in page for name in shown)
    # What a run would cost stands in each large one.
    assert page.count("GPU hours") >= sum(name.endswith("-full") for name in shown)
    assert "unsafe: its source doubts it" in page


def test_curves_are_shown_with_their_bands(tmp_path: Path) -> None:
    experiments, curves = folder_of(tmp_path, 8)
    page = page_of(experiments, {"digits": curves})
    assert re.search(r"^\| `digits` \| 8 \| better \+[^;|]* \| worse −[^;|]* \|$", page, re.MULTILINE)
    (row,) = (line for line in page.splitlines() if line.startswith("| better |"))
    cells = [cell.strip() for cell in row.split("|")[2:-1]]
    assert len(cells) == 5
    assert all(cell.count("±") == 1 for cell in cells[:4])
    assert re.fullmatch(r"\+\d+\.\d \(\+\d+\.\d to \+\d+\.\d\), better", cells[4])
    for chart in charts_of({"digits": curves}).values():
        assert all(chart.decode().count(f">{name}<") == 1 for name in pc.unique(curves["strategy"]).to_pylist())
    assert float(cells[3].split(" ± ")[0]) == pytest.approx(75, abs=2)
    assert "experiments/digits.toml`, 8 seeds." in page


def test_what_is_wrong_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pq.write_table(CURVES_SCHEMA.empty_table(), tmp_path / "unknown.parquet")
    arguments = [f"{tmp_path}/page.md", f"{tmp_path}/unknown.parquet", "--experiments", str(EXPERIMENTS)]
    assert main(arguments) == 2
    assert "no figure has the experiment unknown; add it to one" in capsys.readouterr().err
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
    assert "two of the files have the same name" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('name = "worse"', 'name = "other"', "strategy other is in one of them alone"),
        ("budget = 20", "budget = 40", "batches of 20, 20, 20, and not 3 of 40"),
        ("rounds = 3", "rounds = 2", "batches of 20, 20, 20, and not 2 of 20"),
    ],
)
def test_curves_of_another_experiment_are_refused(tmp_path: Path, old: str, new: str, words: str) -> None:
    experiments, curves = folder_of(tmp_path, 2)
    file = tmp_path / "experiments/digits.toml"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(InputError, match=words):
        page_of(experiments, {"digits": curves})


def test_curves_say_what_made_them(tmp_path: Path) -> None:
    experiments, curves = folder_of(tmp_path, 2)
    page_of(experiments, {"digits": curves.replace_schema_metadata({MADE_BY: "digits.toml"})})
    for made in ("other.toml", "digits.toml, oracle.noise=0.3"):
        with pytest.raises(InputError, match=f"not of experiments/digits.toml: made by {made}"):
            page_of(experiments, {"digits": curves.replace_schema_metadata({MADE_BY: made})})
    more = pc.and_(pc.equal(curves["task"], "linear"), pc.equal(curves["seed"], 0))
    other = curves.filter(more).set_column(4, "task", pa.array(["mlp"] * pc.sum(more).as_py()))
    with pytest.raises(InputError, match="has not the seeds and rounds of the others"):
        page_of(experiments, {"digits": pa.concat_tables([curves, other])})


def test_a_page_of_another_name_has_its_charts_beside_it(tmp_path: Path) -> None:
    experiments, curves = folder_of(tmp_path, 2)
    pq.write_table(curves, tmp_path / "digits.parquet")
    assert main([f"{tmp_path}/page.md", f"{tmp_path}/digits.parquet", "--experiments", str(experiments)]) == 0
    linked = re.findall(r"\]\((page/[^)]*\.svg)\)", (tmp_path / "page.md").read_text())
    assert linked
    assert all((tmp_path / chart).is_file() for chart in linked)


@pytest.mark.heavy
def test_the_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "jobs.experiments", str(tmp_path / "page.md")]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert (tmp_path / "page.md").read_text() == page_of(PUBLISHED, {})
