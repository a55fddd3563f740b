"""`vaal init`: make a campaign."""

from pathlib import Path
from typing import Annotated

import typer

from jobs.terminal import CampaignArgument, DebugOption, JsonOption, Outcome, SetOption, terminal


def init(
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
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Make a campaign from a pool of shards and a file of labels."""
    with terminal(json=json, debug=debug) as screen:
        from engine.config.options import CampaignConfig
        from engine.config.texts import parse_settings
        from engine.config.toml import override, parse_config

        base = parse_config(_read(config), str(config)) if config else CampaignConfig()
        resolved = override(base, parse_settings(settings), "--set")

        from engine.campaign.opening import create

        made = create(campaign, pool, labels, resolved, screen.log)
        facts = {"configuration": made.home / "campaign.toml", "next": f"vaal round {made.home}"}
        data = {"campaign": str(made.home), "config": made.config.model_dump()}
        screen.result(Outcome(f"Campaign made: {made.home}", facts, data))


def _read(file: Path) -> str:
    from engine.errors import InputError

    try:
        return file.read_text()
    except OSError as error:
        raise InputError(f"--config {file}: cannot be read: {error.strerror}") from error
