"""`vaal submit`: the same command as a Ray job."""

from typing import Annotated

import typer

from engine.campaign.stages import COMMANDS_WITH_RAY
from jobs.terminal import Outcome, Terminal


def submit(
    screen: Terminal,
    command: Annotated[
        list[str], typer.Argument(metavar="COMMAND...", help="A vaal command, for example: round s3://bucket/campaign")
    ],
    address: Annotated[str, typer.Option(help="The cluster's job server.", metavar="URL")] = "http://127.0.0.1:8265",
) -> Outcome:
    """Run a vaal command as a Ray job on a cluster, follow its log, and end with its exit status.

    Options of the command itself come after --, for example: vaal submit -- round s3://b/c --set train.workers=8
    """
    from engine.cluster.submission import entrypoint, run_job

    job = run_job(entrypoint(command, COMMANDS_WITH_RAY), address, screen.write)
    facts = {"job": job.submission_id, "status": job.status}
    return Outcome(f"Job {job.status.lower()}", facts, job._asdict(), job.exit_status)
