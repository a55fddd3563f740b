"""Making a campaign, opening it at a round, and changing its configuration from a round on."""

import secrets
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pyarrow.compute as pc

from engine.campaign.first_labels import import_labels
from engine.campaign.folder import Campaign, round_home
from engine.campaign.labels import read_labels
from engine.campaign.stages import STAGES, Log
from engine.config.options import FIXED_AT_INIT, CampaignConfig, changes_results
from engine.config.texts import parse_settings
from engine.config.toml import override, parse_campaign, to_toml
from engine.errors import ConfigError, InputError
from engine.pool.manifest import list_shards, read_shards, write_shards
from engine.pool.metadata import import_metadata, read_strata
from engine.storage.documents import read_document
from engine.storage.location import Location


def create(url: str, patterns: list[str], labels: str, config: CampaignConfig, log: Log) -> Campaign:
    """Make a campaign. `campaign.toml` is written last: without it, init has not happened.

    Raises:
        ConfigError: the folder already holds a campaign.
        InputError: a shard or the label file is not what it should be; nothing usable is left behind.
    """
    home = Location.of(url)
    if (home / "campaign.toml").exists():
        raise ConfigError(f"{home}: already holds a campaign; use another folder, or continue: vaal round {home}")
    patterns = patterns or config.pool.shards
    shards, root = list_shards(patterns, config.pool.root)
    log(f"{len(shards)} shards, {sum(shard.size_bytes for shard in shards) / 1e6:,.1f} MB below {root}")
    # Written before the labels are looked up, so that a folder without write permission is told at once.
    write_shards(home, shards)
    shards, num_labels = import_labels(home, Location.of(labels), shards, config.image, log)
    _check_budget(config, sum(shard.num_items or 0 for shard in shards), num_labels, all(s.num_items for s in shards))
    write_shards(home, shards)
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


def _check_budget(config: CampaignConfig, num_items: int, num_labels: int, is_counted: bool) -> None:
    if is_counted and config.select.budget > num_items - num_labels:
        raise ConfigError(
            f"select.budget={config.select.budget} is more than the {num_items - num_labels} unlabelled items of the "
            f"pool; lower it: --set select.budget={max(1, num_items - num_labels)}"
        )


def open_campaign(
    url: str, settings: Sequence[str] = (), round_number: int | None = None, *, force: bool = False
) -> Campaign:
    """The campaign at its current round, or at an earlier one.

    `settings` ("key=value") change the configuration from this round on; they are kept in the round's overrides.json.
    With `force` those of the selection may change after it was handed out.

    Raises:
        InputError: there is no campaign, or no such round.
        ConfigError: a setting is unknown, wrong, or too late for this round.
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
                "it can be set once the round's labels are ingested and the next round begins"
                + ("; or pick other images as well: vaal select --force" if section == "select" else "")
            )
    overrides = campaign.round_home / "overrides.json"
    before = _read_overrides(overrides)
    if {**before, **values} != before:
        overrides.write_json({**before, **values})
    return changed


def current_round(home: Location) -> int:
    """The round after the last one whose labels have come back, wholly or in part; 0 before any have."""
    last = pc.max(read_labels(home).column("round")).as_py()
    return 0 if last is None else last + 1


def check_budget(campaign: Campaign) -> None:
    """Raises ConfigError when the pool has been counted and its unlabelled items do not suffice for b."""
    shards = read_shards(campaign.home)
    num_labels = read_labels(campaign.home).num_rows
    _check_budget(
        campaign.config, sum(shard.num_items or 0 for shard in shards), num_labels, all(s.num_items for s in shards)
    )
