"""Options of the selection."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from pydantic import Field, model_validator

from engine.config.conditions import fault_of_condition
from engine.config.score_options import AcquisitionName
from engine.config.section import Section
from vaal.diversity import DIVERSIFIERS, WITHOUT_SIGNAL

if TYPE_CHECKING:
    Diversity: TypeAlias = str
    WhenNoSignal: TypeAlias = str
else:
    # The tables are the only lists of these names.
    Diversity = Literal[("auto", *DIVERSIFIERS)]
    WhenNoSignal = Literal[(*WITHOUT_SIGNAL, "refuse")]

RULE = "completion"
"""The method of `diversity` that completes labels by VAAL's logits, and asks the deficit; all others ask the AUC."""


class SelectConfig(Section):
    """How images are picked."""

    budget: int = Field(default=1000, ge=0)
    """b: exactly this many images are picked in a round."""
    acquisition: AcquisitionName = "vaal"
    """The score that ranks, the lowest first; it is computed if score.acquisition does not list it. Any other than vaal
    ranks whatever a test of the labels says."""
    oversample: float = Field(default=3.0, ge=1, le=1000)
    """The batch is chosen among this many times b candidates: the first by the rule of the selection, such as the
    lowest logits."""
    duplicates: Literal["off", "exact", "near"] = "near"
    """Which duplicates are not picked: equal files (exact), or also the same picture in another encoding or size or
    mirrored, and images with nearly equal latents (near)."""
    duplicate_cosine: float = Field(default=0.99, gt=0, le=1)
    """With near, two images whose latents have at least this cosine are duplicates."""
    rescore_candidates: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """So many of the lowest by the first of score.acquisition get the scores that are dear, and are ranked again by
    them. auto: ten times the budget, and no fewer than the candidates."""
    diversity: Diversity = "auto"
    """How b are chosen: to complete the labels where they lack parts of the pool (completion); or among the lowest
    scores these (none), with noise (gumbel), in turn from clusters of latents (clusters), spread over the latents
    (k_center, facility), by a refitted discriminator (mini_batches), or in turn by predicted class (class_balanced).
    auto: completion by vaal, and by another score class_balanced where there are predicted classes, else none."""
    control_fraction: float = Field(default=0.05, ge=0, le=1)
    """Share of the batch that is a uniform random sample of the unlabelled pool, as a baseline for the gain."""
    stratify: str = ""
    """Column of pool.metadata whose values the random sample holds in proportion to the unlabelled pool."""
    per_group: int = Field(default=0, ge=0)
    """The most picks of one group (pool.group) in a batch, its control picks included. 0: no bound."""
    where: str = ""
    """Only images of shards that meet this condition on columns of pool.metadata are picked, for example
    licence = 'cc0' and year >= 2020. Empty: of all shards."""
    exclude: str = ""
    """Path or URL of a CSV or Parquet file of images that are never picked: a row has shard and key, or content_hash,
    or both. Empty: none."""
    when_no_signal: WhenNoSignal = "uncertainty"
    """If the labels lack nothing: by the margin of T, and without T as random (uncertainty); spread over the latents
    (diversity); at random (random); or pick nothing (refuse, exit status 3)."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Seed of the random draws in the selection, which also depend on the round."""

    @model_validator(mode="after")
    def _where_can_be_read(self) -> "SelectConfig":
        if self.where and (fault := fault_of_condition(self.where)):
            raise ValueError(fault)
        return self

    def faults_with(self, metadata: str, group: str) -> Iterator[str]:
        """What is wrong with these options beside pool.metadata and pool.group."""
        for name, value in (("stratify", self.stratify), ("where", self.where)):
            if value and not metadata:
                yield f"select.{name}={value} needs pool.metadata, the file with that column"
        if self.per_group and not group:
            yield f"select.per_group={self.per_group} needs pool.group, which says what belongs together"
