"""`campaign.toml` and settings as text: read into the model of the options, and written with every option explained."""

import tomllib
from typing import Any

import tomlkit
from pydantic import ValidationError

from engine.config.options import PRESET_SETTINGS, CampaignConfig, TrainConfig, changes_results, fields
from engine.config.texts import describe_range, explain
from engine.errors import ConfigError, InputError, one_line

FORMAT = 1
"""Of a campaign's folder. A campaign of a newer format is refused by name."""
LAST_LINE = "# The end of campaign.toml."


def parse_config(text: str, source: str) -> CampaignConfig:
    """The model of a TOML text.

    Raises:
        ConfigError: it is not TOML, a newer version wrote it, or an option is unknown or wrong. Names `source`.
    """
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{source}: not valid TOML: {error}") from error
    written = tree.pop("format", FORMAT)
    if type(written) is not int or written > FORMAT:
        raise ConfigError(
            f"{source}: format={written!r}: this version reads campaigns up to format {FORMAT}; use the version that "
            "made it, or a newer one"
        )
    return _validated(tree, source)


def parse_campaign(content: bytes, source: str) -> CampaignConfig:
    """The model of a `campaign.toml`. As `parse_config`, but raises InputError where it is cut off or not UTF-8."""
    try:
        text = content.decode()
        # Cut off at the end of a line it is valid TOML, in which the options that are lost have their defaults.
        if "format" in tomllib.loads(text) and not text.rstrip().endswith(LAST_LINE):
            raise ValueError(f"the last line is not '{LAST_LINE}'")
    except ValueError as error:
        raise InputError(f"{source}: damaged, or cut off: {one_line(error)}; restore it from a copy") from error
    return parse_config(text, source)


def _validated(tree: dict[str, Any], source: str) -> CampaignConfig:
    try:
        return CampaignConfig.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{source}: {explain(error, [*fields(), *CampaignConfig.model_fields])}") from error


def override(config: CampaignConfig, values: dict[str, Any], source: str) -> CampaignConfig:
    """A copy of `config` with dotted keys replaced. Raises ConfigError that names `source` and the key."""
    tree = config.model_dump()
    for key, value in {**_brought_by_preset(config, values), **values}.items():
        *sections, name = key.split(".")
        branch = tree
        for section in sections:
            if not isinstance(branch.setdefault(section, {}), dict):
                raise ConfigError(f"{source}: {key}: {section} is not a section")
            branch = branch[section]
        branch[name] = value
    return _validated(tree, source)


def _brought_by_preset(config: CampaignConfig, values: dict[str, Any]) -> dict[str, Any]:
    """What a new preset sets, where the old one's settings were kept."""
    presets = config.train.preset, str(values.get("train.preset", config.train.preset))
    old, new = (PRESET_SETTINGS.get(preset, {}) for preset in presets)
    declared = {key: TrainConfig.model_fields[key].default for key in {**old, **new}}
    old, new = {**declared, **old}, {**declared, **new}
    return {f"train.{key}": new[key] for key in declared if getattr(config.train, key) == old[key]}


def to_toml(config: CampaignConfig) -> str:
    """`campaign.toml` with every option, and above each what it is, its range and whether it changes results."""
    document = tomlkit.document()
    document.add(tomlkit.comment("Made by vaal init. Change an option by --set key=value on any later command."))
    document.add("format", FORMAT)
    described = fields()

    def add(table: Any, key: str, value: Any) -> None:
        field = described[key]
        allowed = describe_range(field)
        effect = "Changes results." if changes_results(key) else "Does not change results."
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
    return f"{tomlkit.dumps(document)}\n{LAST_LINE}\n"
