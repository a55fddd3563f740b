"""Every option there is: the frozen, typed model of `campaign.toml`. An option that is not here does not exist.

Each field says what it is, its unit and range, and whether it changes results. A field that does is fixed for a round
once the stage that reads it is complete; a field that does not (it moves time and memory only) may change at any time.
"""

from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator
from pydantic.fields import FieldInfo

from vaal.acquisition import ACQUISITIONS
from vaal.diversity import DIVERSIFIERS, WITHOUT_SIGNAL
from vaal.methods import METHODS

RESULT: dict[str, JsonValue] = {"changes_results": True}
SPEED: dict[str, JsonValue] = {"changes_results": False}

if TYPE_CHECKING:
    Method: TypeAlias = str
    AcquisitionName: TypeAlias = str
    Diversity: TypeAlias = str
    WhenNoSignal: TypeAlias = str
else:
    # The tables are the only lists of their rows' names.
    Method, AcquisitionName, Diversity = (Literal[tuple(table)] for table in (METHODS, ACQUISITIONS, DIVERSIFIERS))
    WhenNoSignal = Literal[(*WITHOUT_SIGNAL, "refuse")]


class _Section(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


class PoolConfig(_Section):
    """What the pool is. Fixed at init."""

    shards: list[str] = Field(default=[], json_schema_extra=RESULT)
    """WebDataset tar shards: paths or URLs, with globs (*.tar) or brace ranges (train-{00000..00049}.tar)."""
    root: str = Field(default="", json_schema_extra=RESULT)
    """Path or URL below which shard names are given. Empty at init: the deepest folder common to all shards."""
    metadata: str = Field(default="", json_schema_extra=RESULT)
    """CSV, JSON-lines or Parquet file with a row for every shard: a column `shard`, and others to stratify by."""


class ImageConfig(_Section):
    """What the networks see."""

    size: int = Field(default=32, ge=4, le=1024, json_schema_extra=RESULT)
    """Side of the square that every image is resized to, pixels; the aspect ratio is not kept."""
    channels: int = Field(default=3, ge=1, le=4, json_schema_extra=RESULT)
    """1 greyscale, 2 greyscale and alpha, 3 RGB, 4 RGB and alpha."""
    max_pixels: int = Field(default=100_000_000, ge=1, json_schema_extra=RESULT)
    """An image with more pixels than this is quarantined before it is decoded."""
    max_bytes: int = Field(default=64 << 20, ge=1, json_schema_extra=RESULT)
    """An image file larger than this is quarantined without being read into memory."""
    suffixes: list[str] = Field(default=["jpg", "jpeg", "png", "webp"], min_length=1, json_schema_extra=RESULT)
    """Of a sample's files, those with these suffixes are its image; upper and lower case are the same."""


class TrainConfig(_Section):
    """How the VAE and the discriminators are trained."""

    preset: Literal["small", "base", "large", "paper"] = Field(default="small", json_schema_extra=RESULT)
    """The networks, and with them batch_size, vae_steps, discriminator_steps and folds unless given: small, base and
    large grow in width and latents, which follow image.size; paper is the authors' network and hyper-parameters."""
    method: Method = Field(default="vaal", json_schema_extra=RESULT)
    """vaal, or one of the paper's ablations: a VAE trained alone and frozen before the discriminators (frozen_vae), the
    distance from the labelled images' latents (vae_only), discriminators on pixels or on features of their own."""
    epochs: int = Field(default=10, ge=1, json_schema_extra=RESULT)
    """Passes over the unlabelled pool, as far as max_steps allows."""
    max_steps: int = Field(default=2000, ge=1, json_schema_extra=RESULT)
    """Upper bound on iterations. It bounds training on a large pool, which is then sampled over all shards."""
    batch_size: int = Field(default=64, ge=1, json_schema_extra=RESULT)
    """Images of each pool in an update, over all workers and micro-batches together."""
    vae_steps: int = Field(default=1, ge=1, json_schema_extra=RESULT)
    """Updates of the VAE in an iteration."""
    discriminator_steps: int = Field(default=1, ge=1, json_schema_extra=RESULT)
    """Updates of the discriminators in an iteration."""
    learning_rate: float = Field(default=5e-4, gt=0, json_schema_extra=RESULT)
    """Adam's, for the VAE and the discriminators."""
    beta: float = Field(default=1.0, ge=0, json_schema_extra=RESULT)
    """Weight of the KL term (Eq. 1 of arXiv 1904.00370)."""
    transductive_weight: float = Field(default=1.0, gt=0, json_schema_extra=RESULT)
    """lambda1, the weight of the VAE's own objective."""
    adversarial_weight: float = Field(default=1.0, ge=0, json_schema_extra=RESULT)
    """lambda2, the weight of fooling the discriminators."""
    gradient_clipping: float = Field(default=0.0, ge=0, json_schema_extra=RESULT)
    """Largest norm of an update's gradient; 0 does not clip."""
    folds: int = Field(default=2, ge=1, le=16, json_schema_extra=RESULT)
    """Discriminators. An item is scored by one that did not train on it; 1 is the paper's, without cross-fitting."""
    task: Literal["none", "classification"] = Field(default="none", json_schema_extra=RESULT)
    """The task learner T of Algorithm 1, trained beside on the labelled pool. It never influences what is picked."""
    workers: int = Field(default=1, ge=1, json_schema_extra=SPEED)
    """Ray Train workers, one process each; a GPU each when device is cuda. Changes weights by rounding only."""
    min_workers: int = Field(default=0, ge=0, json_schema_extra=SPEED)
    """Train with as few workers as this while the cluster has no more, up to train.workers; 0 waits for all of them."""
    zero_stage: Literal[0, 1, 2, 3] = Field(default=0, json_schema_extra=SPEED)
    """DeepSpeed ZeRO: what is partitioned over the workers. 0 nothing, 1 optimizer, 2 gradients too, 3 weights too."""
    offload: Literal["none", "optimizer"] = Field(default="none", json_schema_extra=SPEED)
    """Keep the optimizer's state in the CPU's memory; needs train.zero_stage 1 or more."""
    gradient_accumulation: int = Field(default=1, ge=1, json_schema_extra=SPEED)
    """Micro-batches of an update, one after another, for networks too large for a whole batch."""
    precision: Literal["fp32", "bf16"] = Field(default="fp32", json_schema_extra=RESULT)
    """Of the arithmetic in training. Weights, losses and optimizer state are fp32 always, and so is scoring."""
    checkpoint_seconds: float = Field(default=60.0, ge=0, json_schema_extra=SPEED)
    """A checkpoint is made when the last one is older than this, seconds."""
    checkpoint_steps: int = Field(default=0, ge=0, json_schema_extra=SPEED)
    """A checkpoint is made every so many iterations as well; 0 goes by time alone."""
    checkpoints_kept: int = Field(default=2, ge=1, json_schema_extra=SPEED)
    """Checkpoints that are kept, the newest ones: one that turns out damaged falls back on the one before."""
    seed: int = Field(default=0, ge=0, lt=2**31, json_schema_extra=RESULT)
    """Of initial weights, order of the items and noise."""

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
                f"can be dealt to; raise train.batch_size"
            )
        least = (self.streams // self.workers) * (self.batch_size // self.streams)
        if self.gradient_accumulation > least:
            raise ValueError(
                f"train.gradient_accumulation={self.gradient_accumulation} is more than the {least} images that a "
                "worker may get of a batch; lower it, or raise train.batch_size"
            )
        if self.min_workers > self.workers:
            raise ValueError(f"train.min_workers={self.min_workers} is more than train.workers={self.workers}")
        if self.offload != "none" and not self.zero_stage:
            raise ValueError(f"train.offload={self.offload} needs train.zero_stage=1 or more")
        if self.preset == "paper" and self.workers > 1:
            raise ValueError("train.preset=paper needs train.workers=1, for its BatchNorm mixes the images of a worker")
        if self.preset == "paper" and not METHODS[self.method].has_paper_preset:
            raise ValueError(
                f"train.preset=paper has no network for train.method={self.method}; use small, base or large"
            )
        return self

    @property
    def streams(self) -> int:
        """Into how many streams the pools are dealt. It depends on the batch alone, so that every number of workers
        sees the same batches; a worker reads one stream or several."""
        return min(self.batch_size, max(8, self.batch_size // 32))


PRESET_SETTINGS: dict[str, dict[str, Any]] = {
    "paper": {"batch_size": 128, "vae_steps": 2, "discriminator_steps": 1, "folds": 1},
}
"""What a preset sets besides the networks, where the user does not. The others keep the defaults."""


class ScoreConfig(_Section):
    """How the pool is scored."""

    workers: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(default="auto", json_schema_extra=SPEED)
    """Actors that run the networks, on GPUs when device is cuda; auto is as many as Ray has room for now."""
    gpus_per_worker: float = Field(default=1.0, gt=0, le=1, json_schema_extra=SPEED)
    """GPUs of an actor when device is cuda; 0.5 lets two share one, for a network too small to fill it."""
    batch_size: Annotated[int, Field(ge=1, le=65_536)] | Literal["auto"] = Field(
        default="auto", json_schema_extra=SPEED
    )
    """Images in a forward pass; auto is what fills 16 MiB of pixels on a GPU, and 16 or more of small ones on a CPU.
    Halved, and that is logged, where it does not fit the memory. Changes a logit by rounding only."""
    acquisition: list[AcquisitionName] = Field(default=["vaal"], min_length=1, json_schema_extra=RESULT)
    """Scores that every image gets, a column each. vaal, whose column is `logit`, is always one of them; margin is the
    task learner's, and needs train.task."""
    precision: Literal["fp32", "bf16"] = Field(default="fp32", json_schema_extra=RESULT)
    """Of the encoder's arithmetic; bf16 is autocast, for GPUs. Logits are fp32 always."""
    attempts: int = Field(default=3, ge=1, json_schema_extra=SPEED)
    """A shard that fails so many times is quarantined whole; the others go on."""
    stall_seconds: float = Field(default=300.0, gt=0, json_schema_extra=SPEED)
    """Reading or decoding that makes no progress for longer is cut off, and counts as a failed attempt."""
    max_bad_fraction: float = Field(default=0.05, ge=0, le=1, json_schema_extra=SPEED)
    """Highest share of items in quarantine, of the pool and of a shard, with which scoring is acceptable (else exit 3).
    One bad item alone condemns no shard."""


class SelectConfig(_Section):
    """What is picked."""

    budget: int = Field(default=1000, ge=0, json_schema_extra=RESULT)
    """b: exactly this many images are picked a round."""
    oversample: float = Field(default=3.0, ge=1, le=1000, json_schema_extra=RESULT)
    """The batch is chosen among this times b candidates: those with the lowest logits."""
    duplicates: Literal["off", "exact", "near"] = Field(default="near", json_schema_extra=RESULT)
    """Which duplicates of an image are not picked: the same bytes (exact), or also the same picture encoded, resized or
    mirrored again, and nearly the same latent (near)."""
    duplicate_cosine: float = Field(default=0.99, gt=0, le=1, json_schema_extra=RESULT)
    """For near: two latents with at least this cosine are duplicates."""
    diversity: Diversity = Field(default="clusters", json_schema_extra=RESULT)
    """How b are chosen among the candidates: the lowest logits (none), with noise (gumbel), in turn from clusters of
    latents, spread over the latents (k_center, facility), or with a discriminator that learns as it picks."""
    control_fraction: float = Field(default=0.05, ge=0, le=1, json_schema_extra=RESULT)
    """Share of the batch that is a uniform random sample of the unlabelled pool, to measure the gain against."""
    stratify: str = Field(default="", json_schema_extra=RESULT)
    """Column of pool.metadata; the control arm then holds each of its values in proportion to the unlabelled pool."""
    when_no_signal: WhenNoSignal = Field(default="diversity", json_schema_extra=RESULT)
    """How to pick where the discriminators found no signal: spread over the latents, at random, or not (exit 3)."""
    seed: int = Field(default=0, ge=0, lt=2**31, json_schema_extra=RESULT)
    """Of the random draws in the selection; a round's also follow from its number."""


class CampaignConfig(_Section):
    """The whole of `campaign.toml`."""

    salt: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$", json_schema_extra=RESULT)] = "0" * 32
    """Hex key of the hash that makes opaque item_ids. Drawn at random at init; fixed."""
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", json_schema_extra=SPEED)
    """Where the networks run; auto is cuda when the Ray cluster has GPUs for all workers."""
    pool: PoolConfig = PoolConfig()
    image: ImageConfig = ImageConfig()
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
        diversity, most = self.select.diversity, DIVERSIFIERS[self.select.diversity].most_picks
        if most is not None and self.select.budget > most:
            raise ValueError(f"select.diversity={diversity} is for select.budget up to {most}; use clusters")
        return self


FIXED_AT_INIT = ("salt", "pool")
"""Keys, or sections, that no later command can set."""


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
    extra = fields()[key].json_schema_extra
    assert isinstance(extra, dict)
    return bool(extra["changes_results"])


def result_values(section: _Section) -> dict[str, Any]:
    """The values of a section that may change results: what a fingerprint covers."""
    return {
        name: getattr(section, name)
        for name, field in type(section).model_fields.items()
        if isinstance(field.json_schema_extra, dict) and field.json_schema_extra["changes_results"]
    }
