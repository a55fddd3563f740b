"""`vaal init`: make a campaign."""

from pathlib import Path
from typing import Annotated

import typer

from jobs.terminal import CampaignArgument, Outcome, SetOption, Terminal


def init(
    screen: Terminal,
    campaign: CampaignArgument,
    labels: Annotated[
        str,
        typer.Option(help="Labels to begin with: CSV, JSON lines or Parquet with shard, key, label.", metavar="FILE"),
    ],
    pool: Annotated[
        list[str],
        typer.Option(help="Tar shards: paths or URLs, globs, brace ranges. May be repeated.", metavar="URL..."),
    ] = [],
    config: Annotated[
        Path | None,
        typer.Option(help="A TOML file with options; see the campaign.toml that init writes.", metavar="FILE"),
    ] = None,
    settings: SetOption = [],
) -> Outcome:
    """Make a campaign from a pool of shards and a file of labels."""
    from engine.config.options import CampaignConfig
    from engine.config.texts import parse_settings
    from engine.config.toml import override, parse_config

    base = CampaignConfig()
    if config:
        from engine.storage.location import Location

        base = parse_config(Location.of(str(config)).read_bytes(), str(config))
    resolved = override(base, parse_settings(settings), "--set")

    from engine.campaign.opening import create

    made = create(campaign, pool, labels, resolved, screen.log)
    facts = {"configuration": made.home / "campaign.toml", "next": f"vaal round {made.home.quoted}"}
    data = {"campaign": str(made.home), "config": made.config.shown()}
    return Outcome(f"Campaign made: {made.home}", facts, data)
