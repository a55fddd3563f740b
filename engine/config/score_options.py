"""Options of scoring."""

from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from pydantic import Field

from engine.config.section import SPEED, Section
from vaal.acquisition import ACQUISITIONS

if TYPE_CHECKING:
    AcquisitionName: TypeAlias = str
else:
    # The table is the only list of these names.
    AcquisitionName = Literal[tuple(ACQUISITIONS)]
Reduction = Literal["mean", "lowest", "lowest_tenth", "class_balanced"]


class ScoreConfig(Section):
    """How the pool is scored."""

    workers: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(default="auto", json_schema_extra=SPEED)
    """Actors that run the networks, on GPUs if device is cuda; auto is as many as Ray has room for now."""
    gpus_per_worker: float = Field(default=1.0, gt=0, le=1, json_schema_extra=SPEED)
    """GPUs of an actor if device is cuda; with 0.5 two share a GPU that a small network does not fill."""
    wait_seconds: float = Field(default=0.0, ge=0, json_schema_extra=SPEED)
    """How long to wait for a cluster to have one of them, in seconds; then scoring ends with exit status 4. 0 is for
    ever."""
    batch_size: Annotated[int, Field(ge=1, le=65_536)] | Literal["auto"] = Field(
        default="auto", json_schema_extra=SPEED
    )
    """Images in a forward pass; auto is 16 MiB of pixels on a GPU, and 16 or more small images on a CPU. It is halved,
    with a line in the log, if memory is too small. Changes a logit by rounding only."""
    acquisition: list[AcquisitionName] = Field(default=["vaal"], min_length=1)
    """Scores that every image gets in one pass, a column each, lowest for the most valuable; vaal's column is `logit`.
    Most are of the task learner and need train.task or task.model. Without vaal and confused VAAL is not trained. A
    score that is dear (dfal) is computed for candidates alone, the lowest of the first score: see
    select.rescore_candidates."""
    dropout: Literal["features", "network"] = "features"
    """Where bald, predictive_entropy, variation_ratio and mean_std drop units: of the task learner's features, which
    costs next to nothing; or wherever its network has dropout, which costs a pass of candidates each time."""
    dropout_passes: int = Field(default=20, ge=2, le=1000)
    """Passes with dropout, each with the same units for every image."""
    dropout_rate: float = Field(default=0.5, gt=0, lt=1)
    """Share of the features that a pass drops; a network's own layers have their own rates."""
    reduction: Reduction = "mean"
    """How the scores of several answers, labels or pixels, become the image's: their mean, the lowest, the mean of the
    lowest tenth, or the mean of the means for each predicted class, so that rare classes count."""
    gradient_norms: bool = True
    """Whether expected_gradient_length counts the size of the features; it then prefers images of high contrast."""
    perturbation: float = Field(default=2 / 255, gt=0, le=1)
    """By how much margin_drop changes each pixel, of 1; or each component of an embedding."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the encoder; bf16 is autocast, for GPUs. Logits are always fp32."""
    attempts: int = Field(default=3, ge=1, json_schema_extra=SPEED)
    """A shard that fails this many times is quarantined whole; the others go on."""
    stall_seconds: float = Field(default=300.0, gt=0, json_schema_extra=SPEED)
    """Reading or decoding without progress for longer, in seconds, counts as a failed attempt."""
    max_bad_fraction: float = Field(default=0.05, ge=0, le=1, json_schema_extra=SPEED)
    """Highest acceptable share of items in quarantine, in the pool and in each shard; above it scoring ends with exit
    status 3. A single bad item is always acceptable."""
