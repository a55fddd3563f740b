"""Whatever is given to be ingested: it is taken as meant, or refused in one line that names the file and the fix, and
nothing is written."""

import io
import json
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from engine.campaign.folder import Campaign
from engine.campaign.labels import labelled_values
from engine.errors import InputError
from engine.handoff import VENDORS, answer_files
from engine.handoff.ingest import Ingested
from tests.replies import REPLIES, zipped
from tests.sendings import hand_out, take_in
from tests.small import copied, make_small

IDS = {"a" * 32: ("s-1.tar", "016"), "b" * 32: ("s-1.tar", "017"), "c" * 32: ("s-2.tar", "033")}
RIGHT = dict(zip(IDS, ("kettle", "teapot", "kettle"), strict=True))
SETTINGS = {"handoff__question__classes": ["kettle", "teapot"]}
Sent = Callable[[str], Campaign]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    return make_small(tmp_path_factory.mktemp("refused"))


@pytest.fixture
def sent(base: Campaign, tmp_path: Path) -> Sent:
    """A campaign whose three images are out at a vendor."""

    def make(vendor: str) -> Campaign:
        task = {"handoff__question__task": "boxes"} if vendor == "coco" else {}
        campaign = copied(base, tmp_path / "campaign", **SETTINGS, **task)
        hand_out(campaign, IDS, vendor=vendor)
        return campaign

    return make


def given(folder: Path, files: dict[str, bytes]) -> Path:
    """The only file, or the folder of the files."""
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder / next(iter(files)) if len(files) == 1 else folder


def classes(campaign: Campaign) -> dict[str, str]:
    """What is labelled, by item_id: the class, or that of the only box."""
    labels = labelled_values(campaign.home)
    found = {item_id: labels[item] for item_id, item in IDS.items() if item in labels}
    if campaign.config.handoff.question.task == "boxes":
        return {item_id: json.loads(text)[0]["label"] for item_id, text in found.items()}
    return found


def refused(campaign: Campaign, file: object, vendor: str, **rules: bool) -> str:
    """The line by which a file is refused; nothing changes."""
    before = sorted(Path(campaign.home.path).rglob("*"))
    lines: list[str] = []
    with pytest.raises(InputError) as caught:
        take_in(campaign, file, vendor, log=lines.append, **rules)
    assert sorted(Path(campaign.home.path).rglob("*")) == before
    # The rows, each reason once, and what to do.
    text = " | ".join([str(caught.value), *lines])
    assert "\n" not in text
    assert ";" in text
    return text


def test_every_vendor_has_a_reply() -> None:
    assert set(REPLIES) == set(VENDORS)


@pytest.mark.parametrize("vendor", VENDORS)
def test_the_same_comes_of_files_a_folder_and_an_archive(sent: Sent, tmp_path: Path, vendor: str) -> None:
    files = REPLIES[vendor](RIGHT)
    # What lies around: other programs' files, and below an outer folder.
    around = {f"vendor export/{path}": content for path, content in files.items()}
    around |= {"README.md": b"# export\n", "__MACOSX/._x": b"\0\5\26\7", "vendor export/empty": b""}
    campaign = sent(vendor)
    found = take_in(campaign, given(tmp_path / "in", around), vendor)
    assert (found.new, found.votes) == (3, 3)
    assert classes(campaign) == RIGHT
    for name, archive in {"a.zip": zipped(around), "b.ZIP": zipped(files)}.items():
        again = take_in(campaign, given(tmp_path, {name: archive}), vendor)
        assert (again.new, again.votes, again.repeated, again.replaced) == (0, 0, 3, 0)
    # The vendor's archive, downloaded into a folder.
    assert take_in(campaign, given(tmp_path / "downloads", {"x/a.zip": zipped(files), "note": b"x"}), vendor)[:2] == (
        0,
        3,
    )


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_file_of_another_vendor_is_recognised_and_its_vendor_named(sent: Sent, tmp_path: Path, vendor: str) -> None:
    """Also in a folder, behind files of nobody, and in an archive."""
    campaign = sent("generic" if vendor != "generic" else "tsv")
    asked = "generic" if vendor != "generic" else "tsv"
    files = REPLIES[vendor](RIGHT)
    message = f"looks like a file of {vendor}, not of {asked}; use --from {vendor}"
    path, content = next(iter(files.items()))
    assert message in refused(campaign, given(tmp_path / "one", {path: content}), asked)
    around = {"AAA README.txt": b"Hello", **files}
    folder = given(tmp_path / "in", around)
    assert message in refused(campaign, folder, asked)
    assert message in refused(campaign, given(tmp_path, {"in.zip": zipped(around)}), asked)


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_class_that_was_not_asked_for_is_refused_from_every_vendor(sent: Sent, tmp_path: Path, vendor: str) -> None:
    campaign = sent(vendor)
    wrong = dict(zip(IDS, ("kettle", "ktetle", "dragon"), strict=True))
    given(tmp_path / "in", REPLIES[vendor](wrong))
    text = refused(campaign, tmp_path / "in", vendor)
    assert text.startswith("2 rows do not fit; nothing was taken in: correct them, or take the others: --accept-rest; ")
    assert text.count("handoff.question.classes has kettle, teapot; to allow ") == 1
    # Both at once, each with its place and what could be meant.
    assert text.count("is not one of handoff.question.classes") == 2
    assert "'ktetle' is not one of handoff.question.classes; did you mean 'kettle'?" in text
    assert "'dragon'" in text
    lines: list[str] = []
    found = take_in(campaign, tmp_path / "in", vendor, log=lines.append, accept_rest=True)
    assert (found.new, found.votes, len(found.refused)) == (1, 1, 2)
    assert len([line for line in lines if line.startswith("refused: ")]) == 2
    assert classes(campaign) == {"a" * 32: "kettle"}


@pytest.mark.parametrize("vendor", VENDORS)
def test_answers_for_another_campaigns_images_are_refused_in_one_line(sent: Sent, tmp_path: Path, vendor: str) -> None:
    campaign = sent(vendor)
    given(tmp_path / "in", REPLIES[vendor]({"a" * 32: "kettle", "e" * 32: "kettle", "f" * 32: "teapot"}))
    text = refused(campaign, tmp_path / "in", vendor)
    assert "the first of 2 answers, of 3 in all, for images that this campaign never handed out (" in text
    assert "that several campaigns share, or test images: remove these rows, or take the others: --accept-rest" in text
    lines: list[str] = []
    found = take_in(campaign, tmp_path / "in", vendor, log=lines.append, accept_rest=True)
    assert (found.new, len(found.refused), sum("refused: " in line for line in lines)) == (1, 2, 1)
    whole = given(tmp_path / "whole", REPLIES[vendor]({number * 32: "kettle" for number in "ef0123"}))
    assert " and 3 more); most likely the file is of another campaign" in refused(campaign, whole, vendor)
    # None of them fits: nothing to be accepted, and nothing is written.
    others = tmp_path / "others"
    given(others, REPLIES[vendor]({"e" * 32: "kettle"}))
    votes = sorted(Path(campaign.home.path, "votes").iterdir())
    assert take_in(campaign, others, vendor, accept_rest=True)[:4] == (0, 0, 0, 0)
    assert sorted(Path(campaign.home.path, "votes").iterdir()) == votes


@pytest.mark.parametrize("vendor", VENDORS)
def test_cut_off_empty_and_in_other_encodings(sent: Sent, tmp_path: Path, vendor: str) -> None:
    if vendor == "imagefolder":
        pytest.skip("its answer is where a file lies")
    campaign = sent(vendor)
    path, content = next(iter(REPLIES[vendor](RIGHT).items()))
    text = content.decode()
    bad = {
        "cut": content.rstrip()[:-7],
        "empty": b"",
        "utf-16": text.encode("utf-16"),
        "mixed": text.replace("kettle", "k\u00e9ttle", 1).encode("latin-1"),
        "zeros": content + b"\0" * 100,
    }
    if vendor == "cvat":
        # XML says itself how it is encoded.
        del bad["utf-16"]
    for name, damaged in bad.items():
        file = given(tmp_path / name, {path: damaged})
        assert str(file) in refused(campaign, file, vendor)


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_folder_or_an_archive_without_answers(sent: Sent, tmp_path: Path, vendor: str) -> None:
    campaign = sent(vendor)
    (tmp_path / "nothing/below").mkdir(parents=True)
    given(tmp_path / "other", {"README": b"hello", "x/y.bin": b"\0\1"})
    for name, archive in {"nothing.zip": zipped({}), "other.zip": zipped({"README": b"hello"})}.items():
        given(tmp_path, {name: archive})
    for name in ("nothing", "other", "nothing.zip", "other.zip"):
        message = f"{tmp_path / name}: no file of {vendor} in it; give what the vendor exported"
        assert refused(campaign, tmp_path / name, vendor) == message
    assert refused(campaign, tmp_path / "gone", vendor).startswith(f"{tmp_path / 'gone'}: does not exist; give")


def damaged_archives() -> dict[str, tuple[bytes, str]]:
    """Archives that cannot be read, and why not."""
    good = zipped(REPLIES["generic"](RIGHT))
    # A bit of the packed bytes, and one of the check sum in the directory.
    spoilt, wrong_sum = bytearray(good), bytearray(good)
    spoilt[60] ^= 0xFF
    wrong_sum[good.index(b"PK\1\2") + 16] ^= 1
    encrypted = bytearray(good)
    for start in (good.index(b"PK\3\4") + 6, good.index(b"PK\1\2") + 8):
        encrypted[start] |= 1
    method = bytearray(good)
    for start in (good.index(b"PK\3\4") + 8, good.index(b"PK\1\2") + 10):
        method[start] = 99
    return {
        "cut": (good[:-30], "not a whole zip archive"),
        "none": (b"hello", "not a whole zip archive"),
        "empty": (b"", "not a whole zip archive"),
        "spoilt": (bytes(spoilt), "cannot be read"),
        "sum": (bytes(wrong_sum), "cannot be read: Bad CRC-32"),
        "encrypted": (bytes(encrypted), "cannot be read"),
        "method": (bytes(method), "cannot be read"),
        "nested": (zipped({"README": b"x", "in/b.zip": good}), "/in/b.zip: an archive in an archive; unpack"),
    }


@pytest.mark.parametrize("name", damaged_archives())
def test_archives_that_cannot_be_read(sent: Sent, tmp_path: Path, name: str) -> None:
    content, message = damaged_archives()[name]
    file = given(tmp_path, {"answers.zip": content})
    text = refused(sent("generic"), file, "generic")
    assert text.startswith(str(file))
    assert message in text


def test_damage_late_in_an_archive_is_found_while_it_is_read(sent: Sent, tmp_path: Path) -> None:
    """The first bytes say whose it is; what comes later is only read with the answers."""
    row = json.dumps({"item_id": next(iter(IDS)), "label": "kettle"}).encode() + b"\n"
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("answers.jsonl", row * 50_000)
    damaged = content.getvalue().replace(b"kettle", b"teapot").replace(b"teapot", b"kettle", 49_999)
    text = refused(sent("generic"), given(tmp_path, {"a.zip": damaged}), "generic", accept_rest=True)
    assert "a.zip/answers.jsonl: cannot be read: Bad CRC-32" in text


def test_a_bomb_is_not_unpacked(sent: Sent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.csv", "w") as member:
        member.write(b"item_id,label\n" + b"a" * 32 + b",")
        for _ in range(70):
            member.write(b"k" * (1 << 20))
    campaign, file = sent("generic"), given(tmp_path, {"a.zip": content.getvalue()})
    assert len(content.getvalue()) < 100_000
    read = []
    monkeypatch.setattr(answer_files, "_Stream", spy := _counting(answer_files._Stream, read))
    assert "bytes that unpack to 73,400,367; if that is right, unpack" in refused(campaign, file, "generic")
    assert spy
    assert sum(read) < 1 << 20


def _counting(stream: type[Any], read: list[int]) -> type[Any]:
    class Counting(stream):  # type: ignore[misc]
        def readinto(self, buffer: Any) -> int:
            count = int(super().readinto(buffer))
            read.append(count)
            return count

    return Counting


def test_names_that_lead_out_of_an_archive_write_nothing_outside(sent: Sent, tmp_path: Path) -> None:
    item_id = next(iter(IDS))
    names = (f"../../{item_id}.png", f"/kettle/{item_id}.png", f"../kettle/{item_id}.png", f"C:\\kettle\\{item_id}.png")
    (_, png), *_ = REPLIES["imagefolder"](RIGHT).items()
    campaign = sent("imagefolder")
    for number, name in enumerate(names):
        file = given(tmp_path / "in", {f"{number}.zip": zipped({name: png})})
        before = sorted(path for path in tmp_path.rglob("*") if not path.is_relative_to(campaign.home.path))
        with suppress(InputError):
            take_in(campaign, file, "imagefolder")
        assert sorted(p for p in tmp_path.rglob("*") if not p.is_relative_to(campaign.home.path)) == before


def test_masks_come_from_beside_their_file_and_nowhere_else(base: Campaign, tmp_path: Path) -> None:
    campaign = copied(base, tmp_path / "campaign", handoff__question__task="mask", **SETTINGS)
    hand_out(campaign, IDS, vendor="label-studio")
    secret = given(tmp_path, {"secret.png": b"\x89PNG\r\n\x1a\n secret"})
    for name in ("../secret.png", str(secret), "x/../../secret.png"):
        row = {"item_id": next(iter(IDS)), "label": [{"label": "kettle", "mask": name}]}
        text = refused(campaign, given(tmp_path / "in", {"a.jsonl": json.dumps(row).encode()}), "generic")
        assert "mask" in text
    assert not Path(campaign.home.path, "votes").exists()


def test_every_reason_is_said_once_in_the_log_and_their_number_in_the_error(sent: Sent, tmp_path: Path) -> None:
    campaign = sent("generic")
    first, *rows = ({"item_id": min(IDS), "label": f"x{n}", "annotator": f"p{n}"} for n in range(1501))
    rows = [first | {"label": "kettle"}, *rows]
    file = given(tmp_path, {"a.jsonl": "\n".join(map(json.dumps, rows)).encode()})
    lines: list[str] = []
    with pytest.raises(InputError, match=r"^1,500 rows do not fit; nothing was taken in: .*--accept-rest; "):
        take_in(campaign, file, log=lines.append)
    assert len([line for line in lines if line.startswith(f"refused: {file}: line ")]) == 1000
    assert lines[-1] == "... and 500 more reasons"
    found: Ingested = take_in(campaign, file, accept_rest=True)
    assert (found.new, len(found.refused)) == (1, 1500)
    (name,) = Path(campaign.home.path, "votes").iterdir()
    assert len(pq.read_table(name)) == 1
