"""The page of experiments: seconds, and runs that two experiments share."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from engine.simulation.experiments_page import charts_of, page_of
from engine.simulation.variants import Variant
from engine.storage.location import Location
from tests.jobs.test_experiments_page import folder_of


def timed(curves: pa.Table) -> pa.Table:
    """Curves with seconds of two seeds and three strategies; one has no time of scoring."""
    took = {
        "random": [(9.0, 1.0, 1.0), (9.0, 2.0, 2.0)],
        "vaal": [(20.0, 6.0, 2.0), (20.0, 3.0, 1.0)],
        "better": [(30.0, 17.0, 3.0), (30.0, None, 4.0)],
    }
    rows = [
        (name, seed, 1, 70, None, f"seconds_{part}", value)
        for name, seeds in took.items()
        for seed, values in enumerate(seeds)
        for part, value in zip(("train_and_score", "score", "select"), values, strict=True)
        if value is not None
    ]
    return pa.concat_tables([curves, pa.table([list(c) for c in zip(*rows, strict=True)], schema=curves.schema)])


def with_vaal(folder: Path) -> tuple[Path, pa.Table]:
    """A folder of experiments and curves with seconds, where one strategy is VAAL."""
    _, curves = folder_of(folder, 2)
    file = folder / "experiments/digits.toml"
    file.write_text(file.read_text().replace('"worse"', '"vaal"'))
    return folder / "experiments", timed(
        curves.set_column(0, "strategy", pc.replace_substring(curves["strategy"], "worse", "vaal"))
    )


def test_the_time_to_choose_a_batch_is_given_in_that_of_vaal(tmp_path: Path) -> None:
    folder, curves = with_vaal(tmp_path)
    page = page_of(Location.of(str(folder)), {"digits": curves})
    assert "| seconds a batch | train and score | scoring alone | select | score + select, times VAAL's |" in page
    # Of the same seed each: 2 / 8 and 4 / 4; the better one was not timed whole in the second seed.
    assert {
        "| random | 9.0 | 1.5 | 1.5 | 0.6 (0.2 to 1.0) |",
        "| better | 30.0 | 17.0 | 3.5 | 2.5 (2.5 to 2.5) |",
    } <= {*page.splitlines()}
    alone = curves.filter(pc.invert(pc.and_(pc.equal(curves["strategy"], "better"), is_score(curves))))
    assert "| better | 30.0 | – | 3.5 | – |" in page_of(Location.of(str(folder)), {"digits": alone}).splitlines()


def is_score(curves: pa.Table) -> pa.ChunkedArray:
    return pc.equal(curves["metric"], "seconds_score")


def test_an_experiment_that_measures_seconds_compares_no_accuracy(tmp_path: Path) -> None:
    folder, curves = with_vaal(tmp_path)
    file = folder / "published.toml"
    assert 'experiments = ["digits"]' in file.read_text()
    experiments = Location.of(str(folder))
    assert "is in 1 of them" in page_of(experiments, {"digits": curves})
    file.write_text(file.read_text().replace('experiments = ["digits"]', 'experiments = ["digits"]\nis_timing = true'))
    page = page_of(experiments, {"digits": curves})
    assert "## What was shown here" not in page
    section = page.partition("`experiments/digits.toml`, 2 seeds.")[2]
    assert section.startswith("\n\n| seconds a batch |")
    assert not charts_of(experiments, {"digits": curves})
    assert "seeds cannot show" not in page_of(experiments, {}).partition("`experiments/digits.toml`")[2]


def test_runs_that_two_experiments_share_are_named(tmp_path: Path) -> None:
    experiments, curves = folder_of(tmp_path, 8)
    other = pc.if_else(pc.equal(curves["strategy"], "worse"), pc.multiply(curves["value"], 0.9), curves["value"])
    # All strategies share the first point.
    is_first = pc.equal(curves["round"], pc.min(curves["round"]))
    field = curves.schema.field("value")
    changed = curves.set_column(6, field, pc.if_else(is_first, curves["value"], other))
    seconds = pa.table([["random"], [0], [1], [70], ["linear"], ["seconds"], [3.0]], schema=curves.schema)
    changed = pa.concat_tables([changed, seconds])
    stem, made = "digits@oracle.noise=0.1", Variant("digits.toml", {"oracle.noise": 0.1})
    some = changed.filter(pc.less(changed["seed"], 3)).replace_schema_metadata(made.metadata)
    slow = pa.concat_tables([curves, seconds.set_column(6, field, pa.array([4.0]))])
    page = page_of(experiments, {"digits": slow, stem: some})
    assert "3 seeds. Runs that `digits` has too: `better`, `random`. With 3 seeds" in page
    assert page.count("has too") == 1
    fewer = curves.filter(pc.less(curves["seed"], 2))
    page = page_of(experiments, {"digits": fewer, stem: some})
    assert "3 seeds. Runs that `digits` has too: `better` (2 of 3 seeds), `random` (2 of 3 seeds). With 3" in page
    assert "has too" not in page_of(experiments, {"digits": curves})
