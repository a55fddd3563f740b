"""Lists of paths and URLs: what is there is packed, and what is not is a failure with its reason."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.errors import InputError
from engine.packing import web_images
from tests.packed import every_member, failures, fill, image, members, packed
from tests.web import web_server


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_images, "FIRST_WAIT_S", 0.01)


def write(file: Path, *lines: str) -> Path:
    file.write_text("\n".join(lines) + "\n")
    return file


def test_paths_of_a_list_are_packed_with_their_labels(tmp_path: Path) -> None:
    made = fill(tmp_path, ["in/a.jpg", "in/b.png", "c.png", "elsewhere/d.png"])
    (tmp_path / "lists").mkdir()
    rows = ["../in/a.jpg,cat", "../in/b.png,", f"{tmp_path}/c.png,dog", f"file://{tmp_path}/elsewhere/d.png,3"]
    _, contents = packed(write(tmp_path / "lists/l.csv", "path,label", *rows), tmp_path / "pool")
    root = str(tmp_path).lstrip("/")
    assert every_member(tmp_path / "pool") == {f"{root}/{name}": data for name, data in made.items()}
    assert contents.labels == {"cat": 1, "dog": 1, "3": 1}
    here = packed(write(tmp_path / "l.csv", "file,kind", "in/a.jpg,x"), tmp_path / "second", label_column="kind")
    assert (list(every_member(tmp_path / "second")), here[1].labels) == (["in/a.jpg"], {"x": 1})
    pq.write_table(pa.table({"url": ["in/b.png"]}), tmp_path / "l.parquet")
    packed(tmp_path / "l.parquet", tmp_path / "third")
    assert list(every_member(tmp_path / "third")) == ["in/b.png"]


def test_a_longer_list_adds_what_is_new(tmp_path: Path) -> None:
    made = fill(tmp_path, ["a.jpg", "a.png", "b.png"])
    packed(write(tmp_path / "l.csv", "path", "b.png", "a.jpg"), tmp_path / "pool")
    found, _ = packed(write(tmp_path / "l.csv", "path", "a.jpg", "b.png", "a.png"), tmp_path / "pool")
    assert (found.images, found.shards) == (1, ["shard-000001.tar"])
    files = members(tmp_path / "pool")
    assert list(files["shard-000000.tar"].values()) == [made["b.png"], made["a.jpg"]]
    (name,) = files["shard-000001.tar"]
    assert name.startswith("a-")


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        (["path", "a.png", "b.png", "./a.png"], r"l.csv: line 4: the same image as in line 2; keep one of them"),
        (["path,label", "a.png,x", ",y"], r"l.csv: line 3: no 'path'; correct the row"),
        (["place", "a.png"], r"l.csv: no column 'path' among 'place'"),
        (["path", "ftp://x/a.png"], r"l.csv: line 2: ftp://x/a.png: ftp:// is not read"),
        (["path"], r"l.csv: the list has no rows"),
        (["path,label", "a.png,x,y"], r"l.csv: line 2: 3 values for 2 columns"),
    ],
)
def test_a_list_with_a_fault_is_one_line_and_packs_nothing(lines: list[str], fault: str, tmp_path: Path) -> None:
    fill(tmp_path, ["a.png", "b.png"])
    with pytest.raises(InputError, match=fault):
        packed(write(tmp_path / "l.csv", *lines), tmp_path / "pool")
    assert not list((tmp_path / "pool").rglob("*"))


@pytest.mark.heavy
def test_urls_are_fetched_tried_again_and_refused_by_reason(tmp_path: Path) -> None:
    good = {f"{n}.png": image(n) for n in range(6)}
    good["photo"] = image(9, "JPEG")
    with web_server(good) as web:
        urls = {
            f"{web.url}/0.png": "", f"{web.url}/busy-2/1.png": "", f"{web.url}/photo?size=1&id=7": "",
            f"{web.url}/photo?size=2&id=7": "", f"{web.url}/gone.png": "Missing", f"{web.url}/page/2.png": "NotAnImage",
            f"{web.url}/status-403/3.png": "HttpError", f"{web.url}/busy-99/3.png": "HttpError",
            f"{web.url}/stall/4.png": "TimedOut", f"{web.url}/drip/4.png": "TimedOut",
            f"{web.url}/cut/5.png": "NoAnswer", "http://127.0.0.1:1/x.png": "NoAnswer",
            f"{tmp_path}/absent.png": "Missing",
        }  # fmt: skip
        source = write(tmp_path / "l.csv", "url", *urls)
        found, contents = packed(source, tmp_path / "pool", timeout=0.4)
        asked = web.asked.copy()
    assert failures(tmp_path / "pool") == {url: error for url, error in urls.items() if error}
    assert (found.images, found.failures) == (4, 9)
    data = list(every_member(tmp_path / "pool").values())
    assert data == [good["0.png"], good["1.png"], good["photo"], good["photo"]]
    assert (asked["/gone.png"], asked["/status-403/3.png"], asked["/busy-99/3.png"]) == (1, 1, web_images.TRIES)
    assert f"not there within 0.4 s (in each of {web_images.TRIES} tries)" in contents.examples["TimedOut"][0]
    assert "the server answers with a page (HTML)" in contents.examples["NotAnImage"][0]


def test_a_large_answer_is_cut_short_and_secrets_of_a_url_are_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_images, "MAX_BYTES", 1000)
    with web_server({"big.png": image(0) + bytes(2000)}) as web:
        source = write(tmp_path / "l.csv", "url", f"{web.url}/big.png?signature=SECRET")
        _, contents = packed(source, tmp_path / "pool")
    assert failures(tmp_path / "pool") == {f"{web.url}/big.png?***": "TooManyBytes"}
    assert "SECRET" not in str(contents)
