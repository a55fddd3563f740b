"""Law 4: after any faults, and runs until it is complete, a campaign holds the rows of an undisturbed run.

All that the tests of this folder assume of what a scored campaign looks like is in this file. A campaign is a local
folder here; one on an object store is fetched first.
"""

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

TOLERANCE = 1e-5
"""Of a float32. Chunks of other sizes, or another BLAS, round otherwise."""
LATENT_TOLERANCE = 2e-3
"""Of a float16."""
Identity = tuple[str, str]


class Rows(NamedTuple):
    """All that scoring found: tables sorted by (shard, key), and the manifest."""

    scores: pa.Table
    quarantine: pa.Table
    manifest: dict[str, Any]

    @property
    def listed(self) -> Counter[Identity]:
        """How often an item occurs, scored or quarantined."""
        tables = (self.scores, self.quarantine)
        return Counter(item for table in tables for item in identities(table))


def identities(table: pa.Table) -> list[Identity]:
    return list(zip(table["shard"].to_pylist(), table["key"].to_pylist(), strict=True))


def stage(campaign: str, name: str) -> Path:
    return Path(campaign, "rounds/000", name)


def visible(folder: Path, pattern: str = "*") -> list[Path]:
    """The files that a reader of the folder takes for real: those with a dot in front are drafts."""
    return sorted(file for file in folder.glob(pattern) if file.is_file() and not file.name.startswith("."))


def committed(campaign: str) -> dict[str, str]:
    """SHA-256 of every scores file that is visible, by name, whether or not the stage is complete."""
    files = visible(stage(campaign, "scores"), "*.parquet")
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def num_committed(campaign: str) -> int:
    return len(visible(stage(campaign, "scores"), "*.parquet"))


def is_complete(campaign: str) -> bool:
    return (stage(campaign, "scores") / "manifest.json").exists()


def undisturbed(campaign: str) -> Rows:
    """The rows of a campaign that was scored without a fault, which are right in themselves."""
    rows = read_rows(campaign)
    assert_ledger(campaign, rows)
    return rows


def read_rows(campaign: str) -> Rows:
    manifest = json.loads((stage(campaign, "scores") / "manifest.json").read_bytes())
    files = [pq.read_table(stage(campaign, "ledger") / name) for name in manifest["ledger"]]
    manifest["shards"] = pa.concat_tables(files).to_pylist()
    return Rows(_table(stage(campaign, "scores")), _table(stage(campaign, "quarantine")), manifest)


def assert_law_4(campaign: str, expected: Rows, *, exactly: bool = False) -> None:
    """The campaign is complete and holds the expected rows. `exactly` leaves no room for rounding."""
    rows = read_rows(campaign)
    repeated = [item for item, count in rows.listed.items() if count > 1]
    assert not repeated, f"{len(repeated)} items occur more than once, the first is {repeated[0]}"
    missing, more = set(expected.listed) - set(rows.listed), set(rows.listed) - set(expected.listed)
    assert not missing, f"{len(missing)} items are lost, the first is {min(missing)}"
    assert not more, f"{len(more)} items are not in the pool, the first is {min(more)}"
    assert_same(rows.scores, expected.scores, exactly=exactly)
    assert_same(rows.quarantine, expected.quarantine, exactly=exactly)
    assert _counts(rows.manifest) == _counts(expected.manifest)
    assert_ledger(campaign, rows)


def assert_same(table: pa.Table, expected: pa.Table, *, exactly: bool) -> None:
    assert table.schema.equals(expected.schema)
    for field in expected.schema:
        one, two = table[field.name], expected[field.name]
        if pa.types.is_fixed_size_list(field.type) or pa.types.is_list(field.type):
            one, two = one.combine_chunks().flatten(), two.combine_chunks().flatten()
        if exactly or not pa.types.is_floating(one.type):
            assert one.to_pylist() == two.to_pylist(), field.name
        else:
            atol = LATENT_TOLERANCE if pa.types.is_float16(one.type) else TOLERANCE
            np.testing.assert_allclose(one.to_numpy(), two.to_numpy(), rtol=TOLERANCE, atol=atol, err_msg=field.name)


def assert_ledger(campaign: str, rows: Rows) -> None:
    """What the manifest counts is what the files hold, and each file is the one that the manifest names."""
    scored, quarantined = (Counter(t["shard"].to_pylist()) for t in (rows.scores, rows.quarantine))
    for shard, entry in _ledger(rows.manifest).items():
        assert entry["listed"] == entry["scored"] + entry["quarantined"], entry
        assert (entry["scored"], entry["quarantined"]) == (scored[shard], quarantined[shard]), entry
    assert set(scored) | set(quarantined) <= set(_ledger(rows.manifest))
    assert _counts(rows.manifest) == {
        "shards": len(_ledger(rows.manifest)),
        "listed": rows.scores.num_rows + rows.quarantine.num_rows,
        "scored": rows.scores.num_rows,
        "quarantined": rows.quarantine.num_rows,
    }
    assert committed(campaign) == _sha256(rows.manifest)


def assert_nothing_half_written(campaign: str) -> None:
    """Each file that can be seen is a whole Parquet file or a whole JSON document."""
    for name in ("scores", "quarantine"):
        for file in visible(stage(campaign, name)):
            if file.suffix == ".json":
                json.loads(file.read_bytes())
            else:
                pq.read_table(file)


def _table(folder: Path) -> pa.Table:
    tables = [pq.read_table(file) for file in visible(folder, "*.parquet")]
    # The metadata of a file says which shard it is of.
    tables = [table.replace_schema_metadata() for table in tables]
    if not tables:
        return pa.table({"shard": pa.array([], pa.string()), "key": pa.array([], pa.string())})
    return pa.concat_tables(tables).combine_chunks().sort_by([("shard", "ascending"), ("key", "ascending")])


def _ledger(manifest: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {entry["shard"]: entry for entry in manifest["shards"]}


def _sha256(manifest: dict[str, Any]) -> dict[str, str]:
    return {entry["file"]: entry["sha256"] for entry in manifest["shards"]}


def _counts(manifest: dict[str, Any]) -> dict[str, int]:
    return {name: manifest["counts"][name] for name in ("shards", "listed", "scored", "quarantined")}
