"""The manifests that a report is made of belong together."""

import json
from pathlib import Path
from typing import Any

import pytest

from engine.campaign.status import status
from engine.errors import InputError
from engine.handoff.export import export
from engine.models.diagnosis import manifest_entries
from engine.report.facts import lift_in_words, signal_facts
from engine.report.report import report
from tests.committed import with_entries_inside
from tests.conftest import found
from tests.rounds import make_round


def test_a_selection_from_other_scores_is_refused_until_it_is_handed_out(tmp_path: Path) -> None:
    campaign = make_round(tmp_path).campaign
    manifest = campaign.stage("scores") / "manifest.json"
    content = with_entries_inside(campaign)
    content["shards"][0]["sha256"] = "0" * 64
    export(campaign)
    manifest.write_json(content)
    report(campaign)
    for folder in ("report/manifest.json", "handed_out/generic-000/manifest.json", "handed_out/generic-000.json"):
        campaign.stage(folder).delete()
    with pytest.raises(InputError, match="selection: made from other scores than there are now; run: vaal select"):
        report(campaign)


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (2.5, 16.2, "are 6.3 (2.5 to 16) times rarer than in the pool"),
        (12.7, None, "are at least 13 times rarer than in the pool"),
        (0.72, 8.0, "may be as common as in the pool as a whole: lift 6.3 (0.72 to 8); 1 is random"),
        (0.4, 0.9, "are no rarer than in the pool"),
    ],
)
def test_the_lift_is_told_in_words_and_numbers(low: float, high: float | None, words: str) -> None:
    train: Any = manifest_entries(found("present"))
    train["diagnosis"]["lift"] |= {"low": low, "high": high}
    assert f"Among the 25% of images with the lowest scores, where a batch comes from, labelled images {words}" in (
        lift_in_words(train)
    )
    assert signal_facts(train)["how much rarer labels are among the lowest 25% (lift; 1 is random)"].endswith(" times")


def test_a_manifest_without_a_lift_is_shown_without_one(tmp_path: Path) -> None:
    campaign = make_round(tmp_path).campaign
    manifest = campaign.stage("train") / "manifest.json"
    content = json.loads(manifest.read_bytes())

    def page() -> str:
        report(campaign)
        (campaign.stage("report") / "manifest.json").delete()
        return " ".join((campaign.stage("report") / "report.html").read_bytes().decode().split())

    assert "labelled images are 6.3 (2.5 to 16) times rarer" in page()
    assert status(campaign)["rounds"][0]["stages"]["train"]["lift"]["value"] == 6.34
    del content["diagnosis"]["lift"]
    manifest.write_json(content)
    assert "times rarer" not in page()
    assert status(campaign)["rounds"][0]["stages"]["train"]["lift"] is None
