"""Experiments on pixels: what they say, what they draw, and what is refused in one line."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.config.input_options import ImageConfig
from engine.errors import ConfigError, InputError, VaalError
from engine.pool.images import decode
from engine.pool.items import read_shard
from engine.pool.manifest import list_shards
from engine.simulation.measuring import judge
from engine.simulation.pixel_learners import Training
from engine.simulation.pixel_pools import write_pool
from engine.simulation.setups import setup_of
from engine.simulation.trial_campaign import ground_of
from engine.simulation.worlds import load
from engine.storage.location import Location
from tests.engine.simulation.test_experiment import read, write_vectors

PIXELS = """
budget = 5
rounds = 1
seeds = 6
tasks = ["small"]
[pool]
shards = "{0}/pool/*.tar"
[oracle]
labels = "{0}/labels.csv"
[test]
size = 10
[first_labels]
count = 8
[campaign]
image.size = 16
[[strategies]]
name = "lowest"
select.diversity = "none"
"""
KEYS = [f"k{n:02d}" for n in range(40)]


def picture(number: int) -> bytes:
    """A PNG of one of two classes: dark and bright ones, with noise."""
    noise = np.random.default_rng(number).integers(0, 100, (20, 20, 3))
    file = io.BytesIO()
    Image.fromarray((noise + 150 * (number % 2)).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def write_shard(file: Path, members: dict[str, bytes]) -> None:
    file.parent.mkdir(exist_ok=True)
    with tarfile.open(file, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def write_files(folder: Path) -> str:
    for number in range(2):
        keys = KEYS[20 * number : 20 * number + 20]
        write_shard(folder / f"pool/s{number}.tar", {f"{key}.png": picture(int(key[1:])) for key in keys})
    rows = "".join(f"s{int(key[1:]) // 20}.tar,{key},{int(key[1:]) % 2}\n" for key in KEYS)
    (folder / "labels.csv").write_text("shard,key,label\n" + rows)
    return PIXELS.format(folder)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("[oracle]", "copies = 2\n[oracle]", ["pool.copies=2", "embeddings only", "set it to 0"]),
        ("[oracle]", "digits = true\n[oracle]", ["pool: give either shards"]),
        ("[test]", '[test]\nembeddings = "t.parquet"', ["test.shards: missing"]),
        ('"small"', '"small", "linear"', ["tasks: linear needs pool.embeddings"]),
        ('shards = "', 'embeddings = "', ["tasks: small needs pool.shards"]),
        ("image.size = 16", 'image.size = 20\ntrain.method = "vaal_2019"', ["vaal_2019", "multiple of 16"]),
        ("select.diversity", 'image.size = 32\ntrain.method = "vaal_2019"\nselect.diversity', ["for all strategies"]),
        ("image.size", "image.sise", ["image.sise: unknown key"]),
        ("image.size = 16", "image.size = 1", ["image.size=1"]),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, old: str, new: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as refused:
        read(tmp_path, PIXELS.format(tmp_path).replace(old, new, 1))
    assert all(word in str(refused.value) for word in [*words, "experiment.toml"]), refused.value
    assert "\n" not in str(refused.value)


def test_vaal_2019_is_refused_on_embeddings(tmp_path: Path) -> None:
    text = PIXELS.replace("shards", "embeddings").replace('"small"', '"linear"').replace("image.size = 16", "")
    with pytest.raises(ConfigError, match=r"'vaal_2019' is not simulated on vectors.*or give pool.shards"):
        read(
            tmp_path, text.format(tmp_path).replace("select.diversity", 'train.method = "vaal_2019"\nselect.diversity')
        )


def test_what_is_wrong_with_a_file_is_one_line(tmp_path: Path) -> None:
    text = write_files(tmp_path)

    def refused(words: str, text: str = text, error: type[VaalError] = InputError) -> None:
        with pytest.raises(error, match=words) as found:
            load(read(tmp_path, text))
        assert "\n" not in str(found.value)

    refused("none.tar", text.replace("/pool/*", "/pool/none"))
    with_test = text.replace("[test]\nsize = 10", f'[test]\nshards = "{tmp_path}/pool/s1.tar"')
    refused("s1.tar: 20 of its items are in the pool too, for example s1.tar/k20", with_test)
    # Other images may have the same names: shards are called 00000.tar everywhere.
    write_shard(tmp_path / "test/s1.tar", {f"{key}.png": picture(int(key[1:]) + 100) for key in KEYS[20:]})
    assert len(load(read(tmp_path, with_test.replace("/pool/s1", "/test/s1"))).items.key_N) == 40
    with_vectors = text.replace("[oracle]", f'embeddings = "{tmp_path}/e.parquet"\n[oracle]')
    write_vectors(tmp_path / "e.parquet", KEYS[:19])
    refused("e.parquet: 40 images have no embedding, for example s0.tar/k00", with_vectors)
    (tmp_path / "labels.csv").write_text((tmp_path / "labels.csv").read_text().replace("s1.tar,k39,1\n", ""))
    refused(r"labels.csv: 1 of the 40 items of \[pool\] have no label, for example s1.tar/k39")
    write_shard(tmp_path / "pool/s1.tar", {"k20.png": picture(20), "k21.png": picture(21)[:-300]})
    refused("s1.tar: item k21 cannot be decoded: .*; take it out of the shard")
    write_shard(tmp_path / "pool/s1.tar", {"k20.png": picture(20), "k21.txt": b"no image", "k21.jpg": b""})
    refused("s1.tar: item k21")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("", ""),
        ("[oracle]", "size = 20\nimbalance = 2.0\n[oracle]\nnoise = 0.3"),
        ("count = 8", 'kind = "one_source"\ncount = 8'),
        ("count = 8", 'kind = "biased"\nmissing = 1\ncount = 8'),
        ("count = 8", 'kind = "none"'),
    ],
)
def test_a_pool_has_the_images_of_its_source_byte_for_byte(tmp_path: Path, old: str, new: str) -> None:
    experiment = read(tmp_path, write_files(tmp_path).replace(old, new, 1))
    world = load(experiment)
    grounds = [ground_of(world, experiment, 0, str(tmp_path / name)) for name in ("one", "same")]
    pools = [sorted((tmp_path / name / "pool").iterdir()) for name in ("one", "same")]
    assert [file.read_bytes() for file in pools[0]] == [file.read_bytes() for file in pools[1]]
    image = ImageConfig(size=16)
    drawn = {
        (shard.shard, item.key): item.data
        for shard in list_shards([f"{tmp_path}/one/pool/*.tar"], f"{tmp_path}/one/pool")[0]
        for item in read_shard(shard, image)
    }
    pool = grounds[0].setup.pool
    assert len(drawn) == (experiment.pool.size or 30)
    assert set(drawn) == set(pool.names())
    assert all(data == picture(int(key[1:])) for (_, key), data in drawn.items())
    # What T sees, and the label, are of the same item.
    for items in (pool, grounds[0].setup.test):
        for (_, key), pixels, label in zip(items.names(), items.pixel_NSSC, items.label_N, strict=True):
            assert (pixels == decode(picture(int(key[1:])), image)).all()
            assert label == int(key[1:]) % 2


def test_a_pool_holds_names_of_any_length(tmp_path: Path) -> None:
    keys = ["é" * 60, "long" * 40, *KEYS[:18]]
    write_files(tmp_path)
    with tarfile.open(tmp_path / "pool/s0.tar", "w") as archive:
        for number, key in enumerate(keys):
            info = tarfile.TarInfo(f"{key}.png")
            info.size = len(picture(number))
            archive.addfile(info, io.BytesIO(picture(number)))
    shard = list_shards([f"{tmp_path}/pool/*.tar"], "")[0][0]
    names = [(shard.shard, key) for key in sorted(keys)]
    pool = Location.of(f"{tmp_path}/drawn")
    write_pool(f"{tmp_path}/pool/*.tar", names, pool, ImageConfig(size=16))
    found = list_shards([f"{pool}/*.tar"], pool.url)[0]
    items = [item for shard in found for item in read_shard(shard, ImageConfig(size=16))]
    assert {item.key: item.data for item in items} == {key: picture(number) for number, key in enumerate(keys)}


@pytest.mark.heavy
def test_small_learns_from_pixels_and_begins_with_the_weights_of_its_seed(
    tmp_path: Path,
) -> None:
    experiment = read(tmp_path, write_files(tmp_path))
    setup = setup_of(load(experiment), experiment, 0)
    labelled, training = setup.pool.take(setup.first), Training("small", 2, seed=0, steps=15)
    found = [judge(training, labelled, labelled.label_N, setup.test, None) for _ in range(2)]
    assert found[0] == found[1]
    assert found[0].value >= 0.9


def test_both_kinds_of_input_meet_by_their_names(tmp_path: Path) -> None:
    text = write_files(tmp_path).replace('"small"', '"small", "knn"')
    write_vectors(tmp_path / "s0.parquet", [*reversed(KEYS[:20]), "unknown"])
    text = (
        text.replace("pool/*.tar", "pool/s0.tar").replace("size = 10", "size = 4").replace("budget = 5", "budget = 1")
    )
    with_vectors = text.replace("[oracle]", f'embeddings = "{tmp_path}/s0.parquet"\n[oracle]')
    shard = tmp_path / "pool/s0.tar"
    shard.rename(shard.with_name("s.tar"))
    (tmp_path / "labels.csv").write_text((tmp_path / "labels.csv").read_text().replace("s0.tar", "s.tar"))
    world = load(read(tmp_path, with_vectors.replace("s0.tar", "s.tar")))
    assert world.items.vector_ND.shape == (20, 4)
    assert world.items.pixel_NSSC.shape == (20, 16, 16, 3)
    only = load(read(tmp_path, text.replace('"small", "knn"', '"small"').replace("s0.tar", "s.tar")))
    assert only.items.vector_ND.shape == (20, 0)
    # The first image has the vector of the row with its name, which is the last but one.
    vectors = np.random.default_rng(0).normal(size=(21, 4)).astype(np.float32)
    assert (world.items.vector_ND[0] == vectors[19]).all()
