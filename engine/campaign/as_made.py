"""What the configuration of a campaign must still be: as init fixed it, and as complete stages were made with it."""

from typing import Any

from engine.campaign.folder import Campaign
from engine.campaign.handed_out import completed
from engine.campaign.manifests import Manifest, read_complete
from engine.campaign.stages import STAGES
from engine.config.options import FIXED_AT_INIT, CampaignConfig, changes_results, fields
from engine.errors import ConfigError
from engine.storage.documents import read_document
from engine.storage.location import Location

FIXED_FILE = "pool/fixed_at_init.json"
"""The options that are fixed at init, as init wrote them, by key."""


def is_fixed(key: str) -> bool:
    """Whether an option is fixed at init. What does not change results may change, though its section is fixed."""
    if key == "pool.embeddings":
        return False
    return bool({key, key.partition(".")[0]} & {*FIXED_AT_INIT}) and (key not in fields() or changes_results(key))


def fixed_values(config: CampaignConfig) -> dict[str, Any]:
    """The options that are fixed at init, by dotted key."""
    values = config.model_dump()
    keys = ((key, *key.partition(".")[::2]) for key in filter(is_fixed, fields()))
    return {key: values[section][name] if name else values[section] for key, section, name in keys}


def require_fixed(home: Location, config: CampaignConfig) -> None:
    """Raises ConfigError if an option that is fixed at init has another value than init wrote, by hand."""
    # An older campaign does not have the file.
    made = read_document(home / FIXED_FILE, dict[str, Any]) if (home / FIXED_FILE).exists() else {}
    for key, now in fixed_values(config).items():
        if made.get(key, now) != now:
            # The salt is a secret.
            values = "" if key == "salt" else f"={now!r}, but init wrote {made[key]!r}"
            raise ConfigError(
                f"{home}/campaign.toml: {key}{values}: fixed at init; restore its value, see {FIXED_FILE}"
            )


def require_as_made(campaign: Campaign) -> None:
    """Raises ConfigError if a complete stage was made with other options than the campaign's now."""
    for stage in STAGES:
        sections = [section for section in stage.freezes if section != "select"]
        for folder in completed(campaign, stage.name) if sections else []:
            made: dict[str, Any] = {**read_complete(folder, stage.name, Manifest)["config"]}
            for key in filter(changes_results, fields()):
                section, _, name = key.rpartition(".")
                if {section, key} & {*sections} and section:
                    values, part = made.get(section, {}), getattr(campaign.config, section)
                    now = getattr(part, name)
                    # An older version had not the option, and worked as with its default.
                    was = values[name] if name in values else getattr(type(part).model_validate(values), name)
                    if was != now:
                        why = f"{key}={now!r}, but {folder} was made with {was!r}"
                        raise ConfigError(f"{campaign.home}/campaign.toml: {why}; restore that value in the file")
