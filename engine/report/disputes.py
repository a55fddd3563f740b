"""The disputed images of a round: what each annotator said of them, the least certain first."""

from collections import defaultdict
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from engine.campaign.ledger import DISPUTED
from engine.report.crowd import DIGITS
from engine.report.round_answers import RoundAnswers, value_text
from engine.tables.rows import Row

MOST_DISPUTED, MOST_SAID, MOST_NAMES = 48, 5, 6
"""Disputed images that are shown, values of one, and annotators of a value."""


class Said(NamedTuple):
    """A value that was given to an image, by how many annotators, and who the first of them are. The value is empty
    where they skipped it."""

    value: str
    times: int
    names: list[str]


class Dispute(NamedTuple):
    """A disputed image. `row` is what its thumbnail is made from; `label` is the most probable value, and `posterior`
    its probability, None where there is no value. What is forgotten is not disputed any more."""

    row: Row
    label: str
    posterior: float | None
    said: list[Said]
    num_more: int


def disputes_of(answers: RoundAnswers) -> list[Dispute]:
    """The first MOST_DISPUTED of the disputed images, those that the consensus is least certain of first."""
    outcomes = answers.ledger.outcomes
    places = np.flatnonzero(answers.state_U == DISPUTED)
    places = places[np.argsort(np.nan_to_num(outcomes.posteriors_at(places)), kind="stable")][:MOST_DISPUTED]
    said = _said(answers, places.tolist())
    labels = outcomes.labels_at(places).to_pylist()
    rows = answers.ledger.items.rows(places).to_pylist()
    return [
        Dispute(
            row,
            "" if label is None else value_text(label, answers.task),
            None if np.isnan(posterior) else posterior,
            said[place][:MOST_SAID],
            len(said[place][MOST_SAID:]),
        )
        for place, row, label, posterior in zip(
            places.tolist(), rows, labels, outcomes.posteriors_at(places).tolist(), strict=True
        )
    ]


def _said(answers: RoundAnswers, places: list[int]) -> dict[int, list[Said]]:
    """What was said of each of these images, the most frequent value first."""
    is_shown_V = np.isin(answers.item_V, places)
    names: dict[int, dict[str, list[str]]] = {place: defaultdict(list) for place in places}
    votes = answers.votes.filter(pa.array(is_shown_V)).select(["annotator", "value"]).to_pylist()
    for place, vote in zip(answers.item_V[is_shown_V].tolist(), votes, strict=True):
        value = "" if vote["value"] is None else value_text(vote["value"], answers.task)
        names[place][value].append((vote["annotator"] or "")[:DIGITS] or "the vendor")
    return {
        place: sorted(
            (Said(value, len(who), sorted(who)[:MOST_NAMES]) for value, who in values.items()),
            key=lambda said: (-said.times, said.value),
        )
        for place, values in names.items()
    }
