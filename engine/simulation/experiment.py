"""The file of an experiment: what is simulated, as a frozen, typed model.

Each field has a meaning, a unit and a range; an unknown key is an error.
"""

import os
import re
import tomllib
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from engine.config.input_options import ImageConfig
from engine.config.options import CampaignConfig
from engine.config.section import Section
from engine.config.texts import explain
from engine.config.toml import override
from engine.config.train_options import SIMULATED_ONLY
from engine.errors import ConfigError, InputError, one_line
from engine.storage.location import Location

RANDOM = "random"
"""The strategy that all others are compared with: all picks are a uniform random sample."""
METHOD = "features"
"""Discriminators straight on vectors: what a simulated round trains on embeddings."""
PAPER_OPTIONS: dict[str, Any] = {
    "train.batch_size": 128, "train.vae_steps": 2, "train.discriminator_steps": 1, "train.folds": 1,
    "train.refit": False, "labels.are_biased": "yes", "select.diversity": "none", "select.duplicates": "off",
    "select.control_fraction": 0.0,
}  # fmt: skip
"""What goes with train.method = vaal_2019 unless the experiment says otherwise: their schedule, the b lowest scores."""
MANAGED = ("salt", "pool", "encoder", "train.input", "select.budget", "select.seed", "train.seed", "device")
"""Keys and sections of a campaign that the simulation sets itself."""


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
        return self


class OraclePart(Section):
    """Who answers."""

    labels: str = ""
    """Parquet or CSV file with shard, key, label for every item of the pool."""
    noise: float = Field(default=0.0, ge=0, lt=1)
    """Share of the items that get a wrong answer: always the same one for an item."""
    confusions: list[list[str]] = Field(default=[])
    """Groups of classes that are taken for one another: a wrong answer stays within the group of the true class."""


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
        if self.kind == "empty" and self.count:
            raise ValueError(f"first_labels.count={self.count}: of kind empty there is none; leave it out")
        return self


class Strategy(Section):
    """A way to pick: a name and options of a campaign by dotted key, `select.diversity = "none"`."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._+=-]{0,60}$")
    options: dict[str, Any] = Field(default={})

    @model_validator(mode="before")
    @classmethod
    def _all_else_are_options(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        rest = {name: value for name, value in values.items() if name not in ("name", "options")}
        options = values.get("options", {})
        named = {"name": values["name"]} if "name" in values else {}
        return {**named, "options": {**flat(rest), **flat(options)}}


class Experiment(Section):
    """The whole file."""

    pool: PoolPart
    oracle: OraclePart = OraclePart()
    test: TestPart = TestPart()
    first_labels: FirstLabelsPart = FirstLabelsPart()
    rounds: int = Field(default=5, ge=1, le=100)
    """Batches that are bought one after another."""
    budget: int = Field(ge=1)
    """Labels a batch."""
    seeds: int = Field(default=10, ge=1, le=10_000)
    """Repetitions with other pools, test sets, first labels and random numbers; the same for every strategy."""
    tasks: list[Literal["linear", "mlp", "knn", "small"]] = Field(default=["linear", "mlp", "knn"], min_length=1)
    """Models whose accuracy counts: a linear head, a network with one hidden layer, the five nearest neighbours, all
    of embeddings; small: a convolutional network on pixels."""
    campaign: dict[str, Any] = Field(default={})
    """Options of a campaign for all strategies."""
    strategies: list[Strategy] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _random_is_there(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        listed = values.get("strategies", [])
        if isinstance(listed, list) and not any(isinstance(s, dict) and s.get("name") == RANDOM for s in listed):
            listed = [{"name": RANDOM}, *listed]
        return {**values, "strategies": listed, "campaign": flat(values.get("campaign", {}))}

    @model_validator(mode="after")
    def _fits_together(self) -> "Experiment":
        names = [strategy.name for strategy in self.strategies]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"strategies: the name {min(twice)!r} is given twice")
        if self.seeds == 1:
            raise ValueError("seeds=1: one seed shows nothing, its differences may all be chance; give 6 or more")
        if self.first_labels.kind not in ("none", "empty") and not self.first_labels.count:
            raise ValueError("first_labels.count: missing; give a number, or first_labels.kind = none or empty")
        if not self.test.is_own and not self.test.size:
            raise ValueError("test: give shards or embeddings, or size, the number of items that the pool lends")
        for name, there in (("shards", self.pool.shards), ("embeddings", self.pool.embeddings)):
            if self.test.is_own and bool(getattr(self.test, name)) != bool(there):
                why = "missing, but [pool] has some; give them" if there else "[pool] has none; leave it out"
                raise ValueError(f"test.{name}: {why}")
        has_vectors = bool(self.pool.embeddings or self.pool.digits)
        for task in self.tasks:
            if not (self.pool.shards if task == "small" else has_vectors):
                missing = "pool.shards: it sees pixels" if task == "small" else "pool.embeddings: it sees embeddings"
                raise ValueError(f"tasks: {task} needs {missing}; give them, or leave it out")
        if not self.pool.digits and not self.oracle.labels:
            raise ValueError("oracle.labels: missing; give the file with shard, key, label of every item")
        return self

    @property
    def first_point(self) -> int:
        """The number of the first point of a curve: the batches that were bought when there first are labels."""
        return int(self.first_labels.kind == "empty")

    @property
    def image(self) -> ImageConfig:
        """How images are read for the task model `small`, whatever a strategy's campaign sees."""
        options = {key: value for key, value in self.campaign.items() if key.startswith("image.")}
        return override(CampaignConfig(), options, "[campaign]").image

    def kind_of(self, strategy: Strategy) -> str:
        """The kind of a strategy's campaigns, a row of `trial_campaign.KINDS`."""
        if {**self.campaign, **strategy.options}.get("train.method") == SIMULATED_ONLY:
            return SIMULATED_ONLY
        return "pixels" if self.pool.shards else "vectors"

    def config_of(self, strategy: Strategy, seed: int) -> CampaignConfig:
        """The configuration of a strategy's campaign. Raises ConfigError for an option that is unknown or wrong."""
        own = {"select.control_fraction": 1.0} if strategy.name == RANDOM else {}
        options = {**self.campaign, **own, **strategy.options}
        for key in options:
            if {key, key.partition(".")[0]} & {*MANAGED}:
                why = f"strategy {strategy.name!r}: {key}: the experiment sets it"
                raise ConfigError(f"{why}; use budget, seeds and [pool] of the experiment")
        method = options.get("train.method", "auto")
        managed = {"select.budget": self.budget, "select.seed": seed, "train.seed": seed, "device": "cpu"}
        if self.pool.shards:
            # Known to nobody but the oracle: an item_id hides nothing here, and is the same in every run.
            managed |= {"salt": f"{seed + 1:032x}", "train.input": "pixels"}
            if method == SIMULATED_ONLY:
                options = {**self.campaign, **PAPER_OPTIONS, **own, **strategy.options, "train.method": "vaal"}
        else:
            if method not in (METHOD, "auto"):
                why = f"strategy {strategy.name!r}: train.method={method!r} is not simulated on vectors"
                raise ConfigError(f"{why}; leave it at {METHOD}, or give pool.shards")
            # They are in memory: the name stands for wherever they are.
            managed |= {"train.method": METHOD, "pool.embeddings": "member:npy"}
        config = override(CampaignConfig(), {**options, **managed}, f"strategy {strategy.name!r}")
        if strategy.name == RANDOM and config.select.control_fraction != 1:
            why = f"strategy {RANDOM!r}: select.control_fraction={config.select.control_fraction:g}"
            raise ConfigError(f"{why}; all its picks are random, and all others are compared with it: use another name")
        if method == SIMULATED_ONLY and (config.image != self.image or config.image.size % 16):
            why = f"strategy {strategy.name!r}: image.size={config.image.size} with {SIMULATED_ONLY}"
            raise ConfigError(f"{why}; set a multiple of 16 in [campaign], for all strategies")
        return config


def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Nested tables as values by dotted key."""
    return dict(_leaves(tree, prefix)) if isinstance(tree, dict) else {"": tree}


def _leaves(tree: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def read_experiment(file: str) -> Experiment:
    """The experiment in a TOML file.

    Raises:
        InputError: the file is missing.
        ConfigError: it is not TOML, or a key is unknown or wrong.
    """
    source = Location.of(file)
    content = source.read_bytes()
    try:
        tree = tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{source}: not valid TOML: {one_line(error)}; correct it") from error
    try:
        experiment = Experiment.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{source}: {explain(error, list(_keys()))}") from error
    for strategy in experiment.strategies:
        try:
            experiment.config_of(strategy, 0)
        except ConfigError as error:
            raise ConfigError(f"{source}: {error}") from error
    return experiment


def _keys() -> Iterator[str]:
    for name, field in Experiment.model_fields.items():
        yield name
        part = field.annotation
        if isinstance(part, type) and issubclass(part, Section):
            yield from (f"{name}.{key}" for key in part.model_fields)


def expand(path: str) -> str:
    """A path with ${NAME} replaced by the environment's variables. Raises InputError for one that is not set."""

    def value_of(match: re.Match[str]) -> str:
        if (value := os.environ.get(match[1])) is None:
            raise InputError(f"{path}: the environment variable {match[1]} is not set; export {match[1]}=FOLDER")
        return value

    return re.sub(r"\$\{(\w+)\}", value_of, path)
