"""The manifests that a report is made of belong together."""

import json
from pathlib import Path

import pytest

from engine.errors import InputError
from engine.handoff.export import export
from engine.report.report import report
from tests.rounds import make_round


def test_a_selection_from_other_scores_is_refused_until_it_is_handed_out(tmp_path: Path) -> None:
    campaign = make_round(tmp_path).campaign
    manifest = campaign.stage("scores") / "manifest.json"
    content = json.loads(manifest.read_bytes())
    content["shards"][0]["sha256"] = "0" * 64
    export(campaign)
    manifest.write_json(content)
    report(campaign)
    for folder in ("report/manifest.json", "handed_out/generic-000/manifest.json"):
        campaign.stage(folder).delete()
    with pytest.raises(InputError, match="selection: made from other scores than there are now; run: vaal select"):
        report(campaign)
