"""`vaal round`: all stages of a round, and its end."""

from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.campaign.stages import DEFAULT_VENDOR, STAGES, stage_of
from engine.config.texts import plural
from engine.errors import ConfigError
from jobs.stages import complete, opened_with
from jobs.terminal import (
    STAGE_NAMES,
    VENDOR_NAMES,
    AddressOption,
    CampaignArgument,
    Outcome,
    SetOption,
    StageName,
    Terminal,
    VendorName,
    when_closed,
)

if TYPE_CHECKING:
    from engine.campaign.folder import Campaign
    from engine.campaign.settling import Progress


UntilOption = Annotated[
    StageName, typer.Option("--until", metavar="STAGE", help=f"Stop after this stage: {STAGE_NAMES}.")
]


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
    until: UntilOption = STAGES[-1].command,
    settings: SetOption = [],
    address: AddressOption = "local",
) -> Outcome:
    """Train, score, select, export and report. After an interruption, run it again to continue."""
    _end_round(screen, campaign, settings, close=close)
    with opened_with(campaign, settings) as opened:
        manifests = complete_all(screen, opened, address, to, until)
        number, did = f"Round {opened.round:03d}", any(manifest["changed"] for manifest in manifests.values())
        if STAGES[len(manifests) - 1] != STAGES[-1]:
            words = f"ends here, after {until}" + ("" if did else "; nothing was done")
            return Outcome(f"{number} {words}", {"next": f"vaal round {opened.home.quoted}"}, manifests)
        waiting, facts = _waiting(opened)
        title = "complete" if not waiting else f"{plural(waiting, 'pick')} not sent yet, the rest is complete"
        return Outcome(f"{number}: {title}{'' if did else ' already, nothing was done'}", facts, manifests)


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
    return progress.waiting, {
        "next": next_command(campaign, ledger, progress),
        **({"not sent yet": not_sent(progress.waiting, send_command(campaign, ledger))} if progress.waiting else {}),
        "answers": how_it_ends(campaign, progress),
        **({"money": money_text(campaign, ledger)} if ledger.spend else {}),
    }


def how_it_ends(campaign: "Campaign", progress: "Progress") -> str:
    """How far the answers are, and what ends the round: the command only where it is not refused."""
    needed = when_closed(campaign.config.labels.close_when)
    done = f"{progress.done:,} of {plural(progress.total, 'pick')} settled or taken back; the round ends when {needed}"
    is_any = progress.done or progress.answered
    return f"{done}, or by: vaal round {campaign.home.quoted} --close" if is_any else done


def not_sent(number: int, command: str) -> str:
    """How many picks wait to be sent, and the command that sends them."""
    return f"{plural(number, 'pick')}; to send {'it' if number == 1 else 'them'}: {command}"


def complete_all(
    screen: Terminal, campaign: "Campaign", address: str, vendor: str | None = None, until: str = STAGES[-1].command
) -> dict[str, Any]:
    """Complete the stages of a round in order, up to the one of the command `until`, leaving complete ones alone.
    Returns their manifests by stage."""
    from engine.campaign.growing import follow
    from engine.campaign.handed_out import completed
    from engine.campaign.heartbeat import alone
    from engine.cluster.ray_session import ray_session

    stages = STAGES[: STAGES.index(stage_of(until)) + 1]
    needs_ray = any(stage.ray == "always" and not completed(campaign, stage.name) for stage in stages)
    manifests: dict[str, Any] = {}
    if completed(campaign, "train"):
        # Where the round only begins, training looks at the pool.
        follow(campaign, screen.log)
    with alone(campaign.home, "round"), ray_session(address) if needs_ray else nullcontext():
        for stage in stages:
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
