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
from engine.campaign.labels import Snapshot, identities
from engine.campaign.manifests import TrainManifest, read_manifest
from engine.campaign.origins import picks_of_round
from engine.cluster.allocation import give_back_freed_memory
from engine.models.predictions import GONE, predictions, predictions_of_picks
from engine.tables.columns import rows_where
from engine.tables.dictionaries import coded
from engine.tables.item_keys import ItemIndex, ItemKeys, items_of
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
LABEL_COLUMNS = ["shard", "key", "label", "round"]
"""The columns of labels that gains follow from."""
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
    """A round: how often each label of its picks is in each arm; how many picks its control arm has, and which of them
    have no label; and what the task learner knew of those with one, or in `no_known` why that is not there, for a
    person."""

    round: int
    labels: Mapping[str, Counter[str]]
    num_control: int
    lacking: ItemKeys
    known: Known | None
    no_known: str

    @property
    def has_labels(self) -> bool:
        """Whether any pick has a label."""
        return any(self.labels.values())

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
    labels, found = snapshot.labels, list[Gain]()
    file_N = first_files(snapshot, labels)
    for number in sorted(numbers):
        is_own = pc.fill_null(pc.equal(labels["round"], number), fill_value=False)
        own = rows_where(labels.select(["shard", "key", "label"]), is_own.to_numpy())
        files = _Files(list(snapshot.tables), file_N[is_own.to_numpy()])
        found.append(_gain_of(replace(campaign, round=number), own, files, kept_only=kept_only))
    return found


def first_files(snapshot: Snapshot, labels: pa.Table) -> NDArray[np.int32]:
    """The number of the file in which each labelled item had its first label (N,); `labels` are `snapshot.labels`."""
    tables = list(enumerate(snapshot.tables.values()))
    if len(labels) == sum(len(table) for _, table in tables):
        # Every item has one row.
        return np.repeat(np.arange(len(tables), dtype=np.int32), [len(table) for _, table in tables])
    index, found_N = ItemIndex(ItemKeys.of(labels)), np.full(len(labels), -1, np.int32)
    # The oldest comes last, and stays.
    for number, table in tables[::-1]:
        rows = index.rows_of(ItemKeys.of(table.filter(table["label"].is_valid())))
        found_N[rows[rows >= 0]] = number
    return found_N


class _Files(NamedTuple):
    """The names of the label files, and the number of that in which each of L items had its first label (L,)."""

    names: list[str]
    number_L: NDArray[np.int32]

    def are_among(self, inputs: Mapping[str, str]) -> NDArray[np.bool_]:
        """Which items had theirs in one of these files (L,)."""
        are_known: NDArray[np.bool_] = np.array([name in inputs for name in self.names], bool)[self.number_L]
        return are_known


class _Own(NamedTuple):
    """The L labelled picks of a round: shard and key, V different labels, the number of each one's (L,), which are in
    the control arm (L,), and the files of the first labels."""

    items: pa.Table
    values: list[str]
    value_L: NDArray[np.int32]
    control_L: NDArray[np.bool_]
    files: _Files

    def of_arm(self, arm: str) -> NDArray[np.bool_]:
        """Which are in an arm (L,)."""
        return self.control_L if arm == CONTROL else ~self.control_L


def _gain_of(campaign: Campaign, labels: pa.Table, files: _Files, *, kept_only: bool) -> Gain:
    """`labels` are those of items that were labelled in the campaign's round, and `files` those of their first ones."""
    picks = picks_of_round(campaign.home, campaign.round)
    is_pick, is_control, has_label = picks.among(labels)
    control = picks.control
    del picks
    give_back_freed_memory()
    # Another program may give labels of a round to images that were not picked: these belong to no arm.
    labels = rows_where(labels, is_pick)
    files = files._replace(number_L=files.number_L[is_pick])
    own = _Own(labels.select(["shard", "key"]), *coded(labels["label"]), is_control[is_pick], files)
    size = len(own.values)
    counts = {arm: np.bincount(own.value_L[own.of_arm(arm)], minlength=size).tolist() for arm in (QUERY, CONTROL)}
    found = {arm: Counter({name: n for name, n in zip(own.values, counts[arm], strict=True) if n}) for arm in counts}
    known, no_known = _known_of(campaign, own, kept_only=kept_only) if len(own.value_L) else (None, "")
    return Gain(campaign.round, found, len(control), control.part(~has_label), known, no_known)


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


def _known_of(campaign: Campaign, own: _Own, *, kept_only: bool) -> tuple[Known | None, str]:
    """What the task learner of the round knew; or None, and why. Of several labels an image, it is right if the one
    that it finds most likely is among them: scores keep no more. An image with none of them is not judged."""
    if not is_complete(campaign.stage("train")):
        return None, GONE
    trained = read_manifest(campaign, "train", TrainManifest)
    classes = trained.get("task", {}).get("classes")
    if not classes:
        return None, _NO_TASK
    names = [names_in(value, campaign.config.handoff.question.task) for value in own.values]
    # What was trained on is not judged.
    judged_L = np.array([bool(some) for some in names], bool)[own.value_L] & ~own.files.are_among(trained["inputs"])
    class_L, why = _predicted(campaign, own, judged_L, kept_only=kept_only)
    if why:
        return None, why
    is_judged_L = class_L >= 0
    pairs, pair_J = np.unique(
        own.value_L[is_judged_L].astype(np.int64) * len(classes) + class_L[is_judged_L], return_inverse=True
    )
    # A class that it never saw is a class that it did not know.
    is_right = [classes[pair % len(classes)] in names[pair // len(classes)] for pair in pairs.tolist()]
    right_J = np.array(is_right, bool)[pair_J]
    query, control = (right_J[own.of_arm(arm)[is_judged_L]].tolist() for arm in (QUERY, CONTROL))
    return known_of(query, control), ""


def _predicted(
    campaign: Campaign, own: _Own, judged_L: NDArray[np.bool_], *, kept_only: bool
) -> tuple[NDArray[np.int64], str]:
    """The class that was predicted of each of these picks (L,), -1 where that is not known or not asked; or nothing,
    and why."""
    kept, number_N = predictions_of_picks(campaign)
    row_L = ItemIndex(kept).rows_of(ItemKeys.of(own.items))
    class_L = np.full(len(row_L), -1, np.int64)
    class_L[row_L >= 0] = number_N[row_L[row_L >= 0]]
    class_L[~judged_L] = -1
    left_L, has_some = judged_L & (class_L < 0), bool((class_L >= 0).any())
    if not left_L.any():
        return class_L, ""
    # Shares of a part of the picks, such as those of the last of two batches, would be taken for all.
    if kept_only:
        return class_L, NOT_KEPT
    if not is_complete(campaign.stage("scores")):
        return class_L, "" if has_some else GONE
    arms = (left_L & own.of_arm(arm) for arm in (QUERY, CONTROL))
    chosen = np.concatenate([_some(own.items, np.flatnonzero(is_arm), campaign.round) for is_arm in arms])
    items = identities(own.items.take(pa.array(chosen)))
    more, why = predictions(campaign, items)
    class_L[chosen] = [more.get(item, -1) for item in items]
    return class_L, "" if has_some else why


def _some(items: pa.Table, rows: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """MOST_JUDGED of these rows at random, or all."""
    if len(rows) <= MOST_JUDGED:
        return rows
    texts = items_of(items.take(pa.array(rows)))
    order = pc.sort_indices(texts, [("shard", "ascending"), ("key", "ascending")]).to_numpy()
    found: NDArray[np.int64] = rows[order[np.random.default_rng([seed, 2]).permutation(len(rows))[:MOST_JUDGED]]]
    return found


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
