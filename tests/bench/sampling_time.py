"""Seconds to choose a batch from CIFAR-10's pool by each strategy of the paper, as a ratio to VAAL's, in one run.

    python tests/bench/sampling_time.py [small] [gpu] [--rounds N]

The networks on 40,000 images of 32 px (small: 128) and the choice of 2,500 (32): all that happens between training and
the batch, but for decoding, which is the same for all. The task learner is the paper's, VGG16 with BatchNorm; VAAL's
networks are this project's and, as `vaal, paper's widths`, of train.preset=paper. Images and weights are random, for
neither changes the time.

    random               a hash of each item
    vaal                 an encoder's pass, and a discriminator on the latents
    core_set             a pass; k-center of all features, 5,000 labelled images as centers (small: 64)
    mc_dropout, dbal     a pass, and 20 draws of its last layer; "whole network": as the paper, 10 passes
    ensemble_varr        a pass, and a committee of heads; "five networks": as the paper, 5 passes

The paper's ratios (Sinha et al. 2019, table 2): MC-dropout 7.7, core-set 7.1, ensembles 1.9, DBAL 1.0. Strategies take
turns for three rounds after a batch each; a ratio is the median of those of the rounds. Seconds are of the clock, on
one thread or a GPU.
"""

import pkgutil
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from acquisition_cost import reference
from measure import is_small, machine, ratio
from torch import Tensor, nn

from engine.config.options import CampaignConfig
from engine.config.toml import override
from engine.models.task_networks import make_task_network
from engine.models.weights import make_networks, score_function
from vaal.acquisition import ACQUISITIONS
from vaal.acquisition.summary import Summary
from vaal.acquisition.view import DEFAULTS, Inputs, View
from vaal.assembly import Networks
from vaal.diversity.k_center import k_center_greedy
from vaal.task.model import Task

SIDE, NUM_CLASSES, PASSES, MEMBERS = 32, 10, 10, 5
ITEMS, LABELLED, BUDGET = (128, 64, 32) if is_small() else (40_000, 5_000, 2_500)
DEVICE = torch.device("cuda" if "gpu" in sys.argv[1:] else "cpu")
BATCH = 2048 if DEVICE.type == "cuda" else 128
WIDE = "vaal, paper's widths"
PAPER = {"mc_dropout": 7.7, "core_set": 7.1, "ensemble_varr": 1.9, "dbal": 1.0}
Score = Callable[[View], Tensor]


def config_of(**settings: str) -> CampaignConfig:
    return override(CampaignConfig(), {"image.size": SIDE, **settings}, "bench")


def networks_of(config: CampaignConfig) -> Networks:
    torch.manual_seed(0)
    task = Task(make_task_network("vgg16_bn", SIDE, 3, NUM_CLASSES)).eval().requires_grad_(False)
    committee = Summary(pkgutil.resolve_name(ACQUISITIONS["ensemble_varr"].fit)(reference(task, 1_000)))
    named = {name: committee for name in ("ensemble_varr", "consensus_kl")}
    return make_networks(config)._replace(task=task, summaries=named).ready(DEVICE)


def scores(function: Score, networks: Networks, config: CampaignConfig, pixels_NCHW: Tensor) -> Tensor:
    """Of all items, on the CPU."""
    score, found = score_function(config), []
    for begin in range(0, len(pixels_NCHW), BATCH):
        x_BCHW = pixels_NCHW[begin : begin + BATCH].to(DEVICE).float() / 127.5 - 1
        item_B = torch.arange(len(x_BCHW), device=DEVICE)
        found.append(function(View(networks, Inputs(x_BCHW, item_B % config.train.folds, None, item_B), score=score)))
    return torch.cat(found).cpu()


def lowest(score_N: Tensor) -> None:
    score_N.topk(BUDGET, largest=False)


def farthest(feature_ND: Tensor) -> None:
    candidate_ND = feature_ND.numpy()
    k_center_greedy(candidate_ND, candidate_ND[:LABELLED] + np.float32(1), BUDGET)


def whole_network(view: View) -> Tensor:
    """The spread over passes with the dropout of VGG16."""
    deep = view.task
    dropouts = [module for module in deep.modules() if isinstance(module, nn.Dropout)]
    for module in dropouts:
        module.train()
    logit_TBC = torch.stack([deep.head(deep.features(view.x_B)) for _ in range(PASSES)])
    deep.eval()
    return -logit_TBC.softmax(-1).std(0).mean(-1)


def five_networks(view: View) -> Tensor:
    """The share of the most frequent vote of five networks; the same one five times, which takes as long."""
    votes_MB = torch.stack([view.task.head(view.task.features(view.x_B)).argmax(1) for _ in range(MEMBERS)])
    return (votes_MB == votes_MB.mode(0).values).float().mean(0)


def strategies() -> dict[str, Callable[[], float]]:
    """Each returns its seconds, without those of a first batch."""
    pixels_NCHW = torch.randint(256, (ITEMS, 3, SIDE, SIDE), dtype=torch.uint8)
    base, paper = config_of(), config_of(**{"train.preset": "paper"})
    of_base = networks_of(base)
    of_paper = make_networks(paper).ready(DEVICE)

    def step(function: Score, choose: Callable[[Tensor], None] = lowest, networks: Networks = of_base) -> float:
        config = base if networks is of_base else paper
        with torch.no_grad():
            scores(function, networks, config, pixels_NCHW[:BATCH])
            begin = time.perf_counter()
            choose(scores(function, networks, config, pixels_NCHW))
            return time.perf_counter() - begin

    def column(name: str) -> Score:
        found: Score = pkgutil.resolve_name(ACQUISITIONS[name].function)
        return found

    return {
        "vaal": partial(step, column("vaal")),
        WIDE: partial(step, column("vaal"), networks=of_paper),
        "random": partial(step, column("random")),
        "core_set": partial(step, lambda view: view.pooled, farthest),
        "mc_dropout": partial(step, column("mean_std")),
        "mc_dropout, whole network": partial(step, whole_network),
        "dbal": partial(step, column("predictive_entropy")),
        "ensemble_varr": partial(step, column("ensemble_varr")),
        "ensemble_varr, five networks": partial(step, five_networks),
    }


def main() -> None:
    torch.set_num_threads(1)
    if DEVICE.type == "cuda" and not torch.cuda.is_available():
        sys.exit("sampling_time: there is no GPU")
    num_rounds = int(sys.argv[sys.argv.index("--rounds") + 1]) if "--rounds" in sys.argv else 3
    steps = strategies()
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(num_rounds):
        for name, step in steps.items():
            seconds[name].append(step())
    where = torch.cuda.get_device_name() if DEVICE.type == "cuda" else machine()
    print(f"{ITEMS:,} images at {SIDE} px, {BUDGET:,} chosen; {where}; {DEFAULTS.passes} draws; {num_rounds} rounds")
    for name, found in seconds.items():
        published = f"  (paper {PAPER[name]})" if name in PAPER else ""
        to = f"{ratio(seconds, name, 'vaal'):6.2f} of vaal"
        to_paper = f"{ratio(seconds, name, WIDE):6.2f} of {WIDE}"
        print(f"{name:<30}{statistics.median(found):8.3f} s {to} {to_paper}{published}")


if __name__ == "__main__":
    main()
