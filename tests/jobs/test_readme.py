"""What the README tells a newcomer is what the commands do."""

import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest

import engine.errors
from engine.campaign.labels import read_labels
from engine.config.options import CampaignConfig
from engine.config.texts import parse_settings
from engine.config.toml import override, tables_completed
from engine.handoff import VENDORS
from tests.conftest import MakeCampaign
from tests.jobs.test_cli import vaal

PROJECT = Path(__file__).parents[2]
README = (PROJECT / "README.md").read_text()


def test_every_exit_status_is_in_the_table() -> None:
    rows = {int(status) for status in re.findall(r"^\| (\d) \| \w", README, re.MULTILINE)}
    kinds = [kind for kind in vars(engine.errors).values() if isinstance(kind, type)]
    assert rows == {0} | {kind.exit_status for kind in kinds if issubclass(kind, engine.errors.VaalError)}


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{page.name}" for page in (PROJECT / "docs").glob("*.md"))])
def test_settings_are_given_as_a_shell_takes_them(page: str) -> None:
    shown = re.sub(r"\\\n +", "", (PROJECT / page).read_text())
    for line in re.findall(r"^ {4,}((?:vaal .*|)--set [^#\n]*)", shown, re.MULTILINE):
        words = shlex.split(line)
        given = [value for flag, value in pairwise(words) if flag == "--set" and "FOLDER" not in value]
        override(CampaignConfig(), tables_completed(CampaignConfig(), parse_settings(given)), page)


def test_every_vendor_is_in_the_table() -> None:
    page = (PROJECT / "docs/handoff.md").read_text()
    assert {*re.findall(r"^\| `([\w-]+)` \|(?:[^|\n]*\|){4}$", page, re.MULTILINE)} == {"VENDOR", *VENDORS}


def test_the_examples_of_labels_run(make_campaign: MakeCampaign) -> None:
    campaign = make_campaign()
    examples = re.findall(r"^    vaal (labels campaigns/one [^#\n]*[^#\s])", README, re.MULTILINE)
    assert [example.split()[2] for example in examples] == ["set", "retract", "undo", "list"]
    labels = read_labels(campaign.home)
    item = labels["shard"][0].as_py(), labels["key"][0].as_py()
    for example in examples:
        here = {"campaigns/one": str(campaign.home), "train-00000.tar": item[0], "000017": item[1]}
        ended = vaal(*(here.get(word, word) for word in example.split()))
        if example.split()[2] == "undo":
            assert "no ingest whose labels count; there are" in ended.output
        else:
            assert ended.exit_code == 0, ended.output
