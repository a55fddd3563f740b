"""`campaign.toml` and settings as text: parsed into the model of the options, and written with explanations."""

import tomllib
from typing import Any

import tomlkit
from pydantic import ValidationError

from engine.config.options import CampaignConfig, changes_results, fields, keys_in_tables
from engine.config.texts import describe_range, explain, unknown_key
from engine.config.train_options import PRESET_SETTINGS, TrainConfig
from engine.errors import ConfigError, InputError, VaalError, one_line

FORMAT = 1
"""Format of a campaign's folder. A newer one is refused."""
_LISTS_OF_NUMBERS: dict[str, list[Any]] = {
    **{key: [0.5] for key in ("encoder.mean", "encoder.std", "task.mean", "task.std")},
    "labels.void": [255],
}
"""Each with an example."""
LAST_LINE = "# The end of campaign.toml."


def parse_config(content: bytes, source: str) -> CampaignConfig:
    """The model of a TOML file.

    Raises ConfigError if it is not TOML, its format is newer, or an option is unknown or wrong; names `source`.
    """
    tree = _parse(content, source, ConfigError)
    written = tree.pop("format", FORMAT)
    if type(written) is not int or written > FORMAT:
        known = f"this version reads campaigns up to format {FORMAT}"
        raise ConfigError(f"{source}: format={written!r}: {known}; use the version that made it, or a newer one")
    return _validated(tree, source)


def parse_campaign(content: bytes, source: str) -> CampaignConfig:
    """The model of a `campaign.toml`. As `parse_config`, but raises InputError if it is cut off or not TOML."""
    tree = _parse(content, source, InputError)
    # A file that is cut off at the end of a line is valid TOML, and the missing options would get their defaults.
    is_whole = content.rstrip().endswith(LAST_LINE.encode()) if "format" in tree else "seed" in tree.get("select", {})
    if not is_whole:
        raise InputError(f"{source}: damaged, cut off: its end is missing; restore it from a copy")
    return parse_config(content, source)


def _parse(content: bytes, source: str, kind: type[VaalError]) -> dict[str, Any]:
    try:
        return tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise kind(f"{source}: damaged, not valid TOML: {one_line(error)}; correct or restore it") from error


def _validated(tree: dict[str, Any], source: str) -> CampaignConfig:
    try:
        return CampaignConfig.model_validate(tree)
    except ValidationError as error:
        known = [*fields(), *keys_in_tables(), *CampaignConfig.model_fields]
        raise ConfigError(f"{source}: {explain(error, known, _LISTS_OF_NUMBERS)}") from error


def override(config: CampaignConfig, values: dict[str, Any], source: str) -> CampaignConfig:
    """A copy of `config` with dotted keys replaced. Raises ConfigError that names `source` and the key."""
    tree, known = config.model_dump(), fields()
    for key, value in tables_completed(config, {**_brought_by_preset(config, values), **values}).items():
        if key not in known:
            raise ConfigError(f"{source}: {unknown_key(key, known)}")
        section, _, name = key.rpartition(".")
        (tree[section] if section else tree)[name] = value
    return _validated(tree, source)


def tables_completed(config: CampaignConfig, values: dict[str, Any]) -> dict[str, Any]:
    """The values, where those of keys inside of a table, like handoff.question.task, are the whole table."""
    tree, found = config.model_dump(), dict[str, Any]()
    for key, value in values.items():
        table, _, name = key.rpartition(".")
        section, _, option = table.partition(".")
        there = tree.get(section, {}).get(option) if option else None
        # A table may also be set whole; what it does not name has its default.
        found |= {table: {**found.get(table, there), name: value}} if isinstance(there, dict) else {key: value}
    return found


def _brought_by_preset(config: CampaignConfig, values: dict[str, Any]) -> dict[str, Any]:
    """The settings of a new preset, for options that still have the old preset's values."""
    presets = config.train.preset, str(values.get("train.preset", config.train.preset))
    old, new = (PRESET_SETTINGS.get(preset, {}) for preset in presets)
    declared = {key: TrainConfig.model_fields[key].default for key in {**old, **new}}
    old, new = {**declared, **old}, {**declared, **new}
    return {f"train.{key}": new[key] for key in declared if getattr(config.train, key) == old[key]}


def to_toml(config: CampaignConfig) -> str:
    """`campaign.toml` with every option: its meaning, its range, whether it changes results, and its value."""
    document = tomlkit.document()
    document.add(tomlkit.comment("Made by vaal init. Change an option by --set key=value on any later command."))
    document.add("format", FORMAT)
    tree, tables = config.model_dump(), dict[str, Any]()
    for key, field in fields().items():
        section, _, name = key.rpartition(".")
        table = tables.setdefault(section, tomlkit.table()) if section else document
        allowed = describe_range(field)
        effect = "Changes results." if changes_results(key) else "Does not change results."
        for line in str(field.description).splitlines():
            table.add(tomlkit.comment(line))
        table.add(tomlkit.comment(f"{allowed[:1].upper()}{allowed[1:]}. {effect}" if allowed else effect))
        value = tree[section][name] if section else tree[name]
        if isinstance(value, dict):
            # A table of its own would move below the options that follow, away from its explanation.
            inline = tomlkit.inline_table()
            inline.update(value)
            value = inline
        table.add(name, value)
    for section, table in tables.items():
        document.add(section, table)
    return f"{tomlkit.dumps(document)}\n{LAST_LINE}\n"
