"""All options: the frozen, typed model of `campaign.toml`.

Each field has a meaning, a unit and a range. An option that changes results is fixed for a round once the stage that
reads it is complete. An option marked SPEED changes only time and memory, or rounding, and can be set at any time.
"""

from itertools import chain
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from pydantic.fields import FieldInfo

from engine.config.class_names import class_name
from engine.config.handoff_options import HandoffConfig
from engine.config.hook_options import HooksConfig, shown
from engine.config.input_options import MEMBER, EncoderConfig, ImageConfig, PoolConfig
from engine.config.label_options import LabelsConfig
from engine.config.mask_faults import faults_of_masks
from engine.config.score_faults import faults_of_scores
from engine.config.score_options import ScoreConfig
from engine.config.section import SPEED, Section
from engine.config.select_options import RULE, SelectConfig
from engine.config.task_options import TaskConfig
from engine.config.train_options import KINDS, MASK_NETWORKS, TrainConfig
from vaal.acquisition import ACQUISITIONS
from vaal.diversity import DIVERSIFIERS
from vaal.methods import METHODS, Method
from vaal.task.kinds import Kind


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
    task: TaskConfig = TaskConfig()
    train: TrainConfig = TrainConfig()
    score: ScoreConfig = ScoreConfig()
    select: SelectConfig = SelectConfig()
    handoff: HandoffConfig = HandoffConfig()
    hooks: HooksConfig = HooksConfig()

    def shown(self) -> dict[str, Any]:
        """All options by section and name, without the secrets in them."""
        tree = self.model_dump()
        tree["hooks"]["on_stage"] = shown(self.hooks.on_stage)
        return tree

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
    def task_kind(self) -> Kind | None:
        """What the task learner answers, None without one; with train.task=auto, if the labels are classes, and of
        task.model classes."""
        if self.train.task == "auto" and self.task.model:
            return "classes"
        if self.train.task == "auto":
            return "classes" if self.sees_embeddings and self.handoff.question.task == "class" else None
        return KINDS.get(self.train.task)

    @property
    def task_classes(self) -> list[str]:
        """The classes that task.classes names."""
        return [class_name(name) for name in self.task.classes]

    @property
    def mask_classes(self) -> list[str]:
        """The classes of masks in the order of their ids: those of task.classes, or else of the question."""
        return self.task_classes or [class_name(name) for name in self.handoff.question.classes]

    @property
    def task_network(self) -> str:
        """The network of a task learner on pixels that the engine trains."""
        auto = MASK_NETWORKS[0] if self.task_kind == "segmentation" else "small"
        return auto if self.train.task_network == "auto" else self.train.task_network

    @property
    def has_task(self) -> bool:
        """Whether there is a task learner; with train.task=auto, if the labels are classes, or task.model is given."""
        return self.task_kind is not None

    @property
    def asks_of_task(self) -> str:
        """The options by which a task learner of the user's can be used, or not, as text; empty without one."""
        names = self.acquisitions(has_task=True), self.draws_network
        return repr((self.task, self.task_kind, *names, self.image)) if self.task.model else ""

    def acquisitions(self, *, has_task: bool) -> list[str]:
        """The names of all scores in the order of the table: those of score.acquisition, what ranks, and what decides
        between equal scores. `has_task`: there is a task learner."""
        names = {*self.score.acquisition, self.select.acquisition}
        names |= {ACQUISITIONS[name].ties for name in names}
        names |= {"margin"} if has_task and self.train.task == "auto" else set()
        return [name for name in ACQUISITIONS if name in names]

    def is_dear(self, name: str) -> bool:
        """Whether a score costs so much that it is computed for candidates alone."""
        row = ACQUISITIONS[name]
        when = {"always": True, "network_dropout": self.score.dropout == "network", "members": len(self.task.files) > 1}
        return bool(row.dear) and when[row.dear_when]

    @property
    def draws_network(self) -> bool:
        """Whether a score asks for dropout in the whole network."""
        names = self.acquisitions(has_task=self.has_task)
        asked = any(ACQUISITIONS[name].dear_when == "network_dropout" for name in names if ACQUISITIONS[name].dear)
        return self.score.dropout == "network" and asked

    @property
    def first_ranks(self) -> str:
        """The score that ranks the whole pool: select.acquisition, or where that is dear the first of
        score.acquisition."""
        return self.score.acquisition[0] if self.is_dear(self.select.acquisition) else self.select.acquisition

    @property
    def scores_again(self) -> bool:
        """Whether candidates are scored a second time: for a score that is dear, or for the task learner's features."""
        needs = set(DIVERSIFIERS[self.diversity].needs)
        return self.is_dear(self.select.acquisition) or bool(needs & {"feature_MD", "answer_MC"})

    @property
    def needs_method(self) -> bool:
        """Whether a score asks for the networks of the training method. Without one they are not trained."""
        return any("method" in ACQUISITIONS[name].needs for name in self.acquisitions(has_task=False))

    @property
    def latents_show_pictures(self) -> bool:
        """Whether near latents may be those of near copies. A task learner's features, which are the latents where
        nothing else is, show what it tells apart: two images of a class may have the same."""
        return self.needs_method or self.sees_embeddings

    @property
    def diversity(self) -> str:
        """The row of `vaal.diversity.DIVERSIFIERS` that select.diversity stands for."""
        if self.select.diversity != "auto":
            return self.select.diversity
        if self.select.acquisition == "vaal":
            return RULE
        return "class_balanced" if self.task_kind in ("classes", "labels") else "none"

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
    def _task_fits(self) -> "CampaignConfig":
        named = f"task.model={self.task.model}"
        if not self.task.model:
            return self
        if self.train.task == "none":
            raise ValueError(f"{named} is a task learner, and train.task=none; leave out one of them")
        if self.sees_embeddings:
            why = "on embeddings the task learner is a linear head that is trained here"
            raise ValueError(f"{named}: {why}; leave it out, or see pixels: --set train.input=pixels")
        if fault := self.task.fault_with(self.image.channels):
            raise ValueError(fault)
        return self

    @model_validator(mode="after")
    def _sections_fit_together(self) -> "CampaignConfig":
        if self.train.preset == "paper" and (self.image.size < 32 or self.image.size % 16):
            raise ValueError(f"image.size={self.image.size}: train.preset=paper needs a multiple of 16 from 32 on")
        of_selection = self.select.faults_with(self.pool.metadata, self.pool.group)
        if fault := next(chain(of_selection, faults_of_scores(self), faults_of_masks(self)), ""):
            raise ValueError(fault)
        diversity, most = self.diversity, DIVERSIFIERS[self.diversity].most_picks
        if most is not None and self.select.budget > most:
            raise ValueError(f"select.diversity={diversity} is for select.budget up to {most}; use clusters")
        return self


FIXED_AT_INIT = ("salt", "pool", "image.suffixes")
"""Keys and sections that no later command can set: what an item is, and where. pool.embeddings can be set later."""


PATHS = (
    "pool.root",
    "pool.shared_ledger",
    "pool.metadata",
    "pool.embeddings",
    "encoder.weights",
    "task.weights",
    "labels.masks",
    "select.exclude",
)
"""Options that name files."""


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
