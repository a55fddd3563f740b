"""Files and rows that do not fit are refused whole, by name, and with all reasons; nothing is taken in then."""

import io
import json
import zipfile
from pathlib import Path

import pytest

from engine.campaign.folder import Campaign
from engine.campaign.labels import labelled_values, labels_fingerprints
from engine.campaign.votes import VOTES_SCHEMA, files_of_votes, read_votes
from engine.errors import InputError
from engine.handoff import VENDORS
from engine.handoff.answers import Asked, Known, Place, Sieve
from engine.handoff.exchange import Answer, Question
from tests.conftest import MakeCampaign
from tests.sendings import hand_out, take_in

ITEMS = {name: ("digits-00001.tar", f"k{number}") for number, name in enumerate(("aa", "bb", "cc"))}
ANSWERS = "item_id,label\naa,cat\nbb,dog\n"
COCO = {"images": [{"id": 1, "file_name": "images/aa.png"}], "annotations": [], "categories": []}
LABEL_STUDIO = [{"id": 1, "data": {"item_id": "aa"}, "annotations": [], "total_annotations": 0}]


@pytest.fixture
def sent(make_campaign: MakeCampaign) -> Campaign:
    campaign = make_campaign("handoff.question.classes=['cat','dog']")
    hand_out(campaign, ITEMS)
    return campaign


def zipped(files: dict[str, str | bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def labels_of(campaign: Campaign) -> str:
    values = labelled_values(campaign.home)
    return " ".join(f"{name}={values[item]}" for name, item in ITEMS.items() if item in values)


def refusal(campaign: Campaign, file: Path, vendor: str = "generic") -> str:
    """The one line that a file is refused with, which names it and changes nothing."""
    before = labels_fingerprints(campaign.home)
    with pytest.raises(InputError) as caught:
        take_in(campaign, file, vendor)
    assert labels_fingerprints(campaign.home) == before
    assert files_of_votes(campaign.home) == []
    text = str(caught.value)
    assert file.name in text
    assert "\n" not in text
    return text


def test_all_reasons_are_given_at_once_and_the_rest_is_taken_where_asked(sent: Campaign, tmp_path: Path) -> None:
    file = tmp_path / "answers.csv"
    file.write_text("item_id,label\naa,cat\nee,cat\nbb,owl\naa,dog\n")
    text = refusal(sent, file)
    assert text.startswith("3 rows do not fit: ")
    reasons = (
        "line 3: item_id 'ee' was never handed out by this campaign",
        "line 4: label 'owl' is not one of",
        "line 5",
    )
    assert [text.index(reason) for reason in reasons] == sorted(text.index(reason) for reason in reasons)
    assert "--accept-rest" in text
    lines: list[str] = []
    found = take_in(sent, file, log=lines.append, accept_rest=True)
    assert (found.new, len(found.refused), labels_of(sent)) == (1, 3, "aa=cat")
    assert len([line for line in lines if line.startswith("refused: ")]) == 3


def test_ids_of_another_campaign_are_refused(sent: Campaign, make_campaign: MakeCampaign, tmp_path: Path) -> None:
    other = make_campaign(name="other")
    hand_out(other, {"a" * 32: ("digits-00001.tar", "k1")})
    file = tmp_path / "answers.csv"
    file.write_text(f"item_id,label\n{'a' * 32},cat\n")
    assert "was never handed out by this campaign; remove it" in refusal(sent, file)
    assert take_in(other, file).new == 1


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize(("task", "value"), [
    ("class", "owl"), ("classes", ["cat", "owl"]), ("boxes", [{"label": "owl", "box": [0, 0, 1, 1]}]),
    ("mask", [{"label": "owl", "mask": {"counts": "", "size": [1, 1]}}]),
])  # fmt: skip
def test_a_class_that_is_not_in_the_question_is_refused_whoever_sends_it(vendor: str, task: str, value: object) -> None:
    question = Question(task, ["cat", "dog"])  # type: ignore[arg-type]
    asked = Asked(vendor, "00" * 16, question, VENDORS[vendor].is_snapshot, "handoff.question.classes")
    known = Known(VOTES_SCHEMA.empty_table(), set())
    sieve = Sieve(asked, {"aa": Place(None, stands=False, word_votes=0, is_gold=False)}, known, replace=False)
    sieve.take(Answer("task 1", "aa", value), "file: task 1")  # type: ignore[arg-type]
    (reason,) = sieve.refused
    assert reason.startswith("file: task 1: label 'owl' is not one of handoff.question.classes, cat, dog; ")
    assert "--set handoff.question.classes=[...]" in reason
    assert len(sieve.votes) == 0


@pytest.mark.parametrize(
    ("name", "content", "vendor", "reason"),
    [
        ("a.csv", "", "generic", "a.csv"),
        ("a.jsonl", "", "generic", "no rows"),
        ("a.csv", "item_id,label\n", "generic", "no rows"),
        ("a.csv", b"item_id,label\naa,caf\xe9\n", "generic", "UTF-8|utf-8"),
        ("a.jsonl", b'{"item_id": "aa", "label": "cat"}\n{"item_id": "bb", "la', "generic", "line 2"),
        ("a.json", json.dumps(LABEL_STUDIO)[:-9], "label-studio", "a.json"),
        ("a.json", "", "label-studio", "a.json"),
        ("a.json", b"\xff\xfe[\x00]\x00", "coco", "a.json"),
        ("a.json", json.dumps(COCO), "label-studio", "looks like a file of coco, not of label-studio; use --from coco"),
        ("a.json", json.dumps(LABEL_STUDIO), "coco", "use --from label-studio"),
        ("a.csv", ANSWERS, "cvat", "looks like a file of generic, not of cvat; use --from generic"),
        ("a.zip", zipped({"a.csv": ANSWERS})[:-30], "generic", "not a whole zip archive"),
        ("a.zip", b"item_id,label\n", "generic", "not a whole zip archive"),
        ("a.zip", zipped({"inner.zip": zipped({"a.csv": ANSWERS})}), "generic", "inner.zip: an archive in an archive"),
        ("a.zip", zipped({"b.csv": ANSWERS, "i.ZIP": b"PK"}), "generic", "i.ZIP: an archive in an archive"),
        ("a.zip", zipped({"a.txt": "text"}), "generic", "no file of generic in it"),
        ("a.zip", zipped({}), "generic", "no file of generic in it"),
        ("a.zip", zipped({"x/a.json": json.dumps(COCO)}), "cvat", "use --from coco"),
    ],
)
def test_what_is_no_whole_file_of_the_vendor_is_named(
    sent: Campaign, tmp_path: Path, name: str, content: str | bytes, vendor: str, reason: str
) -> None:
    file = tmp_path / name
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    text = refusal(sent, file, vendor)
    assert any(part in text for part in reason.split("|"))


@pytest.mark.parametrize("place", [60, 3000])
def test_an_archive_that_is_damaged_inside_is_named(sent: Campaign, tmp_path: Path, place: int) -> None:
    """At its beginning, which is looked at first, and in the middle of a member."""
    rows = "".join(f"aa,cat,{number * 7919 % 1000003}\n" for number in range(30_000))
    content = bytearray(zipped({"a.csv": "item_id,label,note\n" + rows}))
    place = 60 if place == 60 else len(content) * 9 // 10
    content[place : place + 40] = b"\xff" * 40
    (tmp_path / "a.zip").write_bytes(content)
    text = refusal(sent, tmp_path / "a.zip")
    assert "damaged" in text or "line" in text


def test_what_does_not_exist_or_holds_nothing_is_named(sent: Campaign, tmp_path: Path) -> None:
    (tmp_path / "empty" / "deeper").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("nothing here")
    assert "does not exist" in refusal(sent, tmp_path / "nothing.csv")
    for folder in ("empty", "other"):
        assert "no file of generic in it; give what the vendor exported" in refusal(sent, tmp_path / folder)


def test_folders_and_archives_in_them_are_read_and_other_files_passed_over(sent: Campaign, tmp_path: Path) -> None:
    folder = tmp_path / "export"
    (folder / "deeper").mkdir(parents=True)
    (folder / "notes.txt").write_text("hello")
    (folder / "a.csv").write_text("item_id,label\naa,cat\n")
    (folder / "deeper" / "b.csv").write_text("item_id,label\nbb,dog\n")
    (folder / "deeper" / "c.zip").write_bytes(zipped({"x/c.csv": "item_id,label\ncc,dog\n", "readme.md": "#"}))
    assert take_in(sent, folder).new == 3
    assert labels_of(sent) == "aa=cat bb=dog cc=dog"
    (tmp_path / "all.zip").write_bytes(zipped({"a.csv": "item_id,label\naa,cat\n"}))
    assert take_in(sent, tmp_path / "all.zip")[:2] == (0, 1)


def test_of_an_archive_that_would_fill_the_disk_no_more_is_read_than_is_needed(sent: Campaign, tmp_path: Path) -> None:
    bomb = zipped({"a.csv": "item_id,label\n" + "aa,owl\n" + "\n" * (64 << 20)})
    assert len(bomb) < 200_000
    (tmp_path / "a.zip").write_bytes(bomb)
    # Empty rows are none; they come and go.
    assert "'owl' is not one of" in refusal(sent, tmp_path / "a.zip")


@pytest.fixture
def masks(make_campaign: MakeCampaign) -> Campaign:
    campaign = make_campaign("handoff.question.task=mask")
    hand_out(campaign, ITEMS)
    return campaign


def png() -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.new("L", (2, 2)).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize("name", ["../secret.png", "x/../../secret.png", "{outside}", "..\\secret.png", "file://x.png"])
def test_a_mask_outside_of_the_folder_is_not_read(masks: Campaign, tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.png").write_bytes(png())
    (tmp_path / "answers").mkdir()
    file = tmp_path / "answers" / "answers.jsonl"
    mask = name.format(outside=tmp_path / "secret.png")
    file.write_text(json.dumps({"item_id": "aa", "label": [{"label": "cat", "mask": mask}]}) + "\n")
    text = refusal(masks, file)
    assert "put it beside" in text
    assert not (masks.home / "votes/masks").children()


def test_a_mask_that_is_too_large_is_refused(masks: Campaign, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.handoff.masks.MOST_BYTES", 100)
    row = json.dumps({"item_id": "aa", "label": [{"label": "cat", "mask": "aa.png"}]})
    (tmp_path / "a.zip").write_bytes(zipped({"a.jsonl": row, "aa.png": png() + bytes(1000)}))
    assert "has more than" in refusal(masks, tmp_path / "a.zip")
    (tmp_path / "b.zip").write_bytes(zipped({"a.jsonl": row, "aa.png": png()}))
    assert take_in(masks, tmp_path / "b.zip").new == 1
    assert len((masks.home / "votes/masks").children()) == 1
    assert len(read_votes(masks.home)) == 1
