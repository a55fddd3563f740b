"""Rows of the same item have the same key, whatever stands beside them, and different items have different ones."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.tables import item_keys
from engine.tables.by_shard import ByShard
from engine.tables.item_keys import (
    ItemIndex,
    ItemKeys,
    KeyParts,
    are_in,
    column_at,
    first_rows,
    last_of_each,
    num_items,
)

Item = tuple[str, str]
TEXTS = st.text(st.sampled_from("ab\0é/"), max_size=20)
ITEMS = st.lists(st.tuples(TEXTS, TEXTS), max_size=30)
SCHEMA = pa.schema([("shard", pa.string()), ("key", pa.string())])


def table_of(items: list[Item]) -> pa.Table:
    rows = [{"shard": shard, "key": key, "number": number} for number, (shard, key) in enumerate(items)]
    return pa.Table.from_pylist(rows, schema=SCHEMA.append(pa.field("number", pa.int64())))


def encoded(table: pa.Table) -> pa.Table:
    """In chunks, with a dictionary of shards in each, which is another one."""
    parts = [table.slice(begin, 3) for begin in range(0, len(table), 3)]
    parts = [part.set_column(0, "shard", part["shard"].dictionary_encode()) for part in parts]
    return pa.concat_tables(parts) if parts else table


@given(ITEMS, ITEMS)
def test_what_is_found_is_what_sets_find(items: list[Item], others: list[Item]) -> None:
    table, other = table_of(items), table_of(others)
    last = {item: number for number, item in enumerate(others)}
    for some in (other, encoded(other)):
        index = ItemIndex(ItemKeys.of(some))
        for asked in (table, encoded(table)):
            assert index.rows_of(ItemKeys.of(asked)).tolist() == [last.get(item, -1) for item in items]
            assert are_in(asked, some).tolist() == [item in last for item in items]
        assert num_items(some) == len(index) == len(last)
        assert last_of_each(some)["number"].to_pylist() == sorted(last.values())
        rows = index.rows_of(ItemKeys.of_items(items))
        assert column_at(some["key"], rows).to_pylist() == [item[1] if item in last else None for item in items]


@given(ITEMS)
def test_items_by_shard_are_a_mapping(items: list[Item]) -> None:
    table = last_of_each(table_of(items)).append_column("label", pa.array([f"{n % 3}" for n in range(len(set(items)))]))
    expected = {(row["shard"], row["key"]): row["label"] for row in table.to_pylist()}
    for some in (table, encoded(table)):
        found = ByShard(some, "label")
        assert dict(found) == expected
        assert found.different == sorted(set(expected.values()))
        for shard in {shard for shard, _ in items} | {"", "zz"}:
            assert found.keys_in(shard) == {key for name, key in expected if name == shard}
        for item in [*items, ("zz", "a"), ("a", "zz")]:
            assert found.get(item) == expected.get(item)
    assert set(ByShard.of_items(expected)) == set(expected)


def test_two_items_that_share_a_half_of_their_hash_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    mixed, first = item_keys._mixed, item_keys._SECOND[0]
    # The first lane says nothing.
    monkeypatch.setattr(item_keys, "_mixed", lambda value, by: mixed(value, by) * np.uint64(by != first))
    index = ItemIndex(ItemKeys.of_items([("s", "a"), ("s", "b"), ("s", "a")]))
    assert index.rows_of(ItemKeys.of_items([("s", "b"), ("s", "a"), ("s", "c")])).tolist() == [1, 2, -1]
    assert index.last_rows().tolist() == [1, 2]


def test_a_long_text_beside_many_short_ones_takes_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_keys, "_BLOCK_BYTES", 1000)
    items = [("s", f"{n}" * (100 if n == 5 else 1)) for n in range(50)]
    assert ItemIndex(ItemKeys.of_items(items)).rows_of(ItemKeys.of_items(items[::-1])).tolist() == list(range(50))[::-1]


@given(ITEMS)
def test_of_large_tables_which_are_sorted_in_parts_the_same_is_found(items: list[Item]) -> None:
    table, first = table_of(items), dict[Item, int]()
    for number, item in enumerate(items):
        first.setdefault(item, number)
    parts = KeyParts()
    for begin in range(0, len(table), 7):
        parts.add(ItemKeys.of(table.slice(begin, 7)))
    keys = parts.joined()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(item_keys, "_BLOCK_ROWS", 3)
        patch.setattr(item_keys, "_LOOKED_UP", 5)
        assert first_rows(keys).tolist() == [first[item] for item in items]
        last = {item: number for number, item in enumerate(items)}
        assert ItemIndex(keys).rows_of(ItemKeys.of(table)).tolist() == [last[item] for item in items]
        assert ItemIndex(keys).last_rows().tolist() == sorted(last.values())
        assert last_of_each(table)["number"].to_pylist() == sorted(last.values())
        few = table.slice(0, 2)
        assert are_in(few, table).tolist() == [True] * len(few)
