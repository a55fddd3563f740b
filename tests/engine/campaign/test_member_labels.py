"""First labels that are files of the samples, as WebDataset has them: .cls, or a field of .json."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from engine.campaign.folder import Campaign
from engine.campaign.labels import read_labels
from engine.campaign.opening import create
from engine.campaign.positions import all_positions
from engine.config.options import CampaignConfig
from engine.config.toml import override
from engine.errors import ConfigError, InputError
from engine.pool.identity import content_hash
from engine.pool.manifest import read_shards
from tests.packed import image
from tests.rounds import write_shard


def make(folder: Path, facts: list[dict[str, bytes]], labels: str, **settings: Any) -> Campaign:
    """A campaign of two shards, whose samples have these files beside their images."""
    for shard in range(2):
        members: dict[str, bytes] = {}
        for number, files in enumerate(facts):
            members[f"{number:03d}.png"] = image(10 * shard + number)
            members |= {f"{number:03d}.{suffix}": content for suffix, content in files.items()}
        folder.mkdir(exist_ok=True)
        write_shard(folder / f"s-{shard}.tar", members)
    given = {
        "image.size": 8,
        "select.budget": 1,
        **{name.replace("__", "."): value for name, value in settings.items()},
    }
    config = override(CampaignConfig(), given, "test")
    return create(f"{folder}/campaign", [f"{folder}/*.tar"], labels, config, lambda _: None)


def labels_of(campaign: Campaign) -> dict[tuple[str, str], str]:
    return {(row["shard"], row["key"]): row["label"] for row in read_labels(campaign.home).to_pylist()}


def test_cls_is_the_label_and_a_sample_without_it_has_none(tmp_path: Path) -> None:
    campaign = make(tmp_path, [{"cls": b"cat\n"}, {"CLS": b" dog"}, {}, {"cls": b" \n"}, {"txt": b"x"}], "member:cls")
    expected = {"000": "cat", "001": "dog"}
    assert labels_of(campaign) == {(f"s-{n}.tar", key): name for n in range(2) for key, name in expected.items()}
    assert [shard.num_items for shard in read_shards(campaign.home)] == [5, 5]
    places = {(row["shard"], row["key"]): row["content_hash"] for row in all_positions(campaign.home).to_pylist()}
    assert places["s-1.tar", "001"] == content_hash(image(11))


def test_a_field_of_json_is_the_label_at_any_depth(tmp_path: Path) -> None:
    facts = [{"json": json.dumps(value).encode()} for value in ({"a": {"b": "cat"}}, {"a": {"b": None}}, {"a": 1}, {})]
    campaign = make(tmp_path / "one", facts, "members:json:a.b")
    assert Counter(labels_of(campaign).values()) == {"cat": 2}
    several = [{"json": b'{"tags": ["x", "y"]}'}, {"json": b'{"tags": []}'}, {}]
    campaign = make(tmp_path / "two", several, "member:json:tags", handoff__question={"task": "classes"})
    assert Counter(labels_of(campaign).values()) == {'["x", "y"]': 2, "[]": 2}


def test_a_number_is_the_place_of_a_class_where_classes_are_listed(tmp_path: Path) -> None:
    facts: list[dict[str, bytes]] = [{"cls": b"1"}, {"cls": b"0"}, {}]
    assert set(labels_of(make(tmp_path / "one", facts, "member:cls")).values()) == {"0", "1"}
    named = make(tmp_path / "two", facts, "member:cls", labels__classes=["cat", "dog"])
    assert labels_of(named)["s-0.tar", "000"] == "dog"
    with pytest.raises(InputError, match=r"item 000: .cls: label '7' is not one of labels.classes"):
        make(tmp_path / "three", [{"cls": b"7"}, {}], "member:cls", labels__classes=["cat", "dog"])


@pytest.mark.parametrize(
    ("files", "labels", "fault"),
    [
        ({}, "member:cls", r"member:cls: no sample has a label there; training needs at least one"),
        ({"json": b"{}"}, "member:json:x", r"member:json:x: no sample has a label there, field x;"),
        ({"json": b"{"}, "member:json:x", r"s-\d.tar: item 000: .json: not valid JSON; repair the shard"),
        ({"cls": b"\xff"}, "member:cls", r"item 000: .cls: not text in UTF-8"),
        (
            {"json": b"{}"},
            "member:json",
            r"--labels member:json: give member:SUFFIX, as member:cls, or member:json:FIELD",
        ),
        ({"cls": b"x"}, "member:cls:x", r"give member:SUFFIX"),
        ({"cls": b"x", "CLS": b"y"}, "member:cls", r"item 000: .cls: not one file of 1 to"),
        ({"cls": bytes(2 << 20)}, "member:cls", r"item 000: .cls: not one file of 1 to 1,048,576 bytes"),
    ],
)
def test_what_is_no_label_is_one_line_and_leaves_nothing(
    files: dict[str, bytes], labels: str, fault: str, tmp_path: Path
) -> None:
    with pytest.raises((InputError, ConfigError), match=fault):
        make(tmp_path, [files, {}], labels)
    assert not list((tmp_path / "campaign").rglob("*.parquet"))
