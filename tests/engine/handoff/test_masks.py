"""A mask that comes as a file is kept, if it is an image and not too large."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.campaign.decisions import FORGOTTEN, USER, decide
from engine.campaign.votes import files_of_votes
from engine.errors import InputError
from engine.handoff.exchange import Answer, AnswerFile
from engine.handoff.masks import Found, with_masks
from tests.conftest import MakeCampaign
from tests.masks import jpeg
from tests.rounds import encoded
from tests.sendings import hand_out, take_in

PNG = encoded(np.zeros((1, 1), np.uint8))


@pytest.mark.parametrize(
    ("content", "most", "fault"),
    [(PNG, len(PNG), ""), (PNG, len(PNG) - 1, "has more than 0 MiB"), (b"text", 100, "is no image")],
)
def test_a_mask_in_an_archive_is_kept_or_refused(
    make_campaign: MakeCampaign, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, most: int, fault: str
) -> None:
    campaign = make_campaign("handoff.question.task=mask")
    hand_out(campaign, {"aa": ("digits-00001.tar", "k1")})
    monkeypatch.setattr("engine.handoff.masks.MOST_BYTES", most)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a.jsonl", json.dumps({"item_id": "aa", "label": [{"label": "cat", "mask": "m.png"}]}))
        archive.writestr("m.png", content)
    (tmp_path / "a.zip").write_bytes(stream.getvalue())
    if fault:
        with pytest.raises(InputError, match=f"a.zip/a.jsonl: line 1: mask 'm.png' {fault}; give a"):
            take_in(campaign, tmp_path / "a.zip")
        assert files_of_votes(campaign.home) == []
        assert not (campaign.home / "votes/masks").children()
    else:
        assert take_in(campaign, tmp_path / "a.zip").new == 1
        assert len((campaign.home / "votes/masks").children()) == 1


@pytest.mark.parametrize("name", ["../secret.png", "/secret.png", "a/../../secret.png"])
def test_a_mask_that_leads_out_of_its_folder_is_not_looked_for(name: str) -> None:
    """Whatever a vendor's reader lets through."""
    answer = Answer("line 1", "a", [{"label": "kettle", "mask": name}])
    file = AnswerFile("answers.json", "answers.json", lambda: io.BytesIO(), lambda path: pytest.fail(path))
    masks = Found()
    found = with_masks(answer, file, masks, (1, 1))
    assert found.fault == f"mask {name!r}: leads out of the folder; put it beside answers.json"
    assert not masks


def test_a_mask_of_a_file_that_is_refused_is_not_kept(make_campaign: MakeCampaign, tmp_path: Path) -> None:
    campaign = make_campaign("handoff.question.task=mask")
    hand_out(campaign, {"aa": ("digits-00001.tar", "k1")})
    rows = [{"item_id": name, "label": [{"label": "cat", "mask": f"{name}.png"}]} for name in ("aa", "unknown")]
    for row in rows:
        (tmp_path / f"{row['item_id']}.png").write_bytes(PNG + str(row).encode())
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(InputError, match="was never handed out"):
        take_in(campaign, tmp_path / "a.jsonl")
    assert not (campaign.home / "votes/masks").children()
    assert take_in(campaign, tmp_path / "a.jsonl", accept_rest=True).new == 1
    (mask,) = (campaign.home / "votes/masks").children()
    assert (campaign.home / f"votes/masks/{mask}").read_bytes() == (tmp_path / "aa.png").read_bytes()


def test_a_mask_of_an_image_that_was_forgotten_is_not_kept(make_campaign: MakeCampaign, tmp_path: Path) -> None:
    campaign = make_campaign("handoff.question.task=mask")
    hand_out(campaign, {"aa": ("digits-00001.tar", "k1")})
    decide(campaign.home, FORGOTTEN, [("aa", "digits-00001.tar", "k1", None)], USER)
    (tmp_path / "m.png").write_bytes(PNG)
    (tmp_path / "a.jsonl").write_text(json.dumps({"item_id": "aa", "label": [{"label": "cat", "mask": "m.png"}]}))
    take_in(campaign, tmp_path / "a.jsonl")
    assert not (campaign.home / "votes/masks").children()


@pytest.mark.parametrize(
    ("pixels", "label", "fault"),
    [
        (np.uint8([[0, 1]]), "", ""),
        (np.uint8([[0, 2]]), "", r"mask 'm.png' has ids 2 \(50.0% of the pixels\); those of the 2 classes are 0 to 1"),
        (np.uint8([[0, 2]]), "cat", ""),
        (np.uint8([[0, 1, 2]]), "cat", "mask 'm.png' is of one class and has the ids 0, 1, 2; give 0 and another"),
        (
            np.zeros((1, 2, 3), np.uint8),
            "",
            r"mask 'm.png' is a picture in colours \(RGB\), which are no ids; give a PNG",
        ),
    ],
)
def test_a_mask_that_no_task_learner_could_read_is_refused(
    make_campaign: MakeCampaign, tmp_path: Path, pixels: Any, label: str, fault: str
) -> None:
    campaign = make_campaign(
        "train.task=segmentation", 'handoff.question={task = "mask", classes = ["cat", "dog"]}', "image.size=16"
    )
    hand_out(campaign, {"aa": ("digits-00001.tar", "k1")}, sides=pixels.shape[:2])
    (tmp_path / "m.png").write_bytes(encoded(pixels))
    value = [{"label": label, "mask": "m.png"}] if label else "m.png"
    (tmp_path / "a.jsonl").write_text(json.dumps({"item_id": "aa", "label": value}))
    if fault:
        with pytest.raises(InputError, match=f"a.jsonl: line 1: {fault}"):
            take_in(campaign, tmp_path / "a.jsonl")
        assert not (campaign.home / "votes/masks").children()
    else:
        assert take_in(campaign, tmp_path / "a.jsonl").new == 1


LEARNS = ("train.task=segmentation", "image.size=16")
ASKS = 'handoff.question={task = "mask", classes = ["cat", "dog"]}'
FITS, OTHER = encoded(np.ones((3, 4), np.uint8)), encoded(np.ones((45, 60), np.uint8))


@pytest.mark.parametrize("settings", [(*LEARNS, ASKS), (ASKS,)], ids=["it is learned", "it is not learned yet"])
def test_a_mask_of_another_size_is_refused_and_the_others_are_taken(
    make_campaign: MakeCampaign, tmp_path: Path, settings: tuple[str, ...]
) -> None:
    """It would be paid, and no training could use it."""
    campaign = make_campaign(*settings)
    hand_out(campaign, {name: ("digits-00001.tar", name) for name in ("aa", "bb", "cc")}, sides=(3, 4))
    values = ["small.png", "fits.png", [{"label": "cat", "mask": "small.png"}]]
    rows = [{"file": f"images/{n}.png", "label": v} for n, v in zip(("aa", "bb", "cc"), values, strict=True)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "small.png").write_bytes(OTHER)
    (tmp_path / "fits.png").write_bytes(FITS)
    said: list[str] = []
    why = "mask 'small.png' has 60 x 45 pixels, and its image has 4 x 3; give the mask at the size of the image"
    with pytest.raises(InputError, match="2 rows do not fit; nothing was taken in"):
        take_in(campaign, tmp_path / "a.jsonl", log=said.append)
    assert f"refused: {tmp_path}/a.jsonl: line 1 and 1 more: {why}" in said
    assert not files_of_votes(campaign.home)
    found = take_in(campaign, tmp_path / "a.jsonl", accept_rest=True)
    assert (found.new, found.out, len(found.refused)) == (1, 2, 2)
    assert len((campaign.home / "votes/masks").children()) == 1
    # The image waits: the mask can come again.
    (tmp_path / "small.png").write_bytes(FITS)
    assert take_in(campaign, tmp_path / "a.jsonl").new == 2


@pytest.mark.parametrize(
    ("shape", "fault"),
    [
        ({"label": "cat", "polygon": [[0, 0], [4, 0], [4, 3]]}, ""),
        ({"label": "cat", "mask": {"counts": [2, 10], "size": [3, 4]}}, ""),
        (
            {"label": "cat", "mask": {"counts": [2, 10], "size": [4, 3]}},
            "label has a shape of an image of 3 x 4 pixels",
        ),
        ({"label": "cat", "mask": {"counts": [2, 99], "size": [3, 4]}}, "label has run lengths of 101 pixels"),
        ({"label": "cat", "mask": {"odd": 1}}, "label has a shape of a form that is not read"),
        ({"label": "owl", "polygon": [[0, 0], [4, 0], [4, 3]]}, "label 'owl' is not one of handoff.question.classes"),
        ({"label": "cat", "mask": "m.png"}, "mask 'm.png' is a JPEG, whose compression changes the ids of pixels"),
    ],
)
def test_what_training_would_refuse_is_refused_when_it_comes(
    make_campaign: MakeCampaign, tmp_path: Path, shape: dict[str, Any], fault: str
) -> None:
    campaign = make_campaign(*LEARNS, ASKS)
    hand_out(campaign, {"aa": ("digits-00001.tar", "k1")}, sides=(3, 4))
    (tmp_path / "m.png").write_bytes(jpeg(np.ones((3, 4), np.uint8)))
    (tmp_path / "a.jsonl").write_text(json.dumps({"item_id": "aa", "label": [shape]}))
    if fault:
        with pytest.raises(InputError, match=f"a.jsonl: line 1: {fault}"):
            take_in(campaign, tmp_path / "a.jsonl")
    else:
        assert take_in(campaign, tmp_path / "a.jsonl").new == 1
