"""The round in numbers: what the page's header and tables hold, and the settings that decide the result."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import pyarrow as pa

from engine.campaign.manifests import ScoresManifest, SelectionManifest, TrainManifest
from engine.config.options import CampaignConfig, result_values
from engine.tables.selections import KINDS

WEAK, STRONG = 0.7, 0.9
"""A signal is weak below the first AUC, and strong from the second on (Swets, Science 240, 1988)."""
Row = dict[str, Any]


class Manifests(NamedTuple):
    """The manifests that a report is made of."""

    train: TrainManifest
    scores: ScoresManifest
    selection: SelectionManifest


def headline(manifests: Manifests, num_labelled: int) -> Row:
    """The numbers at the top of the page by what they count."""
    train, scores, selection = manifests
    cut = selection["highest_picked_logit"]
    found = {
        "images in the pool": scores["counts"]["listed"],
        "images labelled": num_labelled,
        "images scored": scores["counts"]["scored"],
        "images not scored (quarantined)": scores["counts"]["quarantined"],
        "images picked": selection["counts"]["picked"],
        f"signal ({strength(train)}, AUC {train['diagnosis']['auc']:.2f} of 1)": train["signal"],
    }
    return found if cut is None else found | {"highest score picked (logit)": logit_text(cut)}


def strength(train: TrainManifest) -> str:
    """How strong the signal is, in words."""
    auc = train["diagnosis"]["auc"]
    if train["signal"] == "none":
        return "not beyond chance"
    return "weak" if auc < WEAK else "moderate" if auc < STRONG else "strong"


def signal_facts(train: TrainManifest) -> Row:
    """What held-out images show of the networks."""
    found = train["diagnosis"]
    facts: Row = {
        "AUC (1 is perfect, 0.5 is chance)": f"{found['auc']:.2f}",
        f"its {100 * found['confidence']:g} % confidence interval": f"{found['auc_low']:.2f} to {found['auc_high']:.2f}",
        "scores too extreme to learn from (saturated logits)": f"{100 * found['saturation']:.0f} %",
    }
    if found["latent_units"]:
        facts |= {
            "numbers of the description in use (active latent units)": f"{found['active_units']} of {found['latent_units']}",
            "error of the redrawn images (mean square, pixels from −1 to 1)": f"{found['mean_squared_error']:.3g}",
        }
    return facts


def round_facts(config: CampaignConfig, manifests: Manifests, labels: pa.Table, num_out: int) -> dict[str, Row]:
    """Counts of the round under headings. `num_out`: picked in earlier rounds and without a label."""
    rounds = labels["round"].to_pylist()
    by_round = {f"from round {number:03d}": rounds.count(number) for number in sorted({*rounds} - {None})}
    train, scores, selection = manifests
    counts = selection["counts"]
    return {
        "Labelled images": {"from the start": rounds.count(None), **by_round, "picked earlier, no label yet": num_out},
        "Images, from the pool to the batch": {
            "listed in the pool": scores["counts"]["listed"],
            "scored": counts["scored"],
            "can be picked": counts["eligible"],
            "candidates": counts["candidates"],
            "without duplicates": counts["candidates"] - sum(counts[f"duplicates_{kind}"] for kind in KINDS),
            "picked": counts["picked"],
            "by the rule (query)": counts["picked"] - counts["control"],
            "at random (control)": counts["control"],
            "picked in earlier rounds": counts["picked_before"],
        },
        "Run": {
            "shards": scores["counts"]["shards"],
            "training steps": train["counts"]["steps"],
            "training device": train["device"],
            "scoring device": scores["device"] or "scored by an earlier run",
            "seed": config.train.seed,
            "code version": ", ".join(sorted({manifest["code_version"] for manifest in manifests})),
        },
    }


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
