"""Experiments as files: what they may say, and what is refused in one line."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.errors import ConfigError, InputError, VaalError
from engine.simulation.experiment import Experiment, read_experiment
from engine.simulation.setups import Setup, setup_of
from engine.simulation.worlds import load

EXPERIMENTS = Path(__file__).parents[3] / "experiments"
SHIPPED = sorted({*EXPERIMENTS.glob("*.toml")} - {EXPERIMENTS / "published.toml"})
DIGITS = """
budget = 20
rounds = 2
seeds = 6
[pool]
digits = true
[test]
size = 300
[first_labels]
kind = "random"
count = 50
[[strategies]]
name = "lowest"
select.diversity = "none"
"""


def read(folder: Path, text: str) -> Experiment:
    (folder / "experiment.toml").write_text(text)
    return read_experiment(str(folder / "experiment.toml"))


def made(folder: Path, text: str, seed: int = 0) -> Setup:
    experiment = read(folder, text)
    return setup_of(load(experiment), experiment, seed)


def test_settings_are_in_place_of_the_files(tmp_path: Path) -> None:
    before = read(tmp_path, DIGITS)
    file = str(tmp_path / "experiment.toml")
    settings = {"oracle.noise": 0.1, "seeds": 7, "campaign.train.folds": 3, "strategies": ["random", "vaal"]}
    after = read_experiment(file, settings)
    assert (after.oracle.noise, after.seeds, after.campaign) == (0.1, 7, {"train.folds": 3})
    assert [one.name for one in after.strategies] == ["random", "vaal"]
    assert (after.pool, after.test, after.budget) == (before.pool, before.test, before.budget)
    for key, words in (
        ("oracle.noice", "oracle.noice: unknown key; did you mean oracle.noise"),
        ("seeds.much", "--set seeds.much: seeds of .* is no table"),
        ("budget", "budget='many'"),
    ):
        with pytest.raises(ConfigError, match=words):
            read_experiment(file, {key: "many"})


def test_a_setting_leaves_out_what_it_makes_void(tmp_path: Path) -> None:
    text = (
        DIGITS.replace('"random"', '"biased"\nmissing = 3')
        + '[campaign]\nlabels.are_biased = "no"\n"train.folds" = 5\n'
    )
    read(tmp_path, text)
    file = str(tmp_path / "experiment.toml")
    found = [read_experiment(file, {"first_labels.kind": kind}).first_labels for kind in ("random", "none", "empty")]
    assert [(one.count, "missing" in one.model_fields_set) for one in found] == [(50, False), (0, False), (0, False)]
    # However the file writes an option of a campaign.
    changed = read_experiment(file, {"campaign.train.folds": 3, "campaign.labels.are_biased": "yes"}).campaign
    assert changed == {"labels.are_biased": "yes", "train.folds": 3}


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_shipped_experiments_can_be_read(file: Path) -> None:
    names = [strategy.name for strategy in read_experiment(str(file)).strategies]
    assert "random" in names
    assert "default" in names or file.stem == "cifar10-annotators"


def test_random_is_always_there_and_options_are_dotted_keys(tmp_path: Path) -> None:
    experiment = read(tmp_path, DIGITS)
    random, lowest = experiment.strategies
    assert random.name == "random"
    assert experiment.config_of(random, 3).select.control_fraction == 1
    assert lowest.options == {"select.diversity": "none"}
    config = experiment.config_of(lowest, 3)
    assert (config.select.diversity, config.select.budget, config.select.seed, config.train.seed) == ("none", 20, 3, 3)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("budget = 20", "buget = 20", ["buget: unknown key", "did you mean budget?"]),
        ("digits = true", "digit = true", ["pool.digit: unknown key"]),
        ("seeds = 6", "seeds = 1", ["seeds=1", "one seed"]),
        ("select.diversity", "select.diversty", ["'lowest'", "select.diversty: unknown key"]),
        ('"none"', '"nothing"', ["'lowest'", "select.diversity='nothing'"]),
        ("select.diversity", "select.budget = 3\nselect.diversity", ["select.budget: the experiment sets it"]),
        ("select.diversity", 'train.method = "vaal"\nselect.diversity', ["train.method='vaal' is not simulated"]),
        ("size = 300", "", ["test: give"]),
        ("count = 50", "", ["first_labels.count: missing"]),
        ("digits = true", "", ["pool: give either"]),
        ("budget = 20", "budget = ", ["not valid TOML"]),
        ('name = "lowest"', 'name = "a/b"', ["strategies: the first table has name='a/b': not 1 to 61"]),
        ('name = "lowest"', "", ["experiment.toml: strategies: the first table has neither name nor like; give"]),
        ('name = "lowest"', 'name = "a"\n[[strategies]]', ["strategies: the second table has neither name nor like"]),
        ('name = "lowest"', 'like = ["margin"]', ["strategies: the first table has name=['margin']: not 1 to 61"]),
        ('name = "lowest"', 'name = "a"\noptions = 3', ["strategies: the first table has options=3: not a table"]),
        ("[[strategies]]", "[strategies]", ["strategies={'name': 'lowest'", "not a list; give names, or [["]),
        ('name = "lowest"', 'name = "random"\nselect.control_fraction = 0.5', ["control_fraction=0.5", "another name"]),
        ('[[strategies]]', '[[strategies]]\nname = "lowest"\n[[strategies]]', ["'lowest' is given twice"]),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line(tmp_path: Path, old: str, new: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as refused:
        read(tmp_path, DIGITS.replace(old, new))
    assert all(word in str(refused.value) for word in [*words, "experiment.toml"]), refused.value
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"random"', '"random"\nmissing = 3', "first_labels.missing=3: of kind random no class is left out"),
        ('"random"', '"none"', "first_labels.count=50: of kind none it is the budget"),
        ("digits = true", "digits = true\ncopy_noise = 0.1", "pool.copy_noise=0.1: there are no copies"),
        ("[test]", '[oracle]\nlabels = "x.csv"\n[test]', "oracle.labels=x.csv: the digits have their own"),
        ("[test]", "[oracle]\naccuracy = 0.7\n[test]", "oracle.accuracy: is of annotators"),
        ("[test]", '[oracle]\nconfusions = [["1", "7"]]\n[test]', "oracle.confusions: no answer is wrong"),
        ("[test]", '[campaign]\ndevice = "cuda"\n[test]', "campaign.device=cuda: without images"),
        ("[test]", "[campaign]\nimage.size = 64\n[test]", r"\[campaign\]: image.size: has no effect on vectors"),
        (
            "select.diversity",
            'hooks.on_stage = "http://a.b/c"\nselect.diversity',
            "'lowest': hooks.on_stage: has no effect in a",
        ),
        ("select.diversity", "train.epochs = 9\nselect.diversity", "'lowest': train.epochs: has no effect on vectors"),
        ("budget = 20", "budget = 20\ntask_steps = 9", "task_steps=9: no task model is a network on pixels"),
        ("budget = 20", 'budget = 20\ntasks = ["mlp", "mlp"]', "tasks: the name 'mlp' is given twice"),
        (
            "[test]",
            '[campaign]\ndevice = "auto"\n[test]',
            "campaign.device=auto: an experiment says where it runs; set",
        ),
    ],
)
def test_what_would_have_no_effect_is_refused(tmp_path: Path, old: str, new: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read(tmp_path, DIGITS.replace(old, new, 1))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("size = 300", "size = 1797", "test.size=1797: only 1796"),
        ("count = 50", "count = 1600", "first_labels.count=1600: only 1497"),
        ("count = 50", "count = 1480", "rounds x budget=40: only 17"),
        ("digits = true", "digits = true\nsize = 1600", "pool.size=1600: only 1497"),
        ("digits = true", "digits = true\nimbalance = 20.0", "too few items of class"),
        ('"random"', '"biased"\nmissing = ["ten"]', "first_labels.missing: 'ten' is no class"),
        ('"random"', '"biased"\nmissing = 10', "all 10 classes are missing"),
    ],
)
def test_more_than_there_is_is_refused(tmp_path: Path, old: str, new: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        made(tmp_path, DIGITS.replace(old, new))


def test_a_setup_is_that_of_its_seed(tmp_path: Path) -> None:
    one, same, other = (made(tmp_path, DIGITS, seed) for seed in (0, 0, 1))
    assert (one.pool.vector_ND == same.pool.vector_ND).all()
    assert (one.first == same.first).all()
    assert len(one.first) == 50
    assert set(one.pool.key_N) != set(other.pool.key_N) or (one.first != other.first).any()
    names = set(zip(one.pool.shard_N, one.pool.key_N, strict=True))
    assert len(names) == 1497
    assert not names & set(zip(one.test.shard_N, one.test.key_N, strict=True))


def test_first_labels_of_every_kind(tmp_path: Path) -> None:
    biased = made(tmp_path, DIGITS.replace('"random"', '"biased"\nmissing = 4'))
    assert len(biased.missing) == 4
    assert not set(biased.pool.label_N[biased.first]) & biased.missing
    named = made(tmp_path, DIGITS.replace('"random"', '"biased"\nmissing = ["3", "5"]'))
    assert named.missing == {3, 5}
    one_source = made(tmp_path, DIGITS.replace('"random"', '"one_source"'))
    assert len(set(one_source.pool.shard_N[one_source.first])) == 1
    assert len(made(tmp_path, DIGITS.replace('"random"\ncount = 50', '"none"')).first) == 20


def test_imbalance_and_copies(tmp_path: Path) -> None:
    uneven = made(tmp_path, DIGITS.replace("digits = true", "digits = true\nsize = 400\nimbalance = 8.0"))
    counts = np.sort(np.bincount(uneven.pool.label_N))
    assert counts[-1] / counts[0] == pytest.approx(8, rel=0.1)
    assert counts.sum() == pytest.approx(400, abs=5)
    twins = made(tmp_path, DIGITS.replace("digits = true", "digits = true\nsize = 200\ncopies = 4"))
    assert len(twins.pool.key_N) == len(set(zip(twins.pool.shard_N, twins.pool.key_N, strict=True))) == 1000
    group = [n for n, key in enumerate(twins.pool.key_N) if key.split("~")[0] == twins.pool.key_N[0].split("~")[0]]
    assert len(set(twins.pool.label_N[group[:5]])) <= 2


def test_an_oracle_lies_the_same_way_in_every_seed(tmp_path: Path) -> None:
    text = DIGITS + '\n[oracle]\nnoise = 0.2\nconfusions = [["1", "7"], ["3", "8", "9"]]\n'
    lies: dict[tuple[str, str], set[int]] = {}
    for seed in (0, 1):
        setup = made(tmp_path, text, seed)
        is_wrong = setup.answer_N != setup.pool.label_N
        assert is_wrong.mean() == pytest.approx(0.2, abs=0.04)
        true_N, said_N = setup.pool.label_N[is_wrong], setup.answer_N[is_wrong]
        assert set(said_N[true_N == 1]) == {7}
        assert set(said_N[np.isin(true_N, [3, 8, 9])]) <= {3, 8, 9}
        for item, answer in zip(zip(setup.pool.shard_N, setup.pool.key_N, strict=True), setup.answer_N, strict=True):
            lies.setdefault(item, set()).add(int(answer))
    assert all(len(answers) == 1 for answers in lies.values())


def write_vectors(file: Path, keys: list[str], length: int = 4, bad: str = "") -> None:
    vector_ND = np.random.default_rng(0).normal(size=(len(keys), length)).astype(np.float32)
    vector_ND[[key == bad for key in keys], 0] = np.nan
    column = pa.FixedSizeListArray.from_arrays(pa.array(vector_ND.reshape(-1)), length)
    pq.write_table(pa.table({"shard": ["s.tar"] * len(keys), "key": keys, "embedding": column}), file)


FILES = """
budget = 5
rounds = 1
seeds = 6
[pool]
embeddings = "{0}/pool.parquet"
[oracle]
labels = "{0}/labels.csv"
[test]
embeddings = "{0}/test.parquet"
[first_labels]
count = 5
[[strategies]]
name = "lowest"
select.diversity = "none"
"""
KEYS = [f"k{n:02d}" for n in range(60)]


def write_files(folder: Path) -> str:
    write_vectors(folder / "pool.parquet", KEYS[:40])
    write_vectors(folder / "test.parquet", KEYS[40:])
    (folder / "labels.csv").write_text("shard,key,label\n" + "".join(f"s.tar,{k},{int(k[1:]) % 3}\n" for k in KEYS))
    return FILES.format(folder)


def test_files_are_read(tmp_path: Path) -> None:
    setup = made(tmp_path, write_files(tmp_path))
    assert (len(setup.pool.key_N), len(setup.test.key_N)) == (40, 20)
    assert setup.pool.vector_ND.std() == pytest.approx(1, abs=1e-3)
    # Lists whose type has no length are read too.
    table = pq.read_table(tmp_path / "pool.parquet")
    lists = pa.array(table["embedding"].to_pylist(), pa.list_(pa.float64()))
    pq.write_table(table.set_column(2, "embedding", lists), tmp_path / "pool.parquet")
    assert (made(tmp_path, FILES.format(tmp_path)).pool.vector_ND == setup.pool.vector_ND).all()


def test_what_is_wrong_with_a_file_is_one_line(tmp_path: Path) -> None:
    text = write_files(tmp_path)

    def refused(words: str, error: type[VaalError] = InputError) -> None:
        with pytest.raises(error, match=words) as found:
            made(tmp_path, text)
        assert "\n" not in str(found.value)

    write_vectors(tmp_path / "test.parquet", KEYS[39:])
    refused("test.parquet: 1 of its items are in the pool too, for example s.tar/k39")
    write_vectors(tmp_path / "test.parquet", KEYS[40:], 5)
    refused("embeddings of 5 components, and those of the pool 4")
    write_vectors(tmp_path / "test.parquet", KEYS[40:], bad="k41")
    refused("test.parquet: the embedding of s.tar/k41 has a value that is not finite")
    write_files(tmp_path)
    write_vectors(tmp_path / "pool.parquet", [*KEYS[:40], "k03"])
    refused("an item has two rows")
    write_files(tmp_path)
    (tmp_path / "labels.csv").write_text("shard,key,label\n" + "".join(f"s.tar,{k},1\n" for k in KEYS[1:]))
    refused(r"labels.csv: 1 of the 40 items of \[pool\] have no label, for example s.tar/k00")
    (tmp_path / "labels.csv").write_text("shard,key,label\n" + "".join(f"s.tar,{k},1\n" for k in [*KEYS, "k03"]))
    refused("labels.csv: item s.tar/k03 has 2 rows")
    (tmp_path / "labels.csv").unlink()
    refused("labels.csv")
    write_files(tmp_path)
    for vectors, lengths in (([[1.0, 2.0], None], "2, null"), ([[1.0, 2.0], [1.0]], "1, 2")):
        names = {"shard": ["s.tar"] * 2, "key": KEYS[:2]}
        pq.write_table(pa.table({**names, "embedding": vectors}), tmp_path / "pool.parquet")
        refused(f"pool.parquet: the lists of the column embedding have lengths {lengths}; give every row a vector")
    (tmp_path / "pool.parquet").write_bytes(b"no table")
    refused("pool.parquet: not a Parquet table")
    text = text.replace(str(tmp_path), "${NOT_SET_ANYWHERE}")
    refused("the environment variable NOT_SET_ANYWHERE is not set; export NOT_SET_ANYWHERE=FOLDER; correct the path")
