"""What the picks of a rule gained over those of the control arm: earlier rounds, whose labels are back.

Two questions. *Did the task learner know it already?* Its predictions are those of the round's scores: made before any
of these labels was known, so that nothing was trained on them. The less it knows the picks of the rule, compared with
random ones, the more these had to teach. *Do the labels differ?* This can be asked of any labels that repeat.

Shape suffixes: K classes, R random divisions, 2 arms (query, control).
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from engine.campaign.folder import Campaign, is_complete
from engine.campaign.labels import Identity, identities
from engine.campaign.manifests import TrainManifest, read_manifest
from engine.campaign.origins import picked_origins
from engine.models.predictions import GONE, predictions
from engine.tables.selections import ORIGIN_CONTROL

QUERY, CONTROL = "query", "control"
MOST_JUDGED = 500
"""Labels of an arm on which the task learner is judged, at most: each may be in a scores file of its own."""
MOST_CLASSES = 12
"""Labels of a round that are shown."""
NUM_DIVISIONS = 1999
"""Random divisions of the labels into arms."""
Z_95 = 1.959964
"""Of a 95 % interval."""
_NO_TASK = "no classes were learned; learn them in the next round: --set train.task=classification"


class Share(NamedTuple):
    """A share and its 95 % interval, of `total` cases."""

    value: float
    low: float
    high: float
    total: int


class Known(NamedTuple):
    """How often the task learner was right about each arm before it saw the labels, and by how much less often about
    the query's (Newcombe's interval): the gain. None where an arm has no labels."""

    query: Share | None
    control: Share | None
    gain: Share | None


class Variation(NamedTuple):
    """The total variation distance of two histograms, the mean one by chance, and the p of a permutation test."""

    value: float
    by_chance: float
    p: float


class Gain(NamedTuple):
    """A round: its labels by arm and class, how these differ, and what the task learner knew of them. Instead of what
    is not there, `no_variation` or `no_known` says why, for a person."""

    round: int
    labels: Mapping[str, Counter[str]]
    variation: Variation | None
    no_variation: str
    known: Known | None
    no_known: str

    def shares(self, arm: str, names: list[str]) -> list[float]:
        """What share of an arm's labels each of these is."""
        return [self.labels[arm][name] / max(1, self.labels[arm].total()) for name in names]


def gains_of(campaign: Campaign, labels: pa.Table) -> list[Gain]:
    """The rounds before the campaign's that have labels, oldest first. `labels`: LABELS_SCHEMA.

    Raises InputError if a scores file is not the committed one. One that is gone is reported in words.
    """
    numbers = sorted(number for number in set(labels["round"].to_pylist()) - {None} if number < campaign.round)
    found = (gain_of(replace(campaign, round=number), labels) for number in numbers)
    return [gain for gain in found if gain]


def gain_of(campaign: Campaign, labels: pa.Table) -> Gain | None:
    """What the labels of the campaign's own round show; None where it has none. Raises as `gains_of`."""
    own = labels.filter(pc.fill_null(pc.equal(labels["round"], campaign.round), fill_value=False))
    gain = _gain_of(campaign, dict(zip(identities(own), own["label"].to_pylist(), strict=True)))
    return gain if gain.labels else None


def _gain_of(campaign: Campaign, label: dict[Identity, str]) -> Gain:
    """`label`: that of each item that was labelled in the campaign's round."""
    origins = picked_origins(campaign.home, [campaign.round])
    # Another program may give labels of a round to images that were not picked: these belong to no arm.
    arms = {item: CONTROL if origins[item] == ORIGIN_CONTROL else QUERY for item in label if item in origins}
    labels: dict[str, Counter[str]] = {arm: Counter() for arm in (QUERY, CONTROL)} if arms else {}
    for item, arm in arms.items():
        labels[arm][label[item]] += 1
    variation, no_variation = _variation_of(labels, campaign.round) if arms else (None, "")
    known, no_known = _known_of(campaign, label, arms)
    return Gain(campaign.round, labels, variation, no_variation, known, no_known)


def _variation_of(labels: Mapping[str, Counter[str]], seed: int) -> tuple[Variation | None, str]:
    query, control = labels[QUERY], labels[CONTROL]
    if not control or not query:
        return None, f"there is no label of the {CONTROL if query else QUERY} arm"
    names = sorted(query.keys() | control.keys())
    if 2 * len(names) > query.total() + control.total():
        return None, "there are fewer than two labels of each kind on average"
    counts_2K = np.array([[arm[name] for name in names] for arm in (query, control)], np.int64)
    return variation_of(counts_2K, seed), ""


def variation_of(counts_2K: NDArray[np.int64], seed: int) -> Variation:
    """How two histograms differ, and whether that can be chance.

    The null distribution is that of all divisions of the labels into two arms of these sizes (multivariate
    hypergeometric); the p-value counts the one that is there, and so is never 0. Each arm has at least one label.
    """
    total_K, sizes_2 = counts_2K.sum(axis=0), counts_2K.sum(axis=1)
    rng = np.random.default_rng([seed, 1])
    second_RK = rng.multivariate_hypergeometric(total_K, int(sizes_2[1]), NUM_DIVISIONS, method="marginals")
    # Whole numbers: equal distances are equal.
    value, random_R = (
        np.abs((total_K - second) * sizes_2[1] - second * sizes_2[0]).sum(axis=-1)
        for second in (counts_2K[1], second_RK)
    )
    scale = 2.0 * sizes_2[0] * sizes_2[1]
    p = (1 + np.count_nonzero(random_R >= value)) / (1 + NUM_DIVISIONS)
    return Variation(float(value / scale), float(random_R.mean() / scale), float(p))


def _known_of(campaign: Campaign, label: dict[Identity, str], arms: dict[Identity, str]) -> tuple[Known | None, str]:
    """What the task learner of the round knew; or None, and why."""
    if not is_complete(campaign.stage("train")):
        return None, GONE
    classes = read_manifest(campaign, "train", TrainManifest).get("task", {}).get("classes")
    if not classes:
        return None, _NO_TASK
    if not is_complete(campaign.stage("scores")):
        return None, GONE
    chosen = [item for arm in (QUERY, CONTROL) for item in _some([i for i in arms if arms[i] == arm], campaign.round)]
    predicted, why = predictions(campaign, chosen)
    if why:
        return None, why
    right: dict[str, list[bool]] = {QUERY: [], CONTROL: []}
    for item in filter(predicted.__contains__, chosen):
        # A class that it never saw is a class that it did not know.
        right[arms[item]].append(classes[predicted[item]] == label[item])
    return known_of(right[QUERY], right[CONTROL]), ""


def _some(items: list[Identity], seed: int) -> list[Identity]:
    """MOST_JUDGED of these items at random, or all."""
    if len(items) <= MOST_JUDGED:
        return items
    chosen = np.random.default_rng([seed, 2]).permutation(len(items))[:MOST_JUDGED]
    return [sorted(items)[place] for place in chosen]


def known_of(query: list[bool], control: list[bool]) -> Known:
    """Shares of what is right in each arm, with Wilson's intervals, and their difference, control less query, with
    Newcombe's (Statistics in Medicine 17, 1998, method 10)."""
    of_query, of_control = (wilson(sum(right), len(right)) if right else None for right in (query, control))
    if of_query is None or of_control is None:
        return Known(of_query, of_control, None)
    value = of_control.value - of_query.value
    below = math.hypot(of_control.value - of_control.low, of_query.high - of_query.value)
    above = math.hypot(of_control.high - of_control.value, of_query.value - of_query.low)
    return Known(of_query, of_control, Share(value, value - below, value + above, len(query) + len(control)))


def wilson(hits: int, total: int) -> Share:
    """hits / total with Wilson's score interval, exact at 0 and 1 hits too. `total` is at least 1."""
    share, z2 = hits / total, Z_95**2 / total
    middle, half = share + z2 / 2, Z_95 * math.sqrt(share * (1 - share) / total + z2 / (4 * total))
    return Share(share, max(0.0, (middle - half) / (1 + z2)), min(1.0, (middle + half) / (1 + z2)), total)


def class_counts(gain: Gain) -> list[tuple[str, int, int]]:
    """The most frequent labels of a round, MOST_CLASSES of them: each with how many the query and the control have."""
    query, control = gain.labels[QUERY], gain.labels[CONTROL]
    names = sorted(query | control, key=lambda name: (-query[name] - control[name], name))
    return [(name, query[name], control[name]) for name in names[:MOST_CLASSES]]
