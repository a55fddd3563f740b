"""All options: the frozen, typed model of `campaign.toml`.

Each field has a meaning, a unit and a range. An option that changes results is fixed for a round once the stage that
reads it is complete. An option marked SPEED changes only time and memory, or rounding, and can be set at any time.
"""

from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from pydantic import Field, model_validator
from pydantic.fields import FieldInfo

from engine.config.class_names import class_name
from engine.config.handoff_options import HandoffConfig
from engine.config.input_options import MEMBER, EncoderConfig, ImageConfig, PoolConfig
from engine.config.section import SPEED, Section
from engine.config.train_options import TrainConfig
from vaal.acquisition import ACQUISITIONS
from vaal.consensus import CONSENSUS
from vaal.diversity import DIVERSIFIERS, WITHOUT_SIGNAL
from vaal.methods import METHODS, Method

if TYPE_CHECKING:
    AcquisitionName: TypeAlias = str
    Diversity: TypeAlias = str
    WhenNoSignal: TypeAlias = str
    ConsensusName: TypeAlias = str
else:
    # The tables are the only lists of these names.
    AcquisitionName, Diversity, ConsensusName = (
        Literal[tuple(table)] for table in (ACQUISITIONS, DIVERSIFIERS, CONSENSUS)
    )
    WhenNoSignal = Literal[(*WITHOUT_SIGNAL, "refuse")]


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


class ScoreConfig(Section):
    """How the pool is scored."""

    workers: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(default="auto", json_schema_extra=SPEED)
    """Actors that run the networks, on GPUs if device is cuda; auto is as many as Ray has room for now."""
    gpus_per_worker: float = Field(default=1.0, gt=0, le=1, json_schema_extra=SPEED)
    """GPUs of an actor if device is cuda; with 0.5 two share a GPU that a small network does not fill."""
    batch_size: Annotated[int, Field(ge=1, le=65_536)] | Literal["auto"] = Field(
        default="auto", json_schema_extra=SPEED
    )
    """Images in a forward pass; auto is 16 MiB of pixels on a GPU, and 16 or more small images on a CPU. It is halved,
    with a line in the log, if memory is too small. Changes a logit by rounding only."""
    acquisition: list[AcquisitionName] = Field(default=["vaal"], min_length=1)
    """Scores that every image gets, a column each. vaal, with column `logit`, is required; margin is the task
    learner's, and needs train.task."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the encoder; bf16 is autocast, for GPUs. Logits are always fp32."""
    attempts: int = Field(default=3, ge=1, json_schema_extra=SPEED)
    """A shard that fails this many times is quarantined whole; the others go on."""
    stall_seconds: float = Field(default=300.0, gt=0, json_schema_extra=SPEED)
    """Reading or decoding without progress for longer, in seconds, counts as a failed attempt."""
    max_bad_fraction: float = Field(default=0.05, ge=0, le=1, json_schema_extra=SPEED)
    """Highest acceptable share of items in quarantine, in the pool and in each shard; above it scoring ends with exit
    status 3. A single bad item is always acceptable."""


class SelectConfig(Section):
    """How images are picked."""

    budget: int = Field(default=1000, ge=0)
    """b: exactly this many images are picked in a round."""
    oversample: float = Field(default=3.0, ge=1, le=1000)
    """The batch is chosen among this many times b candidates: the first by the rule of the selection, such as the
    lowest logits."""
    duplicates: Literal["off", "exact", "near"] = "near"
    """Which duplicates are not picked: equal files (exact), or also the same picture in another encoding or size or
    mirrored, and images with nearly equal latents (near)."""
    duplicate_cosine: float = Field(default=0.99, gt=0, le=1)
    """With near, two images whose latents have at least this cosine are duplicates."""
    diversity: Diversity = "completion"
    """How b are chosen: to complete the labels where they lack parts of the pool (completion); or among the lowest
    logits these (none), with noise (gumbel), in turn from clusters of latents (clusters), spread over the latents
    (k_center, facility), by a refitted discriminator (mini_batches), or by margin in turn (class_balanced)."""
    control_fraction: float = Field(default=0.05, ge=0, le=1)
    """Share of the batch that is a uniform random sample of the unlabelled pool, as a baseline for the gain."""
    stratify: str = ""
    """Column of pool.metadata whose values the random sample holds in proportion to the unlabelled pool."""
    when_no_signal: WhenNoSignal = "uncertainty"
    """If the labels lack nothing: by the margin of T, and without T as random (uncertainty); spread over the latents
    (diversity); at random (random); or pick nothing (refuse, exit status 3)."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Seed of the random draws in the selection, which also depend on the round."""


class CampaignConfig(Section):
    """The whole of `campaign.toml`."""

    salt: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")] = "0" * 32
    """Hex key of the hash that makes item_ids opaque. Random at init, then fixed."""
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", json_schema_extra=SPEED)
    """Where the networks run; auto is cuda if the Ray cluster has GPUs for all workers."""
    pool: PoolConfig = PoolConfig()
    image: ImageConfig = ImageConfig()
    encoder: EncoderConfig = EncoderConfig()
    labels: LabelsConfig = LabelsConfig()
    train: TrainConfig = TrainConfig()
    score: ScoreConfig = ScoreConfig()
    select: SelectConfig = SelectConfig()
    handoff: HandoffConfig = HandoffConfig()

    @property
    def sees_embeddings(self) -> bool:
        """Whether the networks see embeddings, not pixels."""
        has_some = bool(self.pool.embeddings or self.encoder.model)
        return self.train.input == "embeddings" or (self.train.input == "auto" and has_some)

    @property
    def embedding_member(self) -> str:
        """The suffix of the samples' files that hold embeddings, lower case; empty where they are elsewhere."""
        if not self.sees_embeddings or not self.pool.embeddings.startswith(MEMBER):
            return ""
        return self.pool.embeddings.removeprefix(MEMBER).lower().removeprefix(".")

    @property
    def method(self) -> Method:
        """The method of training."""
        name = self.train.method
        return METHODS[("features" if self.sees_embeddings else "vaal") if name == "auto" else name]

    @property
    def named_classes(self) -> list[str]:
        """The classes that labels.classes and handoff.question.classes name."""
        listed = self.labels.classes if isinstance(self.labels.classes, list) else []
        return [class_name(name) for name in [*listed, *self.handoff.question.classes]]

    @property
    def has_task(self) -> bool:
        """Whether there is a task learner; with train.task=auto, if the labels are classes."""
        if self.handoff.question.task != "class":
            return False
        return self.train.task == "classification" or (self.train.task == "auto" and self.sees_embeddings)

    def acquisitions(self, *, has_task: bool) -> list[str]:
        """The names of all scores, the method's own first: its embedding is the latent. `has_task`: T was trained."""
        names = {name: None for name in ("vaal", *sorted(self.score.acquisition))}
        return list(names | ({"margin": None} if has_task and self.train.task == "auto" else {}))

    @property
    def refits(self) -> bool:
        """Whether the discriminators are fitted or calibrated at the end of training."""
        return self.train.refit and self.method.has_discriminators

    @property
    def refits_ensembles(self) -> bool:
        """Whether discriminators on a VAE's latents are fitted again at the end."""
        return self.refits and self.method.has_vae and self.train.folds > 1

    @property
    def fits_at_once(self) -> bool:
        """Whether the discriminators are fitted at the end, straight on embeddings, and nothing trains before."""
        return self.refits and self.sees_embeddings and not self.method.has_vae

    @property
    def calibrates(self) -> bool:
        """Whether the discriminators of the game stay, and are made comparable and calibrated at the end."""
        return self.refits and not self.refits_ensembles and not self.fits_at_once

    @model_validator(mode="after")
    def _embeddings_fit(self) -> "CampaignConfig":
        if self.pool.embeddings and self.encoder.model:
            raise ValueError(f"encoder.model={self.encoder.model}: there is pool.embeddings already; give one of them")
        if self.encoder.model and len(self.encoder.mean) != self.image.channels:
            channels = f"encoder.mean has {len(self.encoder.mean)} numbers"
            raise ValueError(f"{channels}, image.channels={self.image.channels}; give one for each channel")
        if not self.sees_embeddings:
            return self
        if self.train.method == "pixels":
            raise ValueError("train.method=pixels needs train.input=pixels")
        suffix = self.pool.embeddings.removeprefix(MEMBER).lower()
        if self.pool.embeddings.startswith(MEMBER) and suffix in map(str.lower, self.image.suffixes):
            raise ValueError(f"pool.embeddings={self.pool.embeddings}: .{suffix} are the images (image.suffixes)")
        if not (self.pool.embeddings or self.encoder.model):
            raise ValueError("train.input=embeddings needs pool.embeddings or encoder.model")
        if self.train.preset == "paper":
            raise ValueError("train.preset=paper is a network on pixels; set train.input=pixels, or preset small")
        return self

    @model_validator(mode="after")
    def _sections_fit_together(self) -> "CampaignConfig":
        if self.train.preset == "paper" and (self.image.size < 32 or self.image.size % 16):
            raise ValueError(f"image.size={self.image.size}: train.preset=paper needs a multiple of 16 from 32 on")
        if self.select.stratify and not self.pool.metadata:
            raise ValueError(f"select.stratify={self.select.stratify} needs pool.metadata, the file with that column")
        if "vaal" not in self.score.acquisition or len(set(self.score.acquisition)) < len(self.score.acquisition):
            raise ValueError(f"score.acquisition={self.score.acquisition}: name vaal, and each acquisition once")
        if self.train.task == "classification" and not self.has_task:
            task = self.handoff.question.task
            raise ValueError(f"train.task=classification: labels of handoff.question.task={task} are no classes")
        needing = [name for name in self.score.acquisition if "task" in ACQUISITIONS[name].needs]
        if needing and not self.has_task:
            raise ValueError(f"score.acquisition={needing[0]} needs a task learner: --set train.task=classification")
        if self.select.diversity == "class_balanced" and "margin" not in self.acquisitions(has_task=self.has_task):
            raise ValueError("select.diversity=class_balanced needs margins: --set score.acquisition=['vaal','margin']")
        diversity, most = self.select.diversity, DIVERSIFIERS[self.select.diversity].most_picks
        if most is not None and self.select.budget > most:
            raise ValueError(f"select.diversity={diversity} is for select.budget up to {most}; use clusters")
        return self


FIXED_AT_INIT = ("salt", "pool", "image.suffixes")
"""Keys and sections that no later command can set: what an item is, and where. pool.embeddings can be set later."""


def fields() -> dict[str, FieldInfo]:
    """Every option by its dotted key, in the order of the file."""
    found: dict[str, FieldInfo] = {}
    for name, field in CampaignConfig.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, Section):
            found.update({f"{name}.{key}": inner for key, inner in section.model_fields.items()})
        else:
            found[name] = field
    return found


def keys_in_tables() -> list[str]:
    """The dotted keys inside of options that are tables."""
    tables = {key: field.annotation for key, field in fields().items()}
    return [
        f"{key}.{name}"
        for key, table in tables.items()
        if isinstance(table, type) and issubclass(table, Section)
        for name in table.model_fields
    ]


def changes_results(key: str) -> bool:
    """Whether the option with this dotted key may change what a round produces."""
    return fields()[key].json_schema_extra != SPEED
