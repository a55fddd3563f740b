"""Two drivers that are started at the same moment on one campaign."""

import logging
from pathlib import Path

import pytest

from tests.faults import law
from tests.faults.conftest import Reference
from tests.faults.driver import run, running

LOG = logging.getLogger(__name__)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_two_drivers_at_once_end_right_or_one_is_refused(reference: Reference, tmp_path: Path) -> None:
    campaign = reference.copy(tmp_path / "campaign")
    with running("score", campaign) as one, running("score", campaign) as two:
        ended = [one.wait(), two.wait()]
    LOG.info([(each.status, each.error_lines) for each in ended])
    law.assert_nothing_half_written(campaign)
    done, refused = ([each for each in ended if (each.status == 0) == is_done] for is_done in (True, False))
    assert done, [each.errors for each in ended]
    for each in refused:
        assert campaign in each.one_error()
    law.assert_law_4(campaign, reference.rows, exactly=True)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_second_driver_that_comes_later_changes_nothing(reference: Reference, tmp_path: Path) -> None:
    campaign = reference.copy(tmp_path / "campaign")
    with running("score", campaign) as one:
        # It finds some shards committed, and has the others to do while the first one does them.
        while one.is_running and law.num_committed(campaign) == 0:
            pass
        second = run("score", campaign)
        first = one.wait()
    assert first.status == 0, first.errors
    assert second.status == 0 or campaign in second.one_error()
    law.assert_law_4(campaign, reference.rows, exactly=True)
