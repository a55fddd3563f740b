"""Votes to crowd-kit and back, by a script in its own environment."""

import subprocess
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.peers.environments import HERE, python_of
from vaal.consensus import Votes

NO_TOLERANCE = -1.0
"""crowd-kit then takes all iterations: an improvement is never too small for it."""


def crowd_kit(
    votes: Votes, folder: Path, *, iterations: int = 100, tolerance: float = 1e-5, with_alpha: bool = True
) -> dict[str, NDArray[np.float64]]:
    """What aggregate.py finds; by default with crowd-kit's own settings."""
    np.savez(
        folder / "votes.npz", item=votes.item_V, annotator=votes.annotator_V, label=votes.class_V, truth=votes.truth_N,
        iterations=iterations, tolerance=tolerance, with_alpha=with_alpha,
    )  # fmt: skip
    script, files = HERE / "crowd-kit/aggregate.py", (folder / "votes.npz", folder / "found.npz")
    subprocess.run([python_of("crowd-kit"), script, *files], check=True)
    with np.load(files[1]) as found:
        return dict(found)
