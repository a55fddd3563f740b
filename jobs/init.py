"""`vaal init`: make a campaign."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.terminal import CampaignArgument, Outcome, SetOption, Terminal

if TYPE_CHECKING:
    from engine.config.options import CampaignConfig


def init(
    screen: Terminal,
    campaign: CampaignArgument,
    pool: Annotated[
        list[str],
        typer.Option(help="Tar shards: paths or URLs, globs, brace ranges. May be repeated.", metavar="URL..."),
    ] = [],
    labels: Annotated[
        str,
        typer.Option(
            help="Labels to begin with: CSV, JSON lines or Parquet with shard, key, label; or member:cls of samples. "
            "Without it the first round spreads over the pool.",
            metavar="FILE",
        ),
    ] = "",
    config: Annotated[
        str,
        typer.Option(help="A TOML file with options; see the campaign.toml that init writes.", metavar="FILE"),
    ] = "",
    settings: SetOption = [],
) -> Outcome:
    """Make a campaign from a pool of shards, with labels to begin with or without."""
    from engine.config.options import CampaignConfig
    from engine.config.texts import parse_settings
    from engine.config.toml import override, parse_config

    base = CampaignConfig()
    if config:
        from engine.storage.location import Location

        base = parse_config(Location.of(config).read_bytes(), config)
    resolved = override(base, parse_settings(settings), "--set")

    from engine.campaign.opening import create

    made = create(campaign, pool, labels, resolved, screen.log, _admission(resolved, screen))
    facts = {"configuration": made.home / "campaign.toml", "next": f"vaal round {made.home.quoted}"}
    data = {"campaign": str(made.home), "config": made.config.shown()}
    return Outcome(f"Campaign made: {made.home}", facts, data)


def _admission(config: "CampaignConfig", screen: Terminal) -> Callable[[dict[tuple[str, str], str]], None]:
    """Try a task learner of the user's before anything is written. Returns what then refuses labels that do not fit
    it."""
    if not config.task.model:
        return lambda _labels: None
    from engine.models.task_trial import note_on_weights, require_outputs_for, try_for_init

    found = try_for_init(config, screen.log)
    if found and (note := note_on_weights(config)):
        screen.log(note)
    return lambda labels: require_outputs_for(config, labels, found.num_classes) if found else None
