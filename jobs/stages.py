"""`vaal train`, `score`, `select`, `export`, `report`: the stages of a round; and `vaal round`: all of them."""

import shlex
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from engine.campaign.stages import DEFAULT_VENDOR, STAGES, Run, run_stage, stage_of
from engine.config.texts import plural
from engine.errors import ConfigError, InputError
from jobs.terminal import (
    VENDOR_NAMES,
    AddressOption,
    CampaignArgument,
    Outcome,
    SetOption,
    Terminal,
    ToOption,
    VendorName,
    when_closed,
)

if TYPE_CHECKING:
    from engine.campaign.folder import Campaign
    from engine.campaign.manifests import HandoffManifest


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
    to: ToOption = DEFAULT_VENDOR,
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Send at most N images now, the most valuable first.")
    ] = None,
    share: Annotated[
        float, typer.Option(min=0, max=1, help="Send this share of all picks, at random; the rest to other vendors.")
    ] = 1.0,
    stratum: Annotated[
        str, typer.Option(metavar="VALUE", help="Send the picks of this value of the column select.stratify.")
    ] = "",
    disputed: Annotated[
        bool, typer.Option("--disputed", help="Ask handoff.annotators more people about images that are disputed.")
    ] = False,
    refresh_links: Annotated[
        bool, typer.Option("--refresh-links", help="Sign the links of the vendor's newest batch again; send nothing.")
    ] = False,
    settings: SetOption = [],
) -> Outcome:
    """Write picked images that are not out yet, and their task list, for a labelling vendor."""
    from engine.handoff.choice import Wish

    wish = Wish(limit, share, stratum, disputed)
    if refresh_links and wish != Wish():
        raise ConfigError("--refresh-links: sends nothing, so it takes no --limit, --share, --stratum or --disputed")
    with _opened(campaign, settings) as opened:
        if not refresh_links:
            return complete("export", screen, opened, vendor=to, wish=wish)
        from engine.campaign.heartbeat import alone
        from engine.handoff.export import describe
        from engine.handoff.export import refresh_links as refresh

        with alone(opened.home, "export"):
            manifest = refresh(opened, Run("local", log=screen.log), to)
        facts = describe(opened, manifest, is_new=False)
        return Outcome(f"Round {opened.round:03d}: links signed again", facts, dict(manifest))


def report(
    screen: Terminal,
    campaign: CampaignArgument,
    round_number: Annotated[
        int | None, typer.Option("--round", help="An earlier round; the default is the current one.")
    ] = None,
    settings: SetOption = [],
) -> Outcome:
    """Write self-contained pages: the picked images, the scores, the training; and the answers, where some came."""
    if not settings:
        return _reported(screen, _open_selected(campaign, round_number, "report"))
    with _opened(campaign, settings, round_number) as opened:
        return _reported(screen, opened)


def _reported(screen: Terminal, campaign: "Campaign") -> Outcome:
    from engine.report.answers_page import page_of

    found, answers = complete("report", screen, campaign), page_of(campaign)
    return found._replace(data=found.data | {"answers": answers.url if answers else None})


def whole_round(
    screen: Terminal,
    campaign: CampaignArgument,
    close: Annotated[
        bool, typer.Option("--close", help="End the round although answers are missing, and begin the next one.")
    ] = False,
    to: Annotated[
        VendorName | None,
        typer.Option(
            "--to", metavar="VENDOR", help=f"The labelling vendor of all picks that were not sent yet: {VENDOR_NAMES}."
        ),
    ] = None,
    settings: SetOption = [],
    address: AddressOption = "local",
) -> Outcome:
    """Train, score, select, export and report. After an interruption, run it again to continue."""
    _end_round(screen, campaign, settings, close=close)
    with _opened(campaign, settings) as opened:
        manifests = complete_all(screen, opened, address, to)
        waiting, facts = _waiting(opened)
        title = "complete" if not waiting else f"{plural(waiting, 'pick')} not sent yet, the rest is complete"
        return Outcome(f"Round {opened.round:03d}: {title}", facts, manifests)


def _end_round(screen: Terminal, url: str, settings: list[str], *, close: bool) -> None:
    """End the current round if its answers are all that labels.close_when asks for, or by hand.

    Raises ConfigError where it is to be ended by hand and no answer came.
    """
    from engine.campaign.advice import back_command
    from engine.campaign.handed_out import newest_batches
    from engine.campaign.heartbeat import alone
    from engine.campaign.opening import open_campaign
    from engine.campaign.settling import close as close_round
    from engine.campaign.settling import progress_of, settle

    opened = open_campaign(url)
    if not newest_batches(opened.home, opened.round):
        if close:
            screen.log(f"--close: nothing of round {opened.round:03d} was handed out, so it goes on")
        return
    if about_answers := [setting for setting in settings if setting.startswith(("labels.", "handoff."))]:
        opened = open_campaign(url, about_answers)
    with alone(opened.home, "round"):
        settled = settle(opened)
        progress = progress_of(opened, settled.ledger)
        if settled.is_closed or not close:
            return
        if not (progress.done or progress.answered) and progress.total > progress.waiting:
            sent = [batch.record for batch in newest_batches(opened.home, opened.round)]
            fix = f"if none will come: {back_command(opened, sent, pick_again=False)}"
            raise ConfigError(f"{opened.round_home}: --close: no answer came for its {progress.total:,} images; {fix}")
        close_round(opened, progress, "vaal round --close")
        left = progress.total - progress.done
        screen.log(
            f"round {opened.round:03d} ended by hand; not settled: {left:,} of {plural(progress.total, 'image')}"
        )


def _waiting(campaign: "Campaign") -> tuple[int, dict[str, str]]:
    """How many picks wait to be sent; and the next command, how far the answers are, and when the round ends."""
    from engine.campaign.advice import next_command, send_command
    from engine.campaign.ledger import read_ledger
    from engine.campaign.settling import progress_of
    from engine.handoff.choice import money_text

    ledger = read_ledger(campaign)
    progress = progress_of(campaign, ledger)
    needed = when_closed(campaign.config.labels.close_when)
    done = f"{progress.done:,} of {progress.total:,} picks are settled"
    return progress.waiting, {
        "next": next_command(campaign, ledger, progress),
        **({"not sent yet": not_sent(progress.waiting, send_command(campaign, ledger))} if progress.waiting else {}),
        "answers": f"{done}; the round ends when {needed}, or by: vaal round {campaign.home.quoted} --close",
        **({"money": money_text(campaign, ledger)} if ledger.spend else {}),
    }


def not_sent(number: int, command: str) -> str:
    """How many picks wait to be sent, and the command that sends them."""
    return f"{plural(number, 'pick')}; to send {'it' if number == 1 else 'them'}: {command}"


def complete_all(screen: Terminal, campaign: "Campaign", address: str, vendor: str | None = None) -> dict[str, Any]:
    """Complete all stages of a round in order, leaving complete ones alone. Returns their manifests by stage."""
    from engine.campaign.handed_out import completed
    from engine.campaign.heartbeat import alone
    from engine.cluster.ray_session import ray_session

    needs_ray = any(stage.ray == "always" and not completed(campaign, stage.name) for stage in STAGES)
    manifests: dict[str, Any] = {}
    with alone(campaign.home, "round"), ray_session(address) if needs_ray else nullcontext():
        for stage in STAGES:
            options = _sending(screen, campaign, vendor) if stage.name == "handoff" else {}
            outcome = complete(stage.command, screen, campaign, address, **options)
            screen.show(outcome)
            manifests[stage.name] = outcome.data
    return manifests


def _sending(screen: Terminal, campaign: "Campaign", vendor: str | None) -> dict[str, Any]:
    """What a round sends, and to whom: all picks that were not sent yet, to the vendor that is named. If none is named
    once some were sent, nothing more is: how much goes out when is for people to say."""
    from engine.campaign.handed_out import completed, vendor_of
    from engine.campaign.ledger import read_ledger
    from engine.campaign.settling import progress_of
    from engine.handoff.choice import NOTHING

    records = completed(campaign, "handoff")
    if not records:
        return {"vendor": vendor or DEFAULT_VENDOR}
    if vendor and progress_of(campaign, read_ledger(campaign)).waiting:
        return {"vendor": vendor}
    newest = vendor_of(records[-1])
    if vendor and vendor not in map(vendor_of, records):
        see = f"see: vaal handoff {campaign.home.quoted}"
        screen.log(f"--to {vendor}: nothing is sent there, because no pick waits to be sent; {see}")
    return {"vendor": newest, "wish": NOTHING}


def complete(command: str, screen: Terminal, campaign: "Campaign", address: str = "local", **options: Any) -> Outcome:
    """Complete a stage of a round, with a progress bar."""
    stage = stage_of(command)
    if stage.name == "handoff":
        return _exported(screen, campaign, **options)
    with screen.progress(command) as update:
        manifest = run_stage(command, campaign, Run(address, update, screen.log), **options)
    return Outcome(f"Round {campaign.round:03d}: {stage.done}", stage.describe(campaign, manifest), dict(manifest))


def _exported(screen: Terminal, campaign: "Campaign", **options: Any) -> Outcome:
    """As `complete`, of the export; what was sent before is not shown as if it were sent now."""
    from engine.handoff.export import announced, describe

    before = announced(campaign)
    with screen.progress("export") as update:
        manifest = run_stage("export", campaign, Run("local", update, screen.log), **options)
    is_new = manifest["stage"] not in before
    facts = describe(campaign, cast("HandoffManifest", manifest), is_new=is_new)
    title = f"Round {campaign.round:03d}: {'exported' if is_new else 'nothing was sent now'}"
    return Outcome(title, facts, {**manifest, "sent_now": is_new, "folder": str(facts["handoff"])})


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
