"""Which files of a source an image of the result is, and what is reported of those that are absent or alike."""

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from engine.campaign.stages import Run
from engine.datasets.converting import convert
from engine.errors import InputError
from engine.storage.location import Location
from tests.trees import TREES, official, write

CALTECH = "256_ObjectCategories"
PLACES = [
    *((name, "", "") for name in TREES),
    ("caltech256", "", CALTECH),
    ("caltech256", "caltech256", ""),
    ("bdd100k", "bdd100k", ""),
    ("camvid", "CamVid", ""),
]
"""A data set, the folder of SOURCE that its tree lies in, and the folder of the tree that is SOURCE."""


def warnings_of(name: str, source: Path, folder: Path) -> list[str]:
    """Convert a data set. Returns what is logged of its files, without the numbers of official ones."""
    lines = list[str]()
    convert(name.split()[0], Location.of(str(source)), Location.of(str(folder)), 0, Run(log=lines.append))
    return [line for line in lines if "the official files have" not in line]


def sources(folder: Path, part: str) -> list[str]:
    found: list[str] = pq.read_table(folder / f"{part}-oracle.parquet")["source"].to_pylist()
    return found


@pytest.mark.parametrize(("name", "within", "given"), PLACES)
def test_the_source_of_an_image_is_the_path_of_its_file_below_the_given_folder(
    name: str, within: str, given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    official(monkeypatch)
    source, out = tmp_path / "in" / given, tmp_path / "out"
    tree = TREES[name](tmp_path / "in" / within)
    warnings_of(name, source, out)
    for part in tree:
        found = sources(out, part)
        assert found
        if name.startswith("cifar"):
            # Its files hold many images each.
            assert sorted(found) == sorted(tree[part])
        else:
            assert [path for path in found if not (source / path).is_file()] == []


def test_two_images_with_one_key_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    TREES["camvid"](tmp_path / "in")
    for part in ("train", "trainannot"):
        for number, name in enumerate(("a b.1 é.png", "a b_1 é.png")):
            (tmp_path / "in" / part / f"0001TP_00000{number}.png").rename(tmp_path / "in" / part / name)
    with pytest.raises(InputError) as refused:
        warnings_of("camvid", tmp_path / "in", tmp_path / "out")
    first, second = (f"{tmp_path}/in/train/a b{end}1 é.png" for end in "_.")
    why = f"has the key 'a b_1 é', and so has {second}: a dot in a name becomes _"
    assert str(refused.value) == f"{first}: {why}; rename one of the two, and its mask"
    assert not (tmp_path / "out").exists()


def test_names_of_images_with_a_class_may_differ_by_a_dot_alone(tmp_path: Path) -> None:
    tree = TREES["imagenet"](tmp_path / "in")
    folder = tmp_path / "in/train/n01440764"
    for number, name in enumerate(("a.b.JPEG", "a_b.JPEG")):
        (folder / f"n01440764_{number}.JPEG").rename(folder / name)
    warnings_of("imagenet", tmp_path / "in", tmp_path / "out")
    assert len(sources(tmp_path / "out", "train")) == len(tree["train"])


def test_classes_without_an_image_of_a_part_are_named(tmp_path: Path) -> None:
    out = f"warning: {tmp_path}/out has no image of"
    TREES["imagenet"](tmp_path / "in")
    assert warnings_of("imagenet", tmp_path / "in", tmp_path / "all") == []
    for wnid in ("n01440764", "n01484850"):
        shutil.rmtree(tmp_path / "in/val" / wnid)
    (image,) = (tmp_path / "in/val/n01443537").iterdir()
    for file in (tmp_path / "in/train/n01443537").iterdir():
        # Images of train that are in test too are left out.
        write(file, image.read_bytes())
    expected = [f"{out} train for 1 class: n01443537", f"{out} the test set for 2 classes: n01440764, n01484850"]
    for _ in ("converted", "complete already"):
        assert warnings_of("imagenet", tmp_path / "in", tmp_path / "out") == expected


def test_a_class_of_caltech_256_with_one_image_has_none_of_test(tmp_path: Path) -> None:
    TREES["caltech256"](tmp_path / "in")
    shutil.rmtree(tmp_path / "in" / CALTECH / "002.american-flag/more")
    for number in range(1, 5):
        (tmp_path / "in" / CALTECH / f"001.ak47/001_{number:04d}.jpg").unlink()
    line = f"warning: {tmp_path}/out has no image of the test set for 1 class: ak47"
    assert warnings_of("caltech256", tmp_path / "in", tmp_path / "out") == [line]


def test_masks_are_of_no_class_that_could_be_absent(tmp_path: Path) -> None:
    TREES["camvid"](tmp_path / "in")
    assert warnings_of("camvid", tmp_path / "in", tmp_path / "out") == []


@pytest.mark.parametrize(
    ("name", "folder", "end"),
    [("bdd100k", "images/10k/train", ".jpg"), ("camvid", "val", ".png"), ("camvid fastai", "images", ".png")],
)
def test_images_of_a_set_of_masks_with_another_ending_are_named(
    name: str, folder: str, end: str, tmp_path: Path
) -> None:
    TREES[name](tmp_path / "in")
    assert not [line for line in warnings_of(name, tmp_path / "in", tmp_path / "one") if "left out" in line]
    (tmp_path / "in" / folder / "other.JPEG").touch()
    (tmp_path / "in" / folder / "notes.txt").touch()
    lines = [line for line in warnings_of(name, tmp_path / "in", tmp_path / "two") if "left out" in line]
    place = tmp_path / "in" / folder
    assert lines == [f"warning: {place}: 1 image left out whose name does not end in {end}: other.JPEG"]


def test_a_name_in_valid_txt_may_have_spaces(tmp_path: Path) -> None:
    TREES["camvid fastai"](tmp_path / "in")
    name = (tmp_path / "in/valid.txt").read_text().splitlines()[0].removesuffix(".png")
    (tmp_path / f"in/images/{name}.png").rename(tmp_path / "in/images/a b.png")
    (tmp_path / f"in/labels/{name}_P.png").rename(tmp_path / "in/labels/a b_P.png")
    write(tmp_path / "in/valid.txt", (tmp_path / "in/valid.txt").read_bytes().replace(name.encode(), b"a b") + b"\n\n")
    warnings_of("camvid fastai", tmp_path / "in", tmp_path / "out")
    assert "images/a b.png" in sources(tmp_path / "out", "test")
