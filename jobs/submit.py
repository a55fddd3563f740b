"""`vaal submit`: the same command as a Ray job."""

import os
from pathlib import Path
from typing import Annotated

import typer

from engine.campaign.stages import COMMANDS_WITH_RAY
from engine.errors import ConfigError, InputError
from jobs.terminal import Outcome, Terminal

NO_PROGRAM = "No module named jobs"
"""What Python says on a cluster that this program is not installed on."""

EnvOption = Annotated[
    list[str],
    typer.Option("--env", metavar="KEY=VALUE", help="A variable of the job; KEY alone: as it is here."),
]


def submit(
    screen: Terminal,
    command: Annotated[
        list[str], typer.Argument(metavar="COMMAND...", help="A vaal command, for example: round s3://bucket/campaign")
    ] = [],
    address: Annotated[str, typer.Option(help="The cluster's job server.", metavar="URL")] = "http://127.0.0.1:8265",
    *,
    env: EnvOption = [],
    working_dir: Annotated[
        str, typer.Option(help="A folder to send along, for example with your model's module; the job starts in it.")
    ] = "",
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Leave when the job is submitted.")] = False,
    follow: Annotated[str, typer.Option(metavar="JOB", help="Follow a job that was submitted before.")] = "",
    stop: Annotated[str, typer.Option(metavar="JOB", help="Stop a job, as Ctrl-C stops a command here.")] = "",
) -> Outcome:
    """Run a vaal command as a Ray job on a cluster, follow its log, and end with its exit status.

    The same command that runs already is followed, and not started twice. Options of the command itself come after --,
    for example: vaal submit -- round s3://b/c --set train.workers=8
    """
    from engine.cluster.job_command import job_command
    from engine.cluster.submission import JobServer
    from jobs.cli import PAGES

    if sum(map(bool, (command, follow, stop))) != 1:
        raise ConfigError("submit: give one of a command, --follow JOB and --stop JOB")
    if working_dir and "://" not in working_dir and not Path(working_dir).is_dir():
        raise InputError(f"--working-dir {working_dir}: no such folder; correct the path")
    commands = PAGES.keys() - {"submit", "demo"}
    job = job_command(command, commands, COMMANDS_WITH_RAY, working_dir) if command else None
    variables, server = variables_of(env), JobServer(address)
    if stop:
        before = server.state(stop)
        ended = server.stop(stop)
        title = f"Job had ended before: {ended.status.lower()}" if before == ended else f"Job {ended.status.lower()}"
        return Outcome(title, {"job": stop}, ended._asdict())
    name = follow or (job and server.submit(job, variables, working_dir, screen.log)) or ""
    how = f"{name} --address {server.address}"
    later = {"follow it": f"vaal submit --follow {how}", "stop it": f"vaal submit --stop {how}"}
    if no_wait:
        state = server.state(name)
        return Outcome(f"Job {state.status.lower()}", {"job": name, **later}, state._asdict())
    try:
        ended = server.follow(name, screen.write, screen.log)
    except KeyboardInterrupt:
        lines = "; ".join(f"{what}: {line}" for what, line in later.items())
        screen.log(f"job {name} goes on; {lines}")
        return Outcome("Job left alone", {"job": name}, server.state(name)._asdict(), 1)
    facts = {"job": name, "status": ended.status}
    if NO_PROGRAM in ended.message:
        facts["why"] = "the cluster's Python has no vaal; install it there, or use an image that has it (cluster/)"
    return Outcome(f"Job {ended.status.lower()}", facts, ended._asdict(), ended.exit_status)


def variables_of(given: list[str]) -> dict[str, str]:
    """The variables of KEY=VALUE, or of KEY alone with the value that it has here. Raises ConfigError."""
    found = {}
    for setting in given:
        key, equals, value = setting.partition("=")
        if not key or (not equals and key not in os.environ):
            raise ConfigError(f"--env {key}: give KEY=VALUE, or the name of a variable that is set here")
        found[key] = value if equals else os.environ[key]
    return found
