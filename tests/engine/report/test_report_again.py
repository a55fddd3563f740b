"""A report that is asked for again shows what is known by then, and the picks that it had."""

from pathlib import Path

import pytest

from engine.campaign.handed_out import picked_items
from engine.campaign.labels import labels_fingerprints
from engine.campaign.stages import Run
from engine.report.report import MOST_IMAGES, report
from tests.engine.report.test_report import Page, snapshot, take_back
from tests.rounds import SCRIPT, Made, make_round

pytestmark = pytest.mark.heavy


@pytest.fixture
def fresh(tmp_path: Path) -> Made:
    return make_round(tmp_path)


def test_a_report_asked_for_again_shows_what_came_since_and_the_same_picks(fresh: Made) -> None:
    before = report(fresh.campaign)
    text, first = Page(fresh.campaign).text, Page(fresh.campaign).thumbnails[:MOST_IMAGES]
    assert "labels of its picks back" not in text
    assert "None of the 3 control picks has a label yet." in text
    take_back(fresh.campaign, picked_items(fresh.campaign.home, before=1))
    after = report(fresh.campaign)
    text = Page(fresh.campaign).text
    assert "60 labels of its picks back" in text
    assert "<td>3 of 3</td>" in text
    assert after["counts"] == before["counts"]
    changed = {name for name in after["files"] if after["files"][name] != before["files"].get(name)}
    assert changed == {"report.html", "arms.png", "arms-dark.png"}
    assert Page(fresh.campaign).thumbnails[:MOST_IMAGES] == first
    # And what it shows is what its manifest names: it is left alone until more comes.
    assert labels_fingerprints(fresh.campaign.home).items() <= after["inputs"].items()
    kept = snapshot(fresh.campaign)
    assert report(fresh.campaign) == after
    assert snapshot(fresh.campaign) == kept


def test_a_report_is_made_again_also_where_its_images_are_gone(fresh: Made) -> None:
    report(fresh.campaign)
    take_back(fresh.campaign, picked_items(fresh.campaign.home, before=1))
    shard = Path(fresh.campaign.config.pool.root.removeprefix("file://"), SCRIPT[0])
    log: list[str] = []
    away = shard.rename(shard.with_suffix(".away"))
    try:
        assert report(fresh.campaign, Run(log=log.append))["counts"]["unread"] == 1
    finally:
        away.rename(shard)
    assert "60 labels of its picks back" in Page(fresh.campaign).text
    assert any(line.startswith(f"{shard}") and line.endswith("its images are shown grey") for line in log)
    # Once they are there again, it shows them.
    assert "unread" not in report(fresh.campaign)["counts"]
