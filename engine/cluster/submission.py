"""Ray jobs: a command of the campaign, run on a cluster's head."""

import asyncio
import shlex
import urllib.error
import urllib.request
from collections.abc import Callable, Collection
from typing import NamedTuple

from ray.job_submission import JobStatus, JobSubmissionClient

from engine.errors import ConfigError, InputError, one_line
from engine.storage.location import Location, masked

ANSWER_SECONDS = 10.0
"""A job server that does not answer for so long is not there. Ray's client would wait for minutes."""


class EndedJob(NamedTuple):
    """The end of a job. `exit_status` is that of the command, or 1 if it was stopped or never ran."""

    submission_id: str
    status: str
    message: str
    exit_status: int


def entrypoint(command: list[str], commands_with_ray: Collection[str]) -> str:
    """The shell line of a job: a local campaign path is made absolute, and commands that need Ray connect to it.

    Raises ConfigError if the command has a Ray address of its own.
    """
    if any(word == "--address" or word.startswith("--address=") for word in command):
        raise ConfigError("--address: give it once, before the command; a job runs on the cluster it is submitted to")
    name, *rest = command
    if rest and not rest[0].startswith("-"):
        rest[0] = Location.of(rest[0]).url
    words = ["python", "-m", "jobs", name, *rest]
    return shlex.join(words + (["--address", "auto"] if name in commands_with_ray else []))


def run_job(line: str, address: str, on_output: Callable[[str], None]) -> EndedJob:
    """Submit an `entrypoint`, pass on its output as it comes, and wait for its end.

    Raises:
        InputError: no job server answers at the address, or it refuses the job.
        ConfigError: the address is no URL.
    """
    try:
        _require_answer(address)
        client = JobSubmissionClient(address)
        submission_id = client.submit_job(entrypoint=line, metadata={"project": "vaal"})
    except (OSError, RuntimeError) as error:
        raise InputError(f"--address {masked(address)}: no Ray job server answers there: {one_line(error)}") from error
    asyncio.run(_follow(client, submission_id, on_output))
    info = client.get_job_info(submission_id)
    exit_status = 0 if info.status == JobStatus.SUCCEEDED else info.driver_exit_code or 1
    return EndedJob(submission_id, info.status.value, info.message or "", exit_status)


def _require_answer(address: str) -> None:
    """Raises OSError if nothing answers at the address."""
    if not address.startswith(("http://", "https://")):
        raise ConfigError(f"--address {masked(address)}: expected the URL of a job server, like http://127.0.0.1:8265")
    try:
        with urllib.request.urlopen(f"{address.rstrip('/')}/api/version", timeout=ANSWER_SECONDS):
            pass
    except urllib.error.HTTPError:
        # It answers. Whether it takes jobs, Ray's client finds out.
        pass
    except ValueError as error:
        raise ConfigError(f"--address {masked(address)}: not a URL: {one_line(error)}") from error


async def _follow(client: JobSubmissionClient, submission_id: str, on_output: Callable[[str], None]) -> None:
    async for text in client.tail_job_logs(submission_id):
        on_output(text)
