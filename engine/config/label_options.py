"""Options of labels."""

from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from pydantic import Field, model_validator

from engine.config.input_options import MEMBER
from engine.config.section import Section
from vaal.consensus import CONSENSUS

if TYPE_CHECKING:
    ConsensusName: TypeAlias = str
else:
    # The table is the only list of these names.
    ConsensusName = Literal[tuple(CONSENSUS)]


class LabelsConfig(Section):
    """What may be a label, and what is known of the labels."""

    classes: list[str] | Literal["from-init"] = Field(default=[])
    """The only classes there are, or from-init for those of the first labels. Empty: any; new ones are reported."""
    are_biased: Literal["auto", "yes", "no"] = "auto"
    """Whether the labels lack parts of the pool: a test of few labels cannot see it, you may know. auto: the test."""
    consensus: ConsensusName = "one_coin"
    """How the votes on an image become its label: by their number (majority), or by how often each annotator is right,
    as one number (one_coin) or for each class (dawid_skene; needs many votes of each annotator)."""
    min_posterior: float = Field(default=0.6, ge=0, le=1)
    """An image whose label is less probable than this is disputed, and has no label."""
    close_when: Literal["all"] | Annotated[float, Field(gt=0, le=1)] = "all"
    """A round ends, and the next can begin, when all of its images are settled, or this share of them."""
    masks: str = ""
    """Masks of the first labels, PNG files whose pixels are ids of classes: member:SUFFIX, a file of each sample
    (member:seg.png is KEY.seg.png beside KEY.jpg); or the path or URL of a folder with KEY.png, or the file that the
    label names. Masks that annotators send are kept with their answers. Read by train.task=segmentation."""
    void: list[Annotated[int, Field(ge=0, le=65_535)]] = Field(default=[255])
    """Ids of pixels in masks that are of no class; they are neither learned nor judged. The classes of task.classes, or
    handoff.question.classes, have the other ids, from 0 on in their order."""

    @model_validator(mode="after")
    def _masks_have_a_suffix(self) -> "LabelsConfig":
        if self.masks.startswith(MEMBER) and not self.masks.removeprefix(MEMBER).strip("."):
            raise ValueError(f"labels.masks={self.masks} needs the suffix of the files, for example member:seg.png")
        return self
