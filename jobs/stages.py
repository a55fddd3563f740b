"""`vaal train`, `score`, `select`, `export`, `report`: the stages of a round; and `vaal round`: all of them."""

from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.campaign.stages import DEFAULT_VENDOR, STAGES, Run, run_stage, stage_of
from jobs.terminal import (
    AddressOption,
    CampaignArgument,
    DebugOption,
    JsonOption,
    Outcome,
    SetOption,
    Terminal,
    VendorName,
    terminal,
)

if TYPE_CHECKING:
    from engine.campaign.folder import Campaign


def train(
    campaign: CampaignArgument, settings: SetOption = [], address: AddressOption = "local",
    json: JsonOption = False, debug: DebugOption = False,
) -> None:  # fmt: skip
    """Train the VAE and the discriminators on both pools."""
    with terminal(json=json, debug=debug) as screen:
        screen.result(complete("train", screen, _open(campaign, settings), address))


def score(
    campaign: CampaignArgument, settings: SetOption = [], address: AddressOption = "local",
    json: JsonOption = False, debug: DebugOption = False,
) -> None:  # fmt: skip
    """Stream the whole pool through the networks."""
    with terminal(json=json, debug=debug) as screen:
        screen.result(complete("score", screen, _open(campaign, settings), address))


def select(
    campaign: CampaignArgument,
    force: Annotated[
        bool, typer.Option("--force", help="Pick others as well, where images were handed out; those are recorded.")
    ] = False,
    explain: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="SHARD KEY", help="Pick nothing; say why this item was picked, or was not."),
    ] = None,
    settings: SetOption = [],
    address: AddressOption = "local",
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Pick exactly select.budget images: those that look least like labelled ones, no two alike, and a control arm."""
    with terminal(json=json, debug=debug) as screen:
        if explain:
            screen.result(_explanation(_open(campaign, []), *explain))
        else:
            opened = _open(campaign, settings, force=force)
            screen.result(complete("select", screen, opened, address, force=force))


def export(
    campaign: CampaignArgument,
    to: Annotated[VendorName, typer.Option(help="The labelling vendor.")] = DEFAULT_VENDOR,
    settings: SetOption = [],
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Write the picked images and their task list for a labelling vendor."""
    with terminal(json=json, debug=debug) as screen:
        screen.result(complete("export", screen, _open(campaign, settings), vendor=to))


def report(
    campaign: CampaignArgument,
    round_number: Annotated[
        int | None, typer.Option("--round", help="An earlier round; by default the current one.")
    ] = None,
    settings: SetOption = [],
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Write one self-contained page: the picked images, the scores, the training."""
    with terminal(json=json, debug=debug) as screen:
        screen.result(complete("report", screen, _open(campaign, settings, round_number)))


def whole_round(
    campaign: CampaignArgument, settings: SetOption = [], address: AddressOption = "local",
    json: JsonOption = False, debug: DebugOption = False,
) -> None:  # fmt: skip
    """Train, score, select, export and report. Run it again after an interruption to go on."""
    with terminal(json=json, debug=debug) as screen:
        outcomes = complete_all(screen, _open(campaign, settings), address)
        if json:
            screen.result(Outcome("", {}, {name: outcome.data for name, outcome in outcomes.items()}))


def complete_all(screen: Terminal, campaign: "Campaign", address: str) -> dict[str, Outcome]:
    """All stages of a round in order; one that is complete is left alone. Outcomes by stage."""
    from engine.cluster.ray_session import ray_session

    needs_ray = any(stage.ray == "always" and not campaign.completed(stage.name) for stage in STAGES)
    outcomes: dict[str, Outcome] = {}
    with ray_session(address) if needs_ray else nullcontext():
        for stage in STAGES:
            outcomes[stage.name] = complete(stage.command, screen, campaign, address)
            screen.step(outcomes[stage.name])
    return outcomes


def complete(command: str, screen: Terminal, campaign: "Campaign", address: str = "local", **options: Any) -> Outcome:
    """A stage of a round, with its progress bar."""
    stage = stage_of(command)
    with screen.progress(command) as update:
        manifest = run_stage(command, campaign, Run(address, update, screen.log), **options)
    return Outcome(f"Round {campaign.round:03d}: {stage.done}", stage.describe(campaign, manifest), dict(manifest))


def _open(url: str, settings: list[str], round_number: int | None = None, *, force: bool = False) -> "Campaign":
    from engine.campaign.opening import open_campaign

    return open_campaign(url, settings, round_number, force=force)


def _explanation(campaign: "Campaign", shard: str, key: str) -> Outcome:
    from engine.selection.explanation import explain

    found = explain(campaign, shard, key)
    facts = {name: value for name, value in found.items() if name not in ("shard", "key", "outcome")}
    return Outcome(f"Round {campaign.round:03d}: {shard} {key}: {found['outcome']}", facts, found)
