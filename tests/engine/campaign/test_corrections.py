"""Labels are append-only: the newest row of an item counts, and every reader sees the same."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.campaign import corrections, undoing
from engine.campaign.folder import Campaign
from engine.campaign.labels import (
    LABELS_SCHEMA,
    append_labels,
    labelled_items,
    labelled_values,
    read_labels,
    read_snapshot,
)
from engine.campaign.opening import current_round
from engine.campaign.status import status
from engine.campaign.unlabelled import has_labels
from engine.errors import InputError
from engine.pool.identity import item_id_of
from engine.simulation.demo_pools import DemoPool
from engine.training.plan import plan_training
from tests.conftest import MakeCampaign
from tests.sendings import hand_out, take_in


def unlabelled(campaign: Campaign, pool: DemoPool, count: int) -> list[tuple[str, str]]:
    return sorted(set(pool.oracle) - labelled_items(campaign.home))[:count]


def foreign(campaign: Campaign, name: str, items: list[tuple[str, str]], label: str | None) -> None:
    """A label file as another program writes it: other order of columns, one more, other types."""
    rows = [(*item, label, 0, "other", None, None) for item in items]
    # It knows nothing of origins, as an earlier version.
    schema = pa.schema([field for field in LABELS_SCHEMA if field.name not in ("origin", "why")])
    table = pa.table([list(column) for column in zip(*rows, strict=True)], schema=schema)
    table = table.select(list(reversed(schema.names))).append_column("more", pa.array([1] * len(rows)))
    at = table.schema.get_field_index("key")
    table = table.set_column(at, "key", table["key"].cast(pa.large_string()))
    pq.write_table(table, Path(campaign.home.path, "labels", name))


def test_a_label_is_set_retracted_and_set_again(make_campaign: MakeCampaign, pool: DemoPool) -> None:
    campaign = make_campaign()
    (item,) = unlabelled(campaign, pool, 1)
    first = min(labelled_items(campaign.home))
    assert corrections.set_label(campaign, first, " owl ", print) == pool.oracle[first]
    assert labelled_values(campaign.home)[first] == "owl"
    assert corrections.retract(campaign, first) == "owl"
    assert first not in labelled_items(campaign.home)
    assert corrections.set_label(campaign, item, "owl", print) == ""
    plan = plan_training(campaign)
    assert plan.labels == labelled_values(campaign.home)
    assert {position[:2] for position in plan.positions} == set(plan.labels) == set(plan.pool.labelled)
    assert read_labels(campaign.home).num_rows == status(campaign)["labels"]["total"] == 200
    listed = corrections.list_labels(campaign)
    name = item_id_of(*item, campaign.config.salt)
    assert {"shard": item[0], "key": item[1], "item_id": name, "label": "owl", "num_votes": 1} in listed
    assert corrections.identity_of(campaign, [name]) == item
    with pytest.raises(InputError, match="has no label"):
        corrections.retract(campaign, first)
    with pytest.raises(InputError, match="no item 'nobody'"):
        corrections.set_label(campaign, (item[0], "nobody"), "owl", print)


def test_an_ingest_is_undone_apart_from_what_was_corrected_since(
    make_campaign: MakeCampaign, pool: DemoPool, tmp_path: Path
) -> None:
    campaign = make_campaign()
    items = unlabelled(campaign, pool, 3)
    ids = ["aa", "bb", "cc"]
    hand_out(campaign, dict(zip(ids, items, strict=True)))
    before = labelled_values(campaign.home)
    file = tmp_path / "answers.csv"
    file.write_text("item_id,label\n" + "".join(f"{name},9\n" for name in ids))
    take_in(campaign, file)
    corrections.set_label(campaign, items[1], "8", print)
    name, count = undoing.undo(campaign)
    assert count == 2
    assert labelled_values(campaign.home) == before | {items[1]: "8"}
    # A round that has ended does not come back.
    assert current_round(campaign.home) == 1
    with pytest.raises(
        InputError, match=f"no file '{name}' of .* whose rows count; there are, newest last: labels/000002-set-[^;,]*$"
    ):
        undoing.undo(campaign, name)
    found = take_in(campaign, file)
    assert (found.new, found.repeated, found.corrected) == (2, 1, 1)
    assert labelled_values(campaign.home) == before | {items[0]: "9", items[1]: "8", items[2]: "9"}


def test_a_label_file_of_another_program_counts_like_the_own(make_campaign: MakeCampaign, pool: DemoPool) -> None:
    campaign = make_campaign()
    items = unlabelled(campaign, pool, 2)
    first = min(labelled_items(campaign.home))
    foreign(campaign, "a.parquet", [*items, first], "9")
    foreign(campaign, "b.parquet", [items[1]], "7")
    assert [labelled_values(campaign.home)[item] for item in (*items, first)] == ["9", "7", "9"]
    # The positions are found, once.
    lines: list[str] = []
    plan = plan_training(campaign, log=lines.append)
    assert {position[:2] for position in plan.positions} == set(plan.labels)
    assert dict(plan.labels) == labelled_values(campaign.home)
    assert list(plan_training(campaign, log=lines.append).positions) == list(plan.positions)
    assert len(lines) == 1
    for _, _, offset, size_bytes, _ in [p for p in plan.positions if p[:2] == items[0]]:
        content = Path(campaign.config.pool.root, items[0][0]).read_bytes()[offset : offset + size_bytes]
        assert content.startswith(b"\x89PNG")
    # The newest counts: a correction of it, and then another file of the other program.
    corrections.set_label(campaign, items[0], "8", print)
    assert labelled_values(campaign.home)[items[0]] == "8"
    foreign(campaign, "0.parquet", [items[0]], None)
    assert items[0] not in labelled_items(campaign.home)
    assert current_round(campaign.home) == 1


def test_labels_that_come_between_planning_and_training_are_not_seen(
    make_campaign: MakeCampaign, pool: DemoPool
) -> None:
    campaign = make_campaign()
    snapshot = read_snapshot(campaign.home)
    foreign(campaign, "late.parquet", unlabelled(campaign, pool, 5), "9")
    plan = plan_training(campaign, snapshot)
    assert len(plan.labels) == len(plan.positions) == 200
    assert list(snapshot.files) == ["labels/initial.parquet"]
    # Of millions of labels the rows are not in memory for all of the training.
    assert not snapshot.tables


def test_positions_without_labels_are_not_labelled(make_campaign: MakeCampaign, pool: DemoPool) -> None:
    """As after a kill between the two files of an ingest."""
    campaign = make_campaign()
    (item,) = unlabelled(campaign, pool, 1)
    corrections.set_label(campaign, item, "9", print)
    newest = max(Path(campaign.home.path, "labels").glob("0*"))
    newest.unlink()
    plan = plan_training(campaign)
    assert item not in plan.labels
    assert item not in {position[:2] for position in plan.positions}


def test_what_an_undo_brought_back_goes_with_the_file_it_was_in(make_campaign: MakeCampaign, pool: DemoPool) -> None:
    campaign = make_campaign()
    before = labelled_values(campaign.home)
    items = unlabelled(campaign, pool, 2)
    row = (0, "generic", None, None)
    first = append_labels(campaign.home, "ingest", [(*item, "1", *row) for item in items])
    second = append_labels(campaign.home, "ingest", [(*items[0], "2", *row)])
    assert undoing.undo(campaign) == (second, 1)
    assert labelled_values(campaign.home) == before | dict.fromkeys(items, "1")
    assert undoing.undo(campaign) == (first, 2)
    assert labelled_values(campaign.home) == before
    # What is undone is not undone again, and comes back with the same file.
    for name in ("", first, second):
        with pytest.raises(
            InputError, match=r"no (ingest whose labels count|file .* whose rows count); there are: none$"
        ):
            undoing.undo(campaign, name)
    again = append_labels(campaign.home, "ingest", [(*item, "1", *row) for item in items])
    assert labelled_values(campaign.home) == before | dict.fromkeys(items, "1")
    assert undoing.undo(campaign) == (again, 2)
    assert labelled_values(campaign.home) == before


def test_a_damaged_label_file_is_named(make_campaign: MakeCampaign) -> None:
    campaign = make_campaign()
    pq.write_table(pa.table({"shard": ["a"]}), Path(campaign.home.path, "labels/x.parquet"))
    with pytest.raises(InputError, match=r"labels/x.parquet: not a table with the columns shard, key, label"):
        read_labels(campaign.home)


def test_few_columns_of_labels_say_what_all_of_them_say(make_campaign: MakeCampaign) -> None:
    campaign = make_campaign()
    whole, some = (read_snapshot(campaign.home, names) for names in (LABELS_SCHEMA.names, ["key", "label", "round"]))
    assert some.history.equals(whole.history.select(["key", "label", "round"]))
    assert some.files == whole.files
    first, *others = sorted(labelled_items(campaign.home))
    append_labels(campaign.home, "retract", [(*item, None, None, "correction") for item in others])
    # The newest row takes a label away, and another item has one.
    assert has_labels(campaign.home)
    append_labels(campaign.home, "retract", [(*first, None, None, "correction")])
    assert not has_labels(campaign.home)
    append_labels(campaign.home, "set", [(*first, "3", None, "correction")])
    assert has_labels(campaign.home)
