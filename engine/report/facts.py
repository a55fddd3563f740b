"""The round in numbers: what the page's header and tables hold, and the settings that decide the result."""

from typing import Any, NamedTuple

import pyarrow as pa

from engine.campaign.decided import decided_by, first_ranks, highest_scores, ranks
from engine.campaign.folder import Campaign
from engine.campaign.freshness import content_of
from engine.campaign.handed_out import completed
from engine.campaign.manifests import ScoresManifest, SelectionManifest, TrainManifest, read_manifest
from engine.config.options import CampaignConfig
from engine.config.section import Section, result_values
from engine.config.select_options import SelectConfig
from engine.config.task_options import TaskConfig
from engine.config.texts import score_text
from engine.errors import InputError
from engine.models.diagnosis import lift_text, share_text
from engine.report.lacking import share_in_words
from engine.tables.rows import Row
from engine.tables.selections import HISTOGRAM_FILE, KINDS, SAMPLE_FILE
from vaal.acquisition import column_of

WEAK, STRONG = 0.7, 0.9
"""A signal is weak below the first AUC, and strong from the second on (Swets, Science 240, 1988)."""


class Manifests(NamedTuple):
    """The manifests that a report is made of, and the SHA-256 of each by the name of its stage."""

    train: TrainManifest
    scores: ScoresManifest
    selection: SelectionManifest
    inputs: dict[str, str]


def read_manifests(campaign: Campaign) -> Manifests:
    """Raises InputError when one is missing, they do not belong together, or the selection is of an earlier version."""
    folder = campaign.stage("selection")
    selection = read_manifest(campaign, "selection", SelectionManifest)
    scores = read_manifest(campaign, "scores", ScoresManifest)
    train = read_manifest(campaign, "train", TrainManifest)
    inputs = {"selection": content_of(selection), "scores": content_of(scores), "train": content_of(train)}
    if selection["inputs"].get("scores") != inputs["scores"] and not completed(campaign, "handoff"):
        raise InputError(f"{folder}: made from other scores than there are now; run: vaal select {campaign.home}")
    if not {HISTOGRAM_FILE, SAMPLE_FILE} <= selection["files"].keys():
        fix = f"this round gets no report; go on: vaal ingest {campaign.home} FILE"
        raise InputError(f"{folder}: handed out by an earlier version; {fix}")
    return Manifests(train, scores, selection, inputs)


def headline(manifests: Manifests, num_labelled: int) -> Row:
    """The numbers at the top of the page by what they count."""
    train, scores, selection, _ = manifests
    cut, _ = highest_scores(selection)
    found: Row = {
        "images in the pool": scores["counts"]["listed"],
        "images labelled": num_labelled,
        "images scored": scores["counts"]["scored"],
        "images not scored (quarantined)": scores["counts"]["quarantined"],
        "images picked": selection["counts"]["picked"],
    }
    if is_trained(train):
        other = "" if signal_matters(selection) else f"; it did not matter, {decided_in_words(selection)}"
        found[f"signal ({strength(train)}, AUC {train['diagnosis']['auc']:.2f} of 1){other}"] = train["signal"]
    if share := share_in_words(selection):
        found["of the pool lacks labels"] = share
    return found if cut is None else found | {f"highest score picked ({column_of(ranks(selection))})": score_text(cut)}


def other_scores(manifests: Manifests) -> list[str]:
    """The scores that were asked for and did not decide; one that found the candidates of a dear one did."""
    config: Any = manifests.scores["config"]
    asked, selection = config.get("score", {}).get("acquisition", []), manifests.selection
    by = decided_by(selection)
    decided = {by, first_ranks(selection)} if by == ranks(selection) else {by}
    return [name.replace("_", " ") for name in asked if name not in decided]


def decided_in_words(selection: SelectionManifest) -> str:
    """Which score decided what was picked."""
    by = decided_by(selection).replace("_", " ")
    return f"{by.upper() if by == 'vaal' else by} decided" if by else "no score decided"


def signal_matters(selection: SelectionManifest) -> bool:
    """Whether it bears on what was picked that VAAL tells labelled images from others: by its score, or by the gate."""
    gate = selection.get("gate")
    return decided_by(selection) == "vaal" or (gate is not None and gate["by"] == "auc")


def is_trained(train: TrainManifest) -> bool:
    """Whether VAAL was trained: without it there is no signal to speak of."""
    return train["diagnosis"].get("is_trained", True)


def strength(train: TrainManifest) -> str:
    """How strong the signal is, in words."""
    auc = train["diagnosis"]["auc"]
    if train["signal"] == "none":
        return "not above chance"
    return "weak" if auc < WEAK else "moderate" if auc < STRONG else "strong"


def lift_in_words(train: TrainManifest) -> str:
    """What the lift says, in words; empty where too few images were held out to tell it."""
    lift = train["diagnosis"].get("lift")
    if not lift:
        return ""
    where = f"Among the {share_text(lift['share'])} of images with the lowest scores, where a batch comes from,"
    if lift["low"] > 1:
        return f"{where} labelled images are {lift_text(lift)} times rarer than in the pool as a whole."
    if lift["high"] is not None and lift["high"] < 1:
        return f"{where} labelled images are no rarer than in the pool as a whole: lift {lift_text(lift)}."
    return f"{where} labelled images may be as common as in the pool as a whole: lift {lift_text(lift)}; 1 is random."


def signal_facts(train: TrainManifest) -> Row:
    """What held-out images show of the networks."""
    found = train["diagnosis"]
    facts: Row = {
        "AUC (1 is perfect, 0.5 is chance)": f"{found['auc']:.2f}",
        f"its {found['confidence']:.0%} confidence interval": f"{found['auc_low']:.2f} to {found['auc_high']:.2f}",
        "scores too extreme to learn from (saturated logits)": f"{found['saturation']:.0%}",
    }
    if lift := found.get("lift"):
        name = f"how much rarer labels are among the lowest {share_text(lift['share'])} (lift; 1 is random)"
        facts[name] = f"{lift_text(lift)} times"
    if found["latent_units"]:
        facts |= {
            "numbers of a description in use (active units)": f"{found['active_units']} of {found['latent_units']}",
            "error of redrawn images (mean square, pixels in [−1, 1])": f"{found['mean_squared_error']:.3g}",
        }
    return facts


KEPT_OUT = {
    "out_by_where": "kept out by select.where",
    "excluded": "kept out by select.exclude",
    "exclude_unmatched": "entries of select.exclude that match no scored image",
}
"""Counts of a selection's manifest, in words."""


def round_facts(config: CampaignConfig, manifests: Manifests, labels: pa.Table, num_out: int) -> dict[str, Row]:
    """Counts of the round under headings. `num_out`: picked in earlier rounds and without a label."""
    rounds = labels["round"].to_pylist()
    by_round = {f"from round {number:03d}": rounds.count(number) for number in sorted({*rounds} - {None})}
    train, scores, selection, _ = manifests
    counts = selection["counts"]
    return {
        "Labelled images": {"from the start": rounds.count(None), **by_round, "picked earlier, no label yet": num_out},
        "Images, from pool to batch": {
            "listed in the pool": scores["counts"]["listed"],
            "scored": counts["scored"],
            **{KEPT_OUT[name]: counts[name] for name in KEPT_OUT if name in counts},
            "can be picked": counts["eligible"],
            "candidates": counts["candidates"],
            "without duplicates": counts["candidates"] - sum(counts[f"duplicates_{kind}"] for kind in KINDS),
            "picked": counts["picked"],
            "by the rule (query)": counts["picked"] - counts["control"],
            "at random (control)": counts["control"],
            "picked in earlier batches": counts["picked_before"],
        },
        "Run": {
            "shards": scores["counts"]["shards"],
            **({"training steps (VAAL)": steps} if (steps := train["counts"]["steps"]) else {}),
            "training device": train["device"],
            "scoring device": scores["device"] or "scored by an earlier run",
            "seed": config.train.seed,
            "groups (pool.group)": config.pool.group or "none",
            "allowed classes (labels.classes)": _plain(config.labels.classes or "any"),
            "code version": ", ".join(sorted({manifest["code_version"] for manifest in manifests[:3]})),
        },
        **{f"Settings: {section}": _settings(getattr(config, section)) for section in _sections(config)},
        "Settings: select": _settings(_select_options(selection)),
    }


def _sections(config: CampaignConfig) -> list[str]:
    """The sections of settings that are shown, beside that of the selection."""
    return ["image", "train", *(["task"] if config.task != TaskConfig() else []), "score"]


def _select_options(selection: SelectionManifest) -> SelectConfig:
    """Those that the images were picked by: until they are handed out, others may be set for the next selection."""
    options = selection["config"]["select"]
    # An earlier version may have had other values.
    return SelectConfig.model_construct(**options)


def _settings(options: Section) -> Row:
    """What may change results. Beside a value that is not the default stands the default."""
    default, values = result_values(type(options)()), result_values(options).items()
    return {
        key: f"{_plain(now)} (default {_plain(default[key])})" if now != default[key] else _plain(now)
        for key, now in values
    }


def _plain(value: Any) -> Any:
    """A value as a person reads it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        value = [f"{key}={inner}" for key, inner in value.items()]
    if isinstance(value, list):
        value = ", ".join(map(str, value))
    return "none" if value == "" else value
