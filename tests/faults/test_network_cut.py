"""The network between hosts is cut, for a moment or for good: it is said, and the rows are those of a calm run."""

import logging
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import law
from tests.faults.conftest import Reference
from tests.faults.driver import started
from tests.faults.networks import PORT, Network, NetworkError, network
from tests.processes import wait_until

LOG = logging.getLogger(__name__)
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
def hosts() -> Iterator[Network]:
    try:
        with network(3) as made:
            yield made
    except NetworkError as error:
        pytest.skip(f"no network namespaces here: {error}")


@pytest.mark.parametrize(("host", "seconds"), [(2, 5), (2, 60), (3, 1000)])
def test_scoring_outlives_a_cut(
    reference: Reference, tmp_path: Path, hosts: Network, host: int, seconds: float
) -> None:
    campaign = reference.copy(tmp_path / "campaign")
    address = f"{hosts.address(1)}:{PORT}"
    words = [*hosts.enter(1), sys.executable, "-m", "jobs", "score", campaign, "--address", address]
    with hosts.ray([0, 1, 1]), started(words, {}) as driver:
        wait_until(lambda: law.num_committed(campaign) > 2, driver.ended)
        hosts.cut(host)
        cut_at = time.monotonic()
        wait_until(lambda: time.monotonic() > cut_at + seconds or not driver.is_running, driver.ended, 300)
        hosts.connect(host)
        ended = driver.wait(600)
    LOG.info("%.0f s, with a cut of %.0f s", ended.seconds, min(seconds, ended.seconds))
    assert ended.status == 0, ended.errors
    law.assert_law_4(campaign, reference.rows, exactly=True)
