"""`vaal train`, `score`, `select`, `export`, `report`: the stages of a round; and `vaal round`: all of them."""

import shlex
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.campaign.stages import DEFAULT_VENDOR, STAGES, Run, run_stage, stage_of
from engine.errors import ConfigError, InputError
from jobs.terminal import AddressOption, CampaignArgument, Outcome, SetOption, Terminal, VendorName

if TYPE_CHECKING:
    from engine.campaign.folder import Campaign


def train(
    screen: Terminal, campaign: CampaignArgument, settings: SetOption = [], address: AddressOption = "local"
) -> Outcome:
    """Train the VAE and the discriminators on both pools."""
    with _opened(campaign, settings) as opened:
        return complete("train", screen, opened, address)


def score(
    screen: Terminal, campaign: CampaignArgument, settings: SetOption = [], address: AddressOption = "local"
) -> Outcome:
    """Stream the whole pool through the networks."""
    with _opened(campaign, settings) as opened:
        return complete("score", screen, opened, address)


def select(
    screen: Terminal,
    campaign: CampaignArgument,
    force: Annotated[
        bool, typer.Option("--force", help="Select again although images were handed out. Those are recorded.")
    ] = False,
    explain: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="SHARD KEY|ITEM_ID", help="Select nothing; explain why this item was picked or not."),
    ] = None,
    round_number: Annotated[
        int | None, typer.Option("--round", help="With --explain: an earlier round; the default is the current one.")
    ] = None,
    settings: SetOption = [],
    address: AddressOption = "local",
) -> Outcome:
    """Pick exactly select.budget images: those least like the labelled ones, without duplicates, and a control arm."""
    if not explain:
        if round_number is not None:
            raise ConfigError("--round: only with --explain; images are picked in the current round alone")
        with _opened(campaign, settings, force=force) as opened:
            return complete("select", screen, opened, address, force=force)
    if settings or force:
        raise ConfigError("--explain: explains what was picked, so it takes neither --set nor --force")
    from engine.selection.explanation import explain as explain_item
    from engine.selection.explanation import named

    opened = _open_selected(campaign, round_number, "select", "--explain", *filter(None, explain))
    item = explain if explain[1] else named(opened, explain[0])
    found = explain_item(opened, *item)
    facts = {name: value for name, value in found.items() if name not in ("shard", "key", "outcome")}
    return Outcome(f"Round {opened.round:03d}: {' '.join(item)}: {found['outcome']}", facts, found)


def export(
    screen: Terminal,
    campaign: CampaignArgument,
    to: Annotated[VendorName, typer.Option(help="The labelling vendor.")] = DEFAULT_VENDOR,
    settings: SetOption = [],
) -> Outcome:
    """Write the picked images and their task list for a labelling vendor."""
    with _opened(campaign, settings) as opened:
        return complete("export", screen, opened, vendor=to)


def report(
    screen: Terminal,
    campaign: CampaignArgument,
    round_number: Annotated[
        int | None, typer.Option("--round", help="An earlier round; the default is the current one.")
    ] = None,
    settings: SetOption = [],
) -> Outcome:
    """Write one self-contained page: the picked images, the scores, the training."""
    if not settings:
        return complete("report", screen, _open_selected(campaign, round_number, "report"))
    with _opened(campaign, settings, round_number) as opened:
        return complete("report", screen, opened)


def whole_round(
    screen: Terminal, campaign: CampaignArgument, settings: SetOption = [], address: AddressOption = "local"
) -> Outcome:
    """Train, score, select, export and report. After an interruption, run it again to continue."""
    with _opened(campaign, settings) as opened:
        manifests = complete_all(screen, opened, address)
        return Outcome(
            f"Round {opened.round:03d}: complete", {"next": f"vaal ingest {opened.home.quoted} FILE"}, manifests
        )


def complete_all(screen: Terminal, campaign: "Campaign", address: str) -> dict[str, Any]:
    """Complete all stages of a round in order, leaving complete ones alone. Returns their manifests by stage."""
    from engine.campaign.handed_out import completed, vendor_of
    from engine.campaign.heartbeat import alone
    from engine.cluster.ray_session import ray_session

    needs_ray = any(stage.ray == "always" and not completed(campaign, stage.name) for stage in STAGES)
    manifests: dict[str, Any] = {}
    with alone(campaign.home, "round"), ray_session(address) if needs_ray else nullcontext():
        for stage in STAGES:
            # What was handed out to one vendor is not sent to another as well.
            records = completed(campaign, stage.name) if stage.name == "handoff" else []
            options = {"vendor": vendor_of(records[0])} if records else {}
            outcome = complete(stage.command, screen, campaign, address, **options)
            screen.show(outcome)
            manifests[stage.name] = outcome.data
    return manifests


def complete(command: str, screen: Terminal, campaign: "Campaign", address: str = "local", **options: Any) -> Outcome:
    """Complete a stage of a round, with a progress bar."""
    stage = stage_of(command)
    with screen.progress(command) as update:
        manifest = run_stage(command, campaign, Run(address, update, screen.log), **options)
    return Outcome(f"Round {campaign.round:03d}: {stage.done}", stage.describe(campaign, manifest), dict(manifest))


def _opened(
    url: str, settings: list[str], round_number: int | None = None, *, force: bool = False
) -> "AbstractContextManager[Campaign]":
    from engine.campaign.opening import opened

    return opened(url, settings, round_number, force=force)


def _open_selected(url: str, round_number: int | None, command: str, *options: str) -> "Campaign":
    """The campaign at a round to look back on, by a command with these further options.

    Raises InputError if a new round has only begun.
    """
    from engine.campaign.folder import is_complete
    from engine.campaign.opening import open_campaign

    opened = open_campaign(url, (), round_number)
    if round_number is None and opened.round and not is_complete(opened.stage("selection")):
        raise InputError(
            f"{opened.round_home}: nothing is selected yet; run: vaal round {opened.home}, or look back: "
            f"vaal {command} {opened.home} {shlex.join(['--round', str(opened.round - 1), *options])}"
        )
    return opened
