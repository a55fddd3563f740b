"""What the votes on each image come to: a function of the newest versions of all answers, repeatable at any time."""

import json
import pkgutil
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from engine.campaign.known_images import Images
from engine.campaign.votes import codes_of, ingest_numbers, newest_and_first, rows_of_people, times_of
from engine.tables.columns import rows_where
from engine.tables.item_keys import column_at
from vaal.consensus import CONSENSUS, Consensus, Votes

TIE = 0.5
"""Of several classes, each is decided by more than this share of the votes."""
Counts = NDArray[np.int64]


class Truths(NamedTuple):
    """The known labels (T,) of gold images, and their places (T,), ascending."""

    place_T: Counts
    label_T: pa.Array

    def equals(self, other: "Truths") -> bool:
        """Whether they are the same."""
        return np.array_equal(self.place_T, other.place_T) and self.label_T.equals(other.label_T)


class Outcomes(NamedTuple):
    """The outcome of each of U images that was answered, or of which the label is known: these are K images, at the
    places `place_K`, ascending; and of each annotator. `truths` are the known labels.

    `values_K` and `skips_K` count the annotators who gave a value, or none, in their newest answer. `labels` (K,) are
    the most probable values, null without a vote, and `posterior_K` their probabilities, nan where there are none.
    `votes` are the newest answers of all people to questions of this kind, without `raw` and item_id, and `item_V` (V,)
    the places of their images. `annotators` has a row for each: annotator, vendor, votes, accuracy (as the consensus
    estimates it, nan where it does not), gold_right, gold_seen. `answers` are the newest versions of all answers, also
    of several by one person, and to questions of other kinds: vendor, annotator, first and newest (the numbers of the
    ingests that brought these versions), and `item`, the place of the image among the K.
    """

    size: int
    truths: Truths
    place_K: Counts
    values_K: Counts
    skips_K: Counts
    labels: pa.Array
    posterior_K: NDArray[np.float64]
    votes: pa.Table
    item_V: Counts
    annotators: pa.Table
    answers: pa.Table

    @property
    def num_votes(self) -> NDArray[np.int32]:
        """How many annotators answered, of all images (U,)."""
        found = np.zeros(self.size, np.int32)
        found[self.place_K] = self.values_K + self.skips_K
        return found

    def posteriors_at(self, place_N: NDArray[np.integer]) -> NDArray[np.float64]:
        """The probabilities of the images at these places (N,), nan where there are none."""
        number_N = self.numbers_of(place_N)
        padded: NDArray[np.float64] = np.append(self.posterior_K, np.nan)[number_N]
        return padded

    def labels_at(self, place_N: NDArray[np.integer]) -> pa.Array:
        """The most probable values of the images at these places (N,), null where there are none."""
        number_N = self.numbers_of(place_N)
        return self.labels.take(pa.array(number_N, mask=number_N < 0))

    def numbers_of(self, place_N: NDArray[np.integer]) -> Counts:
        """Which of the K images the ones at these places are (N,), -1 for others."""
        here_N = np.searchsorted(self.place_K, place_N)
        is_one_N = np.append(self.place_K, -1)[here_N] == place_N
        found: Counts = np.where(is_one_N, here_N, -1)
        return found


def outcomes_of(
    images: Images, truths: Truths, votes: pa.Table, undone: Iterable[str], task: str, method: str
) -> Outcomes:
    """The outcomes of these images.

    Args:
        images: U of them.
        truths: the known labels of gold ones.
        votes: all versions of all answers, VOTES_SCHEMA.
        undone: the ingests whose votes do not count.
        task: of the question; see `engine.handoff.exchange.Question`.
        method: labels.consensus.
    """
    newest, item_V, answers, place_K = _opinions(votes, undone, images, truths, task)
    is_value_V, size = ~newest["skipped"].to_numpy(), len(place_K)
    values_K = np.bincount(item_V[is_value_V], minlength=size)
    skips_K = np.bincount(item_V[~is_value_V], minlength=size)
    named, annotator_V = _annotators(newest)
    deciders = {"class": _one_class, "classes": _several_classes}
    columns = ["value"] if task in deciders else ["value", "answered_at", "ingest"]
    given = newest.select(columns).filter(pa.array(is_value_V))
    decide = deciders.get(task, _newest_value)
    known = column_at(pa.chunked_array([truths.label_T]), _numbers_among(truths.place_T, place_K))
    labels, posterior_K, accuracy_A = decide(
        given, item_V[is_value_V], annotator_V[is_value_V], known, len(named), method
    )
    right_A, seen_A = _gold(newest, item_V, annotator_V, known, len(named))
    table = named.append_column("votes", pa.array(np.bincount(annotator_V, minlength=len(named))))
    for name, column in (("accuracy", accuracy_A), ("gold_right", right_A), ("gold_seen", seen_A)):
        table = table.append_column(name, pa.array(column))
    places = place_K[item_V]
    return Outcomes(
        len(images), truths, place_K, values_K, skips_K, labels, posterior_K, newest, places, table, answers
    )


def _numbers_among(place_T: Counts, place_K: Counts) -> Counts:
    """Which of the places T each of the places K is (K,), -1 for none; both ascend."""
    here_K = np.searchsorted(place_T, place_K)
    found: Counts = np.where(np.append(place_T, -1)[here_K] == place_K, here_K, -1)
    return found


def _opinions(
    votes: pa.Table, undone: Iterable[str], images: Images, truths: Truths, task: str
) -> tuple[pa.Table, Counts, pa.Table, Counts]:
    """The votes that decide, the numbers of their images, all answers, and the places of the K images: see
    `Outcomes`."""
    newest, first_V = newest_and_first(votes, undone)
    place_V = images.places_of(newest["item_id"])
    is_known_V = place_V >= 0
    # A vendor's own JSON of shapes takes much memory, and decides nothing.
    newest = rows_where(newest.drop_columns("raw"), is_known_V)
    first_V = first_V[is_known_V]
    place_K = np.unique(np.concatenate([place_V[is_known_V], truths.place_T]))
    item_V: Counts = np.searchsorted(place_K, place_V[is_known_V])
    facts = {"first": first_V, "newest": ingest_numbers(newest), "item": item_V}
    answers = newest.select(["vendor", "annotator"])
    for name, column in facts.items():
        answers = answers.append_column(name, pa.array(column))
    newest, is_own_V = _of_question(newest, task)
    newest, item_V = rows_where(newest, is_own_V), item_V[is_own_V]
    is_last_V = np.zeros(len(newest), bool)
    is_last_V[rows_of_people(newest)] = True
    # The places say which images they are of.
    return rows_where(newest.drop_columns("item_id"), is_last_V), item_V[is_last_V], answers, place_K


def _of_question(votes: pa.Table, task: str) -> tuple[pa.Table, NDArray[np.bool_]]:
    """The votes, with values as answers to this question, and whether each is one (V,): an earlier question may have
    been of another kind."""
    place, column = votes.schema.get_field_index("value"), votes["value"].combine_chunks().dictionary_encode()
    values = [_as_answer(value, task) for value in column.dictionary.to_pylist()]
    if values == column.dictionary.to_pylist():
        return votes, np.ones(len(votes), bool)
    told = pa.array(values, pa.string()).take(column.indices)
    is_own = pc.or_(votes["skipped"], pa.chunked_array([told.is_valid()])).to_numpy()
    return votes.set_column(place, votes.schema.field("value"), told), is_own


def _as_answer(value: str, task: str) -> str | None:
    """A vote's value as an answer to a question of this kind; None where it is none."""
    try:
        parts = json.loads(value)
    except ValueError:
        parts = None
    names = isinstance(parts, list) and all(isinstance(part, str) for part in parts)
    shapes = isinstance(parts, list) and any(isinstance(part, dict) for part in parts)
    if task == "class":
        return parts[0] if names and len(parts) == 1 else None if names or shapes else value
    if task == "classes":
        return value if names else None if shapes else label_text([value])
    return value if shapes or parts == [] else None


Decided = tuple[pa.Array, NDArray[np.float64], NDArray[np.float64]]
"""The labels (U,), their probabilities (U,), and the accuracies of the annotators (A,)."""


def _annotators(votes: pa.Table) -> tuple[pa.Table, Counts]:
    """The annotators of the votes, and the place of each vote's (V,). A vendor's final answers are one annotator's."""
    vendor_V = codes_of(votes["vendor"])
    pair_V = codes_of(votes["annotator"]) * (int(vendor_V.max(initial=0)) + 1) + vendor_V
    annotator_V = codes_of(pa.chunked_array([pa.array(pair_V)]))
    _, first = np.unique(annotator_V, return_index=True)
    named = votes.select(["annotator", "vendor"]).take(pa.array(first, pa.int64()))
    # In an order that does not depend on that of the votes: nor do sums over annotators then, in the last digit.
    order = pc.sort_indices(named, sort_keys=[("vendor", "ascending"), ("annotator", "ascending")])
    place_A = np.empty(len(order), np.int64)
    place_A[order.to_numpy()] = np.arange(len(order))
    return named.take(order), place_A[annotator_V]


def _one_class(
    votes: pa.Table, item_V: Counts, annotator_V: Counts, truths: pa.Array, num_annotators: int, method: str
) -> Decided:
    values = pa.concat_arrays([votes["value"].combine_chunks(), truths])
    classes = pc.unique(values.drop_null()).sort()
    if not len(classes):
        none_U = np.full(len(truths), np.nan)
        return pa.nulls(len(truths), pa.string()), none_U, np.full(num_annotators, np.nan)
    class_V = pc.index_in(votes["value"], value_set=classes).to_numpy().astype(np.int64)
    truth_U = pc.fill_null(pc.index_in(truths, value_set=classes), -1).to_numpy().astype(np.int64)
    function = pkgutil.resolve_name(CONSENSUS[method].function)
    found: Consensus = function(Votes(item_V, annotator_V, class_V, truth_U, num_annotators, len(classes)))
    best = pa.array(np.maximum(found.class_N, 0), mask=found.class_N < 0)
    return classes.take(best), found.probability_N, found.accuracy_A


def _several_classes(
    votes: pa.Table, item_V: Counts, _: Counts, truths: pa.Array, num_annotators: int, __: str
) -> Decided:
    """Each class is decided by the majority. The probability is that of the least certain class."""
    said: dict[int, list[set[str]]] = {}
    for item, value in zip(item_V.tolist(), votes["value"].to_pylist(), strict=True):
        said.setdefault(item, []).append(set(json.loads(value)))
    labels: list[str | None] = [None] * len(truths)
    posterior_U = np.full(len(truths), np.nan)
    for item, sets in said.items():
        shares = {name: sum(name in found for found in sets) / len(sets) for name in set[str]().union(*sets)}
        labels[item] = json.dumps(sorted(name for name, share in shares.items() if share > TIE), ensure_ascii=False)
        posterior_U[item] = min((max(share, 1 - share) for share in shares.values()), default=1.0)
    return pa.array(labels, pa.string()), posterior_U, np.full(num_annotators, np.nan)


def _newest_value(
    votes: pa.Table, item_V: Counts, _: Counts, truths: pa.Array, num_annotators: int, __: str
) -> Decided:
    """Shapes have no consensus: the newest answer counts, by its time, else by its ingest. It is certain."""
    order = np.lexsort((np.arange(len(votes)), votes["ingest"].to_numpy(), times_of(votes)))
    last = dict(zip(item_V[order].tolist(), votes["value"].take(pa.array(order)).to_pylist(), strict=True))
    labels = pa.array([last.get(item) for item in range(len(truths))], pa.string())
    return labels, np.where(labels.is_valid(), 1.0, np.nan), np.full(num_annotators, np.nan)


def _gold(
    votes: pa.Table, item_V: Counts, annotator_V: Counts, truths: pa.Array, num_annotators: int
) -> tuple[Counts, Counts]:
    """How many gold images each annotator answered as is known, and how many it answered at all."""
    known = truths.take(pa.array(item_V))
    is_right = pc.fill_null(pc.equal(known, votes["value"].combine_chunks()), fill_value=False)
    is_gold = known.is_valid().to_numpy(zero_copy_only=False)
    counted = (annotator_V[mask] for mask in (is_gold & is_right.to_numpy(zero_copy_only=False), is_gold))
    right_A, seen_A = (np.bincount(places, minlength=num_annotators) for places in counted)
    return right_A, seen_A


def label_text(value: str | Iterable[object]) -> str:
    """A value as it is kept in votes and labels: a class as it is, several classes or shapes as JSON."""
    return value if isinstance(value, str) else json.dumps(list(value), ensure_ascii=False, sort_keys=True)
