"""What the picks of a rule gained over those of the control arm: earlier rounds, whose labels are back.

Two questions. *Did the task learner know it already?* Its predictions are those of the round's scores: made before any
of these labels was known, so that nothing was trained on them. The less it knows the picks of the rule, compared with
random ones, the more these had to teach. *Do the labels differ?* This can be asked of any labels that repeat.

Shape suffixes: K classes, R random divisions, 2 arms (query, control).
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from engine.campaign.classes import names_in
from engine.campaign.folder import Campaign, is_complete
from engine.campaign.labels import Identity, Snapshot, identities
from engine.campaign.manifests import TrainManifest, read_manifest
from engine.campaign.origins import picked_origins
from engine.models.predictions import GONE, predictions, predictions_of_picks
from engine.tables.item_keys import ItemIndex, ItemKeys, rows_of_items
from engine.tables.selections import ORIGIN_CONTROL
from vaal.proportions import Share, difference, wilson

QUERY, CONTROL = "query", "control"
MOST_JUDGED = 500
"""Labels of an arm for which predictions are looked up in the scores, at most: each may be in a file of its own."""
MOST_CLASSES = 12
"""Labels of a round that are shown."""
NUM_DIVISIONS = 1999
"""Random divisions of the labels into arms."""
HARDER = "rule’s picks harder for the task learner by"
"""What a gain is, wherever it is written: how much less often the task learner was right about the rule's picks than
about random ones, so that above 0 the rule's picks had more to teach."""
NOT_KEPT = "its selection does not have the predictions of all its picks; the report of the next round reads them"
_NO_TASK = "no classes were learned; learn them in the next round: --set train.task=classification"


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


@dataclass(frozen=True)
class Gain:
    """A round: the arm of every image that it picked, the label of each that has one, and what the task learner knew
    of these, or in `no_known` why that is not there, for a person."""

    round: int
    arms: Mapping[Identity, str]
    label: Mapping[Identity, str]
    known: Known | None
    no_known: str

    @cached_property
    def labels(self) -> Mapping[str, Counter[str]]:
        """How often each label is in an arm."""
        found: dict[str, Counter[str]] = {arm: Counter() for arm in (QUERY, CONTROL)}
        for item, label in self.label.items():
            found[self.arms[item]][label] += 1
        return found

    @property
    def variation(self) -> Variation | None:
        """How the labels of the arms differ."""
        return self._compared[0]

    @property
    def no_variation(self) -> str:
        """Why that cannot be said, for a person."""
        return self._compared[1]

    @cached_property
    def _compared(self) -> tuple[Variation | None, str]:
        return _variation_of(self.labels, self.round)

    def shares(self, arm: str, names: list[str]) -> list[float]:
        """What share of an arm's labels each of these is."""
        return [self.labels[arm][name] / max(1, self.labels[arm].total()) for name in names]


def gains_of(campaign: Campaign, snapshot: Snapshot, numbers: Iterable[int], *, kept_only: bool = False) -> list[Gain]:
    """These rounds of the campaign, oldest first. `snapshot`: the labels.

    `kept_only`: the scores are not read. What the task learner predicted of picks is in the selection, unless an
    earlier version picked them.

    Raises InputError if a scores file or a selection is not the committed one. Scores that are gone are reported in
    words.
    """
    labels, first, found = snapshot.labels, FirstFiles(snapshot), list[Gain]()
    for number in sorted(numbers):
        own = labels.filter(pc.fill_null(pc.equal(labels["round"], number), fill_value=False))
        label = dict(zip(identities(own), own["label"].to_pylist(), strict=True))
        found.append(_gain_of(replace(campaign, round=number), first, label, kept_only=kept_only))
    return found


class FirstFiles:
    """In which file each item had its first label: `names` of the files, and the numbers of these by the keys of
    items."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.names = list(snapshot.tables)
        # The index finds the last row of an item, so the oldest comes last.
        files = [(number, snapshot.tables[name]) for number, name in enumerate(self.names)][::-1]
        given = [(number, table.filter(table["label"].is_valid())) for number, table in files]
        keys = [ItemKeys.of(table) for _, table in given] or [ItemKeys.of_items([])]
        lanes = (np.concatenate([getattr(key, lane) for key in keys]) for lane in ("high_N", "low_N"))
        self._index = ItemIndex(ItemKeys(*lanes))
        self._file_N = np.repeat([number for number, _ in given], [len(table) for _, table in given])

    def of(self, items: pa.Table) -> NDArray[np.int64]:
        """The number of each labelled item's file (N,)."""
        found: NDArray[np.int64] = self._file_N[self._index.rows_of(ItemKeys.of(items))]
        return found


def _gain_of(campaign: Campaign, first: FirstFiles, label: dict[Identity, str], *, kept_only: bool) -> Gain:
    """`label`: that of each item that was labelled in the campaign's round."""
    origins = picked_origins(campaign.home, [campaign.round])
    arms = {item: CONTROL if origin == ORIGIN_CONTROL else QUERY for item, origin in origins.items()}
    # Another program may give labels of a round to images that were not picked: these belong to no arm.
    label = {item: value for item, value in label.items() if item in arms}
    known, no_known = _known_of(campaign, first, label, arms, kept_only=kept_only) if label else (None, "")
    return Gain(campaign.round, arms, label, known, no_known)


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


def _known_of(
    campaign: Campaign, first: FirstFiles, label: dict[Identity, str], arms: dict[Identity, str], *,
    kept_only: bool,
) -> tuple[Known | None, str]:  # fmt: skip
    """What the task learner of the round knew; or None, and why. Of several labels an image, it is right if the one
    that it finds most likely is among them: scores keep no more. An image with none of them is not judged."""
    if not is_complete(campaign.stage("train")):
        return None, GONE
    trained = read_manifest(campaign, "train", TrainManifest)
    classes = trained.get("task", {}).get("classes")
    if not classes:
        return None, _NO_TASK
    names = {item: names_in(value, campaign.config.handoff.question.task) for item, value in label.items()}
    # What was trained on is not judged.
    file_N = first.of(rows_of_items(names)).tolist()
    known = {number for number, name in enumerate(first.names) if name in trained["inputs"]}
    judged = [item for item, number in zip(names, file_N, strict=True) if names[item] and number not in known]
    predicted, why = _predicted(campaign, judged, arms, kept_only=kept_only)
    if why:
        return None, why
    right: dict[str, list[bool]] = {QUERY: [], CONTROL: []}
    for item, number in predicted.items():
        # A class that it never saw is a class that it did not know.
        right[arms[item]].append(classes[number] in names[item])
    return known_of(right[QUERY], right[CONTROL]), ""


def _predicted(
    campaign: Campaign, items: list[Identity], arms: dict[Identity, str], *, kept_only: bool
) -> tuple[dict[Identity, int], str]:
    """The class that was predicted of each of these picks, where that is known; or nothing, and why."""
    kept = predictions_of_picks(campaign)
    found = {item: kept[item] for item in items if item in kept}
    left = [item for item in items if item not in kept]
    if not left:
        return found, ""
    # Shares of a part of the picks, such as those of the last of two batches, would be taken for all.
    if kept_only:
        return {}, NOT_KEPT
    if not is_complete(campaign.stage("scores")):
        return found, "" if found else GONE
    chosen = [item for arm in (QUERY, CONTROL) for item in _some([i for i in left if arms[i] == arm], campaign.round)]
    more, why = predictions(campaign, chosen)
    return found | more, "" if found else why


def _some(items: list[Identity], seed: int) -> list[Identity]:
    """MOST_JUDGED of these items at random, or all."""
    if len(items) <= MOST_JUDGED:
        return items
    ordered = sorted(items)
    return [ordered[place] for place in np.random.default_rng([seed, 2]).permutation(len(items))[:MOST_JUDGED]]


def known_of(query: list[bool], control: list[bool]) -> Known:
    """Shares of what is right in each arm, with Wilson's intervals, and their difference, control less query, with
    Newcombe's."""
    of_query, of_control = (wilson(sum(right), len(right)) if right else None for right in (query, control))
    if of_query is None or of_control is None:
        return Known(of_query, of_control, None)
    return Known(of_query, of_control, difference(of_control, of_query))


def class_counts(gain: Gain) -> list[tuple[str, int, int]]:
    """The most frequent labels of a round, MOST_CLASSES of them: each with how many the query and the control have."""
    query, control = gain.labels[QUERY], gain.labels[CONTROL]
    names = sorted(query | control, key=lambda name: (-query[name] - control[name], name))
    return [(name, query[name], control[name]) for name in names[:MOST_CLASSES]]
