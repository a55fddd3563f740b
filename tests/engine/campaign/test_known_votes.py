"""Votes: which rows are versions of one answer, and which of them is the newest."""

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from engine.campaign.votes import (
    VOTES_SCHEMA,
    answers_of_votes,
    identities_of_votes,
    newest_versions,
)
from engine.handoff.known_answers import Known, Version, content_of

DAYS = [None, *(datetime(2026, 1, day, tzinfo=UTC) for day in (1, 2, 3))]
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "item_id": st.sampled_from("abc"),
            "vendor": st.sampled_from("xy"),
            "vendor_answer_id": st.sampled_from([None, "1", "a"]),
            "annotator": st.sampled_from([None, "1", "p"]),
            "value": st.sampled_from([None, "kettle", "jug", ""]),
            "answered_at": st.sampled_from(DAYS),
            "ingest": st.sampled_from(["000001-x", "000002-x", "000003-y"]),
        }
    ),
    max_size=30,
)


def table_of(rows: list[dict[str, Any]]) -> pa.Table:
    rows = sorted(rows, key=lambda row: str(row["ingest"]))
    return pa.Table.from_pylist([{**row, "skipped": row["value"] is None} for row in rows], schema=VOTES_SCHEMA)


def newest_of(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The last of the newest time; without a time it is older than all."""
    return max(enumerate(rows), key=lambda pair: (pair[1]["answered_at"] or DAYS[1].replace(year=1), pair[0]))[1]  # type: ignore[union-attr]


def grouped(votes: pa.Table) -> dict[bytes, list[dict[str, Any]]]:
    found: dict[bytes, list[dict[str, Any]]] = {}
    for identity, row in zip(identities_of_votes(votes), votes.to_pylist(), strict=True):
        found.setdefault(identity, []).append(row)
    return found


@given(ROWS)
def test_rows_of_an_identity_are_versions_of_an_answer(rows: list[dict[str, Any]]) -> None:
    votes = table_of(rows)
    numbers = {identity: number for number, identity in enumerate(grouped(votes))}
    assert answers_of_votes(votes).tolist() == [numbers[identity] for identity in identities_of_votes(votes)]
    assert newest_versions(votes).to_pylist() == [newest_of(versions) for versions in grouped(votes).values()]


@given(ROWS, st.sets(st.sampled_from(["000001-x", "000002-x", "000003-y"])))
def test_known_answers_are_those_of_ingests_that_were_not_undone(rows: list[dict[str, Any]], undone: set[str]) -> None:
    votes = table_of(rows)
    known = Known(votes, undone)
    for identity, versions in grouped(votes).items():
        kept = [row for row in versions if row["ingest"] not in undone]
        newest = known.newest(identity)
        wanted = newest_of(kept) if kept else None
        assert (newest and (newest.value, newest.answered_at)) == (wanted and (wanted["value"], wanted["answered_at"]))
        for value in (None, "kettle", "jug", "", "other"):
            said = {row["ingest"] for row in versions if row["value"] == value}
            for day in DAYS:
                is_known = any(row["value"] == value and day in (None, row["answered_at"]) for row in kept)
                assert known.has(identity, Version(content_of(value), value, day)) == is_known
            gone = [int(ingest[:6]) for ingest in said & undone]
            assert known.undone_at(identity, content_of(value)) == max(gone, default=0)
    assert known.newest(b"another") is None
    assert not known.has(b"another", Version(content_of("kettle"), "kettle", None))
