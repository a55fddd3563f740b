"""How far the annotators of a round agree, which classes they take for one another, and how good each of them is.

A vendor's final answers are of no annotator: they are counted, and take no part in agreement. Shapes are not compared.

Shape suffixes: V votes, P pairs of an image and a value that it was given, A annotators.
"""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from engine.campaign.outcomes import Counts, Outcomes
from engine.report.round_answers import RoundAnswers, value_text
from vaal.consensus import Votes
from vaal.consensus.agreement import agreement
from vaal.proportions import Share, wilson

RELIABLE, TENTATIVE, BY_CHANCE = 0.8, 0.667, 0.1
"""Alpha from which labels can be relied on, and from which tentative conclusions can be drawn (Krippendorff 2004); and
up to which answers are hardly better than random ones."""
MOST_VALUES, MOST_CONFUSIONS, MOST_ANNOTATORS = 24, 12, 50
"""Classes, confusions and annotators that are shown."""
DIGITS = 8
"""Of a pseudonym."""
COMPARED_TASKS = ("class", "classes")


class ValueAgreement(NamedTuple):
    """A class, how many answers are for it, and of the pairs of answers of which either is, the share of which both
    are; None where there is no pair."""

    name: str
    answers: int
    share: float | None


class Confusion(NamedTuple):
    """Two classes that were given to the same images: on how many images, and by how many pairs of answers."""

    first: str
    second: str
    images: int
    pairs: int


class Concord(NamedTuple):
    """The pairs of answers on one image, and how many are equal; Krippendorff's alpha, nan where it is not defined; all
    classes, the least agreed on first; the most frequent confusions."""

    images: int
    pairs: int
    agreeing: int
    alpha: float
    values: list[ValueAgreement]
    confusions: list[Confusion]


class Annotator(NamedTuple):
    """An annotator by the first digits of the pseudonym, empty for a vendor's final answers.

    Of the round: answers, skipped images, and the median of seconds. Of all rounds: the share that is right on gold
    images, and the accuracy as the consensus estimates it, None where there is nothing to compare the answers with.
    `is_low`: the whole interval on gold lies below that of all others together.
    """

    name: str
    vendor: str
    answers: int
    skipped: int
    seconds: float | None
    gold: Share | None
    accuracy: float | None
    is_low: bool


def concord_of(answers: RoundAnswers) -> Concord | None:
    """How far answers agree; None for shapes, and where no image has two answers."""
    votes = answers.votes
    is_compared = pc.and_(pc.is_valid(votes["value"]), pc.is_valid(votes["annotator"]))
    if answers.task not in COMPARED_TASKS or not pc.any(is_compared).as_py():
        return None
    values = votes["value"].filter(is_compared).combine_chunks()
    names = pc.unique(values).sort()
    item_V = answers.item_V[is_compared.to_numpy()]
    value_V = pc.index_in(values, value_set=names).to_numpy().astype(np.int64)
    num_items, num_values = len(answers.state_U), len(names)
    code_P, num_P = np.unique(item_V * num_values + value_V, return_counts=True)
    item_P, value_P = np.divmod(code_P, num_values)
    num_U = np.bincount(item_V, minlength=num_items)
    pairs = int((num_U * (num_U - 1) // 2).sum())
    if not pairs:
        return None
    unknown_U, nobody_V = np.full(num_items, -1), np.zeros(len(item_V), np.int64)
    found = agreement(Votes(item_V, nobody_V, value_V, unknown_U, 1, num_values))
    texts = [value_text(name, answers.task) for name in names.to_pylist()]
    return Concord(
        images=int((num_U > 1).sum()),
        pairs=pairs,
        agreeing=int((num_P * (num_P - 1) // 2).sum()),
        alpha=found.alpha,
        values=_values(texts, np.bincount(value_V, minlength=num_values), found.agreement_C),
        confusions=_confusions(texts, item_P, value_P, num_P),
    )


def _values(texts: list[str], answers: Counts, shares: NDArray[np.float64]) -> list[ValueAgreement]:
    rows = (
        ValueAgreement(text, count, None if np.isnan(share) else share)
        for text, count, share in zip(texts, answers.tolist(), shares.tolist(), strict=True)
    )
    return sorted(rows, key=lambda row: (row.share is None, row.share or 0.0, -row.answers))


def _confusions(texts: list[str], item_P: Counts, value_P: Counts, num_P: Counts) -> list[Confusion]:
    """Pairs are sorted by image and value; each meets those that follow it in its image."""
    size, found = len(texts), np.zeros((3, 0), np.int64)
    for step in range(1, len(item_P)):
        first = np.flatnonzero(item_P[step:] == item_P[:-step])
        if not len(first):
            break
        second = first + step
        met = np.stack([value_P[first] * size + value_P[second], np.ones_like(first), num_P[first] * num_P[second]])
        met = np.concatenate([found, met], axis=1)
        codes, place = np.unique(met[0], return_inverse=True)
        found = np.stack([codes, *(np.bincount(place, row).astype(np.int64) for row in met[1:])])
    order = np.lexsort((found[0], -found[2]))[:MOST_CONFUSIONS]
    return [
        Confusion(texts[code // size], texts[code % size], images, pairs)
        for code, images, pairs in found[:, order].T.tolist()
    ]


def annotators_of(answers: RoundAnswers) -> list[Annotator]:
    """Everyone who answered in the round: the flagged ones first, then by the number of answers."""
    table, votes = answers.ledger.outcomes.annotators, answers.votes
    annotator_V = pc.index_in(_keys(votes), value_set=_keys(table)).to_numpy().astype(np.int64)
    is_skipped_V, size = votes["skipped"].to_numpy(), len(table)
    skipped = np.bincount(annotator_V[is_skipped_V], minlength=size).tolist()
    given = np.bincount(annotator_V[~is_skipped_V], minlength=size).tolist()
    seconds = _medians(annotator_V, votes["seconds"], size)
    is_low, is_compared = _low(table), _compared(answers.ledger.outcomes)
    found = [
        Annotator(
            (row["annotator"] or "")[:DIGITS],
            row["vendor"],
            given[place],
            skipped[place],
            seconds[place],
            wilson(row["gold_right"], row["gold_seen"]) if row["gold_seen"] else None,
            None if np.isnan(row["accuracy"]) or not is_compared[place] else row["accuracy"],
            is_low[place],
        )
        for place, row in enumerate(table.to_pylist())
        if given[place] + skipped[place]
    ]
    return sorted(found, key=lambda row: (not row.is_low, -row.answers - row.skipped, row.name))


def _compared(outcomes: Outcomes) -> list[bool]:
    """Whether each annotator answered an image that others did, too, or whose label was known: else the accuracy that
    the consensus estimates is what it assumes of everyone."""
    annotator_V = pc.index_in(_keys(outcomes.votes), value_set=_keys(outcomes.annotators)).to_numpy()
    is_told_K = (outcomes.values_K > 1) | np.isin(outcomes.place_K, outcomes.truths.place_T)
    is_told_V = is_told_K[outcomes.numbers_of(outcomes.item_V)] & ~outcomes.votes["skipped"].to_numpy()
    found: list[bool] = (np.bincount(annotator_V[is_told_V], minlength=len(outcomes.annotators)) > 0).tolist()
    return found


def _keys(table: pa.Table) -> pa.Array:
    """The vendor and the annotator of each row as one text."""
    return pc.binary_join_element_wise(table["vendor"], pc.fill_null(table["annotator"], ""), "\0").combine_chunks()


def _medians(annotator_V: Counts, seconds: pa.ChunkedArray, size: int) -> list[float | None]:
    """The median of each annotator's seconds; None where they are not known."""
    has_V = seconds.is_valid().to_numpy()
    of, value = annotator_V[has_V], seconds.drop_null().to_numpy()
    order = np.lexsort((value, of))
    counts = np.bincount(of, minlength=size)
    starts, value = np.cumsum(counts) - counts, value[order]
    return [
        float(np.median(value[start : start + count])) if count else None
        for start, count in zip(starts.tolist(), counts.tolist(), strict=True)
    ]


def _low(table: pa.Table) -> list[bool]:
    """Whether each annotator's interval on gold lies below that of all others together."""
    is_person = pc.is_valid(table["annotator"]).to_pylist()
    right, seen = (table[name].to_pylist() for name in ("gold_right", "gold_seen"))
    people = [place for place, is_one in enumerate(is_person) if is_one]
    all_right, all_seen = (sum(counts[place] for place in people) for counts in (right, seen))
    found = [False] * len(table)
    for place in people:
        others = all_seen - seen[place]
        if seen[place] and others:
            low = wilson(all_right - right[place], others).low
            found[place] = wilson(right[place], seen[place]).high < low
    return found


def alpha_in_words(alpha: float) -> str:
    """What an alpha says."""
    if np.isnan(alpha):
        return "All answers are for one class, so chance explains their agreement."
    if alpha >= RELIABLE:
        return "Single answers can be relied on."
    if alpha >= TENTATIVE:
        return "Single answers are of use with care; labels that several people agree on are better than that."
    if alpha > BY_CHANCE:
        return "Single answers cannot be relied on: look at the question, its instructions, and the annotators."
    return "The answers agree hardly more than random ones: look at the question and its instructions first."
