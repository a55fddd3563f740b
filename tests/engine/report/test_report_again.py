"""A report that is asked for again shows what is known by then, and the picks that it had."""

from pathlib import Path

import pytest

from engine.campaign.handed_out import picked_items
from engine.campaign.labels import labels_fingerprints
from engine.campaign.opening import open_campaign
from engine.campaign.stages import Run
from engine.report.report import MOST_IMAGES, report
from tests.engine.report.test_report import Page, snapshot, take_back
from tests.rounds import BUDGET, SCRIPT, Made, make_round

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
        made = report(fresh.campaign, Run(log=log.append))
        assert made["counts"]["unread"] == 1
        # As long as it is gone, the report is not another one, and no hook is called for it.
        kept = snapshot(fresh.campaign)
        assert report(fresh.campaign) == made
        assert snapshot(fresh.campaign) == kept
    finally:
        away.rename(shard)
    assert "60 labels of its picks back" in Page(fresh.campaign).text
    assert any(line.startswith(f"{shard}") and line.endswith("its images are shown grey") for line in log)
    # Once they are there again, it shows them.
    assert "unread" not in report(fresh.campaign)["counts"]


def test_a_report_shows_the_options_that_the_images_were_picked_by(fresh: Made) -> None:
    """Until they are handed out, others may be set for the next selection."""
    home = str(fresh.campaign.home)
    report(open_campaign(home, [f"select.budget={BUDGET - 7}"]))
    text = Page(fresh.campaign).text
    assert f'<th scope="row">budget</th><td>{BUDGET} (default 1000)</td>' in text
