"""Small task learners of every kind, and views of images by them, for tests of acquisition functions."""

import torch
from torch import Tensor, nn

from vaal.acquisition import ACQUISITIONS
from vaal.acquisition.reference import Reference
from vaal.acquisition.summary import Summary
from vaal.acquisition.view import DEFAULTS, Inputs, Settings, View
from vaal.assembly import Networks
from vaal.linear_head import LinearHead
from vaal.networks import initialise
from vaal.task.kinds import Kind
from vaal.task.model import Task

SIZE, CHANNELS, FEATURES, CLASSES, FOLDS = 8, 3, 6, 4, 3


class SmallNetwork(nn.Module):
    """A smooth network with a linear head, or for segmentation with a head of 1 x 1; no layer mixes samples."""

    def __init__(self, kind: Kind, num_classes: int = CLASSES) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(CHANNELS, FEATURES, 3, stride=2, padding=1), nn.Tanh(), nn.Dropout(0.3))
        self.is_map = kind == "segmentation"
        self.head: nn.Module = nn.Conv2d(FEATURES, num_classes, 1) if self.is_map else nn.Linear(FEATURES, num_classes)
        initialise(self, linear=[self.head])

    def features(self, x_BCHW: Tensor) -> Tensor:
        maps: Tensor = self.body(x_BCHW)
        return maps if self.is_map else maps.mean(dim=(2, 3)) * 4


def task_of(kind: Kind, seed: int = 0, num_members: int = 0) -> Task:
    """A task learner on images, or of kind "embeddings" on vectors."""
    torch.manual_seed(seed)
    networks = [SmallNetwork(kind) for _ in range(1 + num_members)]
    return Task(networks[0], kind, networks[1:]).eval().requires_grad_(False)


def vector_task(seed: int = 0) -> Task:
    torch.manual_seed(seed)
    head = LinearHead(FEATURES, CLASSES)
    initialise(head, linear=[head.head])
    return Task(head, unit_C=(1.0,)).eval().requires_grad_(False)


def images(count: int, seed: int = 0) -> Tensor:
    """Noise, each image of a colour of its own: otherwise a network takes all for the same."""
    generator = torch.Generator().manual_seed(seed)
    grain, colour = (torch.rand(count, CHANNELS, side, side, generator=generator) for side in (SIZE, 1))
    return grain + colour - 1


def vectors(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, FEATURES, generator=torch.Generator().manual_seed(seed))


def reference_of(task: Task, labelled_x: Tensor, pool_x: Tensor, settings: Settings = DEFAULTS) -> Reference:
    """What acquisition functions are fitted to, with answers that depend on the images."""
    view, pool = (
        View(Networks(task=task), Inputs(x, torch.zeros(len(x), dtype=torch.int64))) for x in (labelled_x, pool_x)
    )
    fold_L = torch.arange(len(labelled_x)) % FOLDS
    maps = view.features
    noise = torch.randn(view.logits.shape, generator=torch.Generator().manual_seed(3))
    noisy = view.logits + noise
    if task.kind == "segmentation":
        part_ND, answer_N = maps.movedim(1, -1).flatten(0, 2), noisy.argmax(dim=1).flatten()
        part_fold_N = fold_L.repeat_interleave(maps.shape[2] * maps.shape[3])
    else:
        part_ND, part_fold_N = maps, fold_L
        answer_N = (noisy > 0).float() if task.kind == "labels" else noisy.argmax(dim=1)
    logit_LC = view.logits.flatten(2).mean(dim=2) if view.logits.ndim > 2 else view.logits
    return Reference(task, view.pooled, logit_LC, fold_L, part_ND, answer_N, part_fold_N, pool.pooled, 1000, settings)


def method_score(networks: Networks, x_B: Tensor, fold_B: Tensor) -> tuple[Tensor, Tensor]:
    """Stands for the score of a training method: a logit and a latent of each image."""
    flat = x_B.flatten(1)
    return flat[:, :3].sum(dim=1) + 0.01 * fold_B, flat[:, :4]


def networks_of(task: Task, names: list[str], seed: int = 7) -> Networks:
    """Networks with the task learner, and with what these acquisition functions are fitted to."""
    import pkgutil

    make = vectors if isinstance(task.network, LinearHead) else images
    reference = reference_of(task, make(24, seed), make(40, seed + 1))
    fits = {name: ACQUISITIONS[name].fit for name in names if ACQUISITIONS[name].fit}
    return Networks(task=task, summaries={n: Summary(pkgutil.resolve_name(fit)(reference)) for n, fit in fits.items()})


def view_of(networks: Networks, x_B: Tensor, settings: Settings = DEFAULTS, first: int = 0) -> View:
    """A view whose items are number `first` and on of a pool."""
    number_B = torch.arange(first, first + len(x_B), device=x_B.device)
    identity_B = (number_B + 1) * 0x9E3779B97F4A7C15 % (1 << 62)
    return View(networks, Inputs(x_B, number_B % FOLDS, identity_B=identity_B), settings, method_score)
