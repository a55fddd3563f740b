"""What the README tells a newcomer is what the commands do."""

import re
from pathlib import Path

import engine.errors
from engine.campaign.labels import read_labels
from tests.conftest import MakeCampaign
from tests.jobs.test_cli import vaal

README = (Path(__file__).parents[2] / "README.md").read_text()


def test_every_exit_status_is_in_the_table() -> None:
    rows = {int(status) for status in re.findall(r"^\| (\d) \| \w", README, re.MULTILINE)}
    kinds = [kind for kind in vars(engine.errors).values() if isinstance(kind, type)]
    assert rows == {0} | {kind.exit_status for kind in kinds if issubclass(kind, engine.errors.VaalError)}


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
