"""The file of an experiment: what is simulated, as a frozen, typed model.

Each field has a meaning, a unit and a range; an unknown key is an error.
"""

import re
import tomllib
from collections.abc import Container, Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from engine.config.handoff_options import HandoffConfig
from engine.config.input_options import ImageConfig
from engine.config.options import CampaignConfig
from engine.config.section import Section
from engine.config.texts import explain
from engine.config.toml import override
from engine.config.train_options import SIMULATED_ONLY
from engine.errors import ConfigError, InputError, asked_by, one_line
from engine.handoff.gold import num_gold_of
from engine.pool.mask_source import MaskSource, mask_source
from engine.simulation.comparisons import least_seeds
from engine.simulation.experiment_parts import SECTION, FirstLabelsPart, OraclePart, PoolPart, TestPart
from engine.simulation.learners import NEEDS, fault_of, learner_of
from engine.simulation.strategies import RANDOM, Strategy, flat, listed
from engine.simulation.variants import put_settings
from engine.storage.location import Location

METHOD = "features"
"""Discriminators straight on vectors: what a simulated round trains on embeddings."""
PAPER_BATCH = 128
"""Images of each pool in an update of vaal_2019, unless the experiment says otherwise."""
PAPER_OPTIONS: dict[str, Any] = {
    "train.vae_steps": 2, "train.discriminator_steps": 1, "train.folds": 1, "train.refit": False,
    "labels.are_biased": "yes", "select.diversity": "none", "select.duplicates": "off", "select.control_fraction": 0.0,
}  # fmt: skip
"""What goes with train.method = vaal_2019 unless a strategy says otherwise: their schedule, the b lowest scores."""
_OF_READING = ("image.", "handoff.question", "labels.masks", "labels.void", "task.classes", "train.task")
"""Beginnings of the keys of a campaign that say what its images and masks are."""
ON_VECTORS = (
    "device", "labels.are_biased", "score.", "select.", "task.", "train.folds", "train.method", "train.task",
)  # fmt: skip
"""Keys of a campaign, or their sections, that count where it has no shards. No option may be without effect."""
MANAGED = ("salt", "pool", "encoder", "train.input", "select.budget", "select.seed", "train.seed")
"""Keys and sections of a campaign that the simulation sets itself."""
SHARED = f"[{SECTION}]"
"""The section with options of a campaign for all strategies."""


class Experiment(Section):
    """The whole file."""

    pool: PoolPart
    oracle: OraclePart = OraclePart()
    test: TestPart = TestPart()
    first_labels: FirstLabelsPart = FirstLabelsPart()
    rounds: int = Field(default=5, ge=1, le=100)
    """Batches that are bought one after another."""
    budget: int = Field(ge=1)
    """Labels a batch; where there are annotators, their answers."""
    seeds: int = Field(default=10, ge=1, le=10_000)
    """Repetitions with other pools, test sets, first labels and random numbers; the same for every strategy."""
    tasks: list[str] = Field(default=["linear", "mlp", "knn"], min_length=1)
    """Models whose accuracy counts, rows of `learners.LEARNERS`; a network on pixels may have +strong behind its name:
    another recipe of training."""
    task_steps: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Updates of such a network; auto: what its recipe says, 39,062 for the paper's."""
    campaign: dict[str, Any] = Field(default={})
    """Options of a campaign for all strategies."""
    strategies: list[Strategy] = Field(min_length=1)
    """Tables with a name and options, or names of `strategies.STRATEGIES`."""

    @model_validator(mode="before")
    @classmethod
    def _random_is_there(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        campaign = values.get("campaign", {})
        options = flat(campaign) if isinstance(campaign, dict) else campaign
        return {**values, "strategies": listed(values.get("strategies", [])), "campaign": options}

    @model_validator(mode="after")
    def _nothing_is_listed_twice(self) -> "Experiment":
        for option, names in (("strategies", [one.name for one in self.strategies]), ("tasks", self.tasks)):
            if twice := {name for name in names if names.count(name) > 1}:
                raise ValueError(f"{option}: the name {min(twice)!r} is given twice")
        return self

    @model_validator(mode="after")
    def _parts_fit_together(self) -> "Experiment":
        if self.device == "auto":
            raise ValueError("campaign.device=auto: an experiment says where it runs; set cpu or cuda")
        if self.oracle.annotators and (self.masks or not self.pool.shards):
            raise ValueError(
                "oracle.annotators: they answer about the class of images; give pool.shards, without masks"
            )
        if self.masks and (self.oracle.noise or self.first_labels.kind == "biased"):
            why = "oracle.noise and first_labels.kind = biased are for classes of images, and these have masks"
            raise ValueError(f"{why}; leave them out")
        vectors = self.pool.embeddings or self.pool.digits
        there = {"vectors": vectors, "pixels": self.pool.shards and not self.masks, "masks": self.masks}
        for task in self.tasks:
            if fault := fault_of(task):
                raise ValueError(f"tasks: {fault}")
            if not there[learner_of(task).sees]:
                raise ValueError(f"tasks: {task} needs {NEEDS[learner_of(task).sees]}; give them, or leave it out")
        if self.task_steps != "auto" and all(learner_of(task).sees == "vectors" for task in self.tasks):
            why = f"task_steps={self.task_steps}: no task model is a network on pixels"
            raise ValueError(f"{why}; leave it out, or give tasks one")
        return self

    @model_validator(mode="after")
    def _fits_together(self) -> "Experiment":
        if self.seeds == 1:
            enough = f"give 2 for a first impression, and {least_seeds(len(self.strategies) - 1)} to show anything"
            raise ValueError(f"seeds=1: one seed shows nothing, its differences may all be chance; {enough}")
        if self.first_labels.kind not in ("none", "empty") and not self.first_labels.count:
            raise ValueError("first_labels.count: missing; give a number, or first_labels.kind = none or empty")
        if not self.test.is_own and not self.test.size:
            raise ValueError("test: give shards or embeddings, or size, the number of items that the pool lends")
        for name, there in (("shards", self.pool.shards), ("embeddings", self.pool.embeddings)):
            if self.test.is_own and bool(getattr(self.test, name)) != bool(there):
                why = "missing, but [pool] has some; give them" if there else "[pool] has none; leave it out"
                raise ValueError(f"test.{name}: {why}")
        if self.pool.digits and self.oracle.labels:
            raise ValueError(f"oracle.labels={self.oracle.labels}: the digits have their own; leave it out")
        if not self.pool.shards and self.device == "cuda":
            raise ValueError("campaign.device=cuda: without images campaigns run on CPUs; leave it out")
        if not self.pool.digits and not self.oracle.labels and not self.masks:
            raise ValueError("oracle.labels: missing; give the file with shard, key, label of every item")
        return self

    @property
    def first_point(self) -> int:
        """The number of the first point of a curve: the batches that were bought when there first are labels."""
        return int(self.first_labels.kind == "empty")

    @property
    def device(self) -> str:
        """Where networks run that see pixels: those of campaigns, and task models."""
        return str(self.campaign.get("device", "cpu"))

    @property
    def image(self) -> ImageConfig:
        """How images are read for task models on pixels, whatever a strategy's campaign sees."""
        return self._reading.image

    @property
    def masks(self) -> MaskSource | None:
        """How masks of the pool are read, where strategies learn some: the oracle's answers."""
        if self._reading.task_kind != "segmentation" or not self.pool.shards:
            return None
        source = mask_source(self._reading, Location.of("."))
        if source is None or not source.member:
            raise ConfigError("[campaign]: labels.masks is not member:SUFFIX; give the masks in the shards")
        return source

    @property
    def _reading(self) -> CampaignConfig:
        """What [campaign] says of images and masks."""
        options = {key: value for key, value in self.campaign.items() if key.startswith(_OF_READING)}
        return override(CampaignConfig(), options, "[campaign]")

    def kind_of(self, strategy: Strategy) -> str:
        """The kind of a strategy's campaigns, a row of `trial_campaign.KINDS`."""
        if {**self.campaign, **strategy.options}.get("train.method") == SIMULATED_ONLY:
            return SIMULATED_ONLY
        return "pixels" if self.pool.shards else "vectors"

    def _images_of(self, strategy: Strategy, handoff: HandoffConfig) -> int:
        """The images of a batch: each of them, and of the gold ones beside them, takes as many answers of the budget as
        there are annotators."""
        asked = handoff.annotators
        if asked == 1 and not self.oracle.annotators:
            return self.budget
        why = f"{self._giver(strategy, 'handoff.annotators')}: handoff.annotators={asked}"
        if asked > self.oracle.annotators:
            raise ConfigError(f"{why}: oracle.annotators={self.oracle.annotators} are fewer; raise that")
        if self.budget % asked:
            raise ConfigError(f"{why}: budget={self.budget} answers are no whole number of images; change one of them")
        tasks = self.budget // asked
        images = next((n for n in range(tasks, 1, -1) if n + num_gold_of(handoff, n) <= tasks), 1)
        paid = asked * (images + num_gold_of(handoff, images))
        if paid != self.budget:
            why = f"budget={self.budget} answers are not those to images and gold ones together; set budget={paid}"
            raise ConfigError(f"{why}, or another handoff.gold_fraction than {handoff.gold_fraction:g}")
        return images

    def _require_effects(self, strategy: Strategy, keys: list[str]) -> None:
        """Raises ConfigError for an option of a campaign that no simulation, or none of vectors, asks."""
        for key in keys:
            if key.startswith("hooks."):
                raise ConfigError(f"{self._giver(strategy, key)}: {key}: has no effect in a simulation; leave it out")
            if not self.pool.shards and not {key, f"{key.partition('.')[0]}."} & {*ON_VECTORS}:
                why = f"{self._giver(strategy, key)}: {key}: has no effect on vectors in memory"
                raise ConfigError(f"{why}; leave it out, or give pool.shards")

    def _giver(self, strategy: Strategy, key: str) -> str:
        """Where the file gives an option of a strategy's campaigns, for an error."""
        is_shared = key in self.campaign and key not in strategy.options
        return SHARED if is_shared else f"strategy {strategy.name!r}"

    def _configured(self, strategy: Strategy, options: dict[str, Any], managed: dict[str, Any]) -> CampaignConfig:
        """These options as a configuration. The error for one that is wrong names where the file gives it."""
        where = f"strategy {strategy.name!r}"
        try:
            return override(CampaignConfig(), {**options, **managed}, where)
        except ConfigError as error:
            shared = {key: value for key, value in options.items() if self._giver(strategy, key) == SHARED}
            text = str(error)
            try:
                override(CampaignConfig(), {**shared, **managed}, where)
            except ConfigError as same:
                text = f"{SHARED}{text.removeprefix(where)}" if str(same) == text else text
            raise ConfigError(advised_here(text, strategy.options)) from error

    def config_of(self, strategy: Strategy, seed: int) -> CampaignConfig:
        """The configuration of a strategy's campaign. Raises ConfigError for an option that is unknown or wrong."""
        own = {"select.control_fraction": 1.0} if strategy.name == RANDOM else {}
        options = {**self.campaign, **own, **strategy.options}
        for key in options:
            if {key, key.partition(".")[0]} & {*MANAGED}:
                why = f"{self._giver(strategy, key)}: {key}: the experiment sets it"
                raise ConfigError(f"{why}; use budget, seeds and [pool] of the experiment")
        method = options.get("train.method", "auto")
        options = {"device": self.device, **options}
        managed: dict[str, Any] = {
            "select.budget": self.budget,
            "select.seed": seed,
            "train.seed": seed,
        }
        if self.pool.shards:
            # Known to nobody but the oracle: an item_id hides nothing here, and is the same in every run.
            managed |= {"salt": f"{seed + 1:032x}", "train.input": "pixels"}
            if method == SIMULATED_ONLY:
                shared = {"device": self.device, "train.batch_size": PAPER_BATCH, **self.campaign}
                options = {**shared, **PAPER_OPTIONS, **own, **strategy.options}
                options["train.method"] = "vaal"
        else:
            if method not in (METHOD, "auto"):
                why = f"{self._giver(strategy, 'train.method')}: train.method={method!r} is not simulated on vectors"
                raise ConfigError(f"{why}; leave it at {METHOD}, or give pool.shards")
            # They are in memory: the name stands for wherever they are.
            managed |= {"train.method": METHOD, "pool.embeddings": "member:npy"}
        config = self._configured(strategy, options, managed)
        self._require_effects(strategy, list(options))
        if (images := self._images_of(strategy, config.handoff)) != self.budget:
            config = self._configured(strategy, options, {**managed, "select.budget": images})
        if strategy.name == RANDOM and config.select.control_fraction != 1:
            why = f"strategy {RANDOM!r}: select.control_fraction={config.select.control_fraction:g}"
            raise ConfigError(f"{why}; all its picks are random, and all others are compared with it: use another name")
        if method == SIMULATED_ONLY and (config.image != self.image or config.image.size % 16):
            why = f"strategy {strategy.name!r}: image.size={config.image.size} with {SIMULATED_ONLY}"
            raise ConfigError(f"{why}; set a multiple of 16 in [campaign], for all strategies")
        return config


def read_experiment(file: str, settings: dict[str, Any] | None = None) -> Experiment:
    """The experiment in a TOML file, with `settings` by dotted key, {"oracle.noise": 0.1}, in place of the file's.

    Raises:
        InputError: the file is missing.
        ConfigError: it is not TOML, or a key is unknown or wrong.
    """
    if not (place := Location.of(file)).exists():
        raise InputError(f"{place}: no such file; correct the path of the experiment")
    content = place.read_bytes()
    try:
        tree = tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{file}: not valid TOML: {one_line(error)}; correct it") from error
    put_settings(tree, settings or {}, file)
    with asked_by(file):
        try:
            experiment = Experiment.model_validate(tree)
        except ValidationError as error:
            raise ConfigError(explain(error, list(_keys()), {"oracle.accuracy": [0.5, 0.9]})) from error
        for strategy in experiment.strategies:
            experiment.config_of(strategy, 0)
    return experiment


def advised_here(text: str, own: Container[str] = ()) -> str:
    """The error of a campaign with its advice for an experiment, where --set wants campaign.KEY, and a strategy's `own`
    option is changed in its table."""

    def here(match: re.Match[str]) -> str:
        quote, key = match.groups()
        return f"{quote}{key}=" if key in own else f"--set {quote}{SECTION}.{key}="

    return re.sub(r"--set (['\"]?)([a-z_.]+)=", here, text)


def _keys() -> Iterator[str]:
    for name, field in Experiment.model_fields.items():
        yield name
        part = field.annotation
        if isinstance(part, type) and issubclass(part, Section):
            yield from (f"{name}.{key}" for key in part.model_fields)
