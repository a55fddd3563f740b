"""A batch as acquisition functions see it: what the networks make of it, each part computed once.

Shape suffixes: B batch, D components of the task learner's features, C its outputs, K values of an answer, P answers of
an item, Z latent units.
"""

from collections.abc import Callable
from functools import cached_property
from typing import Literal, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from vaal.assembly import Networks
from vaal.task.model import Task, log_probabilities
from vaal.task.projection import pooled

Found = TypeVar("Found")
Score = Callable[[Networks, Tensor, Tensor], tuple[Tensor, Tensor]]
Reduction = Literal["mean", "lowest", "lowest_tenth", "class_balanced"]
"""How the scores of an item's answers become its own: see `View.reduced`."""


class Settings(NamedTuple):
    """Numbers that acquisition functions take from the configuration.

    `passes` of dropout with `dropout_rate`; `reduction` of several answers; whether gradient lengths have the factor of
    the features' norm; the `perturbation` of pixels from 0 to 1; `seed` of masks and draws.
    """

    seed: int = 0
    passes: int = 20
    dropout_rate: float = 0.5
    reduction: Reduction = "mean"
    with_norm: bool = True
    perturbation: float = 2 / 255


DEFAULTS = Settings()


class Inputs(NamedTuple):
    """B items: the input of VAAL's networks, images in [-1, 1] or embeddings; their folds (B,) int64; the input of the
    task learner, where that is another one; and a hash (B,) int64 of each item's identity, where something asks for it.

    Gradients by the input need it made outside of `torch.inference_mode`.
    """

    x_B: Tensor
    fold_B: Tensor
    task_x_B: Tensor | None = None
    identity_B: Tensor | None = None


class View:
    """B items, and what networks in eval mode make of them, on one device.

    `score` is the score of the training method, as `vaal.methods` names it; None where nothing asks for it. With
    `keeps_graph` the features are of a pass whose gradients can be taken, which saves another one.
    """

    def __init__(
        self,
        networks: Networks,
        inputs: Inputs,
        settings: Settings = DEFAULTS,
        score: Score | None = None,
        *,
        keeps_graph: bool = False,
    ) -> None:
        self.keeps_graph = keeps_graph
        self.networks, self.settings, self._inputs, self._score = networks, settings, inputs, score
        self.x_B = inputs.x_B
        self.task_x_B = inputs.x_B if inputs.task_x_B is None else inputs.task_x_B
        self._made: dict[object, object] = {}

    @cached_property
    def method(self) -> tuple[Tensor, Tensor]:
        """The score (B,) and the latents (B, Z) of the training method, float32."""
        assert self._score is not None
        return self._score(self.networks, self.x_B, self._inputs.fold_B)

    @property
    def identity(self) -> Tensor:
        """A hash (B,) int64 of each item's identity."""
        assert self._inputs.identity_B is not None
        return self._inputs.identity_B

    @property
    def task(self) -> Task:
        """The task learner. Raises ValueError in training mode."""
        (task,) = self.networks.scoring("task")
        assert isinstance(task, Task)
        return task

    @property
    def latents(self) -> Tensor:
        """The latents (B, Z) of items without a training method, float32."""
        with torch.no_grad():
            if self.networks.embedding is None and self.networks.task is not None:
                return self.networks.task_latents(self.pooled)
            return self.networks.latents(self.x_B)

    @cached_property
    def graph(self) -> tuple[Tensor, Tensor]:
        """The task learner's input, and its features, float32, with the graph between them."""
        with torch.enable_grad(), torch.autocast(self.task_x_B.device.type, enabled=False):
            x_B = self.task_x_B.detach().float().requires_grad_()
            return x_B, self.task.features(x_B).float()

    @cached_property
    def features(self) -> Tensor:
        """The task learner's features (B, D), or (B, D, h, w), float32."""
        if self.keeps_graph:
            return self.graph[1].detach()
        with torch.no_grad():
            return self.task.features(self.task_x_B).float()

    @cached_property
    def pooled(self) -> Tensor:
        """The features of each item (B, D): of a map their mean over its places."""
        return pooled(self.features)

    @cached_property
    def logits(self) -> Tensor:
        """The task learner's logits (B, C), or (B, C, h, w), float32."""
        with torch.no_grad():
            return self.task.head(self.features)

    @cached_property
    def log_p(self) -> Tensor:
        """The log probabilities of the answers: see `vaal.task.model.log_probabilities`."""
        return log_probabilities(self.task.kind, self.logits)

    @cached_property
    def predicted(self) -> Tensor:
        """The most likely class or label of each item (B,) int64: of maps that of the mean of the probabilities."""
        if self.task.kind == "segmentation":
            return self.log_p.exp().mean(dim=2).argmax(dim=1)
        return self.logits.argmax(dim=1)

    @property
    def linear(self) -> nn.Linear:
        """The task learner's head, which is one linear layer. Raises ValueError if it is none."""
        if self.task.linear is None:
            raise ValueError("the task learner's head is not one linear layer")
        return self.task.linear

    def summary(self, name: str) -> dict[str, Tensor]:
        """What the acquisition function of this name was fitted to: the tensors that its `fit` returned."""
        return self.networks.summaries[name].tensors

    def once(self, make: "Callable[[View], Found]") -> Found:
        """`make(view)`, computed once for all functions that ask for it."""
        if make not in self._made:
            self._made[make] = make(self)
        return self._made[make]  # type: ignore[return-value]

    def reduced(self, score_BP: Tensor) -> Tensor:
        """The scores (B,) of items from those of their answers (B, P), the lowest for the most valuable.

        Their mean; the lowest; the mean of the lowest tenth, rounded up; or the mean for each class that is predicted
        for some answer, and then over these classes (class_balanced; of labels: over yes and no).
        """
        how = self.settings.reduction
        if score_BP.shape[1] == 1:
            return score_BP[:, 0]
        if how == "mean":
            return score_BP.mean(dim=1)
        if how == "class_balanced":
            return self._class_balanced(score_BP)
        count = 1 if how == "lowest" else -(-score_BP.shape[1] // 10)
        return score_BP.topk(count, dim=1, largest=False).values.mean(dim=1)

    def _class_balanced(self, score_BP: Tensor) -> Tensor:
        class_BP, num_classes = self.log_p.argmax(dim=1), self.log_p.shape[1]
        zero_BK = score_BP.new_zeros(len(score_BP), num_classes)
        sum_BK = zero_BK.scatter_add(1, class_BP, score_BP)
        count_BK = zero_BK.scatter_add(1, class_BP, torch.ones_like(score_BP))
        return (sum_BK / count_BK.clamp_min(1)).sum(dim=1) / (count_BK > 0).sum(dim=1)
