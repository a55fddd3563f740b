"""`vaal simulate` from the file of an experiment to its curves, its page and its figures."""

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import cast

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from engine.campaign.stages import Run
from engine.simulation import simulate
from engine.simulation.experiment import Experiment
from engine.simulation.findings import Findings, caution_on, caution_on_pairs, findings_of, to_json
from engine.simulation.learning_page import render
from engine.simulation.simulate import CURVES_SCHEMA, _note_other, _shares
from engine.simulation.variants import Variant
from engine.simulation.worlds import World
from engine.storage.location import Location
from tests.engine.simulation.test_experiment import DIGITS, read

GAINS = {"random": [0.2, 0.5, 0.6, 0.65], "better": [0.2, 0.6, 0.7, 0.75], "worse": [0.2, 0.3, 0.35, 0.4]}


def made_up(folder: Path, seeds: int, spread: float = 0.01) -> tuple[Experiment, pa.Table]:
    """An experiment and curves of which the truth is known."""
    strategies = "".join(f'[[strategies]]\nname = "{name}"\n' for name in ("better", "worse"))
    text = DIGITS.partition("[[strategies]]")[0].replace("rounds = 2", "rounds = 3") + strategies
    experiment = read(folder, text.replace("seeds = 6", f'seeds = {seeds}\ntasks = ["linear"]'))
    rng, rows = np.random.default_rng(0), []
    for seed in range(seeds):
        for name, gain in GAINS.items():
            for number, value in enumerate(gain):
                noise = rng.normal(0, spread) if number else 0
                rows.append((name, seed, number, 50 + 20 * number, "linear", "accuracy", value + noise))
                rows.append((name, seed, number, 50 + 20 * number, None, "distance", 0.5 - 0.1 * number))
    return experiment, pa.table([list(column) for column in zip(*rows, strict=True)], schema=CURVES_SCHEMA)


def test_findings_say_what_the_curves_hold(tmp_path: Path) -> None:
    experiment, curves = made_up(tmp_path, 10)
    found = to_json(findings_of(experiment, "made up", curves))
    task = found["tasks"]["linear"]
    better, worse = (task["area_against_random"][name] for name in ("better", "worse"))
    assert (better["verdict"], worse["verdict"]) == ("better", "worse")
    assert better["mean"] == pytest.approx(100 * (0.1 + 0.1 + 0.05) / 3, abs=0.5)
    assert task["labels_saved"]["better"][0]["saved"] == pytest.approx(1 - 30 / 60, abs=0.08)
    assert task["labels_saved"]["worse"][0]["saved"] == "not reached"
    assert (better["ahead_in"], worse["ahead_in"]) == (10, 0)
    assert [(pair["first"], pair["second"], pair["first_ahead_in"]) for pair in task["pairs"]] == [
        ("better", "worse", 10)
    ]
    assert not found["caution"]
    assert "not reached" in " ".join(found["sentences"])
    json.dumps(found, allow_nan=False)


@pytest.mark.heavy
def test_few_seeds_show_nothing_and_say_so(tmp_path: Path) -> None:
    found = findings_of(*((experiment := made_up(tmp_path, 4))[0], "few", experiment[1]))
    assert "With 4 seeds and 2 strategies beside random nothing can be significant" in found.caution
    assert all(not gap.is_shown for gap in found.tasks["linear"].areas.values())
    assert "not shown to differ" in found.sentences[0]
    page = render(found)
    assert found.caution in page
    assert "Labels saved at equal accuracy" in page
    assert "Answers saved at equal accuracy" in render(found._replace(bought="answers"))


@pytest.mark.parametrize(
    ("seeds", "num_tests", "words"),
    [
        (5, 1, "With 5 seeds nothing"),
        (6, 1, ""),
        (6, 2, "2 strategies beside random nothing can be significant, however large it is: give at least 7 seeds"),
        (4, 7, "give at least 9 seeds"),
        (10, 7, ""),
    ],
)
def test_what_so_few_seeds_cannot_show_is_said_first(seeds: int, num_tests: int, words: str) -> None:
    caution = caution_on(seeds, num_tests)
    assert re.search(words, caution) if words else not caution


@pytest.mark.heavy
def test_pairs_that_too_few_seeds_cannot_tell_apart_say_so(tmp_path: Path) -> None:
    found = findings_of(*((experiment := made_up(tmp_path, 6))[0], "pairs", experiment[1]))
    task = found.tasks["linear"]
    assert caution_on_pairs(found, task) == ""
    others = {("a", str(number)): next(iter(task.pairs.values())) for number in range(2)}
    words = caution_on_pairs(found, task._replace(pairs=others))
    assert words.startswith("With 6 seeds and 2 pairs no pair can be shown: the smallest possible p is 0.06.")


@pytest.mark.heavy
def test_the_page_holds_everything_and_loads_nothing(tmp_path: Path) -> None:
    experiment, curves = made_up(tmp_path, 8)
    page = render(findings_of(experiment, "<script>", curves))
    assert "<script>" not in page
    assert "default-src 'none'" in page
    for words in ("better", "worse", "not reached", "Area under the curve", "Pairs", "Distance of the labels"):
        assert words in page
    assert "http" not in page.replace("http-equiv", "")


@pytest.mark.heavy
def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = DIGITS.replace("rounds = 2", 'rounds = 1\ntasks = ["linear"]').replace("seeds = 6", "seeds = 2")
    (tmp_path / "small.toml").write_text(text)
    arguments = [sys.executable, "-m", "jobs", "simulate", str(tmp_path / "small.toml"), "--out", str(tmp_path / "out")]
    killed = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while killed.poll() is None and not list((tmp_path / "out").glob("first/*/*/point-000.json")):
        time.sleep(0.1)
    killed.kill()
    killed.wait()
    first = {file: file.read_bytes() for file in (tmp_path / "out").glob("first/*/*/point-000.json")}
    assert first
    ran = subprocess.run([*arguments, "--json"], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert all(file.read_bytes() == content for file, content in first.items())
    found = json.loads(ran.stdout)
    assert found["seeds"] == 2
    assert "nothing can be significant" in found["caution"]
    curves = pq.read_table(found["curves"])
    assert curves.schema.equals(CURVES_SCHEMA)
    accuracies = curves.filter(pa.compute.equal(curves["metric"], "accuracy")).to_pylist()
    assert {(row["strategy"], row["seed"], row["round"]) for row in accuracies} == {
        (name, seed, number) for name in ("random", "lowest") for seed in (0, 1) for number in (0, 1)
    }
    assert "<!DOCTYPE html>" in Path(found["report"]).read_text(encoding="utf-8")
    # Again it starts nothing.
    monkeypatch.setattr(simulate, "_pool", None)
    assert (
        to_json(simulate.simulate(str(tmp_path / "small.toml"), str(tmp_path / "out")).findings).items()
        <= found.items()
    )
    (tmp_path / "small.toml").write_text(text.replace("seeds = 2", "seeds = 1"))
    ran = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert len(ran.stderr.strip().splitlines()) == 1
    assert "one seed" in ran.stderr


@pytest.mark.heavy
def test_a_process_that_is_killed_at_its_start_is_reported(tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(DIGITS)
    arguments = [sys.executable, "-m", "jobs", "simulate", str(tmp_path / "small.toml"), "--out", str(tmp_path / "out")]
    ran = subprocess.Popen([*arguments, "--workers", "1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    started: list[psutil.Process] = []
    while ran.poll() is None and not started:
        time.sleep(0.01)
        # A child that has just ended has no command line.
        with contextlib.suppress(psutil.Error):
            started = [one for one in psutil.Process(ran.pid).children() if "spawn_main" in " ".join(one.cmdline())]
    started[0].kill()
    _, errors = ran.communicate(timeout=60)
    assert ran.returncode == 1
    assert "a process of the simulation was killed; run the same command again" in errors


def test_curves_of_another_experiment_are_not_replaced_without_a_word(tmp_path: Path) -> None:
    notes: list[str] = []
    home, run = Location.of(str(tmp_path)), Run(log=notes.append)
    one = Variant("one.toml", {})
    _note_other(home, one, run)
    (home / "curves.parquet").write_table(CURVES_SCHEMA.empty_table().replace_schema_metadata(one.metadata))
    _note_other(home, one, run)
    assert not notes
    _note_other(home, one._replace(settings={"seeds": 7}), run)
    assert notes == [
        f"{home} has curves.parquet and report.html of one.toml: they are replaced; another --out keeps both"
    ]


def test_processes_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {2, 3, 5, 7})
    # The quota of a container.
    monkeypatch.setattr(simulate, "usable_cpus", lambda: 3)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert _shares(2) == [({2, 5}, ""), ({3}, "")]
    assert [share.cores for share in _shares(4)] == [{2}, {3}, {5}, {2}]
    monkeypatch.delattr(os, "sched_setaffinity")
    assert _shares(2) == [(set(), "")] * 2


@pytest.mark.parametrize(("named", "gpus"), [(None, ["0", "1", "0"]), ("4,GPU-3f", ["4", "GPU-3f", "4"])])
def test_processes_share_the_gpus(named: str | None, gpus: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    if named is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [share.gpu for share in _shares(3)] == gpus


@pytest.mark.heavy
def test_a_process_sees_its_own_share_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    experiment, world = cast("Experiment", None), cast("World", None)
    core = min(os.sched_getaffinity(0))
    monkeypatch.setattr(simulate, "_shares", lambda _: [simulate._Share({core}, "7")])
    with simulate._pool(1, experiment, world, shares_machine=True) as pool:
        assert pool.submit(os.getenv, "CUDA_VISIBLE_DEVICES").result() == "7"
        assert pool.submit(os.sched_getaffinity, 0).result() == {core}


@pytest.mark.heavy
def test_nobody_else_writes_the_folder_until_the_report_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "small.toml").write_text(DIGITS.replace("seeds = 6", 'seeds = 2\ntasks = ["knn"]'))
    seen: list[bool] = []

    def watched(found: Findings) -> str:
        seen.append((tmp_path / "out/running.json").exists())
        return render(found)

    monkeypatch.setattr(simulate, "render", watched)
    simulate.simulate(str(tmp_path / "small.toml"), str(tmp_path / "out"), workers=1)
    assert seen == [True]
    assert not (tmp_path / "out/running.json").exists()
