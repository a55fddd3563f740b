"""What each way to choose a batch costs, and what kind of batch it makes.

    python tests/bench/diversifiers.py [small]
    python tests/bench/diversifiers.py scale [--candidates 1000000 --budget 100000]

CIFAR-10 with labels for 2,000 images of five classes (the demo's pool; below VAAL_DATA, else ../shared/data): 500
iterations of training over 50 shards (small: 60 over 12), then all unlabelled images are scored. Of the 10,000 lowest
labelled-logits each method chooses 1,000. In the table:
    seconds       of the choice; for `clusters` with the k-means
    nearest       mean Euclidean distance, in latents, of a candidate to the pick that is nearest
    radius        the largest such distance
    alike         pairs of picks with a cosine of their latents of at least 0.99
    given up      mean logit of the picks, less that of the lowest 1,000
    missing       share of the picks that are from the five classes without a label
    objective     of facility location, over all candidates and without the labelled items
Methods that need a task learner are in `scale` alone.
`scale` has synthetic candidates: 32 latents, 200 Gaussian modes of unequal size, 1,000 taken items; a random head of 10
classes on the latents stands for a task learner. Each method runs in a fresh process, up to the budget or its own
limit; its seconds, and the process's memory before and at its peak.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from measure import cifar10_shards, end_on_sigterm, machine, resident_bytes, result_of, start_fresh
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from engine.campaign.folder import Campaign
from engine.campaign.labels import labelled_items
from engine.campaign.opening import create
from engine.cluster.ray_session import ray_session
from engine.config.options import CampaignConfig
from engine.config.toml import override
from engine.scoring.score import score
from engine.selection.diversify import Material, choose, cluster
from engine.simulation import demo_pools as demo
from engine.tables.scores import latents_of
from engine.training.train import train
from vaal.diversity import DIVERSIFIERS, Choice
from vaal.diversity.facility import two_round_cover

NUM_CANDIDATES = 10_000
BUDGET = 1000
SEED = 0
COLUMNS = ["shard", "key", "logit", "latent"]
ALIKE = 0.99
COVERING = dict.fromkeys(("facility", "herding", "uherding"), 1000)
LIMITS = {**COVERING, "k_center": 10_000, "badge": 1000, "gradient_matching": 100}
"""The most picks that `scale` asks of a method; with more, minutes become hours, or it refuses."""
SAMPLED = 10_000
NEED_TASK = {"feature_MD", "predicted_M"}


def scored(folder: Path, *, is_small: bool) -> tuple[Campaign, demo.DemoPool]:
    """A campaign on CIFAR-10 whose pool is scored."""
    made = demo.cifar10(folder / "pool")
    shards = [str(path) for path in cifar10_shards()]
    values = {"train.max_steps": 60 if is_small else 500, "select.budget": BUDGET}
    labels = made.labels
    if is_small:
        shards = shards[:12]
        names = {Path(shard).name for shard in shards}
        lines = labels.read_text().splitlines()
        labels = folder / "fewer.csv"
        labels.write_text("\n".join([lines[0], *(line for line in lines[1:] if line.split(",")[0] in names)]))
    campaign = create(
        str(folder / "campaign"), shards, str(labels), override(CampaignConfig(), values, "bench"), lambda _: None
    )
    with ray_session("local"):
        train(campaign)
        score(campaign)
    return campaign, made


def pools(campaign: Campaign, folder: Path) -> tuple[pa.Table, pa.Table]:
    """The unlabelled items in the order of (logit, shard, key), and the labelled ones."""
    files = sorted((folder / "campaign/rounds/000/scores").glob("*.parquet"))
    items = pa.concat_tables([pq.read_table(file, columns=COLUMNS) for file in files])
    labelled = labelled_items(campaign.home)
    names = zip(items["shard"].to_pylist(), items["key"].to_pylist(), strict=True)
    is_taken = pa.array([name in labelled for name in names], pa.bool_())
    order = [(name, "ascending") for name in ("logit", "shard", "key")]
    candidates = items.filter(pc.invert(is_taken)).sort_by(order)
    return candidates.append_column("score", candidates["logit"]), items.filter(is_taken)


def nearest_pick(latent_MZ: NDArray[np.float32], picked_B: NDArray[np.intp]) -> NDArray[np.float64]:
    """Distance of each candidate to the pick that is nearest, float64."""
    wide_MZ = latent_MZ.astype(np.float64)
    pick_BZ = wide_MZ[picked_B]
    norm_B = (pick_BZ**2).sum(axis=1)
    found = []
    for begin in range(0, len(wide_MZ), 1000):
        block_RZ = wide_MZ[begin : begin + 1000]
        squared = (block_RZ**2).sum(axis=1) + (norm_B - 2 * block_RZ @ pick_BZ.T).min(axis=1)
        found.append(np.sqrt(squared.clip(min=0)))
    return np.concatenate(found)


def pairs_alike(latent_BZ: NDArray[np.float32]) -> int:
    unit_BZ = latent_BZ / np.linalg.norm(latent_BZ, axis=1, keepdims=True)
    return int(np.triu(unit_BZ @ unit_BZ.T >= ALIKE, k=1).sum())


def qualities(candidates: pa.Table, choice: Choice, is_missing_M: NDArray[np.bool_]) -> list[str]:
    """The cells of a row after the seconds."""
    latent_MZ, logit_M = latents_of(candidates), candidates["logit"].to_numpy()
    picked_B = choice.picked_B
    nearest_M = nearest_pick(latent_MZ, picked_B)
    given_up = logit_M[picked_B].mean() - logit_M[: len(picked_B)].mean()
    return [
        f"{nearest_M.mean():.3f}", f"{nearest_M.max():.3f}", str(pairs_alike(latent_MZ[picked_B])), f"{given_up:.3f}",
        f"{is_missing_M[picked_B].mean():.3f}", "" if choice.objective is None else f"{choice.objective:.4f}",
    ]  # fmt: skip


def timed(method: str, candidates: pa.Table, taken: pa.Table, budget: int) -> tuple[float, Choice]:
    """Seconds and the choice; clusters are made for the method that reads them, and in its time."""
    begin = time.perf_counter()
    clusters = np.zeros(len(candidates), np.int32)
    if method == "clusters":
        clusters = cluster(latents_of(candidates), SEED)
    sample = candidates.take(np.random.default_rng(SEED).permutation(len(candidates))[:SAMPLED])
    choice = choose(method, Material(candidates, taken, clusters, sample, taken, answers), budget, SEED)
    return time.perf_counter() - begin, choice


def answers(feature_MD: NDArray[np.float32]) -> NDArray[np.float32]:
    """p - onehot(p) of 10 classes, by a random head."""
    head = np.random.default_rng(SEED).normal(size=(feature_MD.shape[1], 10)) / feature_MD.shape[1] ** 0.5
    p_MC = np.exp(feature_MD @ head.astype(np.float32))
    p_MC /= p_MC.sum(axis=1, keepdims=True)
    p_MC[np.arange(len(p_MC)), p_MC.argmax(axis=1)] -= 1
    return p_MC


def table(title: str, *names: str) -> Table:
    found = Table(title=title)
    for name in names:
        found.add_column(name, justify="right" if name != "method" else "left")
    return found


def cifar(*, is_small: bool) -> None:
    if not cifar10_shards():
        print("not measured: no cifar10/train-*.tar below VAAL_DATA or ../shared/data")
        return
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        campaign, made = scored(folder, is_small=is_small)
        unlabelled, taken = pools(campaign, folder)
    print(f"trained and scored in {time.perf_counter() - begin:.0f} s")
    names = zip(unlabelled["shard"].to_pylist(), unlabelled["key"].to_pylist(), strict=True)
    is_missing = np.array([made.oracle[item] in made.missing for item in names])
    candidates = unlabelled.slice(0, NUM_CANDIDATES)
    columns = ("method", "seconds", "nearest", "radius", "alike", "given up", "missing", "objective")
    shown = table(f"{BUDGET} of {len(candidates)} candidates, {len(taken)} taken", *columns)
    for method in (name for name, row in DIVERSIFIERS.items() if not NEED_TASK & set(row.needs)):
        seconds, choice = timed(method, candidates, taken, BUDGET)
        shown.add_row(method, f"{seconds:.2f}", *qualities(candidates, choice, is_missing))
    random = Choice(np.random.default_rng(SEED).choice(len(candidates), BUDGET, replace=False))
    shown.add_row("random candidates", "", *qualities(candidates, random, is_missing))
    Console(width=110).print(shown)
    latents = latents_of(candidates), latents_of(taken)
    covers = {parts: two_round_cover(*latents, BUDGET, SEED, parts).objective for parts in (1, 4)}
    print(f"facility location: {covers[4]:.5f} in two rounds of 4 parts, {covers[1]:.5f} by plain greedy")
    print(
        f"from classes without a label: {is_missing.mean():.3f} of the unlabelled items, "
        f"{is_missing[: len(candidates)].mean():.3f} of the candidates"
    )


def synthetic(num_items: int, seed: int) -> pa.Table:
    """Items in the order of their logits, which are random but for a part that is their mode's."""
    random, modes = np.random.default_rng(seed), np.random.default_rng(SEED)
    middle, weight = modes.normal(size=(200, 32)), modes.dirichlet(np.ones(200))
    mode = random.choice(200, num_items, p=weight)
    logit = modes.normal(size=200)[mode] + 0.3 * random.normal(size=num_items)
    order = np.argsort(logit)
    latent = (middle[mode[order]] + 0.5 * random.normal(size=(num_items, 32))).astype(np.float16)
    latents = pa.FixedSizeListArray.from_arrays(pa.array(latent.ravel(), pa.float16()), 32)
    return pa.table(
        {
            "shard": pa.array([f"{i // 1000:06d}.tar" for i in range(num_items)]),
            "key": pa.array([f"{i:09d}" for i in range(num_items)]),
            "score": pa.array(logit[order].astype(np.float32)),
            "predicted": pa.array(answers(latent.astype(np.float32)).argmin(axis=1).astype(np.int32)),
            "latent": latents,
            "feature": latents,
        }
    )


def measure_one(method: str, num_candidates: int, budget: int) -> None:
    """In a fresh process: prints one JSON object."""
    candidates, taken = synthetic(num_candidates, 1), synthetic(1000, 2)
    before = resident_bytes()
    # The peak begins again, at what is resident now.
    Path("/proc/self/clear_refs").write_text("5")
    seconds, _ = timed(method, candidates, taken, budget)
    print(json.dumps({"seconds": seconds, "before": before, "peak": resident_bytes(peak=True)}))


def scale(num_candidates: int, budget: int) -> None:
    shown = table(f"{num_candidates} candidates, 1,000 taken", "method", "b", "seconds", "peak MiB", "before MiB")
    for method in DIVERSIFIERS:
        asked = min(budget, LIMITS.get(method, budget))
        words = ("--method", method, "--candidates", str(num_candidates), "--budget", str(asked))
        found = result_of(start_fresh(__file__, "one", *words))
        sizes = [f"{found[name] / 2**20:.0f}" for name in ("peak", "before")]
        shown.add_row(method, str(asked), f"{found['seconds']:.1f}", *sizes)
    Console(width=100).print(shown)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("variant", nargs="?", default="large", choices=("small", "large", "scale", "one"))
    parser.add_argument("--candidates", type=int, default=1_000_000)
    parser.add_argument("--budget", type=int, default=100_000)
    parser.add_argument("--method", default="none", choices=DIVERSIFIERS)
    arguments = parser.parse_args()
    end_on_sigterm()
    if arguments.variant == "one":
        measure_one(arguments.method, arguments.candidates, arguments.budget)
        return
    print(machine())
    if arguments.variant == "scale":
        scale(arguments.candidates, arguments.budget)
    else:
        cifar(is_small=arguments.variant == "small")


if __name__ == "__main__":
    main()
