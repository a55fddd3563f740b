"""One table of stages: what follows from it, and that every row is a stage."""

import inspect
import pkgutil
import re
from pathlib import Path

import numpy as np
import pytest

from engine.campaign import stages
from engine.campaign.handed_out import batches, completed
from engine.campaign.opening import open_campaign
from engine.campaign.stages import COMMANDS_WITH_RAY, QUIET, STAGES, Run, run_stage, stage_of
from engine.campaign.status import status
from engine.config.options import CampaignConfig, fields
from engine.errors import ConfigError, InputError
from engine.handoff import VENDORS, Vendor
from engine.handoff.choice import Wish
from engine.handoff.export import export
from engine.selection.select import select
from jobs.cli import PAGES
from jobs.round import complete_all
from jobs.terminal import Terminal
from tests.conftest import MakeCampaign, pretend_trained
from tests.fabricate import fabricate_scores
from tests.rounds import make_round


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_a_row_is_a_stage_with_the_one_signature(stage: stages.Stage) -> None:
    function = pkgutil.resolve_name(f"{stage.module}:{stage.command}")
    first, second, *others = inspect.signature(function).parameters.values()
    assert (first.name, second.name, second.default) == ("campaign", "run", QUIET)
    assert all(other.kind is inspect.Parameter.KEYWORD_ONLY and other.default is not other.empty for other in others)
    assert callable(pkgutil.resolve_name(f"{stage.module}:describe"))
    assert stage.command in PAGES
    assert set(stage.freezes) < {*CampaignConfig.model_fields, *fields()}
    assert stage_of(stage.command) == stage_of(f"{stage.name}/x") == stage


def test_the_commands_with_ray_are_those_that_take_an_address() -> None:
    takes_address = {name for name, page in PAGES.items() if "address" in inspect.signature(page).parameters}
    assert takes_address - {"demo", "submit"} == COMMANDS_WITH_RAY
    assert "select" in COMMANDS_WITH_RAY


def test_a_stage_runs_by_its_command_and_its_manifest_is_returned(make_campaign: MakeCampaign) -> None:
    campaign = make_campaign()
    pretend_trained(campaign)
    fabricate_scores(campaign, lambda _, keys: np.zeros(len(keys), np.float32))
    lines, measured = list[str](), list[tuple[str, float, str]]()

    def measure(name: str, value: float, /, **tags: str) -> None:
        measured.append((name, value, " ".join(tags.values())))

    manifest = run_stage("select", campaign, Run(log=lines.append, measure=measure))
    assert measured == [("vaal_stage", 1, "select"), ("vaal_stage", 0, "select"), ("vaal_picked", 100, "")]
    assert manifest["counts"]["picked"] == 100
    assert lines[-3].endswith("1,597 can be picked")
    assert lines[-2].startswith("signal present")
    assert lines[-1].startswith("5 control picks say next to nothing")
    assert run_stage("select", open_campaign(str(campaign.home)), force=True)["counts"] == manifest["counts"]
    measured.clear()
    with pytest.raises(InputError):
        run_stage("score", make_campaign(name="untrained"), Run(measure=measure))
    assert measured == [("vaal_stage", 1, "score"), ("vaal_stage", 0, "score")]
    assert stage_of("select").describe(campaign, manifest)["picked"] == 100


@pytest.mark.heavy
def test_a_second_vendor_breaks_neither_status_nor_replacement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(VENDORS, "other", Vendor("engine.handoff.vendors.generic", "the same files", "tasks.csv"))
    campaign = make_round(tmp_path).campaign
    assert export(campaign, vendor="other", wish=Wish(limit=20))["stage"] == "handed_out/other-000"
    found = status(campaign)["rounds"][0]["stages"]
    assert list(found) == ["train", "scores", "selection", "handoff/other", "report"]
    # The rest of the round sends nothing to another vendor.
    assert complete_all(Terminal(json=True), campaign, "local")["handoff"]["stage"] == "handed_out/other-000"
    export(campaign)
    found = status(campaign)["rounds"][0]["stages"]
    assert list(found) == ["train", "scores", "selection", "handoff/other", "handoff/generic", "report"]
    assert (found["handoff/other"]["images"], found["handoff/generic"]["images"]) == (20, 40)
    # Handed out to either, the selection is replaced by force alone, and both batches are recorded.
    with pytest.raises(ConfigError, match="too late for round 000"):
        open_campaign(str(campaign.home), ["select.budget=5"])
    select(campaign, force=True)
    assert not completed(campaign, "handoff")
    assert [batch.folder.name for batch in batches(campaign.home, 0)] == ["other-000", "generic-001"]
    assert all((batch.folder / "tasks.csv").exists() for batch in batches(campaign.home, 0))


def test_the_documented_example_runs(make_campaign: MakeCampaign, capsys: pytest.CaptureFixture[str]) -> None:
    campaign = make_campaign()
    pretend_trained(campaign)
    text = (Path(__file__).parents[3] / "docs/operations.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(code.replace("demo/digits/campaign", str(campaign.home)), {})
    assert capsys.readouterr().out.strip().endswith("present")
