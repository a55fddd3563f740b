"""The parts of an experiment's file: what there is to pick from, who answers, and what is measured on."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from engine.config.section import Section

Share = Annotated[float, Field(ge=0, le=1)]


def _is_given(part: Section, option: str) -> bool:
    """Whether the file says something of an option: one without effect would be taken for one that has it."""
    return option in part.model_fields_set


class PoolPart(Section):
    """What there is to pick from. Every seed draws its own pool, so that seeds vary as pools do."""

    shards: str = ""
    """WebDataset tar shards (one, or a glob): campaigns then see pixels. ${VAAL_DATA} is replaced by that variable."""
    embeddings: str = ""
    """Parquet (one file or a glob) with shard, key and embedding. With `shards`, the task models linear, mlp and knn
    alone see them, and items without an image are ignored."""
    digits: bool = False
    """Instead: scikit-learn's 1,797 digits, their 8 x 8 pixels as vectors, with their labels."""
    size: int = Field(default=0, ge=0)
    """Items of the pool, without copies; 0 is all that the test set leaves."""
    components: int = Field(default=128, ge=1)
    """Leading components of an embedding that count."""
    imbalance: float = Field(default=1.0, ge=1)
    """How many times larger the largest class is than the smallest; sizes between are geometric, classes in random
    order."""
    copies: int = Field(default=0, ge=0)
    """Near copies of every item, which are items too."""
    copy_noise: float = Field(default=0.3, ge=0)
    """Standard deviation of the noise that tells a copy from its original, in that of the pool's vectors."""

    @model_validator(mode="after")
    def _one_source(self) -> "PoolPart":
        if self.digits == bool(self.embeddings or self.shards):
            raise ValueError("pool: give either shards, embeddings or both, or digits = true")
        if self.shards and self.copies:
            raise ValueError(f"pool.copies={self.copies}: copies are made of embeddings only; set it to 0 for shards")
        if _is_given(self, "copy_noise") and not self.copies:
            raise ValueError(
                f"pool.copy_noise={self.copy_noise:g}: there are no copies; set pool.copies, or leave it out"
            )
        return self


class OraclePart(Section):
    """Who answers."""

    labels: str = ""
    """Parquet or CSV file with shard, key, label for every item of the pool."""
    noise: float = Field(default=0.0, ge=0, lt=1)
    """Share of the items that get a wrong answer: always the same one for an item."""
    confusions: list[list[str]] | str = Field(default=[])
    """Groups of classes that are taken for one another: a wrong answer stays within the group of the true class. A list
    of lists of names, or the path of a JSON file with one."""
    annotators: int = Field(default=0, ge=0, le=1000)
    """So many people answer instead of the oracle, in its words where they are right; handoff.annotators of them are
    asked about each image, gold ones too, and `budget` counts their answers. 0: the oracle answers. Needs
    pool.shards."""
    accuracy: Share | Annotated[list[Share], Field(min_length=2, max_length=2)] = 0.8
    """How often an annotator is right: all of them, or from the worst to the best, evenly."""
    matrices: str = ""
    """JSON file with a confusion matrix of each annotator, or one of all, instead of accuracy and confusions: by true
    class the shares of what is said, [{"cat": {"cat": 0.9, "dog": 0.1}, "dog": {"dog": 1}}]."""

    @model_validator(mode="after")
    def _no_answer_is_for_nothing(self) -> "OraclePart":
        if _is_given(self, "accuracy") and not _is_given(self, "annotators"):
            raise ValueError("oracle.accuracy: is of annotators; set oracle.annotators, or leave it out")
        if self.matrices and not _is_given(self, "annotators"):
            raise ValueError("oracle.matrices: are of annotators; set oracle.annotators, or leave it out")
        if self.matrices and _is_given(self, "accuracy"):
            raise ValueError("oracle.accuracy: oracle.matrices say how often annotators are right; leave one out")
        if self.matrices and self.confusions and not _is_given(self, "noise"):
            raise ValueError("oracle.confusions: oracle.matrices say what is taken for what; leave one out")
        if self.confusions and not _is_given(self, "annotators") and not _is_given(self, "noise"):
            raise ValueError("oracle.confusions: no answer is wrong; set oracle.noise or oracle.annotators")
        return self


class TestPart(Section):
    """On what accuracy is measured. None of it is in the pool."""

    shards: str = ""
    """Tar shards as the pool's."""
    embeddings: str = ""
    """Parquet as the pool's. Without these two, `size` items of the pool's files are the test set, and not in the
    pool."""
    labels: str = ""
    """Parquet or CSV file with shard, key, label of these items. Empty: the oracle's file, which then holds them."""
    size: int = Field(default=0, ge=0)
    """Items of the test set, drawn again by every seed; 0 is all of its own files."""

    @property
    def is_own(self) -> bool:
        """Whether it has files of its own."""
        return bool(self.shards or self.embeddings)


SECTION = "campaign"
"""The section with options of a campaign for all strategies."""
COUNT_WITH = {"count": ("random", "biased", "one_source"), "missing": ("biased",)}
"""Options of [first_labels] by the kinds that they count with."""


class FirstLabelsPart(Section):
    """What is labelled before the first round."""

    kind: Literal["random", "biased", "one_source", "none", "empty"] = "random"
    """At random; biased: none of `missing` classes; one_source: from as few shards as possible; none: a first batch of
    the budget's size is picked at random; empty: no label, so that each strategy picks the first batch too."""
    count: int = Field(default=0, ge=0)
    """Labels; of kind none the budget's, of kind empty 0."""
    missing: Annotated[int, Field(ge=1)] | list[str] = 1
    """With kind biased: the classes without a label; a number of them is drawn again by every seed."""

    @model_validator(mode="after")
    def _empty_is_empty(self) -> "FirstLabelsPart":
        if self.count and self.kind not in COUNT_WITH["count"]:
            why = "there is none" if self.kind == "empty" else "it is the budget"
            raise ValueError(f"first_labels.count={self.count}: of kind {self.kind} {why}; leave it out")
        if _is_given(self, "missing") and self.kind not in COUNT_WITH["missing"]:
            why = f"first_labels.missing={self.missing}: of kind {self.kind} no class is left out"
            raise ValueError(f'{why}; set kind = "biased", or leave it out')
        return self
