"""What the fault tests share: one pool, one campaign to copy, and what a run of it finds."""

from pathlib import Path
from typing import NamedTuple

import pytest

from tests.faults import law
from tests.faults.campaigns import Pool, copy_of, make_pool, make_trained
from tests.faults.driver import run


class Reference(NamedTuple):
    """A campaign that waits to be scored, what scoring finds in it, and how long that takes with a private Ray."""

    trained: str
    rows: law.Rows
    seconds: float
    scores_bytes: int

    def copy(self, home: Path) -> str:
        """A campaign for a test of its own."""
        return copy_of(self.trained, home)


@pytest.fixture(scope="session")
def fault_pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    """10,782 digits and 48 samples without an image, in 48 shards."""
    return make_pool(tmp_path_factory.mktemp("faults") / "pool", copies=6)


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory, fault_pool: Pool) -> Reference:
    folder = tmp_path_factory.mktemp("reference")
    trained = make_trained(folder / "trained", fault_pool)
    scored = copy_of(trained, folder / "scored")
    ended = run("score", scored)
    assert ended.status == 0, ended.errors
    rows = law.undisturbed(scored)
    assert set(rows.listed) == fault_pool.items()
    scores_bytes = sum(file.stat().st_size for file in Path(scored, "rounds/000/scores").iterdir())
    return Reference(trained, rows, ended.seconds, scores_bytes)
