"""Seconds of scoring by each acquisition function, beside the task learner alone, in one run.

    python tests/bench/acquisition_cost.py [small] [gpu]

A pass decodes a batch of JPEGs, of the size that scoring makes on a CPU, and runs the networks on it. The task learner
has 10 classes: the engine's own at 32 px, torchvision's ResNet-18 at 32 px and at 224 px (small: not the last).

- none: the logits of the task learner, of which no column is made
- each column, with the one that breaks its ties; `vaal` and `confused` run the default networks beside the task learner
- together: vaal, margin, bald, ensemble_varr and expected_gradient_length. Target: at least 0.8 of the images/s of
  margin alone; and the same without the default networks
- second pass: what only candidates get, at 32 px. 20 draws of a whole network, or further members, cost a pass each

Columns take turns in blocks of batches. A ratio is the median over the rounds of a block's median to that of `none` in
the same round, in CPU seconds, both on one thread. Columns that are fitted to labelled items have 10,000 of them
(small: 1,000). With `gpu` the networks run there, on batches that were decoded before, and seconds are of the clock.
"""

import io
import pkgutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from measure import interleaved, is_small, machine, ratio
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torchvision.models import resnet18

from engine.config.options import CampaignConfig
from engine.config.toml import override
from engine.models.weights import make_classifier, make_networks, score_function, to_input
from engine.pool.images import decode
from engine.scoring.chunks import CHUNK_BYTES
from engine.scoring.scorer import CPU_BATCH_PIXELS, SMALLEST_CPU_BATCH
from vaal.acquisition import ACQUISITIONS
from vaal.acquisition.reference import Reference
from vaal.acquisition.summary import Summary
from vaal.acquisition.view import DEFAULTS, Inputs, View
from vaal.task.model import Task

TARGET, NUM_CLASSES, NUM_FOLDS = 0.8, 10, 5
TOGETHER = ("vaal", "margin", "bald", "ensemble_varr", "expected_gradient_length")
CASES = (("small network", 32), ("ResNet-18", 32), ("ResNet-18", 224))
DEVICE = torch.device("cuda" if "gpu" in sys.argv[1:] else "cpu")
IS_GPU = DEVICE.type == "cuda"


class ResNet(nn.Module):
    """torchvision's ResNet-18 as a task learner's network."""

    def __init__(self) -> None:
        super().__init__()
        self.body = resnet18(num_classes=NUM_CLASSES)
        self.head, self.body.fc = self.body.fc, nn.Identity()

    def features(self, x_BCHW: Tensor) -> Tensor:
        found: Tensor = self.body(x_BCHW)
        return found


def reference(task: Task, num_labelled: int) -> Reference:
    """Random features and classes, of which nothing but their number matters."""
    generator = torch.Generator().manual_seed(0)
    assert task.linear is not None
    num_features = task.linear.in_features
    feature_LD, feature_RD = (torch.rand(num_labelled, num_features, generator=generator) for _ in range(2))
    answer_L = torch.randint(NUM_CLASSES, (num_labelled,), generator=generator)
    fold_L = torch.arange(num_labelled) % NUM_FOLDS
    logit_LC = task.head(feature_LD)
    return Reference(task, feature_LD, logit_LC, fold_L, feature_LD, answer_L, fold_L, feature_RD, 10**6, DEFAULTS)


def batch_size(side: int) -> int:
    """As scoring makes it."""
    return CHUNK_BYTES // (3 * side**2) if IS_GPU else max(SMALLEST_CPU_BATCH, CPU_BATCH_PIXELS // side**2)


def jpegs(count: int, side: int) -> list[bytes]:
    """Smooth images, for JPEGs of noise take longer to decode than photographs."""
    coarse_NCHW = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    smooth_NCHW = F.interpolate(coarse_NCHW, size=(side, side), mode="bilinear")
    files = []
    for pixels_HWC in (255 * smooth_NCHW).byte().permute(0, 2, 3, 1).numpy():
        file = io.BytesIO()
        Image.fromarray(pixels_HWC).save(file, "JPEG", quality=90)
        files.append(file.getvalue())
    return files


def views(network: str, side: int) -> Callable[[], View]:
    """Makes views of a batch that it decodes again, of which nothing is computed yet."""
    config = override(CampaignConfig(), {"image.size": side}, "bench")
    torch.manual_seed(0)
    task = Task(ResNet()) if network == "ResNet-18" else make_classifier(config, NUM_CLASSES)
    task.eval().requires_grad_(False)
    found = reference(task, 1_000 if is_small() else 10_000)
    # Rows with the same fit share it.
    fits = {row.fit: Summary(pkgutil.resolve_name(row.fit)(found)) for row in ACQUISITIONS.values() if row.fit}
    summaries = {name: fits[row.fit] for name, row in ACQUISITIONS.items() if row.fit}
    networks = make_networks(config)._replace(task=task, summaries=summaries).ready(DEVICE)
    score = score_function(config)
    files = jpegs(batch_size(side), side)
    item_B = torch.arange(len(files), device=DEVICE)

    def pixels() -> NDArray[np.uint8]:
        return np.stack([decode(file, config.image) for file in files])

    decoded = pixels() if IS_GPU else None

    def view() -> View:
        x_BCHW = to_input(pixels() if decoded is None else decoded, DEVICE)
        return View(networks, Inputs(x_BCHW, item_B % config.train.folds, None, item_B), DEFAULTS, score)

    return view


def steps(view: Callable[[], View], *, has_second_pass: bool) -> Iterator[tuple[str, Callable[[], None]]]:
    def of(*places: str) -> Callable[[], None]:
        functions = [pkgutil.resolve_name(place) for place in places]

        def step() -> None:
            made = view()
            _ = made.logits
            for function in functions:
                function(made)
            if IS_GPU:
                torch.cuda.synchronize()

        return step

    yield "none", of()
    for name, row in ACQUISITIONS.items():
        yield name, of(row.function, *([ACQUISITIONS[row.ties].function] if row.ties else []))
    yield "together", of(*(ACQUISITIONS[name].function for name in TOGETHER))
    yield "without vaal", of(*(ACQUISITIONS[name].function for name in TOGETHER[1:]))
    for name, row in ACQUISITIONS.items():
        if has_second_pass and row.dear and row.dear_when == "always":
            yield f"{name}, second pass", of(row.dear)


def main() -> None:
    torch.set_num_threads(1)
    for network, side in CASES[:2] if is_small() else CASES:
        view = views(network, side)
        columns = dict(steps(view, has_second_pass=side == 32))
        interleaved(columns, num_rounds=1, block=2)
        num_rounds, block = (2, 4) if is_small() else (6, 6) if side == 32 else (3, 2)
        clock = time.perf_counter if IS_GPU else time.process_time
        medians = interleaved(columns, num_rounds=num_rounds, block=block, clock=clock)
        count = len(view().x_B)
        print(f"\n{network} at {side} px, batches of {count}; {machine()}; {num_rounds} rounds of {block}")
        second = "second" if IS_GPU else "CPU-second"
        for name, found in medians.items():
            seconds = statistics.median(found)
            print(f"{name:<28} {count / seconds:7.0f} images a {second}  ratio {ratio(medians, name, to='none'):6.2f}")
        for name in ("together", "without vaal"):
            verdict = f"  (target at least {TARGET})" if name == "together" else ""
            print(f"{name}: {1 / ratio(medians, name, to='margin'):.2f} of the images/s of margin{verdict}")


if __name__ == "__main__":
    main()
