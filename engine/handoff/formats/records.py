"""The neutral handoff as published JSON Schemas: what a program without a vendor's module reads and writes."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from engine.handoff.formats.task_files import json_file

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


class TaskRecord(BaseModel):
    """A line of tasks.jsonl, a row of tasks.csv: an image to be labelled. The most valuable image is first."""

    model_config = ConfigDict(title="Task", extra="forbid")

    item_id: str = Field(description="the opaque name of the image; give it back with the answer")
    file: str = Field(description="the path of the image below the folder, images/ITEM_ID.SUFFIX")
    link: str = Field("", description="the URL of the image, where it has one")
    priority: int = Field(ge=0, description="0 for the most valuable image")
    bytes: int = Field(ge=0, description="the size of the image's file")
    sha256: str = Field(pattern="^[0-9a-f]{64}$", description="the SHA-256 of the image's file")
    prelabel: str = Field("", description="a class that a network guesses; there only if the batch has some")


class ShapeRecord(BaseModel):
    """An object in an image, with one of box, polygon and mask. Lengths are in pixels from the upper left corner."""

    model_config = ConfigDict(
        title="Shape", json_schema_extra={"oneOf": [{"required": [kind]} for kind in ("box", "polygon", "mask")]}
    )

    label: str = Field(min_length=1, description="a class")
    box: tuple[float, float, float, float] = Field((0, 0, 0, 0), description="left, top, width and height")
    polygon: list[tuple[float, float]] = Field([], min_length=3, description="x and y of each corner")
    mask: Any = Field(None, description="the name of a PNG file beside the answers, or run lengths")


class AnswerRecord(BaseModel):
    """A line of a JSON-lines file of answers: what one annotator, or all of them together, say of an image.

    The columns of CSV and Parquet have these names too. Others are ignored.
    """

    model_config = ConfigDict(
        title="Answer", json_schema_extra={"anyOf": [{"required": ["item_id"]}, {"required": ["file"]}]}
    )

    item_id: str = Field("", description="the name of the task; a file name ITEM_ID.SUFFIX will do")
    file: str = Field("", description="instead of item_id: the path of the image in the task, or its file's name")
    label: str | bool | int | float | list[str | bool | int | float | ShapeRecord] | None = Field(
        None,
        description="a class; for the task classes a list of classes, or a text with | between them; for boxes a list "
        "of shapes; for mask a list of shapes, or the name of a PNG file beside the answers; null: not labelled yet",
    )
    annotator: str = Field("", description="the vendor's name of the person; empty: the answer of all together")
    answer_id: str = Field("", description="the vendor's name of the answer, the same in each version of it")
    labelled_at: str | int | float | None = Field(
        None, description="ISO 8601, or seconds or milliseconds since 1970; answered_at is the same"
    )
    seconds: float | None = Field(None, ge=0, description="the time that the answer took")
    skipped: bool | Literal["true", "false", ""] | None = Field(
        None, description="true: a person looked at the image and gave no answer; label is empty"
    )
    status: str = Field(
        "",
        description="instead of skipped: skipped, cancelled, rejected, unlabelable and the like, where label is empty",
    )
    reason: str = Field("", description="why it was skipped")


def schemas() -> dict[str, bytes]:
    """The published schemas by the name of their files."""
    models: dict[str, type[BaseModel]] = {"tasks.schema.json": TaskRecord, "answers.schema.json": AnswerRecord}
    return {name: json_file({"$schema": _DIALECT, **model.model_json_schema()}) for name, model in models.items()}
