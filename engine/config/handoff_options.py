"""Options of the handoff to labelling vendors."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from engine.config.class_names import class_name
from engine.config.section import Section

MOST_LINK_DAYS = 7
"""Signed links of S3 and of Google Cloud Storage live no longer."""


class QuestionConfig(Section):
    """What annotators are asked about each image."""

    task: Literal["class", "classes", "boxes", "mask"] = "class"
    """One class, several classes, boxes or polygons, or a mask."""
    classes: list[str] = Field(default=[])
    """The only classes there are. Empty: labels.classes, and else those of the labels, and others may come back."""
    instructions: str = ""
    """What annotators read."""


class HandoffConfig(Section):
    """How images are handed to labelling vendors."""

    question: QuestionConfig = QuestionConfig()
    """A table: task is class, classes (several), boxes (or polygons) or mask; classes are the only ones there are, by
    default those of the labels; instructions is a text for annotators."""
    annotators: int = Field(default=1, ge=1, le=100)
    """k: so many people label each image."""
    gold_fraction: float = Field(default=0.0, ge=0, le=1)
    """So many labelled images, as a share of a batch, are mixed in to see how often annotators are right."""
    prelabels: bool = False
    """Whether vendors see what the task learner guesses. Guesses sway annotators; needs train.task."""
    images: str = "files"
    """How images travel: files beside the task files; or a URL below which they are: s3:// or gs:// (they are written
    there), https:// (you serve the images folder there)."""
    link_days: float = Field(default=MOST_LINK_DAYS, ge=0, le=MOST_LINK_DAYS)
    """Days that signed links to s3:// and gs:// live; 0: task files hold the plain URLs."""
    strip_metadata: bool = True
    """Whether EXIF, GPS, XMP, comments and embedded thumbnails are taken out of JPEG, PNG, WebP and GIF files. The
    pixels stay as they are."""
    price: float = Field(default=0.0, ge=0)
    """What one answer of one annotator costs, in the currency of your choice."""
    money_limit: Annotated[float, Field(ge=0)] | Literal["none"] = "none"
    """Nothing is handed out that would make the campaign's spend exceed this."""
    expires_days: float = Field(default=30.0, gt=0)
    """Images that are out for longer, in days, are given up by vaal handoff CAMPAIGN expire."""

    @model_validator(mode="after")
    def _images_are_somewhere(self) -> "HandoffConfig":
        if self.images != "files" and not self.images.startswith(("s3://", "gs://", "https://", "http://")):
            raise ValueError(f"handoff.images={self.images}: give files, or a URL: s3://, gs:// or https://")
        classes = [class_name(name) for name in self.question.classes]
        if "" in classes:
            raise ValueError("handoff.question.classes has a class without a name; take it out, or name it")
        if len(set(classes)) < len(classes):
            name = next(name for name in classes if classes.count(name) > 1)
            same = ", ".join(repr(given) for given in self.question.classes if class_name(given) == name)
            raise ValueError(f"handoff.question.classes: {same} are one class; name each class once")
        return self
