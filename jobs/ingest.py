"""`vaal ingest`: take in the answers of annotators."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.campaign.stages import DEFAULT_VENDOR
from engine.errors import ConfigError
from jobs.terminal import CampaignArgument, FromOption, Outcome, SetOption, Terminal

if TYPE_CHECKING:
    from engine.campaign.folder import Campaign
    from engine.handoff.ingest import Ingested

LABEL_STUDIO = "label-studio"


def ingest(
    screen: Terminal,
    campaign: CampaignArgument,
    files: Annotated[
        list[str], typer.Argument(metavar="[FILE]...", help="What the vendor exported: files, folders, zip archives.")
    ] = [],
    source: FromOption = DEFAULT_VENDOR,
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Answers that differ from earlier ones, or from a correction, replace them."),
    ] = False,
    accept_rest: Annotated[bool, typer.Option("--accept-rest", help="Where rows do not fit, take the others.")] = False,
    url: Annotated[
        str, typer.Option(metavar="URL", help="With --from label-studio: a server; its token is LABEL_STUDIO_API_KEY.")
    ] = "",
    project: Annotated[int | None, typer.Option(metavar="ID", help="With --url: the project on the server.")] = None,
    settings: SetOption = [],
) -> Outcome:
    """Add answers; labels follow from them. Ingesting a file twice changes nothing."""
    if url and source != LABEL_STUDIO:
        raise ConfigError(f"--url {url}: only with --from {LABEL_STUDIO}")
    if bool(url) == bool(files) or (project is not None and not url):
        raise ConfigError("give the files that the vendor exported, or --from label-studio --url URL [--project ID]")
    from engine.campaign.corrections import note_on_training
    from engine.campaign.heartbeat import alone
    from engine.campaign.opening import current_round
    from engine.campaign.opening import opened as opened_with
    from engine.handoff.answer_files import answer_files
    from engine.handoff.answers import Rules
    from engine.handoff.ingest import ingest as take_in

    with opened_with(campaign, settings) as opened, alone(opened.home, "ingest"):
        rules = Rules(replace, accept_rest)
        if url:
            from engine.handoff.label_studio_api import fetch, token_of_environment

            with fetch(url, project, token_of_environment()) as file:
                counts = take_in(opened, [file], source, rules, screen.log)
        else:
            counts = take_in(opened, answer_files(files, source), source, rules, screen.log)
    if counts.new + counts.replaced and (note := note_on_training(opened)):
        screen.log(note)
    number = current_round(opened.home)
    title = f"Ingested; the campaign is in round {number:03d}"
    return Outcome(title, _facts(opened, counts, is_over=number > opened.round), counts._asdict())


def _facts(campaign: "Campaign", counts: "Ingested", *, is_over: bool) -> dict[str, Any]:
    """What came in, for a person."""
    corrected = f", {counts.corrected:,} of them corrected since" if counts.corrected else ""
    is_any = bool(counts.new + counts.repeated + counts.replaced + counts.votes)
    return {
        "new labels": counts.new,
        "known already": f"{counts.repeated:,}{corrected}",
        "replaced": counts.replaced,
        "still blank": counts.blank,
        "new answers": counts.votes,
        **({"newer versions": counts.versions} if counts.versions else {}),
        **({"skipped": counts.skipped} if counts.skipped else {}),
        **({"refused": len(counts.refused)} if counts.refused else {}),
        "new classes": ", ".join(counts.new_classes) or "none",
        **({"of images that changed": counts.changed} if counts.changed else {}),
        "picks still out": counts.out,
        **({"of them disputed": counts.disputed} if counts.disputed else {}),
        "labels": campaign.home / "labels",
        **({"look at the answers": _report(campaign, is_over=is_over)} if counts.votes else {}),
        "next": _next(campaign.home.quoted, is_any=is_any, is_over=is_over),
    }


def _report(campaign: "Campaign", *, is_over: bool) -> str:
    """The command that makes the page about the answers."""
    return f"vaal report {campaign.home.quoted}" + (f" --round {campaign.round}" if is_over else "")


def _next(home: str, *, is_any: bool, is_over: bool) -> str:
    if is_over:
        return f"vaal round {home}"
    return f"vaal handoff {home}" if is_any else f"vaal ingest {home} FILE, when answers are there"
