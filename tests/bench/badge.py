"""BADGE on factors of the gradients beside scikit-activeml's, which forms them: seconds and memory.

    python tests/bench/badge.py [small]

10,000 and 100,000 candidates with 512 features in 200 modes, and the probabilities of 10 or 1,000 classes by a random
linear head (small: 1,000 candidates, 10 and 100 classes). Both choose 100 (small: 20); ours 1,000 too. Each runs in a
fresh process with one thread, and with at most 8 GiB of address space (theirs is `skactiveml.pool.Badge`, an extra for
tests). In the table:
    gradients     GiB of the gradients in float64, which theirs holds
    seconds       of the choice, from features and probabilities
    peak          MiB of the process at most; `before` are its modules and its arguments

Aim: 1,000 of 100,000 candidates with 1,000 classes in less than 2 GiB.
"""

import argparse
import json
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
from measure import end_on_sigterm, machine, resident_bytes, result_of, start_fresh
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from vaal.diversity.badge import badge

NUM_FEATURES = 512
MOST_BYTES = 8 * 2**30
SEED = 0
Array = NDArray[np.float32]


def outputs(num_candidates: int, num_classes: int) -> tuple[Array, Array]:
    """Features (M, D) and probabilities (M, C)."""
    random = np.random.default_rng(SEED)
    mode = random.standard_normal((200, NUM_FEATURES), np.float32)
    feature_MD = mode[random.integers(200, size=num_candidates)]
    feature_MD += random.standard_normal(feature_MD.shape, np.float32)
    np.maximum(feature_MD, 0, out=feature_MD)
    head = random.standard_normal((NUM_FEATURES, num_classes), np.float32) * np.float32(2 / NUM_FEATURES**0.5)
    probability_MC = feature_MD @ head
    probability_MC -= probability_MC.max(axis=1, keepdims=True)
    np.exp(probability_MC, out=probability_MC)
    probability_MC /= probability_MC.sum(axis=1, keepdims=True)
    return feature_MD, probability_MC


def ours(feature_MD: Array, probability_MC: Array, b: int) -> None:
    draw_M = np.random.default_rng(SEED).integers(2**64, size=len(feature_MD), dtype=np.uint64)
    probability_MC[np.arange(len(feature_MD)), probability_MC.argmax(axis=1)] -= 1
    badge(feature_MD, probability_MC, draw_M, b)


def theirs(feature_MD: Array, probability_MC: Array, b: int) -> None:
    from skactiveml.base import SkactivemlClassifier
    from skactiveml.pool import Badge

    class Given(SkactivemlClassifier):  # type: ignore[misc]
        """A classifier whose probabilities are known."""

        def fit(self, X: Any, y: Any) -> "Given":
            return self

        def predict_proba(self, X: Any) -> Array:
            return probability_MC

    unlabelled = np.full(len(feature_MD), np.nan)
    Badge(random_state=SEED).query(feature_MD, unlabelled, Given(), fit_clf=False, batch_size=b)


def measure_one(whose: str, num_candidates: int, num_classes: int, b: int) -> None:
    """In a fresh process: prints one JSON object."""
    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
    found: dict[str, Any] = {"fits": True}
    with threadpool_limits(1):
        pair = outputs(num_candidates, num_classes)
        if whose == "theirs":
            # Before the clock starts: the modules that it imports.
            theirs(pair[0][:50], pair[1][:50], 1)
        # The peak begins again, at what is resident now.
        Path("/proc/self/clear_refs").write_text("5")
        found["before"], begin = resident_bytes(), time.perf_counter()
        try:
            (ours if whose == "ours" else theirs)(*pair, b)
        except MemoryError:
            found["fits"] = False
    print(json.dumps({**found, "seconds": time.perf_counter() - begin, "peak": resident_bytes(peak=True)}))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("variant", nargs="?", default="large", choices=("small", "large", "ours", "theirs"))
    parser.add_argument("--candidates", type=int, default=10_000)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--budget", type=int, default=100)
    arguments = parser.parse_args()
    end_on_sigterm()
    if arguments.variant in ("ours", "theirs"):
        measure_one(arguments.variant, arguments.candidates, arguments.classes, arguments.budget)
        return
    print(machine())
    is_small = arguments.variant == "small"
    both = 20 if is_small else 100
    shown = Table(title=f"{NUM_FEATURES} features, one thread, at most {MOST_BYTES >> 30} GiB")
    for name in ("candidates", "classes", "gradients", "whose", "b", "seconds", "peak", "before"):
        shown.add_column(name, justify="right")
    for num_candidates in (1000,) if is_small else (10_000, 100_000):
        for num_classes in (10, 100) if is_small else (10, 1000):
            size = f"{8 * num_candidates * num_classes * NUM_FEATURES / 2**30:.1f}"
            for whose, b in (("theirs", both), ("ours", both), ("ours", 1000)):
                sizes = ("--candidates", str(num_candidates), "--classes", str(num_classes), "--budget", str(b))
                found = result_of(start_fresh(__file__, whose, *sizes))
                peak, before = (f"{found[name] >> 20}" for name in ("peak", "before"))
                cells = [f"{found['seconds']:.2f}", peak, before] if found["fits"] else ["does not fit", "", before]
                shown.add_row(str(num_candidates), str(num_classes), size, whose, str(b), *cells)
    Console(width=110).print(shown)


if __name__ == "__main__":
    main()
