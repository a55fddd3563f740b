"""What init fixes stays as init wrote it; of two inits in one folder one makes the campaign."""

import json
import re
from pathlib import Path

import pytest

from engine.campaign.opening import open_campaign
from engine.errors import ConfigError
from tests.conftest import MakeCampaign
from tests.engine.selection.test_sent_once import Customer, customer  # noqa: F401
from tests.machine.product import Done


@pytest.mark.parametrize(
    ("pattern", "value", "named"),
    [
        (r"suffixes = \[.*\]", 'suffixes = ["seg.png"]', r"image.suffixes=\['seg.png'\], but init wrote \['png'\]"),
        (r'salt = "\w+"', f'salt = "{"ab" * 16}"', "campaign.toml: salt: fixed at init"),
        (r'group = ""', r"group = '\\w'", "pool.group="),
    ],
)
def test_a_hand_edit_of_what_is_fixed_is_refused_by_key(
    make_campaign: MakeCampaign, pattern: str, value: str, named: str
) -> None:
    campaign = make_campaign('image.suffixes=["png"]')
    file = Path(campaign.home.path, "campaign.toml")
    before = file.read_text()
    file.write_text(re.sub(pattern, value, before, count=1))
    assert file.read_text() != before
    with pytest.raises(ConfigError, match=f"{named}.*restore its value, see pool/fixed_at_init.json"):
        open_campaign(campaign.home.url)
    file.write_text(before)
    assert open_campaign(campaign.home.url).config == campaign.config


def test_a_campaign_of_an_older_version_has_no_such_file_and_opens(make_campaign: MakeCampaign) -> None:
    campaign = make_campaign()
    Path(campaign.home.path, "pool/fixed_at_init.json").unlink()
    assert open_campaign(campaign.home.url).config == campaign.config


@pytest.mark.heavy
@pytest.mark.parametrize("at", range(0, 14, 2))
def test_of_two_inits_one_makes_the_campaign(customer: Customer, at: int) -> None:  # noqa: F811
    others = customer.folder / "others.csv"
    others.write_text("shard,key,label\n1.tar,03,Z\n1.tar,04,Y\n")
    shards = str(customer.folder / "pool/*.tar")
    second: list[Done] = []

    def start() -> None:
        options = ("--set", "image.size=8", "--set", "select.budget=3")
        second.append(
            customer.product.run("init", str(customer.home), "--pool", shards, "--labels", str(others), *options)
        )

    labels = customer.folder / "labels.csv"
    labels.write_text("shard,key,label\n0.tar,00,a\n0.tar,05,b\n")
    arguments = ("--pool", shards, "--labels", str(labels), "--set", "image.size=8", "--set", "select.budget=4")
    first = customer.product.run_during(at, start, "init", str(customer.home), *arguments)
    statuses = [first.status, *(done.status for done in second)]
    assert statuses.count(0) == 1
    assert {*statuses} <= {0, 2, 5}
    rows = json.loads(customer.vaal("labels", "list", "--json").out)["labels"]
    won = {("0.tar", "00"), ("0.tar", "05")} if first.status == 0 else {("1.tar", "03"), ("1.tar", "04")}
    assert {(row["shard"], row["key"]) for row in rows} == won
    budget = 4 if first.status == 0 else 3
    assert f"budget = {budget}\n" in (customer.home / "campaign.toml").read_text()
