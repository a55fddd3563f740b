"""All options: the frozen, typed model of `campaign.toml`.

Each field has a meaning, a unit and a range. An option that changes results is fixed for a round once the stage that
reads it is complete. An option marked SPEED changes only time and memory, or rounding, and can be set at any time.
"""

from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator
from pydantic.fields import FieldInfo

from engine.config.texts import fault_of_group
from vaal.acquisition import ACQUISITIONS
from vaal.diversity import DIVERSIFIERS, WITHOUT_SIGNAL
from vaal.methods import METHODS

SPEED: dict[str, JsonValue] = {"changes_results": False}

if TYPE_CHECKING:
    Method: TypeAlias = str
    AcquisitionName: TypeAlias = str
    Diversity: TypeAlias = str
    WhenNoSignal: TypeAlias = str
else:
    # The tables are the only lists of these names.
    Method, AcquisitionName, Diversity = (Literal[tuple(table)] for table in (METHODS, ACQUISITIONS, DIVERSIFIERS))
    WhenNoSignal = Literal[(*WITHOUT_SIGNAL, "refuse")]


class _Section(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


class PoolConfig(_Section):
    """The pool. Fixed at init, but for `root`."""

    shards: list[str] = []
    """WebDataset tar shards: paths or URLs, with globs (*.tar) or brace ranges (train-{00000..00049}.tar)."""
    root: str = Field(default="", json_schema_extra=SPEED)
    """Path or URL of the folder that shard names are relative to. Empty: the deepest folder common to all shards. Can
    be set when the pool has moved: the shards are looked for there, and their hashes show that they are the same."""
    metadata: str = ""
    """CSV, JSON-lines or Parquet file with a row for every shard: a column `shard`, and columns to stratify or group
    by."""
    group: str = ""
    """Images that belong together, as frames of a clip do: a regular expression on the key, whose first group or else
    whole match names the clip; or column:NAME of pool.metadata. Images of one clip are judged by none that saw it."""

    @model_validator(mode="after")
    def _group_can_be_read(self) -> "PoolConfig":
        if fault := fault_of_group(self.group, self.metadata):
            raise ValueError(f"pool.group={self.group}{fault}")
        return self


class ImageConfig(_Section):
    """How images are read, and what the networks see of them."""

    size: int = Field(default=32, ge=4, le=1024)
    """Side of the square that every image is resized to, in pixels; the aspect ratio is not kept."""
    channels: int = Field(default=3, ge=1, le=4)
    """1 greyscale, 2 greyscale and alpha, 3 RGB, 4 RGB and alpha."""
    max_pixels: int = Field(default=100_000_000, ge=1)
    """An image with more pixels is quarantined before it is decoded."""
    max_bytes: int = Field(default=64 << 20, ge=1)
    """A larger image file is quarantined without being read into memory."""
    suffixes: list[str] = Field(default=["jpg", "jpeg", "png", "webp"], min_length=1)
    """Suffixes of the image among a sample's files; case does not matter."""


class TrainConfig(_Section):
    """How the VAE and the discriminators are trained."""

    preset: Literal["small", "base", "large", "paper"] = "small"
    """Size of the networks: small, base and large grow in width and latents, and latents also grow with image.size.
    paper is the authors' network; it also sets batch_size, vae_steps, discriminator_steps and folds unless given."""
    method: Method = "vaal"
    """vaal, or one of the paper's ablations: a VAE trained first and then frozen (frozen_vae), the distance from the
    labelled images' latents (vae_only), discriminators on pixels (pixels) or on features that they learn (features)."""
    epochs: int = Field(default=10, ge=1)
    """Passes over the unlabelled pool, up to max_steps iterations."""
    max_steps: int = Field(default=2000, ge=1)
    """Most iterations. On a large pool they are fewer than a pass, and training sees a sample over all shards."""
    batch_size: int = Field(default=64, ge=1)
    """Images of each pool in an update, summed over workers and micro-batches."""
    vae_steps: int = Field(default=1, ge=1)
    """Updates of the VAE in an iteration."""
    discriminator_steps: int = Field(default=1, ge=1)
    """Updates of the discriminators in an iteration."""
    learning_rate: float = Field(default=5e-4, gt=0)
    """Learning rate of Adam, for the VAE and the discriminators."""
    beta: float = Field(default=1.0, ge=0)
    """Weight of the KL term (Eq. 1 of arXiv 1904.00370)."""
    transductive_weight: float = Field(default=1.0, gt=0)
    """lambda1, the weight of the VAE's own objective."""
    adversarial_weight: float = Field(default=1.0, ge=0)
    """lambda2, the weight of the adversarial term in the VAE's objective."""
    gradient_clipping: float = Field(default=0.0, ge=0)
    """Largest norm of a gradient; 0 does not clip."""
    folds: int = Field(default=2, ge=1, le=16)
    """Discriminators. Each image is scored by one that did not train on it; 1, as in the paper, turns that off."""
    task: Literal["none", "classification"] = "none"
    """The task learner T of Algorithm 1, trained on the labelled pool. Only margin scores by it."""
    task_augmentation: Literal["flips_and_crops", "crops", "none"] = "flips_and_crops"
    """What the task learner sees of an image: crops moves it by up to an eighth, flips also mirrors it left to right.
    Choose crops or none where left and right or the place matter: digits, signs, X-rays."""
    workers: int = Field(default=1, ge=1, json_schema_extra=SPEED)
    """Ray Train workers, one process each, with a GPU each if device is cuda. Changes weights by rounding only."""
    min_workers: int = Field(default=0, ge=0, json_schema_extra=SPEED)
    """Start with this many workers if the cluster has no more, up to train.workers; 0 waits for all of them."""
    zero_stage: Literal[0, 1, 2, 3] = Field(default=0, json_schema_extra=SPEED)
    """DeepSpeed ZeRO stage, what workers partition: 0 nothing, 1 optimizer state, 2 also gradients, 3 also weights."""
    offload: Literal["none", "optimizer"] = Field(default="none", json_schema_extra=SPEED)
    """optimizer keeps its state in the CPU's memory; needs train.zero_stage 1 or more."""
    gradient_accumulation: int = Field(default=1, ge=1, json_schema_extra=SPEED)
    """Micro-batches of an update, one after another, if a whole batch does not fit in memory."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic in training. Weights, losses and optimizer state are always fp32."""
    checkpoint_seconds: float = Field(default=60.0, ge=0, json_schema_extra=SPEED)
    """A checkpoint is written when the last one is older than this, in seconds."""
    checkpoint_steps: int = Field(default=0, ge=0, json_schema_extra=SPEED)
    """A checkpoint is also written after every so many iterations; 0 uses time only."""
    checkpoints_kept: int = Field(default=2, ge=1, json_schema_extra=SPEED)
    """Newest checkpoints that are kept. If the newest is damaged, training resumes from the one before."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Seed of initial weights, order of items and noise."""

    @model_validator(mode="before")
    @classmethod
    def _preset_sets_what_is_not_given(cls, values: Any) -> Any:
        if isinstance(values, dict):
            return {**PRESET_SETTINGS.get(str(values.get("preset", "small")), {}), **values}
        return values

    @model_validator(mode="after")
    def _fits_together(self) -> "TrainConfig":
        if self.workers > self.streams:
            raise ValueError(
                f"train.workers={self.workers} is more than the {self.streams} that train.batch_size={self.batch_size} "
                "can be split over; raise train.batch_size"
            )
        least = (self.streams // self.workers) * (self.batch_size // self.streams)
        if self.gradient_accumulation > least:
            raise ValueError(
                f"train.gradient_accumulation={self.gradient_accumulation} is more than the {least} images of a batch "
                "that a worker may get; lower it, or raise train.batch_size"
            )
        if self.min_workers > self.workers:
            raise ValueError(f"train.min_workers={self.min_workers} is more than train.workers={self.workers}")
        if self.offload != "none" and not self.zero_stage:
            raise ValueError(f"train.offload={self.offload} needs train.zero_stage=1 or more")
        if self.preset == "paper" and self.workers > 1:
            raise ValueError("train.preset=paper needs train.workers=1, because BatchNorm mixes the images of a worker")
        if self.preset == "paper" and not METHODS[self.method].has_paper_preset:
            raise ValueError(f"train.preset=paper has no network for train.method={self.method}; use small")
        return self

    @property
    def streams(self) -> int:
        """Number of streams that the pools are dealt to. It depends only on the batch, so that any number of workers
        sees the same batches; a worker reads one or more streams."""
        return min(self.batch_size, max(8, self.batch_size // 32))


PRESET_SETTINGS: dict[str, dict[str, Any]] = {
    "paper": {"batch_size": 128, "vae_steps": 2, "discriminator_steps": 1, "folds": 1},
}
"""Options that a preset sets in addition to the networks, unless the user does. Others keep the defaults."""


class LabelsConfig(_Section):
    """What may be a label, and what is known of the labels."""

    classes: list[str] | Literal["from-init"] = []
    """The only classes there are, or from-init for those of the first labels. Empty: any; new ones are reported."""
    are_biased: Literal["auto", "yes", "no"] = "auto"
    """Whether the labels lack parts of the pool: a test of few labels cannot see it, you may know. auto: the test."""


class ScoreConfig(_Section):
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


class SelectConfig(_Section):
    """How images are picked."""

    budget: int = Field(default=1000, ge=0)
    """b: exactly this many images are picked in a round."""
    oversample: float = Field(default=3.0, ge=1, le=1000)
    """The batch is chosen among this many times b candidates: those with the lowest logits."""
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


class CampaignConfig(_Section):
    """The whole of `campaign.toml`."""

    salt: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")] = "0" * 32
    """Hex key of the hash that makes item_ids opaque. Random at init, then fixed."""
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", json_schema_extra=SPEED)
    """Where the networks run; auto is cuda if the Ray cluster has GPUs for all workers."""
    pool: PoolConfig = PoolConfig()
    image: ImageConfig = ImageConfig()
    labels: LabelsConfig = LabelsConfig()
    train: TrainConfig = TrainConfig()
    score: ScoreConfig = ScoreConfig()
    select: SelectConfig = SelectConfig()

    @model_validator(mode="after")
    def _sections_fit_together(self) -> "CampaignConfig":
        if self.train.preset == "paper" and (self.image.size < 32 or self.image.size % 16):
            raise ValueError(f"image.size={self.image.size}: train.preset=paper needs a multiple of 16 from 32 on")
        if self.select.stratify and not self.pool.metadata:
            raise ValueError(f"select.stratify={self.select.stratify} needs pool.metadata, the file with that column")
        if "vaal" not in self.score.acquisition or len(set(self.score.acquisition)) < len(self.score.acquisition):
            raise ValueError(f"score.acquisition={self.score.acquisition}: name vaal, and each acquisition once")
        needing = [name for name in self.score.acquisition if "task" in ACQUISITIONS[name].needs]
        if needing and self.train.task == "none":
            raise ValueError(f"score.acquisition={needing[0]} needs a task learner: --set train.task=classification")
        if self.train.method == "features" and self.train.folds > 1:
            needs = "taken_LZ" in DIVERSIFIERS[self.select.diversity].needs or self.select.diversity == "clusters"
            if needs or self.select.duplicates == "near":
                raise ValueError(
                    "train.method=features: with train.folds the latents of two folds are different spaces, which "
                    f"select.diversity={self.select.diversity} or select.duplicates={self.select.duplicates} would "
                    "compare; set select.diversity=none and select.duplicates=exact, or train.folds=1"
                )
        if self.select.diversity == "class_balanced" and "margin" not in self.score.acquisition:
            raise ValueError("select.diversity=class_balanced needs margins: --set score.acquisition=['vaal','margin']")
        diversity, most = self.select.diversity, DIVERSIFIERS[self.select.diversity].most_picks
        if most is not None and self.select.budget > most:
            raise ValueError(f"select.diversity={diversity} is for select.budget up to {most}; use clusters")
        return self


FIXED_AT_INIT = ("salt", "pool", "image.suffixes")
"""Keys and sections that no later command can set: what an item is, and where."""


def fields() -> dict[str, FieldInfo]:
    """Every option by its dotted key, in the order of the file."""
    found: dict[str, FieldInfo] = {}
    for name, field in CampaignConfig.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, _Section):
            found.update({f"{name}.{key}": inner for key, inner in section.model_fields.items()})
        else:
            found[name] = field
    return found


def changes_results(key: str) -> bool:
    """Whether the option with this dotted key may change what a round produces."""
    return fields()[key].json_schema_extra != SPEED


def result_values(section: _Section) -> dict[str, Any]:
    """The values of a section that may change results, for fingerprints."""
    fields = type(section).model_fields.items()
    return {name: getattr(section, name) for name, field in fields if field.json_schema_extra != SPEED}
