"""What label files say of images, file by file, is what the table of all labels says."""

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from engine.campaign.handed_out import PickedFile
from engine.campaign.known_images import Images
from engine.campaign.labels import REPLACED, SNAPSHOT_SCHEMA, UNDOES, VOTES, Snapshot, identities
from engine.campaign.last_words import words_of
from engine.storage.location import Location
from engine.tables.item_keys import ItemIndex, ItemKeys

ITEMS = [("s", f"{number}") for number in range(6)]
GOLD = [*ITEMS[1:3], ITEMS[1]]
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
ROW = st.tuples(
    st.integers(0, 7), st.sampled_from(["cat", "dog", None]), st.sampled_from([None, REPLACED]), st.integers(0, 9)
)
FILE = st.tuples(
    st.sampled_from(["ingest", "set", "theirs"]), st.integers(0, 2), st.integers(-1, 4), st.lists(ROW, max_size=5)
)


def images_of() -> Images:
    """Picks, then gold images, one of them under two names."""
    names = [f"{number:032x}" for number in range(len(ITEMS) + len(GOLD))]
    keys = ItemKeys.of_texts(pa.chunked_array([pa.array(names)]))
    file, rows = PickedFile(0, Location("nowhere"), None), np.arange(len(names), dtype=np.int32)
    return Images(
        [file], np.array([0, len(rows)]), rows, len(ITEMS), ItemIndex(keys), ItemKeys.of_items([*ITEMS, *GOLD])
    )


def snapshot_with(files: list[tuple[str, int, int, list[Any]]]) -> Snapshot:
    """Label files of these kinds, with so many files of votes before them, of which some take back another one."""
    names = [f"labels/{number:06d}-{kind}-0.parquet" for number, (kind, *_) in enumerate(files)]
    tables, marks = dict[str, pa.Table](), dict[str, dict[bytes, bytes]]()
    for name, (_, num_votes, undoes, rows) in zip(names, files, strict=True):
        marks[name] = {VOTES: str(num_votes).encode()}
        if 0 <= undoes < len(names):
            marks[name][UNDOES] = names[undoes].encode()
        cells = [
            {"shard": "s", "key": f"{item}", "label": label, "source": "s", "why": why, "labelled_at": when(at)}
            for item, label, why, at in rows
        ]
        plain = pa.schema(f.with_type(pa.string()) if pa.types.is_dictionary(f.type) else f for f in SNAPSHOT_SCHEMA)
        tables[name] = pa.Table.from_pylist(cells, plain).cast(SNAPSHOT_SCHEMA)
    return Snapshot(dict.fromkeys(names, ""), tables, marks)


def when(at: int) -> datetime | None:
    return BEGIN + timedelta(days=at) if at else None


@given(st.lists(FILE, max_size=5))
def test_words_file_by_file_are_those_of_the_table_of_all(files: list[tuple[str, int, int, list[Any]]]) -> None:
    snapshot, images = snapshot_with(files), images_of()
    words, facts = words_of(snapshot, images), dict[int, tuple[Any, ...]]()
    for place_N, said in words.parts():
        facts |= dict(zip(place_N.tolist(), zip(*(column.tolist() for column in said), strict=True), strict=True))
    table = snapshot.last_words()
    expected = dict(zip(identities(table), table.to_pylist(), strict=True))
    for place, item in enumerate(ITEMS):
        assert (place in facts) == (item in expected)
        if place in facts:
            is_derived, is_label, at, num_votes = facts[place]
            row = expected[item]
            assert (is_derived, is_label, num_votes) == (
                row["is_derived"],
                row["label"] is not None,
                row["num_votes"],
            )
            moment = row["labelled_at"]
            assert at == (moment.timestamp() * 1e6 if moment else np.iinfo(np.int64).max)
    # No word stands over the votes on a gold image, and its label is known all the same.
    assert max(facts, default=0) < len(ITEMS)
    labels = [snapshot.values.get(item) for item in [*ITEMS, *GOLD]]
    assert words.labels_at(np.arange(len(images))).to_pylist() == labels
    assert words.are_labels().tolist() == [label is not None for label in labels]
