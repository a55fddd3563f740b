"""A small file system of one's own, where the kernel lets a user make one: a tmpfs in a mount namespace.

A process holds the namespace; other commands enter it. When it ends, the file system is gone, whatever happened.
"""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple


class MountError(Exception):
    """The kernel, or this container, forbids it. The text says what failed."""


class Mount(NamedTuple):
    """A file system that is mounted at `point` for the commands that `enter` begins, and for them alone."""

    holder: int
    point: Path

    @property
    def enter(self) -> tuple[str, ...]:
        """The words before a command that is to see it."""
        return ("nsenter", f"--target={self.holder}", "--user", "--mount", "--preserve-credentials")

    @property
    def seen_from_outside(self) -> Path:
        """The same folder for processes that have not entered."""
        return Path(f"/proc/{self.holder}/root{self.point}")

    def change(self, options: str) -> None:
        """Mount it again with other options, for example ro, or size=10m."""
        subprocess.run([*self.enter, "mount", "-o", f"remount,{options}", self.point], check=True, timeout=30)


@contextmanager
def small_file_system(point: Path, num_bytes: int) -> Iterator[Mount]:
    """Raises MountError where that is not permitted."""
    point.mkdir()
    script = f'mount -t tmpfs -o size={num_bytes} vaal-test "$0" && echo ready && exec sleep infinity'
    words = ["unshare", "--mount", "--map-root-user", "sh", "-c", script, str(point)]
    try:
        # A session of its own, so that nothing else gets its signals.
        holder = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
    except FileNotFoundError as error:
        raise MountError(str(error)) from error
    try:
        assert holder.stdout
        assert holder.stderr
        if holder.stdout.readline() != "ready\n":
            raise MountError(holder.stderr.read().strip())
        yield Mount(holder.pid, point)
    finally:
        if holder.poll() is None:
            os.killpg(holder.pid, signal.SIGKILL)
        holder.communicate(timeout=10)
