"""Each data set of the field, from a small tree of its layout to shards, oracle tables and a test set."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from engine.campaign.stages import Run
from engine.config.texts import parse_settings
from engine.datasets import DATA_SETS
from engine.datasets.cifar import SUPER_CLASSES
from engine.datasets.class_folders import TEST_IMAGES
from engine.datasets.converting import Converted, convert
from engine.errors import ConfigError, InputError
from engine.packing.shard_writing import write_samples
from engine.simulation.experiment import Experiment, read_experiment
from engine.simulation.worlds import load
from engine.storage.location import Location
from tests.packed import members
from tests.servers import s3_server
from tests.trees import TREES, Tree, official, pixels_of


@pytest.fixture(autouse=True)
def _small_is_official(monkeypatch: pytest.MonkeyPatch) -> None:
    official(monkeypatch)
    # So that small trees have several shards.
    small = {name: row._replace(shard_images=3) for name, row in DATA_SETS.items()}
    monkeypatch.setattr("engine.datasets.converting.DATA_SETS", small)


def converted(name: str, source: Path, folder: Path, seed: int = 0, log: Any = lambda _: None) -> Converted:
    return convert(name.split()[0], Location.of(str(source)), Location.of(str(folder)), seed, Run(log=log))


def files(folder: Path) -> dict[str, bytes]:
    """All files of a result, without what packing/ says of where it came from."""
    found = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if not name.startswith("packing/")}


def rows(folder: Path, part: str) -> list[dict[str, str]]:
    found: list[dict[str, str]] = pq.read_table(folder / f"{part}-oracle.parquet").to_pylist()
    return found


def check(folder: Path, part: str, tree: Tree, *, key_of: Any) -> None:
    """Every image of a part is there once, with its bytes or pixels, its label and its mask."""
    shards, table, expected = members(folder), rows(folder, part), tree[part]
    assert sorted(row["source"] for row in table) == sorted(expected)
    for row in table:
        wanted, own = expected[row["source"]], shards[row["shard"]]
        assert row["shard"].startswith(f"{part}-000")
        assert row["label"] == wanted.label
        of_key = {name: own[name] for name in own if name.partition(".")[0] == row["key"]}
        mask = of_key.pop(f"{row['key']}.seg.png", None)
        ((name, data),) = of_key.items()
        assert name.endswith((".jpg", ".png"))
        assert data == wanted.data if wanted.data else np.array_equal(pixels_of(data), wanted.ids)
        if wanted.label == "mask":
            assert mask
            assert np.array_equal(pixels_of(mask), wanted.ids)
            assert row["key"] == key_of(row["source"])
        else:
            assert mask is None
            # Whoever sorts by key does not sort by class.
            assert row["key"].startswith(f"{part}-0000")
    images = [name for shard in shards if shard.startswith(part) for name in shards[shard] if ".seg." not in name]
    assert len(table) == len(images)


@pytest.mark.parametrize("name", TREES)
def test_every_image_is_there_once_with_its_bytes_its_label_and_its_mask(name: str, tmp_path: Path) -> None:
    tree, lines = TREES[name](tmp_path / "in"), list[str]()
    found = converted(name, tmp_path / "in", tmp_path / "out", log=lines.append)
    if name == "caltech256":
        everything = tree["train"]
        tree = {
            part: {row["source"]: everything[row["source"]] for row in rows(tmp_path / "out", part)} for part in tree
        }
        assert sorted(tree["train"] | tree["test"]) == sorted(everything)
        assert [len(tree[part]) for part in ("train", "test")] == [6, 4]
    names = {"cityscapes": lambda source: "/".join(source.split("/")[2:]).removesuffix("_leftImg8bit.png")}
    for part in tree:
        check(tmp_path / "out", part, tree, key_of=names.get(name, lambda source: Path(source).stem))
    assert found.images == {part: len(images) for part, images in tree.items()}
    assert (found.left_out, found.changed) == (0, True)
    # A small tree is legal, and not the official one.
    assert any(f"in has {found.images['train']} images of train, and the official" in line for line in lines)
    classes = (tmp_path / "out/classes.txt").read_text().splitlines()
    labels = {image.label for images in tree.values() for image in images.values()}
    assert labels == {"mask"} or labels <= set(classes)
    assert found.num_classes == len(classes) == len(set(classes))
    # Another folder gets the same bytes, and the same command does nothing.
    before = files(tmp_path / "out")
    converted(name, tmp_path / "in", tmp_path / "again")
    assert files(tmp_path / "again") == before
    assert not converted(name, tmp_path / "in", tmp_path / "out").changed
    assert files(tmp_path / "out") == before


@pytest.mark.parametrize(("name", "train", "test"), [("camvid", 367, 233), ("camvid fastai", 600, 101)])
def test_each_layout_of_camvid_has_its_official_numbers(name: str, train: int, test: int, tmp_path: Path) -> None:
    TREES[name](tmp_path / "in")
    lines = list[str]()
    converted(name, tmp_path / "in", tmp_path / "out", log=lines.append)
    found = {part: number for line in lines for part, number in re.findall(r"of ([\w ]+), and .* have (\d+)", line)}
    assert (found["train"], found["the test set"]) == (str(train), str(test))


def test_every_data_set_has_a_tree() -> None:
    assert {name.split()[0] for name in TREES} == set(DATA_SETS)
    # 30,607 images, of which 827 are clutter.
    assert DATA_SETS["caltech256"].counts == {"train": 30_607 - 827 - 256 * TEST_IMAGES, "test": 256 * TEST_IMAGES}


def test_the_super_classes_of_cifar_100_are_groups_of_its_classes(tmp_path: Path) -> None:
    TREES["cifar100"](tmp_path / "in")
    converted("cifar100", tmp_path / "in/cifar-100-python", tmp_path / "out")
    groups = json.loads((tmp_path / "out/groups.json").read_text())
    assert [len(group) for group in groups] == [5] * 20
    flat = sorted(name for group in groups for name in group)
    assert flat == (tmp_path / "out/classes.txt").read_text().split() == sorted(SUPER_CLASSES.split())
    part = {"shards": str(tmp_path / "out/train-*.tar")}
    oracle = {"labels": str(tmp_path / "out/train-oracle.parquet"), "noise": 0.2, "confusions": groups}
    assert experiment(tmp_path / "out", pool=part, oracle=oracle).oracle.confusions == groups


def experiment(folder: Path, **parts: Any) -> Experiment:
    own = {
        "pool": {"shards": f"{folder}/train-*.tar"}, "oracle": {"labels": f"{folder}/train-oracle.parquet"},
        "test": {"shards": f"{folder}/test-*.tar", "labels": f"{folder}/test-oracle.parquet"},
        "first_labels": {"kind": "random", "count": 2}, "budget": 1, "tasks": ["small"], "strategies": [{"name": "v"}],
        "campaign": {"image.size": 16},
    }  # fmt: skip
    return Experiment.model_validate({**own, **parts})


@pytest.mark.parametrize("name", ["cifar10", "caltech256", "imagenet"])
def test_an_experiment_reads_the_pool_the_oracle_and_the_test_set(name: str, tmp_path: Path) -> None:
    TREES[name](tmp_path / "in")
    found = converted(name, tmp_path / "in", tmp_path / "out")
    world = load(experiment(tmp_path / "out"))
    assert world.test is not None
    assert (len(world.items.label_N), len(world.test.label_N)) == (found.images["train"], found.images["test"])
    for items, part in ((world.items, "train"), (world.test, "test")):
        labels = {(row["shard"], row["key"]): row["label"] for row in rows(tmp_path / "out", part)}
        assert {name: world.classes[n] for name, n in zip(items.names(), items.label_N, strict=True)} == labels


@pytest.mark.parametrize("name", ["camvid", "camvid-ablation"])
def test_the_experiments_on_camvid_read_it_with_the_settings_that_the_page_names(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    TREES["camvid"](tmp_path / "in")
    found = converted("camvid", tmp_path / "in", tmp_path / "camvid")
    monkeypatch.setenv("VAAL_DATA", str(tmp_path))
    project = Path(__file__).parents[3]
    settings = re.findall(r"--set '(campaign\.[^']+)'", (project / "docs/simulation.md").read_text())
    world = load(read_experiment(f"{project}/experiments/{name}.toml", parse_settings(settings)))
    assert world.test is not None
    assert (len(world.items.key_N), len(world.test.key_N)) == (found.images["train"], found.images["val"])


def test_the_noisy_experiment_knows_the_classes_with_the_setting_that_the_page_names(tmp_path: Path) -> None:
    TREES["cifar10"](tmp_path / "in")
    converted("cifar10", tmp_path / "in", tmp_path / "out")
    page = (Path(__file__).parents[3] / "docs/simulation.md").read_text()
    (groups,) = parse_settings(re.findall(r"--set '(oracle\.confusions=[^']+)'", page)).values()
    assert sorted(name for group in groups for name in group) == (tmp_path / "out/classes.txt").read_text().split()


def test_an_image_that_is_cut_off_is_copied_and_refused_by_an_experiment(tmp_path: Path) -> None:
    tree = TREES["imagenet"](tmp_path / "in")
    source, image = list(tree["train"].items())[-1]
    assert image.data
    (tmp_path / "in" / source).write_bytes(image.data[:500])
    converted("imagenet", tmp_path / "in", tmp_path / "out")
    assert source in {row["source"] for row in rows(tmp_path / "out", "train")}
    with pytest.raises(InputError, match=r"cannot be decoded: .*; take it out of the shard") as refused:
        load(experiment(tmp_path / "out"))
    assert "\n" not in str(refused.value)


def test_another_seed_is_another_order_and_another_split(tmp_path: Path) -> None:
    TREES["caltech256"](tmp_path / "in")
    for seed in (0, 1):
        converted("caltech256", tmp_path / "in", tmp_path / f"{seed}", seed)
    drawn = [{row["source"] for row in rows(tmp_path / f"{seed}", "test")} for seed in (0, 1)]
    assert drawn[0] != drawn[1]
    # A shard is not one class.
    assert len({row["label"] for row in rows(tmp_path / "0", "train") if row["shard"] == "train-00000.tar"}) == 2
    with pytest.raises(ConfigError, match="was made with --seed 0; give that, or another folder"):
        converted("caltech256", tmp_path / "in", tmp_path / "0", 1)


def test_the_draw_of_a_class_does_not_depend_on_the_others(tmp_path: Path) -> None:
    TREES["caltech256"](tmp_path / "in")
    source, drawn = tmp_path / "in/256_ObjectCategories", list[set[str]]()
    for number in (7, 8):
        shutil.copytree(source / "002.american-flag", source / f"00{number}.copy{number}")
    for out in ("whole", "part"):
        converted("caltech256", tmp_path / "in", tmp_path / out, seed=1)
        drawn.append({row["source"] for row in rows(tmp_path / out, "test")})
        shutil.rmtree(source / "001.ak47", ignore_errors=True)
    assert drawn[1] == {name for name in drawn[0] if "/001." not in name}
    # Classes with the same files are drawn from by numbers of their own.
    own = [{name.rpartition("/")[2] for name in drawn[0] if f"/00{n}." in name} for n in (2, 7, 8)]
    assert own[0] != own[1] or own[0] != own[2]


def test_a_folder_may_have_a_name_like_a_pattern(tmp_path: Path) -> None:
    for name in ("caltech256", "camvid"):
        TREES[name](tmp_path / f"[{name}]")
        assert converted(name, tmp_path / f"[{name}]", tmp_path / name).images["train"]


def test_an_image_of_train_that_is_in_test_too_is_left_out(tmp_path: Path) -> None:
    """An experiment refuses a pool with an image of its test set."""
    tree = TREES["imagenet"](tmp_path / "in")
    twin, original = next(iter(tree["train"])), next(iter(tree["test"].values()))
    assert original.data
    (tmp_path / "in" / twin).write_bytes(original.data)
    found = converted("imagenet", tmp_path / "in", tmp_path / "out")
    assert (found.left_out, found.images["train"]) == (1, len(tree["train"]) - 1)
    assert twin not in {row["source"] for row in rows(tmp_path / "out", "train")}
    assert load(experiment(tmp_path / "out")).test is not None


def test_a_run_that_was_killed_at_any_shard_is_completed_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = TREES["imagenet"](tmp_path / "in")
    original = next(iter(tree["test"].values())).data
    assert original
    (tmp_path / "in" / next(iter(tree["train"]))).write_bytes(original)
    converted("imagenet", tmp_path / "in", tmp_path / "whole")
    written, this_run = list[str](), list[str]()

    def one_a_run(batch: Any, shard: str, samples: Any) -> Any:
        if this_run:
            raise KeyboardInterrupt
        this_run.append(shard)
        return write_samples(batch, shard, samples)

    monkeypatch.setattr("engine.datasets.converting.write_samples", one_a_run)
    for count in range(1, 4):
        with pytest.raises(KeyboardInterrupt):
            converted("imagenet", tmp_path / "in", tmp_path / "out")
        written += this_run
        this_run.clear()
        assert len(list((tmp_path / "out").glob("*.tar"))) == count
    assert converted("imagenet", tmp_path / "in", tmp_path / "out").left_out == 1
    written += this_run
    monkeypatch.setattr("engine.datasets.converting.write_samples", write_samples)
    # No shard was written twice.
    assert sorted(written) == sorted(path.name for path in (tmp_path / "out").glob("*.tar"))
    assert files(tmp_path / "out") == files(tmp_path / "whole")
    # One that is lost later is written again.
    (tmp_path / "out/train-00001.tar").unlink()
    assert converted("imagenet", tmp_path / "in", tmp_path / "out").changed
    assert files(tmp_path / "out") == files(tmp_path / "whole")


@pytest.mark.heavy
def test_a_bucket_gets_the_bytes_that_a_disk_gets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    TREES["cityscapes"](tmp_path / "in")
    converted("cityscapes", tmp_path / "in", tmp_path / "out")
    with s3_server("sets") as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        bucket = Location.of("s3://sets")
        for file in (tmp_path / "in").rglob("*.png"):
            (bucket / str(file.relative_to(tmp_path))).write_bytes(file.read_bytes())
        run = Run(log=lambda _: None)
        assert convert("cityscapes", bucket / "in", bucket / "out", 0, run).changed
        assert not convert("cityscapes", bucket / "in", bucket / "out", 0, run).changed
        found = {name: (bucket / "out" / name).read_bytes() for name in (bucket / "out").children()}
    assert found == files(tmp_path / "out")
