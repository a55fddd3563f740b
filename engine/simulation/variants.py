"""Experiments that --set changed: how that is done, what the change is, and how the file of the curves is called.

A file is NAME.parquet, or NAME@KEY=VALUE,KEY=VALUE.parquet where a change makes another comparison of it.
"""

import hashlib
import json
import re
import shlex
from typing import Any, NamedTuple

import pyarrow as pa

from engine.errors import ConfigError
from engine.simulation.experiment_parts import COUNT_WITH, SECTION
from engine.simulation.strategies import flat

MADE_BY = b"experiment"
"""Key in the metadata of curves: the file of their experiment, and what --set changed, as JSON."""
SAME_COMPARISON = ("seeds", "rounds", "strategies", "campaign.device")
"""Keys that change how much is compared, or where, and not what: the page shows the number of seeds, all points and all
strategies."""
MOST_LETTERS = 40
"""Of a value in the name of a file."""


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
    def name(self) -> str:
        """What it is, for people."""
        return ", ".join([self.file, *(f"{key}={value}" for key, value in self.settings.items())])

    @property
    def metadata(self) -> dict[bytes, bytes]:
        """That of its curves."""
        return {MADE_BY: json.dumps(self._asdict(), ensure_ascii=False, default=str).encode()}

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
    try:
        made = json.loads((curves.schema.metadata or {})[MADE_BY])
        return Variant(made["file"], made["settings"])
    except (KeyError, ValueError, TypeError):
        return None


def _plain(value: Any) -> str:
    """A value in letters that any file system takes. Where it has others, or many, the beginning of its SHA-256 tells
    it from values that look alike then."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    plain = re.sub(r"[^\w.+-]+", "-", text.strip("[]{}()'\" "))[:MOST_LETTERS]
    return plain if plain == text else f"{plain}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


def put_settings(tree: dict[str, Any], settings: dict[str, Any], file: str) -> None:
    """Put settings by dotted key in place of the file's. Raises ConfigError where a part of a key is no table."""
    if isinstance(tree.get(SECTION), dict):
        # The same option may be written as a table and as a dotted key.
        tree[SECTION] = flat(tree[SECTION])
    for key, value in settings.items():
        section, _, option = key.partition(".")
        *tables, name = [section, option] if section == SECTION and option else key.split(".")
        table = tree
        for part in tables:
            table = table.setdefault(part, {})
            if not isinstance(table, dict):
                raise ConfigError(f"--set {key}: {part} of {file} is no table; give one of its own keys")
        table[name] = value
    void = ["pool.copy_noise"] * (settings.get("pool.copies") == 0)
    if kind := settings.get("first_labels.kind"):
        void += [f"first_labels.{name}" for name, kinds in COUNT_WITH.items() if kind not in kinds]
    for key in {*void} - settings.keys():
        section, _, option = key.partition(".")
        if isinstance(tree[section], dict):
            tree[section].pop(option, None)
