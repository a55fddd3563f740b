"""What results depend on, by content, so that results of other inputs or other code are never mixed or handed out."""

import ast
import hashlib
import json
import shlex
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, cast

import pyarrow as pa

from engine.campaign.decisions import never_picked
from engine.campaign.folder import Campaign
from engine.campaign.handed_out import completed, picked_tables, waiting_picks
from engine.campaign.labels import labels_fingerprints
from engine.campaign.manifests import Manifest, ScoresManifest, SelectionManifest, TrainManifest, read_manifest
from engine.campaign.sharing import conflicts, elsewhere
from engine.config.select_options import SelectConfig
from engine.config.texts import some
from engine.errors import ConfigError, InputError
from engine.pool.exclusions import content_mark
from engine.pool.manifest import read_shards
from engine.pool.metadata import METADATA_FILE
from engine.storage.location import Location
from engine.tables.digests import digest_of, packed

ROOT = Path(__file__).parents[2]
NOT_FOLLOWED = ("engine.errors", "engine.config", "engine.storage", "engine.cluster", "engine.campaign")
"""Modules and packages that do not decide a result: they find bytes and read options."""
TABLES = ("vaal.methods", "vaal.acquisition", "vaal.diversity")
"""Modules of tables: their source does not count, but the rows in use do."""
OTHERS = "other campaigns"
"""The input of a selection that says what other campaigns had then, by pool.shared_ledger."""


def fingerprint(**parts: Any) -> str:
    """SHA-256 of named JSON values, hex."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def source_fingerprint(modules: Iterable[str], rows: Iterable[Any], root: Path = ROOT) -> str:
    """SHA-256 of the source of these modules and of all that they import, and of rows of tables.

    Args:
        modules: where to begin, "package.module".
        rows: rows of tables. They name functions as "module:name", and those modules are followed too.
    """
    rows = list(rows)
    named = [text.partition(":")[0] for row in rows for text in row if isinstance(text, str) and ":" in text]
    digest = hashlib.sha256(repr(rows).encode())
    for name, source in sorted(_closure([*modules, *named], root).items()):
        digest.update(f"{name}\0".encode() + source)
    return digest.hexdigest()


def _closure(modules: list[str], root: Path) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    left = list(modules)
    while left:
        name = left.pop()
        file = root / f"{name.replace('.', '/')}.py"
        is_outside = any(name == other or name.startswith(f"{other}.") for other in NOT_FOLLOWED)
        if name in found or name in TABLES or is_outside or not file.exists():
            continue
        found[name] = file.read_bytes()
        left.extend(_imports(found[name]))
    return found


@cache
def _imports(source: bytes) -> tuple[str, ...]:
    return tuple(_all_imports(ast.parse(source)))


def _all_imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # The name may itself be a module.
            yield from (f"{node.module}", *(f"{node.module}.{alias.name}" for alias in node.names))
        elif not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            yield from _all_imports(node)


def content_of(manifest: Manifest) -> str:
    """SHA-256 of what a stage made: the same whenever, by whichever code and under whatever names it was made."""
    stage: dict[str, Any] = {**manifest}
    if "content" in stage:
        return str(stage["content"])
    shards = [{name: value for name, value in entry.items() if name != "file"} for entry in stage.get("shards", [])]
    return fingerprint(files=stage["files"], signal=stage.get("signal"), shards=shards)


def selection_inputs(campaign: Campaign, picked_before: str) -> dict[str, str]:
    """The inputs of a selection apart from its options: SHA-256 by name. `picked_before`: that of the item_ids picked
    before, see `digest_of_picks`."""
    kinds: dict[str, type[Manifest]] = {"train": TrainManifest, "scores": ScoresManifest}
    never = sorted(never_picked(campaign.home))
    left = sorted(left_pool(campaign.home))
    return {
        **{name: content_of(read_manifest(campaign, name, kind)) for name, kind in kinds.items()},
        **labels_fingerprints(campaign.home),
        "picked_before": picked_before,
        **({"never picked": fingerprint(items=never)} if never else {}),
        **_what_keeps_out(campaign),
        **({"shards that left the pool": fingerprint(shards=left)} if left else {}),
    }


def digest_of_picks(home: Location, before: int) -> str:
    """SHA-256 of the item_ids picked in the rounds before: see `engine.tables.digests.digest_of`."""
    return digest_of(packed_picks(home, table["item_id"]) for table in picked_tables(home, before, columns=["item_id"]))


def packed_picks(home: Location, hashes: pa.ChunkedArray) -> pa.Array:
    """Hashes in what was picked as bytes, DIGEST. Raises InputError for a text that is none."""
    try:
        return packed(hashes)
    except ValueError as error:
        why = f"a record of what was picked has a hash that is none: {error}; restore it from a copy"
        raise InputError(f"{home}/rounds: {why}") from error


def _what_keeps_out(campaign: Campaign) -> dict[str, str]:
    """The content of the files that select.exclude and select.where read."""
    options = campaign.config.select
    files = {"select.exclude": options.exclude, METADATA_FILE: options.where and (campaign.home / METADATA_FILE).url}
    return {name: content_mark(url) for name, url in files.items() if url}


def left_pool(home: Location) -> set[str]:
    """The names of the shards that left the pool, of which nothing is picked any more, not even in a round that still
    scores them."""
    shards = read_shards(home)
    return set(shards.where(shards.have_left).names.to_pylist())


def selection_changes(campaign: Campaign, manifest: SelectionManifest) -> tuple[list[str], list[str]]:
    """The options and the inputs of a complete selection that changed since, by name."""
    now = campaign.config.select.model_dump()
    # An older version had not the option, and worked as with its default.
    before = {**SelectConfig().model_dump(), **manifest["config"]["select"]}
    options = [f"select.{name}" for name in now if before[name] != now[name]]
    labels: dict[str, Any] = cast("dict[str, Any]", manifest["config"]).get("labels", {})
    if labels.get("are_biased", "auto") != campaign.config.labels.are_biased:
        options.append("labels.are_biased")
    inputs = selection_inputs(campaign, digest_of_picks(campaign.home, campaign.round))
    # What other campaigns did since matters only where it is about these images.
    if campaign.config.pool.shared_ledger and conflicts(
        elsewhere(campaign), waiting_picks(campaign.home, campaign.round)
    ):
        inputs["pool.shared_ledger"] = "an image is taken"
    # What an older version did not compare is in `inputs` alone, and so are label files that came since.
    made = {name: value for name, value in manifest["inputs"].items() if name != OTHERS}
    names = [*made, *(name for name in inputs if name.startswith(("labels/", "never", "shards", "pool.shared")))]
    changed = [name for name in dict.fromkeys(names) if made.get(name) != inputs.get(name)]
    # The name of a file of labels says nothing to a person. New weights count when the pool is scored with them.
    named = dict.fromkeys("labels" if name.startswith("labels/") else name for name in changed)
    return options, [name for name in named if name != "train"]


def _typed(value: Any) -> str:
    """A value as it is typed after --set."""
    return value if isinstance(value, str) and value else json.dumps(value)


def current_selection(campaign: Campaign) -> SelectionManifest:
    """The manifest of the selection. Raises ConfigError when its options or inputs changed since it was made.

    Once it is handed out, its images stay picked whatever becomes of its inputs.
    """
    manifest = read_manifest(campaign, "selection", SelectionManifest)
    options, inputs = selection_changes(campaign, manifest)
    if completed(campaign, "handoff"):
        inputs = []
    if changed := some(options + inputs):
        # A setting that came with the refused command is not kept, so it is given again.
        values = campaign.config.model_dump()
        parts = [(key, *key.split(".")) for key in options]
        given = [f"{key}={_typed(values[section][name])}" for key, section, name in parts]
        fix = f"run: vaal select {campaign.home.quoted}" + "".join(f" --set {shlex.quote(text)}" for text in given)
        raise ConfigError(f"{campaign.stage('selection')}: made before {changed} changed; {fix}")
    return manifest
