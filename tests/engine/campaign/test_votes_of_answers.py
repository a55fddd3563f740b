"""Numbers of answers are the same where, and only where, their identities are."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from engine.campaign.votes import VOTES_SCHEMA, answers_of_votes, identities_of_votes

few = st.sampled_from(["a", "b"])
maybe = st.sampled_from([None, "a", "b"])


@given(st.lists(st.tuples(few, few, maybe, maybe), max_size=12))
def test_two_votes_are_versions_of_one_answer_exactly_if_their_identities_are_the_same(
    rows: list[tuple[str, str, str | None, str | None]],
) -> None:
    names = ("item_id", "vendor", "vendor_answer_id", "annotator")
    empty = {"value": None, "skipped": False, "seconds": None, "answered_at": None, "ingest": "1", "reason": None}
    votes = pa.Table.from_pylist(
        [dict(zip(names, row, strict=True)) | empty | {"raw": None} for row in rows], schema=VOTES_SCHEMA
    )
    numbers, identities = answers_of_votes(votes).tolist(), identities_of_votes(votes)
    assert (np.equal.outer(numbers, numbers) == [[a == b for a in identities] for b in identities]).all()
