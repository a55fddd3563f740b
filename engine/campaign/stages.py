"""The stages of a round, one row each. The round, status, submit, overrides and replacement read this table.

A stage is a module with two functions. One is named like its command, `(Campaign, Run) -> Manifest`: it completes the
stage, or leaves a complete one alone. The other, `describe(Campaign, Manifest)`, returns the facts that a person sees
at its end. A module is imported when its stage runs, so that the command line answers at once.
"""

import hashlib
import pkgutil
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from pydantic import Field
from typing_extensions import TypedDict

from engine.cluster.gauges import Measure, set_gauge, unmeasured, values_of

if TYPE_CHECKING:
    from engine.campaign.folder import Campaign
    from engine.campaign.manifests import Manifest

Log = Callable[[str], None]
"""Takes one line for a person to read."""
Progress = Callable[[float, str], None]
"""Takes the share that is done, 0 to 1, and a few words."""


class Run(NamedTuple):
    """How a stage is run: on which Ray ("local", "auto" or a cluster's host:port), where progress and numbers go."""

    address: str = "local"
    on_progress: Progress = lambda _share, _words: None
    log: Log = lambda _line: None
    measure: Measure = unmeasured


QUIET = Run()
"""On a private local Ray, without progress."""


class Effort(TypedDict):
    """What the run that completed a stage cost: its seconds, the steps or items that it did, and the processes that
    did them side by side, each on a GPU where the device is cuda. What earlier runs of the stage did is not in it."""

    seconds: Annotated[float, Field(ge=0)]
    done: Annotated[int, Field(ge=0)]
    workers: Annotated[int, Field(ge=1)]


class Stage(NamedTuple):
    """A stage of a round.

    `name` is its folder in the round; the handoff's has a folder for each vendor, and what was sent is recorded in
    handed_out/. `ray` says when it needs Ray.
    `freezes` are the sections and options of the configuration that cannot change in a round once the stage is
    complete. Those of the selection freeze when it is handed out.
    """

    name: str
    command: str
    module: str
    done: str
    ray: Literal["always", "large pools", "never"]
    freezes: tuple[str, ...]

    def describe(self, campaign: "Campaign", manifest: "Manifest") -> dict[str, Any]:
        """The facts about a complete stage that a person sees: values by a name in words."""
        facts: dict[str, Any] = pkgutil.resolve_name(f"{self.module}:describe")(campaign, manifest)
        return facts


_SEEN = ("image", "encoder", "pool.group", "pool.embeddings")
"""What decides what the networks see."""
STAGES = (
    Stage("train", "train", "engine.training.train", "trained", "always", ("train", "task", *_SEEN)),
    Stage("scores", "score", "engine.scoring.score", "scored", "always", ("score",)),
    Stage("selection", "select", "engine.selection.select", "selected", "large pools", ()),
    Stage("handoff", "export", "engine.handoff.export", "exported", "never", ("select",)),
    Stage("report", "report", "engine.report.report", "reported", "never", ()),
)
DEFAULT_VENDOR = "generic"
"""The vendor of a handoff where none is named."""
COMMANDS_WITH_RAY = frozenset(
    {"pack", "plan", "round", "simulate", *(stage.command for stage in STAGES if stage.ray != "never")}
)
"""The commands that take --address."""


def stage_of(name: str) -> Stage:
    """The row of a stage's name, of a command, or of the folder of a batch that was handed out."""
    first = name.partition("/")[0].replace("handed_out", "handoff")
    return next(stage for stage in STAGES if first in (stage.name, stage.command))


class Ended(NamedTuple):
    """A stage's manifest, and whether the stage did anything: one that was complete may have been left alone."""

    manifest: "Manifest"
    changed: bool


def complete_stage(command: str, campaign: "Campaign", run: Run = QUIET, **options: Any) -> Ended:
    """Complete a stage by its command, or leave it alone where it is complete; and call hooks.on_stage if it did
    anything.

    `options` are the stage's own: `force` of select, `vendor` of export. Raises BusyError if another run is at work on
    the campaign, and what the stage raises. What it measures is exported by the cluster too.
    """
    from engine.campaign.heartbeat import alone
    from engine.campaign.hooks import call_hook

    def measure(name: str, value: float, /, **tags: str) -> None:
        run.measure(name, value, **tags)
        if run.address != QUIET.address:
            set_gauge(name, value, campaign.home.url, campaign.round, **tags)

    stage = stage_of(command)
    with alone(campaign.home, command):
        before = _marks(campaign, stage)
        measure("vaal_stage", 1, stage=command)
        complete = pkgutil.resolve_name(f"{stage.module}:{command}")
        try:
            manifest: Manifest = complete(campaign, run._replace(measure=measure), **options)
        finally:
            measure("vaal_stage", 0, stage=command)
        changed = _marks(campaign, stage) != before
    for name, value, tags in values_of(manifest):
        measure(name, value, **tags)
    if changed:
        call_hook(campaign, command, manifest, run.log)
    return Ended(manifest, changed)


def run_stage(command: str, campaign: "Campaign", run: Run = QUIET, **options: Any) -> "Manifest":
    """As `complete_stage`. Returns the manifest alone."""
    return complete_stage(command, campaign, run, **options).manifest


def _marks(campaign: "Campaign", stage: Stage) -> dict[str, str]:
    """The hashes of the files that say what a stage has made, by name."""
    from engine.campaign.handed_out import RECORDS

    root = campaign.stage(RECORDS)
    # Of a batch that is only half sent there is a record without an announcement, which says that it is out.
    folders = [root / name for name in root.folders()] if stage.name == "handoff" else [campaign.stage(stage.name)]
    files = [folder / name for folder in folders for name in ("manifest.json", "answers.json")]
    files += [root / name for name in root.children()] if stage.name == "handoff" else []
    return {file.url: hashlib.sha256(file.read_bytes()).hexdigest() for file in files if file.exists()}
