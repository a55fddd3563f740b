"""Faults of an experiment: each is one line with the file, the key, the value and advice that can be followed."""

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.config.texts import parse_settings
from engine.errors import ConfigError, InputError, VaalError
from engine.simulation.experiment import read_experiment
from engine.simulation.simulate import simulate
from engine.simulation.source_files import place_of
from engine.simulation.worlds import _of_one_length, load
from engine.storage.location import Location
from tests.engine.simulation.test_experiment import DIGITS, EXPERIMENTS, FILES, KEYS, made, read, write_files
from tests.engine.simulation.test_pixel_experiment import PIXELS
from tests.jobs.test_cli import refused as refused_command


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("first_labels.missing", -1, "first_labels.missing=-1: must be at least 1"),
        ("first_labels.missing", 1.5, "first_labels.missing=1.5: not a whole number"),
        ("first_labels.missing", [1], "first_labels.missing=1: in a list, put each text in quotes"),
        ("oracle.accuracy", 3, "oracle.accuracy=3: must be at most 1.0"),
        ("oracle.accuracy", "high", "oracle.accuracy='high': not a number"),
        ("oracle.accuracy", [0.5], "oracle.accuracy=[0.5]: too few; give at least 2"),
        ("oracle.accuracy", [0.5, 0.6, 0.7], "oracle.accuracy=[0.5, 0.6, 0.7]: too many; give at most 2"),
        ("oracle.accuracy", [0.5, 3], "oracle.accuracy=3: must be at most 1.0"),
        ("oracle.confusions", ["a", "b"], "oracle.confusions='a': in a list of lists, put each list in brackets"),
        ("task_steps", 0, "task_steps=0: must be at least 1, or give 'auto'"),
        ("tasks", [], "tasks=[]: too few; give at least 1"),
        ("pool", 3, "pool=3: not a table"),
        ("campaign", 3, "campaign=3: not a table"),
        ("strategies", [5], "strategies: the first is 5, neither a name in quotes nor a table; give one of them"),
        ("strategies", [], 'strategies: none is given; list names, ["random", "default"], or write [[strategies]]'),
    ],
)
def test_a_value_that_is_wrong_is_named_with_what_it_may_be(tmp_path: Path, key: str, value: Any, text: str) -> None:
    file = tmp_path / "experiment.toml"
    file.write_text(DIGITS)
    with pytest.raises(ConfigError) as refused:
        read_experiment(str(file), {key: value})
    assert str(refused.value) == f"{file}: {text}"


@pytest.mark.parametrize(
    ("key", "value", "advised"),
    [
        ("first_labels.missing", "3,5", ["3", "5"]),
        ("oracle.accuracy", "0.5, 0.9", [0.5, 0.9]),
        ("tasks", "linear", ["linear"]),
        ("strategies", "default", ["default"]),
    ],
)
def test_an_advised_setting_is_accepted(tmp_path: Path, key: str, value: str, advised: list[Any]) -> None:
    file = tmp_path / "experiment.toml"
    # Without these the option would have no effect.
    biased = DIGITS.replace('"random"', '"biased"')
    asked = PIXELS.format(tmp_path).replace("[test]", "annotators = 3\n[test]")
    file.write_text({"oracle.accuracy": asked, "first_labels.missing": biased}.get(key, DIGITS))
    with pytest.raises(ConfigError, match="not a list; give --set ") as refused:
        read_experiment(str(file), {key: value})
    _, _, words = str(refused.value).partition("; give --set ")
    settings = parse_settings(shlex.split(words))
    assert settings == {key: advised}
    read_experiment(str(file), settings)


def test_advice_of_a_campaign_is_that_for_an_experiment(tmp_path: Path) -> None:
    pixels = PIXELS.format(tmp_path)
    with pytest.raises(
        ConfigError, match=r"margin needs a task learner: --set campaign\.train\.task=classification"
    ) as no:
        read(tmp_path, f'strategies = ["margin"]\n{pixels.partition("[[strategies]]")[0]}')
    assert "--set campaign.task.model=" in str(no.value)
    lists = (f"{DIGITS}[campaign]\nscore.acquisition = 'vaal'\n", f"{DIGITS}score.acquisition = 'vaal'\n")
    for text, advice in zip(
        lists, ("--set 'campaign.score.acquisition=[\"vaal\"]'", "'score.acquisition=[\"vaal\"]'"), strict=True
    ):
        with pytest.raises(ConfigError) as refused:
            read(tmp_path, text)
        assert str(refused.value).endswith(f"score.acquisition='vaal': not a list; give {advice}")
    file = str(tmp_path / "experiment.toml")
    (tmp_path / "experiment.toml").write_text(lists[0])
    read_experiment(file, {"campaign.score.acquisition": ["vaal"]})


def test_an_experiment_without_strategies_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="strategies: none is given"):
        read(tmp_path, DIGITS.partition("[[strategies]]")[0])


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("train.tsk = 1", "train.tsk: unknown key; did you mean train.task?"),
        ("device = 'gpu'", "device='gpu': give 'auto'"),
        ("train.folds = -1", "train.folds=-1: must be at least 1"),
        ("select.budget = 3", "select.budget: the experiment sets it"),
        ("pool.embeddings = 'x'", "pool.embeddings: the experiment sets it"),
        ("train.method = 'vaal'", "train.method='vaal' is not simulated on vectors"),
        ("handoff.annotators = 3", "handoff.annotators: has no effect on vectors in memory"),
    ],
)
def test_an_option_is_named_where_the_file_gives_it(tmp_path: Path, line: str, text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read(tmp_path, f"{DIGITS}[campaign]\n{line}\n")
    assert str(refused.value).startswith(f"{tmp_path}/experiment.toml: [campaign]: {text}")
    with pytest.raises(ConfigError) as refused:
        read(tmp_path, DIGITS + line)
    assert str(refused.value).startswith(f"{tmp_path}/experiment.toml: strategy 'lowest': {text}")


@pytest.mark.parametrize(
    ("experiment", "fault"),
    [
        ("cifar100", "pool.shards={0}/cifar100/train-*.tar: no shard matches; vaal dataset cifar100 SOURCE"),
        ("cifar100-noisy", "oracle.confusions={0}/cifar100/groups.json: no such file; vaal dataset cifar100 SOURCE"),
    ],
)
def test_a_data_set_that_is_not_there_is_named_with_its_key_and_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, experiment: str, fault: str
) -> None:
    file = f"{EXPERIMENTS}/{experiment}.toml"
    monkeypatch.setenv("VAAL_SETS", str(tmp_path / "sets"))
    with pytest.raises(InputError) as refused:
        simulate(file, str(tmp_path / "out"))
    line = f"{file}: {fault.format(tmp_path / 'sets')} $VAAL_SETS/cifar100 makes it"
    assert str(refused.value) == line
    assert refused_command(4, "simulate", file, "--out", str(tmp_path / "out")).endswith(line)
    monkeypatch.delenv("VAAL_SETS")
    with pytest.raises(InputError) as refused:
        simulate(file, str(tmp_path / "out"))
    assert "the environment variable VAAL_SETS is not set; export VAAL_SETS=FOLDER; vaal dataset" in str(refused.value)
    assert str(refused.value).startswith(f"{file}: {fault.partition('=')[0]}=${{VAAL_SETS}}/cifar100/")
    monkeypatch.setenv("VAAL_SETS", "")
    with pytest.raises(InputError, match="the environment variable VAAL_SETS is empty; export VAAL_SETS=FOLDER"):
        simulate(file, str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("key", ["pool.embeddings", "test.embeddings", "oracle.labels"])
def test_a_file_that_is_not_there_is_named_with_its_key(tmp_path: Path, key: str) -> None:
    write_files(tmp_path)
    text = FILES.format(tmp_path)
    name = {"pool.embeddings": "pool.parquet", "test.embeddings": "test.parquet", "oracle.labels": "labels.csv"}[key]
    (tmp_path / name).unlink()
    with pytest.raises(InputError) as refused:
        load(read(tmp_path, text))
    assert str(refused.value) == f"{key}={tmp_path}/{name}: no such file; correct the path"
    with pytest.raises(InputError) as refused:
        load(read(tmp_path, text.replace(name, name.replace(".", "-*."))))
    assert str(refused.value).endswith(f"/{name.replace('.', '-*.')}: no file matches; correct the path")


def test_embeddings_may_be_a_glob(tmp_path: Path) -> None:
    text = write_files(tmp_path)
    table = pq.read_table(tmp_path / "pool.parquet")
    for number in range(2):
        pq.write_table(table.slice(20 * number, 20), tmp_path / f"part-{number}.parquet")
    whole = made(tmp_path, text)
    assert np.array_equal(made(tmp_path, text.replace("pool.parquet", "part-*.parquet")).pool.key_N, whole.pool.key_N)


def test_a_table_of_other_columns_is_refused_in_plain_words(tmp_path: Path) -> None:
    text = write_files(tmp_path).replace("labels.csv", "labels.parquet")
    oracle, names = tmp_path / "labels.parquet", {"shard": ["s.tar"] * 2, "key": KEYS[:2]}
    for table, words in (
        ({**names, "class": ["a", "b"]}, "has no label; its columns are shard, key, class; give a table with"),
        ({**names, "key": [[1], [2]], "label": ["a", "b"]}, "the column key is of list<element: int64>; give texts"),
    ):
        pq.write_table(pa.table(table), oracle)
        with pytest.raises(InputError) as refused:
            load(read(tmp_path, text))
        assert str(refused.value).startswith(f"{oracle}: {words}")
    oracle.write_bytes(b"PAR1")
    with pytest.raises(InputError) as refused:
        load(read(tmp_path, text))
    assert str(refused.value).endswith("not a Parquet table, or cut off; give one with the columns shard, key, label")
    pq.write_table(pa.table({**names, "embedding": ["a", "b"]}), tmp_path / "pool.parquet")
    with pytest.raises(InputError, match="the column embedding is of string; give lists of numbers"):
        load(read(tmp_path, text))


def test_a_file_in_the_place_of_a_folder_is_refused_by_every_command_that_makes_one(tmp_path: Path) -> None:
    write_files(tmp_path)
    file, digits = tmp_path / "labels.csv", f"{EXPERIMENTS}/digits.toml"
    line = f"error: --out {file}: is a file; give a folder"
    for out in (file, file / "below"):
        assert refused_command(2, "simulate", digits, "--out", str(out)) == line
    line = f"error: {file}: is a file; give a folder"
    assert refused_command(2, "dataset", "cifar100", str(tmp_path), str(file)) == line
    assert refused_command(2, "pack", str(tmp_path), str(file)) == line
    assert refused_command(2, "init", str(file), "--pool", str(tmp_path / "x.tar")) == line
    assert file.read_text().startswith("shard,key,label")


def test_vectors_may_be_tensors_of_a_fixed_shape(tmp_path: Path) -> None:
    vector_ND = np.arange(12, dtype=np.float32).reshape(3, 4)
    rows = _of_one_length(pa.FixedShapeTensorArray.from_numpy_ndarray(vector_ND), Location.of(str(tmp_path)))
    assert rows.to_pylist() == vector_ND.tolist()


def test_one_file_has_the_answers(tmp_path: Path) -> None:
    for number in range(2):
        (tmp_path / f"l-{number}.csv").write_text("shard,key,label")
    with pytest.raises(InputError, match=r"oracle.labels=.*l-\*.csv: 2 files match; give one file"):
        place_of(f"{tmp_path}/l-*.csv", "oracle.labels")
    assert place_of(f"{tmp_path}/l-0.csv", "oracle.labels").name == "l-0.csv"


def test_confusions_may_be_a_file(tmp_path: Path) -> None:
    text = DIGITS + f'\n[oracle]\nnoise = 0.5\nconfusions = "{tmp_path}/groups.json"\n'
    (tmp_path / "groups.json").write_text('[["1", "7"], ["3", "8"]]')
    setup = made(tmp_path, text)
    assert set(setup.answer_N[setup.pool.label_N == 1]) == {1, 7}
    # Another file is another world, and another trial.
    files = [load(read(tmp_path, text)).files]
    (tmp_path / "groups.json").write_text('[["1", "9"]]')
    assert load(read(tmp_path, text)).files not in files
    for content, words in (
        ('["1", "7"]', "not a JSON list of lists of names"),
        ('[["one"]]', "'one' is no class"),
        ('[["1", "7"], ["7", "8"]]', "'7' is given twice"),
        ('[["1", "7", "7"]]', "'7' is given twice"),
        ('[["1"], ["7", "8"]]', r"\['1'\] is alone in its group"),
    ):
        (tmp_path / "groups.json").write_text(content)
        with pytest.raises(VaalError, match=words) as refused:
            made(tmp_path, text)
        assert "\n" not in str(refused.value)
