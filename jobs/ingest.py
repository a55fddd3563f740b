"""`vaal ingest`: take in the answers of annotators."""

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.campaign.stages import DEFAULT_VENDOR
from engine.config.texts import some
from engine.errors import ConfigError, InputError
from jobs.terminal import CampaignArgument, FromOption, Outcome, SetOption, Terminal

if TYPE_CHECKING:
    from engine.campaign.folder import Campaign
    from engine.handoff.answers import Rules
    from engine.handoff.ingest import Ingested

LABEL_STUDIO = "label-studio"
MOST_CLASSES = 20
"""New classes that a person is shown."""


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
    from engine.handoff.answers import Rules
    from engine.handoff.ingest import ingest as take_in

    with opened_with(campaign, settings) as opened, alone(opened.home, "ingest"):
        rules = Rules(replace, accept_rest)
        if url:
            from engine.handoff.label_studio_api import fetch, token_of_environment

            with fetch(url, project, token_of_environment()) as file:
                counts = take_in(opened, [file], source, rules, screen.log)
        else:
            counts = _taken(opened, files, source, rules, screen)
    if counts.new + counts.replaced and (note := note_on_training(opened)):
        screen.log(note)
    number = current_round(opened.home)
    title = f"Ingested; the campaign is in round {number:03d}"
    return Outcome(title, _facts(opened, counts, number), counts._asdict() | {"known": counts.known})


def _taken(campaign: "Campaign", files: list[str], vendor: str, rules: "Rules", screen: Terminal) -> "Ingested":
    """Take in files. Raises InputError also for what was sent to the vendor, and does not hold an answer."""
    from engine.handoff.answer_files import answer_files, files_in, was_sent
    from engine.handoff.ingest import ingest as take_in
    from engine.handoff.sent_back import TaskFiles

    sent = TaskFiles(campaign)
    counts = take_in(campaign, answer_files(files, vendor, sent.named), vendor, rules, screen.log)
    if counts.blank == counts.answers:
        for name in files:
            if path := sent.named(files_in(name)):
                raise InputError(f"{name}: {was_sent(path, vendor)}")
    return counts


def _facts(campaign: "Campaign", counts: "Ingested", number: int) -> dict[str, Any]:
    """What came in, for a person: first answers, whose numbers add up, then labels. `number` is the round now."""
    home = campaign.home.quoted
    pages = [f"vaal report {home}" + (f" --round {of}" if of != number else "") for of in counts.rounds]
    return {
        "answers in the files": counts.answers,
        **_count("new", counts.votes, _count("of known ones", counts.versions) | _count("skipped", counts.skipped)),
        **_count("known already", counts.known, _count("corrected since", counts.corrected)),
        **_count("still blank", counts.blank),
        **_count("refused", len(counts.refused)),
        "labels new": counts.new,
        **_count("labels changed", counts.replaced - counts.taken_away),
        **_count("labels taken away", counts.taken_away),
        **_count("new labels of images that changed", counts.changed),
        "new classes": some(counts.new_classes, MOST_CLASSES) or "none",
        "images still out": counts.out,
        **_count("of them disputed", counts.disputed),
        "labels": campaign.home / "labels",
        **({"look at the answers": "; ".join(pages)} if pages else {}),
        "next": _next(campaign, number),
    }


def _count(name: str, count: int, of_these: dict[str, Any] | None = None) -> dict[str, Any]:
    """A count that is not 0, by its name, and some of what it counts."""
    if not count:
        return {}
    parts = [f"{number:,} {part}" for part, number in (of_these or {}).items()]
    return {name: f"{count:,} ({', '.join(parts)})" if parts else count}


def _next(campaign: "Campaign", number: int) -> str:
    """The command that goes on in the round that there is now, as `vaal status` names it."""
    from engine.campaign.advice import next_command
    from engine.campaign.ledger import read_ledger
    from engine.campaign.settling import progress_of

    now = replace(campaign, round=number)
    ledger = read_ledger(now)
    try:
        return next_command(now, ledger, progress_of(now, ledger))
    except InputError:
        # A damaged selection is reported by whoever needs it; the answers are in.
        return f"vaal status {now.home.quoted}"
