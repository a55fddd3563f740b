"""The file of published figures: what others report, how sure that is, and where our own runs were made."""

import tomllib
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from engine.config.section import Section
from engine.config.texts import explain
from engine.errors import ConfigError, one_line
from engine.storage.location import Location

SURE = {
    "read": "read in the source",
    "figure": "read off a figure",
    "memory": "from memory, not verified",
    "unsure": "from memory, not verified, low confidence",
}
UNSAFE = "unsafe: its source doubts it"


class Curve(Section):
    """What a source reports of a method: values in %, at shares of the pool in %, or one value of the whole."""

    source: str
    method: str
    at: list[float]
    values: Annotated[list[float], Field(min_length=1)]
    sure: Literal["read", "figure", "memory", "unsure"]
    is_unsafe: bool = False
    """The source itself doubts the value, however well it was read."""

    @property
    def certainty(self) -> str:
        """How sure it is, for a reader."""
        return f"{SURE[self.sure]}; {UNSAFE}" if self.is_unsafe else SURE[self.sure]


class Figure(Section):
    """A published comparison, and the experiments that are its like here, the small one first."""

    title: str
    experiments: list[str]
    note: str = ""
    is_timing: bool = False
    """Whether the experiments measure seconds: what their task models reach then says nothing."""
    curves: list[Curve] = Field(default=[])


class Made(Section):
    """Where curves of our own were made. It says nothing of a file of that name with another content."""

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    where: str


class Published(Section):
    """The file of published figures."""

    figures: list[Figure]
    ran: dict[str, Made] = Field(default={})
    """By the name of the file of curves."""

    @property
    def timed(self) -> set[str]:
        """The experiments that measure seconds."""
        return {name for figure in self.figures if figure.is_timing for name in figure.experiments}

    def where(self, sha256: dict[str, str]) -> dict[str, str]:
        """Where these curves were made, in words, by the name of their file, from the SHA-256 of each file; without
        those that are not ours."""
        return {name: made.where for name, made in self.ran.items() if sha256.get(name) == made.sha256}


def read_published(file: Location) -> Published:
    """The file; no figure where it is missing. Raises ConfigError where it is wrong."""
    if not file.exists():
        return Published(figures=[])
    try:
        return Published.model_validate(tomllib.loads(file.read_bytes().decode()))
    except ValidationError as error:
        # No command sets a value here.
        raise ConfigError(f"{file}: {explain(error, []).replace('give --set ', 'give ')}") from error
    except ValueError as error:
        raise ConfigError(f"{file}: not valid TOML: {one_line(error)}; correct it") from error
