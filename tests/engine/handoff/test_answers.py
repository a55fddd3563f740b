"""Law 9: labels come back in any order, repeated or in parts; what does not fit is refused by name."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.campaign.folder import Campaign
from engine.campaign.labels import labelled_items, labelled_values, read_labels
from engine.campaign.opening import current_round
from engine.campaign.votes import annotator_hash, read_votes
from engine.config.toml import override
from engine.errors import InputError
from tests.conftest import MakeCampaign
from tests.sendings import hand_out, take_in


def write(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text)
    return folder / name


@pytest.fixture
def handed_out(make_campaign: MakeCampaign) -> Campaign:
    """A campaign with three items that were handed out in round 0."""
    campaign = make_campaign()
    hand_out(campaign, {name: ("digits-00001.tar", key) for name, key in (("aa", "k1"), ("bb", "k2"), ("cc", "k3"))})
    return campaign


def test_ingesting_twice_or_in_parts_changes_nothing(handed_out: Campaign, tmp_path: Path) -> None:
    campaign = handed_out
    first = write(tmp_path, "1.csv", "item_id,label,annotator\ncc,7,ann\naa,,\naa,8,bob\n")
    second = write(tmp_path, "2.jsonl", '{"item_id":"bb","label":9}\n{"item_id":"aa","label":"8"}\n')
    assert current_round(campaign.home) == 0
    assert take_in(campaign, first)[:8] == (2, 0, 1, 0, ["7", "8"], 1, 0, 0)
    assert current_round(campaign.home) == 0
    after = read_labels(campaign.home)
    assert take_in(campaign, first)[:8] == (0, 2, 1, 0, [], 1, 0, 0)
    assert read_labels(campaign.home) == after
    assert take_in(campaign, second)[:8] == (1, 1, 0, 0, ["9"], 0, 0, 0)
    rows = [row for row in read_labels(campaign.home).to_pylist() if row["round"] == 0]
    ann, bob = (annotator_hash(campaign.config.salt, "generic", name) for name in ("ann", "bob"))
    assert {(row["key"], row["label"], row["annotator"]) for row in rows} == {
        ("k1", "8", bob), ("k2", "9", None), ("k3", "7", ann),
    }  # fmt: skip
    assert len(read_votes(campaign.home)) == 4
    assert current_round(campaign.home) == 1
    assert {("digits-00001.tar", key) for key in ("k1", "k2", "k3")} <= labelled_items(campaign.home)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("item_id,label\naa,1\nzz,2\n", "line 3: item_id 'zz' was never handed out"),
        ("item_id,label\naa,1\naa,2\n", "line 3: item_id 'aa' is '2' here but '1' before"),
        ("item_id\naa\n", "no column 'label' among 'item_id'"),
        ("label\n1\n", "no column 'item_id' among 'label'"),
        ("item_id,label\n", "no rows"),
        ("", "the file is empty"),
        ("item_id,label,labelled_at\naa,1,yesterday\n", "labelled_at 'yesterday' is not an ISO 8601 time"),
    ],
)
def test_answers_that_do_not_fit_are_refused_whole(
    handed_out: Campaign, tmp_path: Path, text: str, message: str
) -> None:
    campaign = handed_out
    before = read_labels(campaign.home)
    with pytest.raises(InputError, match=message):
        take_in(campaign, write(tmp_path, "answers.csv", text))
    assert read_labels(campaign.home) == before


def test_zero_and_false_are_labels_and_a_column_with_gaps_is_one_of_integers(
    handed_out: Campaign, tmp_path: Path
) -> None:
    campaign = handed_out
    pq.write_table(pa.table({"item_id": ["aa", "bb", "cc"], "label": [0.0, None, 3.0]}), tmp_path / "1.parquet")
    assert take_in(campaign, tmp_path / "1.parquet")[:3] == (2, 0, 1)
    text = '{"item_id": "bb", "label": false, "annotator": 0}\n\n{"item_id": "aa", "label": 0}\n{"item_id": "cc"}\n'
    found = take_in(campaign, write(tmp_path, "2.jsonl", text))
    assert found[:8] == (1, 1, 1, 0, ["false"], 0, 0, 0)
    rows = {row["key"]: row for row in read_labels(campaign.home).to_pylist() if row["round"] == 0}
    assert [rows[key]["label"] for key in ("k1", "k2", "k3")] == ["0", "false", "3"]
    assert rows["k2"]["annotator"] == annotator_hash(campaign.config.salt, "generic", "0")


@pytest.mark.parametrize("classes", [["0", "6"], "from-init"])
def test_a_class_that_is_not_allowed_is_refused_and_one_that_is_new_is_reported(
    handed_out: Campaign, tmp_path: Path, classes: list[str] | str
) -> None:
    campaign = handed_out
    file = write(tmp_path, "1.csv", "item_id,label\naa,6\nbb,dgo\n")
    with pytest.raises(InputError, match=r"line 3: label 'dgo' is not one of labels.classes"):
        take_in(replace(campaign, config=override(campaign.config, {"labels.classes": classes}, "test")), file)
    assert current_round(campaign.home) == 0
    lines: list[str] = []
    assert take_in(campaign, file, log=lines.append).new_classes == ["dgo"]
    assert any("dgo" in line for line in lines)


def test_an_answer_that_contradicts_an_earlier_one_is_refused(handed_out: Campaign, tmp_path: Path) -> None:
    campaign = handed_out
    take_in(campaign, write(tmp_path, "1.csv", "item_id,label\naa,1\n"))
    with pytest.raises(InputError, match="item_id 'aa' is '2' here but '1' before"):
        take_in(campaign, write(tmp_path, "2.csv", "item_id,label\naa,2\n"))
    other = tmp_path / "2.csv"
    assert take_in(campaign, other, replace=True).replaced == 1
    assert labelled_values(campaign.home)["digits-00001.tar", "k1"] == "2"


def test_a_name_of_an_answer_that_a_vendor_gives_to_several_images_makes_them_no_versions(
    make_campaign: MakeCampaign, tmp_path: Path
) -> None:
    """Ground Truth has the name of the job at each image, and Toloka that of a suite of tasks."""
    campaign = make_campaign()
    hand_out(campaign, {"a" * 32: ("digits-00000.tar", "1"), "b" * 32: ("digits-00000.tar", "2")})
    file = tmp_path / "a.csv"
    file.write_text(f"item_id,label,answer_id\n{'a' * 32},3,job-1\n{'b' * 32},4,job-1\n")
    assert take_in(campaign, file)[:2] == (2, 0)
    assert take_in(campaign, file)[:2] == (0, 2)


@pytest.mark.parametrize(
    "form",
    [
        "{upper}", " {id} ", "images/{upper}.PNG", "images\\{id} (1).png", "{id} (12).jpg", "{id}(1).jpg", "{id}_2.png",
        "{id}-1.png", "{id} copy.png", "{id} copy 2.png", "{id} - Copy.png", "{upper} - Copy (2).PNG",
        "Copy of {id}.png", "https://h/images/{id}.png?X-Amz=1/2",
    ],
)  # fmt: skip
def test_a_name_that_others_wrote_their_own_way_is_found(
    make_campaign: MakeCampaign, tmp_path: Path, form: str
) -> None:
    campaign, item_id = make_campaign(), "08adc4ff9879e0527f051adb50c337f2"
    hand_out(campaign, {item_id: ("digits-00001.tar", "k1")})
    name = form.format(id=item_id, upper=item_id.upper())
    file = write(tmp_path, "a.csv", f"item_id,file,label\n{name},images/{item_id}.png,7\n,{name},7\n")
    assert take_in(campaign, file).new == 1


@pytest.mark.parametrize("name", ["{id}1", "{id}_mask", "x{id}", "{id} (a)"])
def test_a_name_of_something_else_is_not(make_campaign: MakeCampaign, tmp_path: Path, name: str) -> None:
    campaign, item_id = make_campaign(), "08adc4ff9879e0527f051adb50c337f2"
    hand_out(campaign, {item_id: ("digits-00001.tar", "k1")})
    with pytest.raises(InputError, match=r"was never handed out by this campaign; remove it"):
        take_in(campaign, write(tmp_path, "a.csv", f"file,label\n{name.format(id=item_id)},7\n"))


@pytest.mark.parametrize("number", ["1.23E+31", "1,23E+31", "8E+31"])
def test_an_id_that_a_spreadsheet_made_a_number_of_is_said(handed_out: Campaign, tmp_path: Path, number: str) -> None:
    with pytest.raises(InputError, match=r"is a number that a spreadsheet made of it; import this column as text"):
        take_in(handed_out, write(tmp_path, "a.csv", f'item_id,label\n"{number}",7\n'))
