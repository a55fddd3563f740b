"""Law 9: labels come back in any order, repeated or in parts; what does not fit is refused by name."""

from pathlib import Path

import pyarrow as pa
import pytest

from engine.campaign.folder import Campaign
from engine.campaign.labels import labelled_items, read_labels
from engine.campaign.opening import current_round
from engine.errors import InputError
from engine.handoff.answers import ingest
from engine.storage.location import Location
from tests.conftest import MakeCampaign


def write(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text)
    return folder / name


@pytest.fixture
def handed_out(make_campaign: MakeCampaign) -> tuple[Campaign, pa.Table]:
    """A campaign, and three items of it that were picked in round 0."""
    columns = {"item_id": ["aa", "bb", "cc"], "shard": ["digits-00001.tar"] * 3, "key": ["k1", "k2", "k3"]}
    positions = {"offset": [1, 2, 3], "size_bytes": [1, 1, 1], "content_hash": ["f"] * 3, "round": [0, 0, 0]}
    return make_campaign(), pa.table({**columns, **positions})


def test_ingesting_twice_or_in_parts_changes_nothing(handed_out: tuple[Campaign, pa.Table], tmp_path: Path) -> None:
    campaign, picked = handed_out
    first = Location.of(str(write(tmp_path, "1.csv", "item_id,label,annotator\ncc,7,ann\naa,,\naa,8,bob\n")))
    second = Location.of(str(write(tmp_path, "2.jsonl", '{"item_id":"bb","label":9}\n{"item_id":"aa","label":"8"}\n')))
    assert current_round(campaign.home) == 0
    assert ingest(campaign.home, first, "generic", picked) == (2, 0, 1)
    assert current_round(campaign.home) == 1
    after = read_labels(campaign.home)
    assert ingest(campaign.home, first, "generic", picked) == (0, 2, 1)
    assert read_labels(campaign.home) == after
    assert ingest(campaign.home, second, "generic", picked) == (1, 1, 0)
    rows = [row for row in read_labels(campaign.home).to_pylist() if row["round"] == 0]
    assert {(row["key"], row["label"], row["annotator"]) for row in rows} == {
        ("k1", "8", "bob"), ("k2", "9", None), ("k3", "7", "ann"),
    }  # fmt: skip
    assert {("digits-00001.tar", key) for key in ("k1", "k2", "k3")} <= labelled_items(campaign.home)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("item_id,label\naa,1\nzz,2\n", "line 3: item_id 'zz' was never handed out"),
        ("item_id,label\naa,1\naa,2\n", "line 3: item_id 'aa' is '2' here but '1' before"),
        ("item_id\naa\n", "line 2: no 'label'"),
        ("label\n1\n", "line 2: no 'item_id'"),
        ("item_id,label,labelled_at\naa,1,yesterday\n", "labelled_at 'yesterday' is not an ISO 8601 time"),
    ],
)
def test_answers_that_do_not_fit_are_refused_whole(
    handed_out: tuple[Campaign, pa.Table], tmp_path: Path, text: str, message: str
) -> None:
    campaign, picked = handed_out
    before = read_labels(campaign.home)
    with pytest.raises(InputError, match=message):
        ingest(campaign.home, Location.of(str(write(tmp_path, "answers.csv", text))), "generic", picked)
    assert read_labels(campaign.home) == before


def test_an_answer_that_contradicts_an_earlier_one_is_refused(
    handed_out: tuple[Campaign, pa.Table], tmp_path: Path
) -> None:
    campaign, picked = handed_out
    ingest(campaign.home, Location.of(str(write(tmp_path, "1.csv", "item_id,label\naa,1\n"))), "generic", picked)
    with pytest.raises(InputError, match="item_id 'aa' is '2' here but '1' before"):
        ingest(campaign.home, Location.of(str(write(tmp_path, "2.csv", "item_id,label\naa,2\n"))), "generic", picked)
