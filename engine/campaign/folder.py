"""A campaign's folder: where its stages are, and what is complete.

All state is in the folder. A stage is complete exactly when its manifest.json exists, because that is written last.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from engine.config.options import CampaignConfig
from engine.storage.documents import read_document
from engine.storage.location import Location


@dataclass(frozen=True)
class Campaign:
    """A campaign as of one round: its folder, and its configuration with the changes up to that round."""

    home: Location
    config: CampaignConfig
    round: int

    @property
    def round_home(self) -> Location:
        return round_home(self.home, self.round)

    def stage(self, name: str) -> Location:
        """The folder of a stage of this round: train, scores, quarantine, selection, handed_out/BATCH, report."""
        return self.round_home / name


def round_home(home: Location, number: int) -> Location:
    """The folder of a round."""
    return home / f"rounds/{number:03d}"


def next_number(names: Iterable[str]) -> str:
    """The number that the name of a folder's next file begins with, where files are only ever added; `names` are those
    that are there. Files of other programs do not count."""
    numbers = [int(found[1]) for name in names if (found := re.match(r"(\d{6,})-", name))]
    return f"{max(numbers, default=0) + 1:06d}"


CLOSED_FILE = "closed.json"
"""In the folder of a round that has ended."""


def is_closed(home: Location, number: int) -> bool:
    """Whether a round was ended, by rule or by hand."""
    return (round_home(home, number) / CLOSED_FILE).exists()


def read_overrides(home: Location, number: int) -> dict[str, Any]:
    """The options that `--set` changed from a round on."""
    file = round_home(home, number) / "overrides.json"
    return read_document(file, dict[str, Any]) if file.exists() else {}


def is_complete(stage: Location) -> bool:
    """Whether the stage's manifest exists."""
    return (stage / "manifest.json").exists()
