"""`vaal train`, `score`, `select`, `export`, `report`: the stages of a round."""

import shlex
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from engine.campaign.stages import DEFAULT_VENDOR, Run, complete_stage, stage_of
from engine.errors import ConfigError, InputError
from jobs.terminal import (
    AddressOption,
    CampaignArgument,
    Outcome,
    SetOption,
    Terminal,
    ToOption,
)

if TYPE_CHECKING:
    from engine.campaign.folder import Campaign
    from engine.campaign.manifests import HandoffManifest


def train(
    screen: Terminal, campaign: CampaignArgument, settings: SetOption = [], address: AddressOption = "local"
) -> Outcome:
    """Train what the scores ask for: VAAL on both pools, a task learner on the labels, or neither."""
    with opened_with(campaign, settings) as opened:
        return complete("train", screen, opened, address)


def score(
    screen: Terminal, campaign: CampaignArgument, settings: SetOption = [], address: AddressOption = "local"
) -> Outcome:
    """Stream the whole pool through the networks: every image gets the scores of score.acquisition."""
    with opened_with(campaign, settings) as opened:
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
    """Pick exactly select.budget images, the most valuable by select.acquisition and select.diversity, no two alike,
    with a control arm."""
    if not explain:
        if round_number is not None:
            raise ConfigError("--round: only with --explain; images are picked in the current round alone")
        with opened_with(campaign, settings, force=force) as opened:
            return complete("select", screen, opened, address, force=force)
    if settings or force:
        raise ConfigError("--explain: explains what was picked, so it takes neither --set nor --force")
    from engine.selection.explanation import explain as explain_item
    from engine.selection.explanation import for_people, named

    opened = _open_selected(campaign, round_number, "select", "--explain", *filter(None, explain))
    item = explain if explain[1] else named(opened, explain[0])
    found = explain_item(opened, *item)
    return Outcome(f"Round {opened.round:03d}: {' '.join(item)}: {found['outcome']}", for_people(found), found)


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
    with opened_with(campaign, settings) as opened:
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
    with opened_with(campaign, settings, round_number) as opened:
        return _reported(screen, opened)


def _reported(screen: Terminal, campaign: "Campaign") -> Outcome:
    from engine.report.answers_page import page_of

    found, answers = complete("report", screen, campaign), page_of(campaign)
    return found._replace(data=found.data | {"answers": answers.url if answers else None})


def complete(command: str, screen: Terminal, campaign: "Campaign", address: str = "local", **options: Any) -> Outcome:
    """Complete a stage of a round, with a progress bar."""
    stage = stage_of(command)
    if stage.name == "handoff":
        return _exported(screen, campaign, **options)
    with screen.running(command, campaign, address) as run:
        manifest, changed = complete_stage(command, campaign, run, **options)
    done = stage.done if changed else f"{stage.done} before, nothing was done"
    data = {**manifest, "changed": changed}
    return Outcome(f"Round {campaign.round:03d}: {done}", stage.describe(campaign, manifest), data)


def _exported(screen: Terminal, campaign: "Campaign", **options: Any) -> Outcome:
    """As `complete`, of the export; what was sent before is not shown as if it were sent now."""
    from engine.handoff.export import announced, describe

    before = announced(campaign)
    with screen.running("export", campaign) as run:
        manifest, changed = complete_stage("export", campaign, run, **options)
    is_new = manifest["stage"] not in before
    facts = describe(campaign, cast("HandoffManifest", manifest), is_new=is_new)
    title = f"Round {campaign.round:03d}: {'exported' if is_new else 'nothing was sent now'}"
    return Outcome(title, facts, {**manifest, "changed": changed, "sent_now": is_new, "folder": str(facts["handoff"])})


def opened_with(
    url: str, settings: list[str], round_number: int | None = None, *, force: bool = False
) -> "AbstractContextManager[Campaign]":
    """The campaign with these settings, which are kept, for a command that changes it."""
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
