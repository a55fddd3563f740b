"""Making a campaign, opening it at a round, and changing its configuration from a round on."""

import secrets
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pyarrow.compute as pc

from engine.campaign.first_labels import import_labels
from engine.campaign.folder import Campaign, round_home
from engine.campaign.heartbeat import alone
from engine.campaign.labels import read_labels
from engine.campaign.stages import STAGES, Log
from engine.config.options import FIXED_AT_INIT, CampaignConfig, changes_results
from engine.config.texts import parse_settings, plural
from engine.config.toml import override, parse_campaign, to_toml
from engine.errors import ConfigError, InputError
from engine.pool.manifest import list_shards, read_shards, write_shards
from engine.pool.metadata import import_metadata, read_strata
from engine.storage.documents import read_document
from engine.storage.location import Location


def create(url: str, patterns: list[str], labels: str, config: CampaignConfig, log: Log) -> Campaign:
    """Make a campaign. `campaign.toml` is written last: without it, init has not happened.

    Raises:
        ConfigError: the folder already holds a campaign, or the rounds of one.
        InputError: a shard or the label file is not what it should be; nothing usable is left behind.
    """
    home = Location.of(url)
    if (home / "campaign.toml").exists():
        raise ConfigError(f"{home}: already holds a campaign; use another folder, or continue: vaal round {home}")
    if (home / "rounds").folders():
        raise ConfigError(f"{home}: has rounds of a campaign but no campaign.toml; restore that, or use another folder")
    patterns = patterns or config.pool.shards
    shards, root = list_shards(patterns, config.pool.root)
    log(f"{plural(len(shards), 'shard')}, {sum(shard.size_bytes for shard in shards) / 1e6:,.1f} MB below {root}")
    # Written before the labels are looked up, so that a folder without write permission is reported at once.
    write_shards(home, shards)
    write_shards(home, import_labels(home, Location.of(labels), shards, config.image, log))
    check_budget(Campaign(home, config, 0))
    if config.pool.metadata:
        import_metadata(home, Location.of(config.pool.metadata), [shard.shard for shard in shards])
        if config.select.stratify:
            read_strata(home, config.select.stratify)
    resolved = override(
        config,
        {
            "pool.shards": [pattern if "://" in pattern else Location.of(pattern).url for pattern in patterns],
            "pool.root": root,
            **({} if config.salt.strip("0") else {"salt": secrets.token_hex(16)}),
        },
        "init",
    )
    (home / "campaign.toml").write_bytes(to_toml(resolved).encode())
    return Campaign(home, resolved, 0)


def open_campaign(
    url: str, settings: Sequence[str] = (), round_number: int | None = None, *, force: bool = False
) -> Campaign:
    """The campaign at its current round, or at an earlier one.

    `settings` ("key=value") change the configuration from this round on; they are kept in the round's overrides.json.
    With `force`, options of the selection may change after it was handed out.

    Raises:
        InputError: there is no campaign, or no such round.
        ConfigError: a setting is unknown, wrong, or too late for this round.
        BusyError: settings are given while another run is at work on the campaign.
    """
    home = Location.of(url)
    source = home / "campaign.toml"
    if not source.exists():
        raise InputError(f"{home}: no campaign here; make one: vaal init {home} --pool URL --labels FILE")
    config = parse_campaign(source.read_bytes(), str(source))
    current = current_round(home)
    if round_number is not None and not 0 <= round_number <= current:
        raise InputError(f"--round {round_number}: the campaign is in round {current}; give 0 to {current}")
    number = current if round_number is None else round_number
    for earlier in range(number + 1):
        overrides = round_home(home, earlier) / "overrides.json"
        config = override(config, _read_overrides(overrides), str(overrides))
    campaign = Campaign(home, config, number)
    return _change(campaign, parse_settings(settings), force=force) if settings else campaign


def _read_overrides(file: Location) -> dict[str, Any]:
    return read_document(file, dict[str, Any]) if file.exists() else {}


def _change(campaign: Campaign, values: dict[str, Any], *, force: bool) -> Campaign:
    changed = replace(campaign, config=override(campaign.config, values, "--set"))
    old, new = campaign.config.model_dump(), changed.config.model_dump()
    for key in values:
        section, _, name = key.partition(".")
        if (old[section] == new[section]) if not name else (old[section][name] == new[section][name]):
            continue
        if section in FIXED_AT_INIT:
            raise ConfigError(f"--set {key}: fixed at init; start a new campaign to change it")
        frozen_by = [f for stage in STAGES if section in stage.freezes for f in campaign.completed(stage.name)]
        if changes_results(key) and frozen_by and not (force and section == "select"):
            raise ConfigError(
                f"--set {key}: too late for round {campaign.round:03d}, {frozen_by[0]} is complete; "
                "set it when the round's labels are ingested and the next round begins"
                + ("; or select again: vaal select --force" if section == "select" else "")
            )
    overrides = campaign.round_home / "overrides.json"
    before = _read_overrides(overrides)
    if {**before, **values} != before:
        with alone(campaign.home, "--set"):
            overrides.write_json({**before, **values})
    return changed


def current_round(home: Location) -> int:
    """The round after the last one with ingested labels, all or some of them; 0 where there is none."""
    last = pc.max(read_labels(home).column("round")).as_py()
    return 0 if last is None else last + 1


def check_budget(campaign: Campaign) -> None:
    """Raises ConfigError when every shard has been counted and the pool has fewer unlabelled items than the budget."""
    budget, counts = campaign.config.select.budget, [shard.num_items for shard in read_shards(campaign.home)]
    num_unlabelled = sum(count or 0 for count in counts) - read_labels(campaign.home).num_rows
    if all(counts) and budget > num_unlabelled:
        raise ConfigError(
            f"select.budget={budget} is more than the {num_unlabelled} unlabelled items of the pool; lower it: "
            f"--set select.budget={max(1, num_unlabelled)}"
        )
