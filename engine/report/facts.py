"""The round in numbers: counts under headings, and the settings that decide the result."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import pyarrow as pa

from engine.config.options import CampaignConfig, result_values
from engine.selection.duplicates import KINDS
from engine.selection.select import reason_of

Row = dict[str, Any]


class Stages(NamedTuple):
    """The manifests that a report is made of."""

    train: Row
    scores: Row
    selection: Row


def facts(config: CampaignConfig, stages: Stages, labels: pa.Table, num_out: int) -> dict[str, Row]:
    """Counts of the round under headings. `num_out`: picked in earlier rounds and without a label."""
    rounds = labels["round"].to_pylist()
    by_round = {f"from round {number:03d}": rounds.count(number) for number in sorted({*rounds} - {None})}
    scores, train = stages.scores["counts"], stages.train
    versions = sorted({manifest["code_version"] for manifest in stages})
    return {
        "Pool": {
            "shards": scores["shards"],
            "images listed": scores["listed"],
            "scored": scores["scored"],
            "quarantined": scores["quarantined"],
        },
        "Labels": {"at init": rounds.count(None), **by_round, "picked earlier, no label yet": num_out},
        "Selection": _selection(stages.selection),
        "Run": {
            "training steps": train["counts"]["steps"],
            "training device": train["device"],
            "scoring device": stages.scores["device"] or "scored by an earlier run",
            "seed": config.train.seed,
            "code version": ", ".join(versions),
        },
    }


def _selection(selection: Row) -> Row:
    """From all that was scored to what was picked; of an earlier version, what it says."""
    counts = selection["counts"]
    found: Row = {"scored": counts["scored"]} if "scored" in counts else {}
    if "eligible" in counts:
        found |= {
            "can be picked": counts["eligible"],
            "candidates": counts["candidates"],
            "without duplicates": counts["candidates"] - sum(counts[f"duplicates_{kind}"] for kind in KINDS),
        }
    else:
        # An earlier version called so all that can be picked.
        found["can be picked"] = counts["candidates"]
    found["picked"] = counts["picked"]
    if "control" in counts:
        found |= {"by the query": counts["picked"] - counts["control"], "as control": counts["control"]}
    found["picked in earlier rounds"] = counts["picked_before"]
    levels = {
        "highest logit picked": selection["highest_picked_logit"],
        "highest of a candidate": selection.get("highest_candidate_logit"),
    }
    found |= {name: logit_text(level) for name, level in levels.items() if level is not None}
    return found | {"how": reason_of(selection)}


def settings(config: CampaignConfig) -> Iterator[tuple[str, str, bool]]:
    """What may change results: key, value, and whether it is not the default."""
    for name in ("image", "train", "score", "select"):
        section = getattr(config, name)
        defaults = result_values(type(section)())
        for key, value in result_values(section).items():
            yield f"{name}.{key}", f"{value:,}" if type(value) is int else str(value), value != defaults[key]


def logit_text(value: float) -> str:
    """A logit as the page writes it."""
    return f"{value:.2f}".replace("-", "−")
