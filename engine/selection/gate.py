"""The gate of a selection: do the labels lack parts of the pool, and what is done in either case."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from engine.campaign.folder import Campaign
from engine.campaign.manifests import BY_SCORE, BY_WORD, Gate, TrainManifest
from engine.config.select_options import RULE
from engine.errors import NotAcceptableError
from engine.models.diagnosis import interval_of
from engine.selection.collecting import Collected
from engine.tables.selections import CLUSTERS_SCHEMA
from vaal.completion import LEAST_CLUSTERS, cluster_order, mean_weights
from vaal.deficit import Deficit, deficit_of

if TYPE_CHECKING:
    from vaal.centres import Centres


class Verdict(NamedTuple):
    """Whether there is something to complete, `by` which test or word, and the deficit of the labels, None where the
    scores have no clusters."""

    speaks: bool
    by: str
    deficit: Deficit | None

    def entry(self) -> Gate:
        """The verdict for the manifest."""
        found = self.deficit
        return Gate(
            speaks=self.speaks,
            by=self.by,
            value=found and found.value,
            by_chance=found and found.by_chance,
            p=found and found.p,
            lacking=found and max(0.0, found.excess),
            clusters=found.num_clusters if found else 0,
        )


def deficit_in(collected: Collected, centres: "Centres | None", seed: int) -> Deficit | None:
    """The deficit of the labels; None where the scores have no clusters, or there are no labels."""
    if centres is None or not collected.labelled_C.any():
        return None
    with threadpool_limits(1):
        return deficit_of(collected.coverage, centres.centre_CZ.numpy(), seed)


def judge(campaign: Campaign, trained: TrainManifest, deficit: Deficit | None = None) -> Verdict:
    """The verdict of the gate.

    Where another score than VAAL's ranks, no test decides, and the deficit is for the report alone. The user's word
    (`labels.are_biased`) counts more than any test. The rule of completion asks the deficit; where there are no
    clusters, and for all other methods, the AUC decides.
    """
    config = campaign.config
    if config.select.acquisition != "vaal":
        return Verdict(True, BY_SCORE, deficit)
    if config.labels.are_biased != "auto":
        return Verdict(config.labels.are_biased == "yes", BY_WORD, deficit)
    if deficit is not None and config.diversity == RULE:
        return Verdict(deficit.speaks, "deficit", deficit)
    return Verdict(trained["signal"] == "present", "auc", deficit)


def require_signal(campaign: Campaign, verdict: Verdict, trained: TrainManifest) -> None:
    """Raises NotAcceptableError if there is no signal, and select.when_no_signal is refuse."""
    if verdict.speaks or campaign.config.select.when_no_signal != "refuse":
        return
    what = "look like the rest" if verdict.by == "auc" else f"lack no part of the pool, by {verdict.by}"
    raise NotAcceptableError(
        f"{campaign.stage('train')}: no signal, {interval_of(trained)}: the labelled images {what}; label other "
        "images, or pick without a signal: --set select.when_no_signal=uncertainty"
    )


def branch_name(campaign: Campaign, verdict: Verdict, collected: Collected, *, has_margin: bool) -> str:
    """The row of `vaal.diversity.BRANCHES` that picks, or the diversity method."""
    options, diversity = campaign.config.select, campaign.config.diversity
    if not verdict.speaks and options.when_no_signal == "uncertainty":
        return "uncertainty_sampling" if has_margin else "as_random"
    if not verdict.speaks:
        return {"diversity": "spread"}.get(options.when_no_signal, options.when_no_signal)
    if diversity != RULE:
        return diversity
    num_clusters = int(np.count_nonzero(collected.count_C))
    return "cluster_completion" if num_clusters > LEAST_CLUSTERS * options.budget else "weight_completion"


def said(campaign: Campaign, verdict: Verdict, trained: TrainManifest, name: str) -> str:
    """What the gate found and what is done, in a line."""
    options, words = campaign.config.select, in_words(verdict.entry())
    if verdict.by == BY_SCORE:
        method, score = name.replace("_", " "), options.acquisition.replace("_", " ")
        how = f"by {score}" + ("" if name == "none" else f", {method}")
        if score == "random":
            how = "at random" if name == "none" else f"from a random sample by {method}"
        return "; ".join(filter(None, [f"images are picked {how}", words]))
    diversity = campaign.config.diversity
    found = words
    if verdict.by == "auc":
        found = f"{'signal present' if verdict.speaks else 'no signal'}, {interval_of(trained)}"
    if verdict.speaks:
        how = "the lowest logits" if name == "none" else name.replace("_", " ")
        return f"{found}: images are picked by {how}"
    how = f"select.when_no_signal={options.when_no_signal} picks"
    if name == "as_random":
        how += " as random, because no task learner says what it is unsure of"
    is_left_out = diversity not in (RULE, "none")
    rest = f", and select.diversity={diversity} is not applied" if is_left_out else ""
    if verdict.by == "deficit":
        found = f"the labels lack no part of the pool for certain, {found}"
    return f"{found}: {how}{rest}"


def in_words(entry: Gate | None) -> str:
    """What the gate found of the labels, or what the user says of them, for a person; "" where neither is known.
    `entry` as in the manifest."""
    if not entry:
        return ""
    numbers = ""
    if None not in (entry["value"], entry["by_chance"], entry["p"], entry["lacking"]):
        numbers = f"deficit {entry['value']:.0%}, {entry['by_chance']:.0%} by chance, p {entry['p']:.2g}"
    if entry["by"] == BY_WORD:
        word = f"{BY_WORD}={'yes' if entry['speaks'] else 'no'}"
        return f"{word} ({f'not asked: {numbers}' if numbers else 'no deficit was measured'})"
    return f"{entry['lacking']:.0%} of the pool lacks labels ({numbers})" if numbers else ""


def clusters_table(collected: Collected, picks: pa.Table, examples: pa.Table) -> pa.Table:
    """CLUSTERS_SCHEMA. `picks` are those of the selection, `examples` the nearest items of the first clusters, in their
    order."""
    picks_C = np.bincount(picks["cluster"].drop_null().to_numpy(), minlength=len(collected.sum_C))
    coverage, order = collected.coverage, cluster_order(collected.sum_C, collected.count_C)
    order = np.concatenate([order, np.setdiff1d(np.arange(len(collected.sum_C)), order)])
    nulls = len(order) - len(examples)
    columns = {
        "cluster": order,
        "pool": (coverage.unlabelled_C + coverage.drawn_C + coverage.filled_C)[order],
        "labels": collected.labelled_C[order],
        "drawn": coverage.drawn_C[order],
        "filled": coverage.filled_C[order],
        "picks": picks_C[order],
        "mean_weight": mean_weights(collected.sum_C, collected.count_C)[order],
        **{
            field.name: pa.concat_arrays([*examples[field.name].cast(field.type).chunks, pa.nulls(nulls, field.type)])
            for field in list(CLUSTERS_SCHEMA)[7:]
        },
    }
    return pa.table(columns, schema=CLUSTERS_SCHEMA)
