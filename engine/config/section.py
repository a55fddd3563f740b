"""What a section of `campaign.toml` is: a frozen, typed model whose fields are options, each with its explanation."""

from typing import Any

from pydantic import BaseModel, ConfigDict, JsonValue

SPEED: dict[str, JsonValue] = {"changes_results": False}
"""Marks an option that changes only time and memory, or rounding."""


class Section(BaseModel):
    model_config = ConfigDict(
        # A traceback would repeat the inputs, of which one may be a secret.
        frozen=True,
        extra="forbid",
        strict=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,
    )


def result_values(section: Section) -> dict[str, Any]:
    """The values of a section that may change results, for fingerprints."""
    fields = type(section).model_fields.items()
    return {name: getattr(section, name) for name, field in fields if field.json_schema_extra != SPEED}
