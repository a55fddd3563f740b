"""Options of training."""

from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import Field, model_validator

from engine.config.section import SPEED, Section
from vaal.methods import METHODS
from vaal.task.kinds import Kind

if TYPE_CHECKING:
    Method: TypeAlias = str
else:
    # The table is the only list of these names.
    Method = Literal[("auto", *METHODS)]


TrackerName = Literal["tensorboard", "mlflow", "wandb"]
KINDS: dict[str, Kind] = {"classification": "classes", "labels": "labels", "segmentation": "segmentation"}
"""What the task learner answers, by train.task."""
QUESTIONS: dict[Kind, str] = {"classes": "class", "labels": "classes", "segmentation": "mask"}
"""The handoff.question.task whose answers teach that."""

SIMULATED_ONLY = "vaal_2019"
"""A method that only a simulation runs: the authors' code."""

MASK_NETWORKS = ("unet", "lraspp")
"""The networks of train.task_network that learn a class a pixel, the usual one first."""
WITH_BATCH_NORM = ("vgg16_bn", "lraspp")
WITH_DROPOUT = ("vgg16_bn",)
"""The networks of train.task_network that have layers of dropout."""


class TrainConfig(Section):
    """How the VAE and the discriminators are trained."""

    preset: Literal["small", "base", "large", "paper"] = "small"
    """Size of the networks: small, base and large grow in width and latents, and latents also grow with image.size.
    paper is the authors' network; it also sets batch_size, vae_steps, discriminator_steps, folds and refit unless they
    are given."""
    method: Method = "auto"
    """vaal, or one of the paper's ablations: a VAE trained first and then frozen (frozen_vae), the distance from the
    labelled images' latents (vae_only), discriminators on pixels (pixels), or on features that they learn, or straight
    on embeddings (features). auto: features where the networks see embeddings, else vaal."""
    input: Literal["auto", "pixels", "embeddings"] = "auto"
    """What the networks see of an image: pixels of image.size, or its embedding, from pool.embeddings or by
    encoder.model. auto: embeddings where there are some."""
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
    refit: bool = True
    """At the end fit discriminators again to the latents of the trained VAE, or straight to embeddings (method
    features, before which nothing trains then); and make the logits of the folds comparable and calibrate them."""
    folds: int = Field(default=5, ge=1, le=16)
    """Discriminators, each trained without one part of the images, whose scores it gives. More see more of the few
    labels, and cost little, but a whole encoder each with method features on pixels. 1, as in the paper: no folds."""
    task: Literal["auto", "none", "classification", "labels", "segmentation"] = "auto"
    """The task learner T of Algorithm 1, trained on the labelled pool: for one class an image (classification), several
    (labels) or a class a pixel (segmentation), as handoff.question.task asks. auto: on embeddings a linear head where
    the labels are classes, and its margins; on pixels none."""
    task_network: Literal["auto", "small", "resnet18", "vgg16_bn", "unet", "lraspp"] = "auto"
    """The network of the task learner on pixels: a small residual one, ResNet-18, or VGG16 with BatchNorm, the paper's;
    for masks a small U-Net, or LR-ASPP on MobileNetV3. auto: small, for masks unet. vgg16_bn and lraspp need
    train.workers=1, because BatchNorm mixes the images of a worker."""
    task_steps: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Updates of the task learner on pixels, of train.batch_size images each; they follow VAAL's. auto: 50 passes over
    the labels that it trains on, and at least 500 updates."""
    task_augmentation: Literal["flips_and_crops", "crops", "none"] = "flips_and_crops"
    """What the task learner, and with method features the discriminators, see of an image in training: crops moves it
    by up to an eighth, flips also mirrors it left to right. Choose crops or none where left and right or the place
    matter: digits, signs, X-rays."""
    workers: int = Field(default=1, ge=1, json_schema_extra=SPEED)
    """Ray Train workers, one process each, with a GPU each if device is cuda. Changes weights by rounding only."""
    min_workers: int = Field(default=0, ge=0, json_schema_extra=SPEED)
    """Start with this many workers if the cluster has no more, up to train.workers; 0 waits for all of them."""
    wait_seconds: float = Field(default=0.0, ge=0, json_schema_extra=SPEED)
    """How long to wait for a cluster to have the workers, in seconds; then training ends with exit status 4. 0 is for
    ever."""
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
    trackers: list[TrackerName] = Field(default=["tensorboard"], json_schema_extra=SPEED)
    """Where losses can be watched while training goes on: tensorboard, mlflow, wandb; [] is nowhere. The last two are
    extras of this package, and take their addresses and keys from the environment."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Seed of initial weights, order of items and noise."""

    @model_validator(mode="before")
    @classmethod
    def _preset_sets_what_is_not_given(cls, values: Any) -> Any:
        if isinstance(values, dict):
            if values.get("method") == SIMULATED_ONLY:
                why = "its scores depend on the images that share a batch, so no result could be repeated"
                raise ValueError(f"train.method={SIMULATED_ONLY} is for experiments of vaal simulate: {why}; use vaal")
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
        if self.task_network in WITH_BATCH_NORM and (self.workers > 1 or self.gradient_accumulation > 1):
            needs = "train.workers=1 and train.gradient_accumulation=1, because BatchNorm mixes the images of a worker"
            raise ValueError(f"train.task_network={self.task_network} needs {needs}")
        if self.preset == "paper" and self.workers > 1:
            raise ValueError("train.preset=paper needs train.workers=1, because BatchNorm mixes the images of a worker")
        if self.preset == "paper" and self.method != "auto" and not METHODS[self.method].has_paper_preset:
            raise ValueError(f"train.preset=paper has no network for train.method={self.method}; use small")
        return self

    @property
    def streams(self) -> int:
        """Number of streams that the pools are dealt to. It depends only on the batch, so that any number of workers
        sees the same batches; a worker reads one or more streams."""
        return min(self.batch_size, max(8, self.batch_size // 32))


PRESET_SETTINGS: dict[str, dict[str, Any]] = {
    "paper": {"batch_size": 128, "vae_steps": 2, "discriminator_steps": 1, "folds": 1, "refit": False},
}
"""Options that a preset sets in addition to the networks, unless the user does. Others keep the defaults."""
