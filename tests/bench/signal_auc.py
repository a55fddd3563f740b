"""Does training find what there is to find? AUC of held-out images, its interval, the verdict, and what is picked.

    python tests/bench/signal_auc.py [small]
    python tests/bench/signal_auc.py cifar [--preset small --steps 500 --seeds 3 --budget 500]

On pools of real digits (tests/constructed.py), several seeds each:
    no difference         200 labels drawn at random; the verdict should be "none" for 9 seeds of 10
    missing mode          88 % of the unlabelled digits are of a kind without a label; targets: AUC above 0.9 (0.94 is
                          the most there is), over 95 % of 100 picks from the missing kind
    authors' reductions   the same with the objective as the authors' code reduces it; "collapsed" should be reported
On CIFAR-10 (`cifar`; below VAAL_DATA, else ../shared/data): labels for 1,000 images of each of five classes; the share
of the picks from the other five beside that of a random choice.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq
import torch
from measure import cifar10_shards, machine
from rich.console import Console
from rich.table import Table

from engine.campaign.opening import create
from engine.config.options import CampaignConfig
from engine.config.toml import override
from tests.constructed import Constructed, authors_reductions, missing_mode, no_difference
from tests.learn import learn, share_of_picks

PER_CLASS = 1000


class Found(NamedTuple):
    entries: dict[str, Any]
    picked: float | None
    seconds: float

    @property
    def is_collapsed(self) -> bool:
        return any("collapsed" in finding for finding in self.entries["diagnosis"]["findings"])


def train_and_pick(made: Constructed, budget: int, num_threads: int = 1) -> Found:
    """What training finds on a pool, and the share of the picks that are wanted, where any are."""
    begin = time.perf_counter()
    learnt = learn(made.campaign, num_threads=num_threads)
    seconds = time.perf_counter() - begin
    picked = share_of_picks(learnt, budget, made.is_wanted) if made.wanted else None
    return Found(learnt.entries, picked, seconds)


def show(title: str, found: list[Found]) -> None:
    table = Table(title=title)
    for name in ("seed", "AUC", "interval", "signal", "units", "collapsed", "picks", "seconds"):
        table.add_column(name, justify="right")
    for seed, row in enumerate(found):
        entry = row.entries["diagnosis"]
        table.add_row(
            str(seed), f"{entry['auc']:.3f}", f"{entry['auc_low']:.3f} to {entry['auc_high']:.3f}",
            row.entries["signal"], f"{entry['active_units']}/{entry['latent_units']}",
            "yes" if row.is_collapsed else "no", "" if row.picked is None else f"{row.picked:.3f}",
            f"{row.seconds:.1f}",
        )  # fmt: skip
    Console(width=100).print(table)


def constructed(num_seeds: int, steps: int, collapsing: tuple[str, ...]) -> None:
    """The pools of digits; `collapsing` are the settings with which there is time for a collapse."""
    settings = (f"train.max_steps={steps}",)
    pools = {
        "no difference": (no_difference, settings),
        "missing mode": (missing_mode, settings),
        "authors' reductions": (missing_mode, (*collapsing, *authors_reductions(8 * 8, 64))),
    }
    lines = []
    for title, (make, chosen) in pools.items():
        found = []
        for seed in range(num_seeds):
            with tempfile.TemporaryDirectory() as folder:
                made = make(Path(folder), seed, *chosen)
                found.append(train_and_pick(made, 100))
        show(f"{title}, {chosen[0].split('=')[1]} iterations", found)
        aucs = [row.entries["diagnosis"]["auc"] for row in found]
        picked = [row.picked for row in found if row.picked is not None]
        lines.append(
            f"{title}: AUC {min(aucs):.3f} to {max(aucs):.3f}, mean {statistics.mean(aucs):.3f}; signal none for "
            f"{sum(row.entries['signal'] == 'none' for row in found)}, collapsed "
            f"{sum(row.is_collapsed for row in found)} of {len(found)}"
            + (f"; picks {min(picked):.3f} to {max(picked):.3f}, random 0.88" if picked else "")
        )
    print("\n".join(lines))


def cifar_pool(folder: Path, seed: int, preset: str, steps: int) -> Constructed:
    """CIFAR-10 with labels for 1,000 images of each of the first five classes, and for none of the others."""
    shards = cifar10_shards()
    # The shards are in a random order already.
    rows = pq.read_table(shards[0].parent / "train-oracle.parquet").to_pylist()
    classes = sorted({row["label"] for row in rows})
    lines = ["shard,key,label"]
    for name in classes[:5]:
        lines += [f"{row['shard']},{row['key']},{name}" for row in rows if row["label"] == name][:PER_CLASS]
    labels = folder / "labels.csv"
    labels.write_text("\n".join(map(str, lines)))
    wanted = frozenset((row["shard"], row["key"]) for row in rows if row["label"] in classes[5:])
    values = {"train.preset": preset, "train.max_steps": steps, "train.epochs": 10**6, "train.seed": seed}
    config = override(CampaignConfig(), values, "bench")
    files = [str(shard) for shard in shards]
    return Constructed(create(str(folder / "campaign"), files, str(labels), config, lambda _: None), wanted)


def cifar(arguments: argparse.Namespace) -> None:
    if not cifar10_shards():
        print("not measured: no cifar10/train-*.tar below VAAL_DATA or ../shared/data")
        return
    found = []
    for seed in range(arguments.seeds):
        with tempfile.TemporaryDirectory() as folder:
            made = cifar_pool(Path(folder), seed, arguments.preset, arguments.steps)
            found.append(train_and_pick(made, arguments.budget, torch.get_num_threads()))
            chance = len(made.wanted) / (50_000 - 5 * PER_CLASS)
    title = f"CIFAR-10, preset {arguments.preset}, {arguments.steps} iterations"
    show(title, found)
    picked = [row.picked or 0.0 for row in found]
    print(
        f"{title}: {statistics.mean(picked):.3f} of {arguments.budget} picks are from the missing classes, "
        f"{min(picked):.3f} to {max(picked):.3f} over {len(found)} seeds; random {chance:.3f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("variant", nargs="?", default="large", choices=("small", "large", "cifar"))
    parser.add_argument("--preset", default="small")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--budget", type=int, default=500)
    arguments = parser.parse_args()
    print(machine())
    if arguments.variant == "cifar":
        cifar(arguments)
    elif arguments.variant == "small":
        constructed(1, 60, ("train.max_steps=120", "train.learning_rate=0.003"))
    else:
        constructed(10, 200, ("train.max_steps=400",))


if __name__ == "__main__":
    main()
