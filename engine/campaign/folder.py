"""A campaign's folder: where its stages live, which round it is in, and what is complete.

All state is in the folder. A stage is complete exactly when its manifest.json exists, because that is written last.
"""

import hashlib
import importlib.metadata
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import tomlkit

from engine.campaign.labels import import_labels, read_labels
from engine.config import options
from engine.config.options import CampaignConfig
from engine.config.texts import describe_range, parse_settings
from engine.errors import ConfigError, InputError
from engine.pool.manifest import list_shards, read_shards, write_shards
from engine.pool.metadata import import_metadata, read_strata
from engine.storage.location import Location

Report = Callable[[str], None]
"""Takes one line for a person to read."""

HANDOFFS = ("handoff/generic",)
"""The stages that hand the picked images out, one a vendor."""
_READERS = {"image": ("train",), "train": ("train",), "score": ("scores",), "select": HANDOFFS}
"""By section of the configuration, the stages after which it is too late to change. A selection can be made anew until
it is handed out."""


@dataclass(frozen=True)
class Campaign:
    """A campaign as of one round: its folder, and its configuration with the changes up to that round."""

    home: Location
    config: CampaignConfig
    round: int

    @property
    def round_home(self) -> Location:
        return round_home(self.home, self.round)

    def stage(self, name: str) -> Location:
        """The folder of a stage of this round: train, scores, quarantine, selection, handoff/VENDOR, report."""
        return self.round_home / name


def round_home(home: Location, number: int) -> Location:
    """The folder of a round."""
    return home / f"rounds/{number:03d}"


def is_complete(stage: Location) -> bool:
    """Whether the stage's manifest exists."""
    return (stage / "manifest.json").exists()


def read_manifest(stage: Location, command: str) -> dict[str, Any]:
    """The manifest of a complete stage. Raises InputError that names the command which completes it."""
    if not is_complete(stage):
        raise InputError(f"{stage}: not complete; run: vaal {command}")
    return (stage / "manifest.json").read_json()


def read_trained(folder: Location, name: str, sha256: str | None) -> bytes:
    """A file of a train stage. Raises InputError when it is not the one whose SHA-256 the manifest gives."""
    content = (folder / name).read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise InputError(
            f"{folder / name}: not the file that training wrote; delete {folder}/manifest.json and train again"
        )
    return content


def write_manifest(
    stage: Location,
    campaign: Campaign,
    *,
    inputs: dict[str, str],
    counts: dict[str, Any],
    files: dict[str, str],
    details: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Complete a stage. `inputs` and `files` map names to SHA-256. Returns the manifest."""
    manifest = {
        "round": campaign.round,
        "stage": stage.url.removeprefix(campaign.round_home.url + "/"),
        "counts": counts,
        "seed": campaign.config.train.seed,
        "inputs": inputs,
        "files": files,
        "config": campaign.config.model_dump(),
        "code_version": code_version(),
        "completed_at": datetime.now(UTC).isoformat(timespec="seconds"),
        **(details or {}),
    }
    (stage / "manifest.json").write_json(manifest)
    return manifest


def code_version() -> str:
    """The installed version of this package."""
    return importlib.metadata.version("vaal")


def fingerprint(**parts: Any) -> str:
    """SHA-256 of named JSON values, hex."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def source_fingerprint(*modules: str) -> str:
    """SHA-256 of these modules' source files: results made by different code must not be mixed."""
    digest = hashlib.sha256()
    root = Path(__file__).parents[2]
    for module in modules:
        digest.update((root / f"{module.replace('.', '/')}.py").read_bytes())
    return digest.hexdigest()


def create(url: str, patterns: list[str], labels: str, config: CampaignConfig, report: Report) -> Campaign:
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
    report(f"{len(shards)} shards, {sum(shard.size_bytes for shard in shards) / 1e6:,.1f} MB below {root}")
    # Written before the labels are looked up, so that a folder without write permission is told at once.
    write_shards(home, shards)
    shards, num_labels = import_labels(home, Location.of(labels), shards, config.image, report)
    _check_budget(config, sum(shard.num_items or 0 for shard in shards), num_labels, all(s.num_items for s in shards))
    write_shards(home, shards)
    if config.pool.metadata:
        import_metadata(home, Location.of(config.pool.metadata), [shard.shard for shard in shards])
        if config.select.stratify:
            read_strata(home, config.select.stratify)
    resolved = options.override(
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


def open_campaign(url: str, settings: list[str], round_number: int | None = None, *, force: bool = False) -> Campaign:
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
    config = options.parse_config(source.read_bytes().decode(), str(source))
    current = current_round(home)
    if round_number is not None and not 0 <= round_number <= current:
        raise InputError(f"--round {round_number}: the campaign is in round {current}; give 0 to {current}")
    number = current if round_number is None else round_number
    for earlier in range(number + 1):
        overrides = round_home(home, earlier) / "overrides.json"
        if overrides.exists():
            config = options.override(config, overrides.read_json(), str(overrides))
    campaign = Campaign(home, config, number)
    return _change(campaign, parse_settings(settings), force=force) if settings else campaign


def _change(campaign: Campaign, values: dict[str, Any], *, force: bool) -> Campaign:
    changed = Campaign(campaign.home, options.override(campaign.config, values, "--set"), campaign.round)
    old, new = campaign.config.model_dump(), changed.config.model_dump()
    for key in values:
        section, _, name = key.partition(".")
        if (old[section] == new[section]) if not name else (old[section][name] == new[section][name]):
            continue
        if section in options.FIXED_AT_INIT:
            raise ConfigError(f"--set {key}: fixed at init; start a new campaign to change it")
        complete = [name for name in _READERS.get(section, ("report",)) if is_complete(campaign.stage(name))]
        if options.changes_results(key) and complete and not (force and section == "select"):
            raise ConfigError(
                f"--set {key}: too late for round {campaign.round:03d}, {campaign.stage(complete[0])} is complete; "
                "it can be set once the round's labels are ingested and the next round begins"
                + ("; or pick other images besides: vaal select --force" if section == "select" else "")
            )
    overrides = campaign.round_home / "overrides.json"
    before = overrides.read_json() if overrides.exists() else {}
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


def to_toml(config: CampaignConfig) -> str:
    """`campaign.toml` with every option, and above each what it is, its range and whether it changes results."""
    document = tomlkit.document()
    document.add(tomlkit.comment("Made by vaal init. Change an option by --set key=value on any later command."))
    described = options.fields()

    def add(table: Any, key: str, value: Any) -> None:
        field = described[key]
        allowed = describe_range(field)
        effect = "Changes results." if options.changes_results(key) else "Does not change results."
        for line in (field.description or "").splitlines():
            table.add(tomlkit.comment(line))
        table.add(tomlkit.comment(f"{allowed[:1].upper()}{allowed[1:]}. {effect}" if allowed else effect))
        table.add(key.rpartition(".")[2], value)

    tree = config.model_dump()
    for name, value in tree.items():
        if isinstance(value, dict):
            table = tomlkit.table()
            for key, inner in value.items():
                add(table, f"{name}.{key}", inner)
            document.add(name, table)
        else:
            add(document, name, value)
    return tomlkit.dumps(document)
