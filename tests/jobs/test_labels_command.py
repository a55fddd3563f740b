"""`vaal labels` and `vaal ingest` beside another run, and refused."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from engine.campaign import heartbeat
from engine.campaign.labels import labelled_values, labels_fingerprints
from jobs.cli import app
from tests.conftest import MakeCampaign


@pytest.mark.parametrize("words", [("set", "owl"), ("retract",)])
def test_labels_are_not_corrected_while_another_run_is_at_work(
    make_campaign: MakeCampaign, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0.02)
    monkeypatch.setattr(heartbeat, "PATIENCE_SECONDS", 0.4)
    home = make_campaign().home
    item, before = min(labelled_values(home)), labels_fingerprints(home)
    with heartbeat.alone(home, "ingest"):
        # As another process sees it.
        held = heartbeat._held.set(frozenset())
        found = CliRunner().invoke(app, ["labels", str(home), words[0], *item, *words[1:]])
        listed = CliRunner().invoke(app, ["labels", str(home), "list"])
        heartbeat._held.reset(held)
    assert (found.exit_code, listed.exit_code) == (5, 0)
    assert "another run (ingest) is at work" in found.stderr
    assert labels_fingerprints(home) == before
    assert not (home / heartbeat.LOCK_FILE).exists()


def test_what_a_refused_ingest_sets_is_not_kept(make_campaign: MakeCampaign, tmp_path: Path) -> None:
    home = make_campaign().home
    file = tmp_path / "answers.csv"
    file.write_text("item_id,label\nnobody,1\n")
    found = CliRunner().invoke(app, ["ingest", str(home), str(file), "--set", 'labels.classes=["1"]'])
    assert found.exit_code == 4
    assert "'nobody' was never handed out" in found.stderr
    assert not (home / "rounds/000/overrides.json").exists()
