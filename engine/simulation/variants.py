"""Curves of an experiment that --set changed: what the change is, and how the file of the curves is called.

A file is NAME.parquet, or NAME@KEY=VALUE,KEY=VALUE.parquet where a change makes another comparison of it.
"""

import ast
import json
import re
import shlex
from typing import Any, NamedTuple

import pyarrow as pa

from engine.simulation.measuring import made_by

SAME_COMPARISON = ("seeds", "rounds", "strategies", "campaign.device")
"""Keys that change how much is compared, or where, and not what: the page shows the number of seeds, all points and all
strategies."""


class Variant(NamedTuple):
    """The file of an experiment, and by key what --set changed of it."""

    file: str
    settings: dict[str, Any]

    @property
    def stem(self) -> str:
        """The name of the file of its curves, without .parquet."""
        name = self.file.removesuffix(".toml")
        kept = [f"{key}={_plain(value)}" for key, value in sorted(self.settings.items()) if key not in SAME_COMPARISON]
        return f"{name}@{','.join(kept)}" if kept else name

    @property
    def words(self) -> str:
        """The command line's words that make it of the file; empty where nothing is changed."""
        # The values of JSON are values of TOML, and a plain string needs no quotes.
        texts = {
            key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
            for key, value in self.settings.items()
        }
        return " ".join(f"--set {shlex.quote(f'{key}={text}')}" for key, text in texts.items())


def experiment_of(stem: str) -> str:
    """The name of the experiment that a file of curves is of."""
    return stem.partition("@")[0]


def variant_of(curves: pa.Table) -> Variant | None:
    """What made these curves; None if they do not say it, as those of earlier versions."""
    made = made_by(curves)
    if not made:
        return None
    # A comma may be part of a value, which is a list.
    file, *changes = re.split(r", (?=[A-Za-z_][\w.]*=)", made)
    settings = dict(change.split("=", 1) for change in changes)
    return Variant(file, {key: _value(text) for key, text in settings.items()})


def _value(text: str) -> Any:
    """The value that Python prints so; a string is printed without quotes."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _plain(value: Any) -> str:
    """A value in letters that any file system takes: [0.5, 0.9] is 0.5-0.9."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return re.sub(r"[^\w.+-]+", "-", text.strip("[]{}()'\" "))
