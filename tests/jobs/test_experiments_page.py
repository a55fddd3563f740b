"""The page about published experiments is what the command makes of the files, and shows them all."""

import hashlib
import re
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from engine.errors import InputError
from engine.simulation.experiments_page import charts_of, page_of
from engine.simulation.published import read_published
from engine.simulation.strategies import STRATEGIES
from engine.simulation.variants import Variant
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
    curves = curves.replace_schema_metadata(Variant("digits.toml", {}).metadata)
    (folder / "experiment.toml").rename(folder / "experiments/digits.toml")
    return Location.of(f"{folder}/experiments"), curves


def test_the_page_in_docs_is_that_of_the_files() -> None:
    files = sorted((EXPERIMENTS / "results").glob("*.parquet"))
    curves = {file.stem: pq.read_table(file) for file in files}
    sha256 = {file.stem: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    page = (ROOT / "docs/experiments.md").read_text()
    assert page_of(PUBLISHED, curves, sha256=sha256) == page
    assert {*read_published(PUBLISHED / "published.toml").where(sha256)} == {*curves}
    linked = set(re.findall(r"\]\(experiments/([^)]*\.svg)\)", page))
    assert linked == {file.name for file in (ROOT / "docs/experiments").iterdir()} == set(charts_of(PUBLISHED, curves))


def test_every_experiment_of_a_published_figure_is_on_the_page() -> None:
    page = page_of(PUBLISHED, {})
    names = {file.stem for file in EXPERIMENTS.glob("*.toml")} - {"published"}
    shown = {name for name in names if not name.startswith(("cifar10-embeddings", "cifar10-pixels"))}
    assert all(f"experiments/{name}.toml" in page for name in shown)
    # What a run would cost stands in each large one.
    assert page.count("GPU hours") >= sum(name.endswith("-full") for name in shown)
    doubted = next(line for line in page.splitlines() if "above random | – | 1.8 |" in line)
    assert doubted.endswith("| from memory, not verified; unsafe: its source doubts it |")


def test_the_sentences_of_the_conclusion_count_the_rows_of_the_table(tmp_path: Path) -> None:
    experiments, curves = folder_of(tmp_path, 8)
    file = tmp_path / "experiments/digits.toml"
    file.write_text(file.read_text().replace('"better"', '"default"').replace('"worse"', '"vaal"'))
    names = pc.replace_substring(pc.replace_substring(curves["strategy"], "better", "default"), "worse", "vaal")
    renamed = curves.set_column(0, "strategy", names)
    page = page_of(experiments, {"digits": renamed})
    assert "1 experiment ran here. Those with too few seeds to show anything: none." in page
    vaal, default = (
        re.search(rf"^.*{words}[^.]* is in 1 of them\. ([^.]*)\.", page, re.M) for words in ("VAAL", "`def")
    )
    assert vaal
    assert vaal[1] == "It is shown ahead of random in none, and behind it in 1 (`digits`)"
    assert default
    assert default[1] == "It is shown ahead of random in 1 (`digits`), and behind it in none"
    few = page_of(experiments, {"digits": renamed.filter(pc.less(renamed["seed"], 2))})
    assert "Those with too few seeds to show anything: 1 (`digits`)." in few
    assert few.count("It is shown ahead of random in none, and behind it in none.") == 2


def test_the_names_of_strategies_are_explained_where_the_page_says() -> None:
    simulation = (ROOT / "docs/simulation.md").read_text()
    assert "simulation.md#strategies-by-name" in (ROOT / "docs/experiments.md").read_text()
    table = simulation.partition("\n## Strategies by name\n")[2].partition("\n## ")[0]
    rows = "".join(line.split("|")[1] for line in table.splitlines() if line.startswith("| `"))
    assert {*re.findall(r"`(\w+)`", rows)} == {*STRATEGIES}


def test_the_experiments_of_two_sizes_are_those_that_the_docs_name() -> None:
    docs = " ".join((ROOT / "docs/simulation.md").read_text().split())
    part = docs.partition("whose hours its first lines plan:")[2].partition("in one size")[0]
    twice, once = ({*re.findall(r"`([\w-]+)`", words)} for words in re.split(r"\.\s", part, maxsplit=1))
    full = {file.stem.removesuffix("-full") for file in EXPERIMENTS.glob("*-full.toml")}
    assert twice == full
    small = {file.stem for file in EXPERIMENTS.glob("*.toml")} - {
        "published",
        *full,
        *(f"{name}-full" for name in full),
    }
    assert all(name.startswith(tuple(once)) for name in small)
    assert all(any(name.startswith(start) for name in small) for start in once)


def test_too_few_seeds_are_named_in_the_plan_and_in_the_conclusion(tmp_path: Path) -> None:
    experiments, curves = folder_of(tmp_path, 7)
    file = tmp_path / "experiments/digits.toml"
    planned = file.read_text()
    assert "seeds = 7" in planned
    # Two strategies beside random: seven seeds are enough.
    few = "Its 6 seeds cannot show that such curves differ: --set seeds=7 can."
    assert "cannot show" not in page_of(experiments, {}).partition("`experiments/digits.toml`")[2].partition("##")[0]
    file.write_text(planned.replace("seeds = 7", "seeds = 6"))
    assert few in page_of(experiments, {})
    six = curves.filter(pc.less(curves["seed"], 6))
    assert "anything: 1 (`digits`)." in page_of(experiments, {"digits": six})
    assert "anything: none." in page_of(experiments, {"digits": curves})


def test_a_band_wider_than_the_scale_is_no_number(tmp_path: Path) -> None:
    experiments, curves = folder_of(tmp_path, 3)
    is_moved = pc.and_(pc.and_(pc.equal(curves["seed"], 1), pc.equal(curves["round"], 3)), pc.is_valid(curves["task"]))
    moved = pc.if_else(is_moved, pc.add(curves["value"], -0.3), curves["value"])
    wide = curves.set_column(curves.schema.get_field_index("value"), "value", moved)
    (row,) = (line for line in page_of(experiments, {"digits": wide}).splitlines() if line.startswith("| better |"))
    *narrow, last = [cell.strip().split(" ± ")[1] for cell in row.split("|")[2:-2]]
    assert last == "–"
    assert all(float(half) <= 50 for half in narrow)


def test_what_was_measured_beside_the_seconds_of_the_paper_is_in_measured() -> None:
    page, measured = ((ROOT / f"docs/{name}.md").read_text() for name in ("experiments", "measured"))
    table = page.partition("| times VAAL's seconds |")[2].partition("\n\n")[0].splitlines()[2:]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table]
    theirs = re.findall(r"^\| ([^|]*) \| [\d.]+ \| ([\d.]+) \| ([\d.]*) ?\|", measured, re.MULTILINE)
    starts = {"VAAL with": "VAAL, the paper", "core-set": "core-set", "ensembles": "ensembles"}
    for name, paper, *ours in rows:
        of_name = [row for row in theirs if row[0].startswith(starts.get(name[:9].strip(), name))]
        assert {value for value in ours if value != "–"} == {row[1] for row in of_name}, name
        assert {paper} - {"–"} == {row[2] for row in of_name} - {""}, name


def test_answers_are_not_called_labels(tmp_path: Path) -> None:
    experiments, curves = folder_of(tmp_path, 2)
    assert "| linear head, accuracy in %, by labels | 50 |" in page_of(experiments, {"digits": curves})
    renamed = pc.replace_substring(curves["metric"], "distance", "answers")
    answered = pc.if_else(pc.equal(renamed, "answers"), pc.cast(curves["num_labels"], pa.float64()), curves["value"])
    paid = curves.set_column(5, "metric", renamed).set_column(6, "value", answered)
    assert "| linear head, accuracy in %, by answers paid for | 50 |" in page_of(experiments, {"digits": paid})


def test_curves_are_shown_with_their_bands(tmp_path: Path) -> None:
    experiments, curves = folder_of(tmp_path, 8)
    page = page_of(experiments, {"digits": curves})
    assert re.search(r"^\| `digits` \| 8 \| better \+[^;|]* \| worse −[^;|]* \|$", page, re.MULTILINE)
    (row,) = (line for line in page.splitlines() if line.startswith("| better |"))
    cells = [cell.strip() for cell in row.split("|")[2:-1]]
    assert len(cells) == 5
    assert all(cell.count("±") == 1 for cell in cells[:4])
    assert re.fullmatch(r"\+\d+\.\d \(\+\d+\.\d to \+\d+\.\d\), better", cells[4])
    for chart in charts_of(experiments, {"digits": curves}).values():
        assert all(chart.decode().count(f">{name}<") == 1 for name in pc.unique(curves["strategy"]).to_pylist())
    assert float(cells[3].split(" ± ")[0]) == pytest.approx(75, abs=2)
    assert "experiments/digits.toml`, 8 seeds." in page


def test_more_seeds_rounds_and_other_strategies_are_the_same_comparison(tmp_path: Path) -> None:
    experiments, curves = folder_of(tmp_path, 8)
    kept = curves.filter(pc.not_equal(curves["strategy"], "worse"))
    made = Variant("digits.toml", {"seeds": 8, "rounds": 3, "strategies": ["random", "vaal"], "campaign.device": "cpu"})
    file = tmp_path / "experiments/digits.toml"
    file.write_text(file.read_text().replace("rounds = 3", "rounds = 2"))
    with pytest.raises(InputError, match="strategy worse is in one of them alone"):
        page_of(experiments, {"digits": kept})
    # Only names of the table may be listed by --set.
    listed = pc.replace_substring(kept["strategy"], "better", "vaal")
    named = kept.set_column(0, "strategy", listed).replace_schema_metadata(made.metadata)
    page = page_of(experiments, {"digits": named})
    how = """--set seeds=8 --set rounds=3 --set 'strategies=["random","vaal"]' --set campaign.device=cpu"""
    assert f"Run here: `experiments/digits.toml` with `{how}`, 8 seeds." in page
    with pytest.raises(InputError, match=r"digits@seeds=8\.parquet: made by .*; name it digits\.parquet"):
        page_of(experiments, {"digits@seeds=8": named})


def test_a_variant_is_shown_beside_its_experiment(tmp_path: Path) -> None:
    experiments, curves = folder_of(tmp_path, 8)
    changed = {"pool.components": 9, "seeds": 8, "oracle.confusions": [["0", "1"], ["2"]], "oracle.noise": 0.1}
    made = Variant("digits.toml", changed)
    stem = "digits@oracle.confusions=0-1-2-caeaa7,oracle.noise=0.1,pool.components=9"
    both = {"digits": curves, stem: curves.replace_schema_metadata(made.metadata)}
    for name, table in both.items():
        pq.write_table(table, tmp_path / f"{name}.parquet")
    at = [f"{tmp_path}/page.md", *(f"{tmp_path}/{name}.parquet" for name in both), "--experiments", str(experiments)]
    assert main(at) == 0
    page = (tmp_path / "page.md").read_text()
    how = """--set pool.components=9 --set seeds=8 --set 'oracle.confusions=[["0","1"],["2"]]' --set oracle.noise=0.1"""
    first, second = (
        page.index(words)
        for words in ("`experiments/digits.toml`, 8 seeds.", f"`experiments/digits.toml` with `{how}`, 8 seeds.")
    )
    assert page.index("## Handwritten digits") < first < second
    assert f"| `{stem}` | 8 | better" in page
    linked = re.findall(r"\]\((page/[^)]*\.svg)\)", page)
    assert len({*linked}) == 2
    assert all((tmp_path / chart).is_file() for chart in linked)
    with pytest.raises(
        InputError, match=f"^{re.escape(stem)}.parquet: it does not say what made it, because an earlier"
    ):
        page_of(experiments, {stem: curves.replace_schema_metadata(None)})
    # A variant alone does not say that its experiment was run.
    assert "Not run: `experiments/digits.toml`" in page_of(experiments, {stem: both[stem]})


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
    page_of(experiments, {"digits": curves})
    for made, words in (
        (Variant("other.toml", {}), "other.toml; name it other.parquet"),
        (
            Variant("digits.toml", {"oracle.noise": 0.3}),
            "digits.toml --set oracle.noise=0.3; name it digits@oracle.noise=0.3.parquet",
        ),
    ):
        with pytest.raises(InputError, match=re.escape(f"digits.parquet: made by {words}")):
            page_of(experiments, {"digits": curves.replace_schema_metadata(made.metadata)})
    more = pc.and_(pc.equal(curves["task"], "linear"), pc.equal(curves["seed"], 0))
    other = curves.filter(more).set_column(4, "task", pa.array(["mlp"] * pc.sum(more).as_py()))
    with pytest.raises(InputError, match="has not the seeds and rounds of the others"):
        page_of(experiments, {"digits": pa.concat_tables([curves, other])})


def test_an_experiment_that_no_figure_has_comes_last(tmp_path: Path) -> None:
    experiments, curves = folder_of(tmp_path, 2)
    (tmp_path / "experiments/digits.toml").rename(tmp_path / "experiments/own.toml")
    shutil.copy(EXPERIMENTS / "digits.toml", tmp_path / "experiments")
    page = page_of(experiments, {"own": curves.replace_schema_metadata(Variant("own.toml", {}).metadata)})
    *_, last = page.split("\n## ")
    assert last.startswith("Other experiments\n\nRun here: `experiments/own.toml`, 2 seeds. With 2 seeds")
    assert page.count("\n## Other") == 1
    # A variant is where its experiment is.
    made = Variant("digits.toml", {"oracle.noise": 0.1})
    (tmp_path / "experiments/own.toml").rename(tmp_path / "experiments/digits.toml")
    assert "## Other" not in page_of(
        experiments, {"digits@oracle.noise=0.1": curves.replace_schema_metadata(made.metadata)}
    )
    assert "## Other" not in page_of(experiments, {})
