"""Options of what is called from outside while a campaign runs."""

import re

from pydantic import Field, field_validator

from engine.config.section import SPEED, Section

VARIABLE = "env:"
"""hooks.on_stage begins with it where a variable of the environment holds the URL."""


class HooksConfig(Section):
    """What is called while a campaign runs."""

    on_stage: str = Field(default="", json_schema_extra=SPEED)
    """URL that gets a POST with JSON at the end of a stage: campaign, round, stage and its counts; or env:NAME, the
    variable that holds it, so that a secret in it is not stored. A call that fails is logged, and nothing else."""

    @field_validator("on_stage")
    @classmethod
    def _is_a_url(cls, value: str) -> str:
        # The value may be a secret, so the error does not repeat it.
        if value and not is_url(value) and not re.fullmatch(rf"{VARIABLE}\w+", value):
            raise ValueError("hooks.on_stage: not an http:// or https:// URL, nor env:NAME; correct it")
        return value


def is_url(value: str) -> bool:
    """Whether a value can be called."""
    return value.startswith(("http://", "https://"))


def shown(value: str) -> str:
    """A value of hooks.on_stage that can be printed: its scheme and host alone, as any other part may be a secret."""
    # A password with a slash in it ends what looks like the host.
    found = re.match(r"(https?://)(?:[^/@]*@)?((?:\[[^]/?#@]*\]|[^/?#@:]+)(?::\d+)?)", value)
    return f"{found[1]}{found[2]}/***" if found else value
