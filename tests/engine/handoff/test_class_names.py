"""A class is one class however it is written: in the question, in labels, and in what vendors send back."""

import json
from pathlib import Path

import pytest

from engine.campaign.folder import Campaign
from engine.campaign.labels import INITIAL, append_labels, labelled_values
from engine.campaign.votes import append_votes, read_votes
from engine.config.options import CampaignConfig
from engine.config.toml import override
from engine.errors import ConfigError, InputError
from engine.handoff.question import question_of
from tests.conftest import MakeCampaign
from tests.sendings import hand_out, take_in

COMPOSED, DECOMPOSED = "ma\u00f1ana", "man\u0303ana"
ITEMS = {name: ("digits-00001.tar", key) for name, key in (("aa", "k1"), ("bb", "k2"), ("cc", "k3"))}


def labels_of(campaign: Campaign) -> dict[str, str]:
    found = labelled_values(campaign.home)
    return {name: found[item] for name, item in ITEMS.items() if item in found}


def asking(make_campaign: MakeCampaign, *classes: str) -> Campaign:
    campaign = make_campaign(f"handoff.question.classes={json.dumps(classes)}")
    hand_out(campaign, ITEMS)
    return campaign


@pytest.mark.parametrize(
    "classes",
    [("3.0", "3"), ("True", "true"), ("\xa0cat", "cat"), ("hot\xa0dog", "hot dog"), (COMPOSED, DECOMPOSED)],
)
def test_classes_that_are_one_here_are_refused_in_the_question(classes: tuple[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"handoff.question.classes: .* are one class; name each class once"):
        override(CampaignConfig(), {"handoff.question.classes": [*classes, "dog"]}, "test")


@pytest.mark.parametrize("word", ["nan", "NaN", "null", "None", "N/A", "#N/A"])
def test_a_class_may_be_called_as_programs_call_nothing(make_campaign: MakeCampaign, tmp_path: Path, word: str) -> None:
    campaign = asking(make_campaign, word, "cat")
    (tmp_path / "a.csv").write_text(f"item_id,label\naa,{word}\nbb,cat\ncc,\n")
    assert take_in(campaign, tmp_path / "a.csv")[:3] == (2, 0, 1)
    assert labels_of(campaign) == {"aa": word, "bb": "cat"}
    assert take_in(campaign, tmp_path / "a.csv")[:3] == (0, 2, 1)


def test_other_words_for_nothing_are_blank_in_tables(make_campaign: MakeCampaign, tmp_path: Path) -> None:
    campaign = make_campaign()
    hand_out(campaign, {**ITEMS, "dd": ("digits-00001.tar", "k4")})
    (tmp_path / "a.csv").write_text("item_id,label\naa,null\nbb,N/A\ncc,#n/a\ndd,None\n")
    assert take_in(campaign, tmp_path / "a.csv")[:3] == (0, 0, 4)


def test_a_first_label_that_says_nothing_is_refused_unless_it_is_named(
    make_campaign: MakeCampaign, tmp_path: Path
) -> None:
    (tmp_path / "l.csv").write_text("shard,key,label\ndigits-00000.tar,000000,N/A\n")
    with pytest.raises(InputError, match=r"line 2: .* has 'N/A' for a label, .*; remove the row, or name it in labels"):
        make_campaign(labels=tmp_path / "l.csv")
    campaign = make_campaign('labels.classes=["N/A", "cat"]', name="named", labels=tmp_path / "l.csv")
    assert [*labelled_values(campaign.home).values()] == ["N/A"]


def test_every_form_of_unicode_is_the_same_class(make_campaign: MakeCampaign, tmp_path: Path) -> None:
    campaign = asking(make_campaign, DECOMPOSED, "hot\xa0dog")
    assert question_of(campaign).classes == [COMPOSED, "hot dog"]
    rows = [("aa", DECOMPOSED), ("bb", COMPOSED), ("cc", "hot\u2009dog")]
    (tmp_path / "a.csv").write_text("item_id,label\n" + "".join(f"{item},{label}\n" for item, label in rows))
    assert take_in(campaign, tmp_path / "a.csv")[:3] == (3, 0, 0)
    assert labels_of(campaign) == {"aa": COMPOSED, "bb": COMPOSED, "cc": "hot dog"}


def test_what_was_written_before_reads_the_same(make_campaign: MakeCampaign, tmp_path: Path) -> None:
    campaign = make_campaign()
    hand_out(campaign, ITEMS)
    append_labels(campaign.home, INITIAL, [("digits-00001.tar", "k9", DECOMPOSED, None, "init")])
    assert labelled_values(campaign.home)["digits-00001.tar", "k9"] == COMPOSED
    (tmp_path / "a.csv").write_text(f"item_id,label,annotator\naa,{COMPOSED},ann\n")
    take_in(campaign, tmp_path / "a.csv")
    votes = read_votes(campaign.home).drop_columns(["ingest"])
    (campaign.home / "votes").clear()
    before = votes.set_column(4, votes.schema.field(4), [[DECOMPOSED]])
    append_votes(campaign.home, "generic", before)
    assert read_votes(campaign.home)["value"].to_pylist() == [COMPOSED]
    assert take_in(campaign, tmp_path / "a.csv")[:4] == (0, 1, 0, 0)
