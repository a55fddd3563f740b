"""What the control arm shows of the pool: the only labels that are an unbiased sample of it.

The control arm of a round is a uniform sample of what was unlabelled then. The task learner of that round predicted it
before it was labelled, so its accuracy on it is that on the unlabelled pool. What share of the pool a class has follows
from all control arms together and from what was labelled before each. Images of which no label came are left out, and
counted: if they differ from the others, so does the pool. Where the control arm was stratified, the intervals are wider
than they need be.

Shape suffixes: R rounds, V different labels.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.campaign.classes import names_in
from engine.campaign.folder import Campaign, is_complete
from engine.campaign.labels import Snapshot
from engine.campaign.ledger import SETTLED, STATES, Ledger
from engine.campaign.manifests import SelectionManifest, TrainManifest, read_manifest
from engine.report.arms import CONTROL, MOST_CLASSES, Gain, first_files
from engine.report.estimates import Samples
from engine.report.forecast import Forecast, Round, forecast, forecast_text
from engine.tables.dictionaries import coded
from engine.tables.item_keys import ItemKeys
from vaal.proportions import Share, few_text

WORTH_MORE = "Worth buying more?"
NOT_SENT = "not sent"
MASKS = (
    "control picks tell nothing of the pool here: labels are masks, "
    "of which neither accuracy nor shares of classes are estimated"
)


class ControlRound(NamedTuple):
    """A round: how many labels its task learner learned from, None where there was none; how many picks its control arm
    has; what became of those without a label, by state; and its `gain`, which has the accuracies of both arms."""

    round: int
    learned: int | None
    picked: int
    missing: Mapping[str, int]
    gain: Gain

    @property
    def labelled(self) -> int:
        return self.gain.labels[CONTROL].total()


class ClassShare(NamedTuple):
    """The share of the pool's images that have this label."""

    name: str
    share: Share


class ControlArm(NamedTuple):
    """All rounds with a control arm, oldest first; the shares of the labels, the most frequent first; the forecast; and
    where there is nothing to show, `why`."""

    rounds: list[ControlRound]
    classes: list[ClassShare]
    forecast: Forecast | None
    why: str

    @property
    def labelled(self) -> int:
        return sum(one.labelled for one in self.rounds)

    @property
    def shown_classes(self) -> list[ClassShare]:
        """The most frequent classes, MOST_CLASSES of them."""
        return self.classes[:MOST_CLASSES]

    @property
    def next_batch(self) -> str:
        """The forecast as a sentence; empty without one."""
        return forecast_text(self.forecast) if self.forecast else ""

    @property
    def few(self) -> str:
        """That the newest round with control labels, or else with control picks, has too few to say much; "" where it
        has enough."""
        if not (rounds := [one for one in self.rounds if one.labelled] or self.rounds):
            return ""
        one = rounds[-1]
        known = one.gain.known.control if one.gain.known else None
        many = (known.total, "judged control label") if known else (one.labelled, "control label")
        text = few_text(*many) if one.labelled else few_text(one.picked, "control pick")
        return f"round {one.round:03d}: {text}" if text else ""


class _Given(NamedTuple):
    """The labels that count: V different ones, the number (N,) of each item's, and the number (N,) of the file in which
    the item had its first."""

    values: list[str]
    value_N: NDArray[np.int32]
    file_N: NDArray[np.int32]
    files: list[str]

    def before(self, manifest_inputs: Mapping[str, str]) -> Counter[str]:
        """How often each label is among those of the files that a stage knew."""
        known = [number for number, name in enumerate(self.files) if name in manifest_inputs]
        counts = np.bincount(self.value_N[np.isin(self.file_N, known)], minlength=len(self.values))
        return Counter(dict(zip(self.values, counts.tolist(), strict=True)))


def control_arm(campaign: Campaign, snapshot: Snapshot, gains: list[Gain], ledger: Ledger | None = None) -> ControlArm:
    """What the control arms of the rounds of `gains` show. `snapshot`: the labels; `ledger`: where it is to be counted
    what became of picks without a label. Raises InputError if a selection is not the committed one."""
    if campaign.config.handoff.question.task == "mask":
        return ControlArm([], [], None, MASKS)
    rounds = [one for gain in gains if (one := _round_of(replace(campaign, round=gain.round), gain, ledger)).picked]
    given, more = _given(snapshot), campaign.config.select.budget
    used = [Round(one.learned, *_right(one.gain)) for one in rounds if one.learned]
    expected = forecast(used, len(given.value_N), more) if more and rounds else None
    if not any(one.labelled for one in rounds):
        return ControlArm(rounds, [], expected, _why_none(campaign, rounds))
    return ControlArm(rounds, _classes(campaign, rounds, given), expected, "")


def _why_none(campaign: Campaign, rounds: list[ControlRound]) -> str:
    if picked := sum(one.picked for one in rounds):
        return f"none of the {picked:,} control picks has a label yet"
    what = "there is no control arm (select.control_fraction=0)" if not campaign.config.select.control_fraction else ""
    shows = "how often the task learner is right on the pool, the classes of the pool, and what the next labels gain"
    return f"{what}; with one, its labels show {shows}: --set select.control_fraction=0.05" if what else ""


def _states_of(items: ItemKeys, ledger: Ledger | None) -> Counter[str]:
    """How many of these picks without a label are in each state."""
    if ledger is None:
        return Counter({NOT_SENT: len(items)} if len(items) else {})
    place_N, sent_U = ledger.items.picks_of(items), ledger.outcomes.num_votes > 0
    sent_U[ledger.item_R] = True
    sent_U &= ledger.state_U != SETTLED
    is_left_N = place_N >= 0
    is_left_N[is_left_N] = sent_U[place_N[is_left_N]]
    counts = np.bincount(ledger.state_U[place_N[is_left_N]], minlength=len(STATES)).tolist()
    found = {**dict(zip(STATES, counts, strict=True)), NOT_SENT: int((~is_left_N).sum())}
    return Counter({state: count for state, count in found.items() if count})


def _round_of(campaign: Campaign, gain: Gain, ledger: Ledger | None) -> ControlRound:
    missing = _states_of(gain.lacking, ledger)
    learned = None
    if is_complete(campaign.stage("train")):
        trained = read_manifest(campaign, "train", TrainManifest)
        learned = trained["counts"].get("labelled") if trained.get("task") else None
    return ControlRound(campaign.round, learned, gain.num_control, missing, gain)


def _right(gain: Gain) -> tuple[int, int]:
    """Of how many control labels the task learner was right, and of how many it was judged."""
    share = gain.known.control if gain.known else None
    return (round(share.value * share.total), share.total) if share else (0, 0)


def _given(snapshot: Snapshot) -> _Given:
    labels = snapshot.labels
    return _Given(*coded(labels["label"]), first_files(snapshot, labels), list(snapshot.tables))


def _classes(campaign: Campaign, rounds: list[ControlRound], given: _Given) -> list[ClassShare]:
    """The shares of all classes that have a label, or that a question or an option names."""
    task, found = campaign.config.handoff.question.task, []
    sizes, unknown, known_by_round = list[int](), list[float](), list[Counter[str]]()
    for one in rounds:
        of_round = replace(campaign, round=one.round)
        if not one.labelled or not is_complete(of_round.stage("selection")):
            continue
        selection = read_manifest(of_round, "selection", SelectionManifest)
        before, eligible = given.before(selection["inputs"]), selection["counts"]["eligible"]
        whole = before.total() + eligible
        found.append(_by_name(one.gain.labels[CONTROL], task))
        sizes.append(one.labelled)
        unknown.append(eligible / whole)
        known_by_round.append(Counter({name: n / whole for name, n in _by_name(before, task).items()}))
    if not found:
        return []
    samples = Samples(np.array(sizes, np.float64), np.array(unknown))
    names = sorted({name for counts in (*found, *known_by_round) for name in counts} | {*campaign.config.named_classes})
    shares = [
        ClassShare(name, samples.share(_column(known_by_round, name), _column(found, name), len(names)))
        for name in names
    ]
    return sorted(shares, key=lambda one: (-one.share.value, one.name))


def _column(counts: list[Counter[str]], name: str) -> NDArray[np.float64]:
    return np.array([count[name] for count in counts], np.float64)


def _by_name(labels: Mapping[str, int], task: str) -> Counter[str]:
    """In how many of these labels each class is."""
    found: Counter[str] = Counter()
    for label, count in labels.items():
        found.update(dict.fromkeys(names_in(label, task), count))
    return found
