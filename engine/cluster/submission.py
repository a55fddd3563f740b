"""Ray jobs: submitted once, followed through lost connections, stopped."""

import asyncio
import getpass
import logging
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPException
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple, TypeVar

import aiohttp
from ray.exceptions import RayError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from engine.cluster.job_command import JobCommand, copied
from engine.cluster.ray_session import NO_TOKEN
from engine.errors import ConfigError, InputError, one_line
from engine.storage.location import masked

ANSWER_SECONDS = 10.0
"""A job server that does not answer for so long is not there. Ray's client would wait for minutes."""
PATIENCE_SECONDS = 60.0
"""How long a server that answered before is asked again."""
RETRY_SECONDS = 1.0
Log = Callable[[str], None]
T = TypeVar("T")


class Job(NamedTuple):
    """A job as it is now. `exit_status` is that of the command; 1 if it was stopped or never ran, 0 while it runs."""

    submission_id: str
    status: str
    message: str
    exit_status: int


class JobServer:
    """The job server of a cluster."""

    def __init__(self, address: str) -> None:
        """Raises ConfigError if the address is no URL, InputError if no job server answers there."""
        self.address = address if "://" in address else f"http://{address}"
        self._named = f"--address {masked(self.address)}"
        self._require_answer()
        self._client = self._asked(lambda: JobSubmissionClient(self.address))
        # It sets its own level. What it logs is about its own requests.
        for name in _LOGGERS:
            logging.getLogger(name).setLevel(logging.ERROR)

    def submit(self, command: JobCommand, variables: dict[str, str], working_dir: str, log: Log) -> str:
        """The id of the job of this command: of the one that runs already, or of a new one.

        `working_dir`: a folder that is sent along and in which the job starts, "" for none. Raises InputError if the
        server refuses the job.
        """
        known = {job.submission_id: job for job in self._asked(self._client.list_jobs) if job.submission_id}
        attempts = [name for name in known if name == command.key or name.startswith(f"{command.key}-")]
        for name in attempts:
            if not known[name].status.is_terminal():
                unused = "; it has the variables that it was started with, and not these" if variables else ""
                log(f"the same command runs already: following job {name}{unused}")
                return name
        number = len(attempts) + 1
        name = command.key if number == 1 else f"{command.key}-{number}"
        metadata = {
            "project": "vaal", "command": command.name, "campaign": command.campaign, "user": _user(),
            "version": version("vaal"),
        }  # fmt: skip
        if command.files and not working_dir:
            log(f"sent along: {', '.join(map(str, command.files.values()))}")
        with tempfile.TemporaryDirectory() as folder:
            sent = copied(command.files, Path(folder), working_dir)
            environment = {"env_vars": variables, **({"working_dir": sent} if sent else {})}
            self._asked(
                lambda: self._client.submit_job(
                    entrypoint=command.line, submission_id=name, metadata=metadata, runtime_env=environment
                )
            )
        return name

    def follow(self, submission_id: str, on_output: Callable[[str], None], log: Log) -> Job:
        """Pass on a job's output as it comes, through lost connections, and wait for its end.

        Raises InputError if there is no such job, or the server does not answer again.
        """
        self.state(submission_id)
        shown, silent_since, has_said = 0, time.monotonic(), False
        while True:
            try:
                shown = asyncio.run(self._tail(submission_id, shown, on_output))
                is_lost = False
            except _LostError as error:
                shown, is_lost = error.shown, True
            try:
                job, silent_since = self.state(submission_id), time.monotonic()
                if job.status in _TERMINAL:
                    return job
            except InputError as error:
                is_lost = True
                if time.monotonic() - silent_since >= PATIENCE_SECONDS:
                    how = f"vaal submit --follow {submission_id} --address {masked(self.address)}"
                    raise InputError(f"{error}; the job may go on: {how}") from error
            if is_lost and not has_said:
                log("the connection is lost, the job goes on; trying again")
            has_said = is_lost
            time.sleep(RETRY_SECONDS)

    def stop(self, submission_id: str) -> Job:
        """Ask a job to end, and wait until it has. Raises InputError if there is no such job."""
        self.state(submission_id)
        self._asked(lambda: self._client.stop_job(submission_id))
        while (job := self.state(submission_id)).status not in _TERMINAL:
            time.sleep(0.5)
        return job

    def state(self, submission_id: str) -> Job:
        """A job now. Raises InputError if there is no such job, or the server does not answer."""
        info: JobDetails = self._asked(lambda: self._client.get_job_info(submission_id))
        exit_status = info.driver_exit_code or 1
        if info.status == JobStatus.SUCCEEDED or not info.status.is_terminal():
            exit_status = 0
        return Job(submission_id, info.status.value, info.message or "", exit_status)

    async def _tail(self, submission_id: str, shown: int, on_output: Callable[[str], None]) -> int:
        """Pass on what comes after so many characters; the log begins at its start each time. Returns how many there
        are now. Raises _LostError if the connection is lost."""
        seen = 0
        try:
            async for text in self._client.tail_job_logs(submission_id):
                if seen + len(text) > shown:
                    on_output(text[max(0, shown - seen) :])
                    shown = seen + len(text)
                seen += len(text)
        except (OSError, RuntimeError, aiohttp.ClientError) as error:
            raise _LostError(max(shown, seen)) from error
        return max(shown, seen)

    def _require_answer(self) -> None:
        if not self.address.startswith(("http://", "https://")):
            raise ConfigError(f"{self._named}: expected the URL of a job server, like http://127.0.0.1:8265")
        if masked(self.address) != self.address:
            raise ConfigError(
                f"{self._named}: has a password or options; forward the port of the cluster, and give "
                "http://127.0.0.1:8265"
            )
        try:
            with urllib.request.urlopen(f"{self.address.rstrip('/')}/api/version", timeout=ANSWER_SECONDS):
                pass
        except urllib.error.HTTPError:
            # It answers. Whether it takes jobs, Ray's client finds out.
            pass
        except OSError as error:
            raise InputError(f"{self._named}: no Ray job server answers there: {one_line(error)}") from error
        except (ValueError, HTTPException) as error:
            raise ConfigError(f"{self._named}: not a URL: {one_line(error)}") from error

    def _asked(self, ask: Callable[[], T]) -> T:
        """The answer of the server. Raises InputError, in one line, where there is none."""
        try:
            return ask()
        except RayError as error:
            raise InputError(f"{self._named}: {NO_TOKEN}") from error
        except (OSError, RuntimeError, aiohttp.ClientError) as error:
            text = one_line(error)
            if "does not exist" in text or "404" in text:
                raise InputError(
                    f"{self._named}: no such job; see: ray job list --address {masked(self.address)}"
                ) from error
            if "failed with status code 5" in text or " Server Error: " in text:
                fix = "the cluster may still be starting, or is overloaded: run it again"
                raise InputError(f"{self._named}: what answers there reports {text.rstrip('. ')}; {fix}") from error
            raise InputError(f"{self._named}: no Ray job server answers there: {text}") from error


_LOGGERS = (
    "ray.dashboard.modules.job.sdk",
    "ray.dashboard.modules.dashboard_sdk",
    "ray._private.runtime_env.packaging",
)
_TERMINAL = {status.value for status in JobStatus if status.is_terminal()}


class _LostError(Exception):
    """The connection was lost after so many characters of the log."""

    def __init__(self, shown: int) -> None:
        super().__init__()
        self.shown = shown


def _user() -> str:
    # A container may have no such user.
    with suppress(KeyError, OSError):
        return getpass.getuser()
    return ""
