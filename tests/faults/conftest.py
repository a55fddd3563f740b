"""What the fault tests share: a pool, a campaign to copy, what a run of it finds, and the drivers that are killed."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from tests.faults import law
from tests.faults.campaigns import Pool, copy_of, finish, make_pool, make_trained
from tests.faults.driver import Driver, command, running


class Reference(NamedTuple):
    """A campaign that waits to be scored, and what scoring finds in it."""

    trained: str
    rows: law.Rows
    scores_bytes: int

    def copy(self, home: Path) -> str:
        """A campaign for a test of its own."""
        return copy_of(self.trained, home)


@pytest.fixture(scope="session")
def fault_pool(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pool:
    """5,391 digits and 24 samples without an image, in 24 shards; for slow tests, which need longer runs, twice as
    many."""
    is_large = any(item.get_closest_marker("slow") for item in request.session.items)
    return make_pool(tmp_path_factory.mktemp("faults") / "pool", copies=6 if is_large else 3)


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory, fault_pool: Pool, local_ray: None) -> Reference:
    folder = tmp_path_factory.mktemp("reference")
    trained = make_trained(folder / "trained", fault_pool)
    scored = copy_of(trained, folder / "scored")
    finish(scored)
    rows = law.undisturbed(scored)
    assert set(rows.listed) == fault_pool.items()
    scores_bytes = sum(file.stat().st_size for file in Path(scored, "rounds/000/scores").iterdir())
    return Reference(trained, rows, scores_bytes)


@pytest.fixture(scope="session")
def start_to_kill() -> Iterator[Callable[[str, str], Driver]]:
    """Starts a command on a campaign that the test will kill. At the end of all tests nothing of it may be left.

    A worker of Ray that was about to start outlives its driver by half a minute, in which other tests run, and no more.
    """
    with ExitStack() as stack:
        drivers: list[Driver] = []

        def start(name: str, campaign: str) -> Driver:
            drivers.append(stack.enter_context(running(name, campaign)))
            return drivers[-1]

        yield start
        assert not [name for driver in drivers for name in what_stays(driver)]


def what_stays(driver: Driver) -> list[str]:
    """The commands that a killed driver started and that are still there after a minute."""
    psutil.wait_procs(driver.started(), 60)
    return [command(process) for process in driver.started()]
