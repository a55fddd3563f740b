"""A disk that is full, and one that may not be written to."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.faults import law
from tests.faults.campaigns import copy_of, finish
from tests.faults.conftest import Reference
from tests.faults.driver import run
from tests.faults.mounts import Mount, MountError, small_file_system

MakeMount = Callable[[int], Mount]
AMPLE = 64 << 20
ROOMS = [0, 0.1, 0.3, 0.5, 0.7, 0.9]
"""The share of the scores for which there is room."""


@pytest.fixture
def make_mount(tmp_path: Path) -> Iterator[MakeMount]:
    with ExitStack() as stack:

        def make(num_bytes: int) -> Mount:
            try:
                return stack.enter_context(small_file_system(tmp_path / "small", num_bytes))
            except MountError as error:
                pytest.skip(f"no file system of one's own here: {error}")

        yield make


def used_bytes(folder: Path) -> int:
    """What a tmpfs needs for it: whole pages."""
    return sum(-(-file.stat().st_size // 4096) * 4096 for file in folder.rglob("*") if file.is_file())


@pytest.mark.slow
@pytest.mark.parametrize("room", ROOMS)
def test_a_disk_that_refuses_to_be_written_to_is_named_and_what_was_committed_stays(
    reference: Reference, make_mount: MakeMount, room: float
) -> None:
    # Room for all that is there, and for some of the shards.
    mount = make_mount(used_bytes(Path(reference.trained)) + int(room * reference.scores_bytes))
    campaign, outside = str(mount.point / "campaign"), str(mount.seen_from_outside / "campaign")
    copy_of(reference.trained, Path(outside))
    mount.change("ro")
    error = run("score", campaign, before=mount.enter).one_error()
    assert "Read-only file system" in error
    assert campaign in error
    mount.change("rw")
    error = run("score", campaign, before=mount.enter).one_error()
    assert "No space left on device" in error
    assert f"{campaign}/rounds/000/" in error
    assert not law.is_complete(outside)
    law.assert_nothing_half_written(outside)
    kept = law.committed(outside)
    assert bool(kept) == bool(room)
    mount.change(f"size={AMPLE}")
    finish(outside)
    law.assert_law_4(outside, reference.rows, exactly=True)
    assert kept.items() <= law.committed(outside).items()
