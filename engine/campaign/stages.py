"""The stages of a round, one row each: the round, status, submit, overrides and replacement follow from this table.

A stage is a module with two functions: one named like its command, `(Campaign, Run) -> Manifest`, which completes the
stage or leaves a complete one alone, and `describe(Campaign, Manifest)`, the facts that a person is shown at its end.
A module is imported when its stage runs, so that the command line answers at once.
"""

import pkgutil
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from engine.campaign.folder import Campaign
    from engine.campaign.manifests import Manifest

Log = Callable[[str], None]
"""Takes one line for a person to read."""
Progress = Callable[[float, str], None]
"""Takes the share that is done, 0 to 1, and a few words."""


class Run(NamedTuple):
    """How a stage is run: on which Ray ("local", "auto" or a cluster's host:port), and who follows it."""

    address: str = "local"
    on_progress: Progress = lambda _share, _words: None
    log: Log = lambda _line: None


QUIET = Run()
"""On a private local Ray, with nobody to follow."""


class Stage(NamedTuple):
    """A stage of a round.

    `name` is its folder in the round; the handoff has a folder a vendor in it. `ray` says when it needs Ray. `freezes`
    are the sections of the configuration that cannot change in a round once the stage is complete: a selection may be
    made again until it is handed out.
    """

    name: str
    command: str
    module: str
    done: str
    ray: Literal["always", "large pools", "never"]
    freezes: tuple[str, ...]

    def describe(self, campaign: "Campaign", manifest: "Manifest") -> dict[str, Any]:
        """What a person is shown of a complete stage: values by a name in words."""
        facts: dict[str, Any] = pkgutil.resolve_name(f"{self.module}:describe")(campaign, manifest)
        return facts


STAGES = (
    Stage("train", "train", "engine.training.train", "trained", "always", ("image", "train")),
    Stage("scores", "score", "engine.scoring.score", "scored", "always", ("score",)),
    Stage("selection", "select", "engine.selection.select", "selected", "large pools", ()),
    Stage("handoff", "export", "engine.handoff.export", "exported", "never", ("select",)),
    Stage("report", "report", "engine.report.report", "reported", "never", ()),
)
DEFAULT_VENDOR = "generic"
"""To whom a round hands out where no vendor is named."""
COMMANDS_WITH_RAY = frozenset({"round", *(stage.command for stage in STAGES if stage.ray != "never")})
"""The commands that take --address."""


def stage_of(name: str) -> Stage:
    """The row of a stage's folder, of a vendor's folder in it ("handoff/generic"), or of a command."""
    return next(stage for stage in STAGES if name.partition("/")[0] in (stage.name, stage.command))


def run_stage(command: str, campaign: "Campaign", run: Run = QUIET, **options: Any) -> "Manifest":
    """Complete a stage by its command, or leave it alone where it is complete. Returns its manifest.

    `options` are those of the stage's own: `force` of select, `vendor` of export. Raises what the stage raises.
    """
    manifest: Manifest = pkgutil.resolve_name(f"{stage_of(command).module}:{command}")(campaign, run, **options)
    return manifest
