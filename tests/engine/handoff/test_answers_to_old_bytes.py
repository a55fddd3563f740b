"""A label is for the bytes that were handed out, whatever became of the pool until the answer comes."""

import json
import os
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from engine.campaign import corrections
from engine.campaign.changes import refresh
from engine.campaign.folder import Campaign
from engine.campaign.handed_out import batches
from engine.campaign.labels import labelled_values
from engine.campaign.positions import all_positions
from engine.handoff.export import export
from engine.handoff.ingest import Ingested
from engine.pool.identity import content_hash
from engine.pool.manifest import read_shards
from jobs.cli import app
from tests.engine.campaign.test_changes import labelled_images, made, members, original, picks, remake  # noqa: F401
from tests.rounds import Made
from tests.sendings import take_in

SHARD = "s-1.tar"


def answer(made: Made, rows: list[dict[str, Any]], label: str = "dog") -> tuple[Ingested, list[str]]:  # noqa: F811
    file, log = Path(made.campaign.home.path).parent / "answers.csv", list[str]()
    file.write_text("item_id,label\n" + "".join(f"{row['item_id']},{label}\n" for row in rows))
    return take_in(made.campaign, file, log=log.append), log


def spoil(made: Made, *keys: str) -> None:  # noqa: F811
    """Remake the shard in another order, with one bit of these images changed."""
    items = dict(reversed(members(made, SHARD).items()))
    for key in keys:
        content = items[f"{key}.png"]
        items[f"{key}.png"] = content[:-1] + bytes([content[-1] ^ 1])
    remake(made, SHARD, items)


def marks(campaign: Campaign) -> dict[str, int]:
    return {shard.shard: shard.mtime_ns for shard in read_shards(campaign.home)}


def test_an_answer_for_bytes_that_changed_is_named_kept_and_put_under_no_others(made: Made) -> None:  # noqa: F811
    export(made.campaign)
    first, *others = picks(made, SHARD)
    before = marks(made.campaign)
    spoil(made, first["key"])
    os.utime(Path(made.campaign.home.path).parent / "s-0.tar")
    counts, log = answer(made, [first, *others])
    assert (counts.new, counts.changed) == (1 + len(others), 1)
    assert [line for line in log if line.startswith(f"{SHARD}: item {first['key']} has other bytes now: ")]
    assert len([line for line in log if "item " in line]) == 1
    # Only the shard of the answers was looked at.
    assert {name for name, moment in marks(made.campaign).items() if moment != before[name]} == {SHARD}
    # As training begins.
    refresh(made.campaign, log.append)
    found = labelled_images(made.campaign)
    assert found == {item: made.images[item] for item in made.labelled | {(SHARD, row["key"]) for row in others}}
    assert labelled_values(made.campaign.home)[SHARD, first["key"]] == "dog"
    # The bytes come back, and the label with them.
    remake(made, SHARD, members(made, SHARD))
    refresh(made.campaign, log.append)
    assert labelled_images(made.campaign)[SHARD, first["key"]] == made.images[SHARD, first["key"]]


def test_what_is_known_already_costs_no_look_at_the_pool(made: Made) -> None:  # noqa: F811
    export(made.campaign)
    rows = picks(made, SHARD)
    assert answer(made, rows)[0].changed == 0
    before = marks(made.campaign)
    spoil(made, rows[0]["key"])
    nothing_new = Ingested(0, len(rows), 0, 0, [], len(picks(made)) - len(rows), 0, answers=len(rows))
    assert answer(made, rows) == (nothing_new, [])
    assert marks(made.campaign) == before


def test_a_pool_that_cannot_be_looked_at_loses_no_label(made: Made) -> None:  # noqa: F811
    export(made.campaign)
    rows, listing = picks(made, SHARD), Path(made.campaign.home.path) / "pool/shards.parquet"
    listing.write_bytes(b"damaged")
    counts, log = answer(made, rows)
    assert counts.new == len(rows)
    assert "shards.parquet: " in log[-1]
    assert "; the labels are taken, and the next training looks at their images" in log[-1]
    assert {labelled_values(made.campaign.home)[SHARD, row["key"]] for row in rows} == {"dog"}


def test_the_command_counts_them(made: Made) -> None:  # noqa: F811
    home = Path(made.campaign.home.path)
    export(made.campaign)
    first = picks(made, SHARD)[0]
    spoil(made, first["key"])
    (home.parent / "answers.csv").write_text(f"item_id,label\n{first['item_id']},dog\n")
    result = CliRunner().invoke(app, ["ingest", str(home), str(home.parent / "answers.csv"), "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["changed"] == 1


def test_the_record_has_the_hash_of_what_the_vendor_saw_where_the_selection_has_none(made: Made) -> None:  # noqa: F811
    """A selection of an older version."""
    folder = made.campaign.stage("selection")
    manifest = json.loads((folder / "manifest.json").read_bytes())
    table = pq.read_table(f"{folder.path}/selection.parquet").drop_columns(["content_hash"])
    manifest["files"]["selection.parquet"] = (folder / "selection.parquet").write_table(table)
    (folder / "manifest.json").write_json(manifest)
    assert {row["content_hash"] for row in picks(made)} == {None}
    export(made.campaign)
    expected = {row["item_id"]: content_hash(made.images[row["shard"], row["key"]]) for row in picks(made)}
    (batch,) = batches(made.campaign.home, 0)
    for rows in (batch.images().to_pylist(), picks(made)):
        assert {row["item_id"]: row["content_hash"] for row in rows} == expected
    assert "content_hash" not in (made.campaign.stage("handoff/generic") / "tasks.csv").read_bytes().decode()


@pytest.mark.parametrize("decision", ["set", "retract"])
def test_a_correction_is_for_the_bytes_that_are_there_and_ends_the_naming(made: Made, decision: str) -> None:  # noqa: F811
    """The advice that names a lost image, followed before any stage has read the shard again."""
    campaign, first = made.campaign, picks(made, SHARD)[0]
    export(campaign)
    answer(made, [first])
    spoil(made, first["key"])
    item = (SHARD, first["key"])
    if decision == "set":
        corrections.set_label(campaign, item, "owl", lambda _: None)
    else:
        corrections.retract(campaign, item)
    log: list[str] = []
    refresh(campaign, log.append)
    assert not [line for line in log if f"item {first['key']} " in line]
    rows = {(row["shard"], row["key"]): row for row in all_positions(campaign.home).to_pylist()}
    now = labelled_images(campaign)
    if decision == "set":
        assert content_hash(now[item]) == rows[item]["content_hash"] != first["content_hash"]
    else:
        assert item not in now
