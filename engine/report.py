"""The page about a round that a person looks at: one HTML file that holds its pictures and loads nothing.

It is a function of the committed stages alone. Labels count as they stood when the round's images were picked, so that
the report on an earlier round does not change as labels come back.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from jinja2 import Environment, StrictUndefined
from PIL import Image

from engine import report_pictures as pictures
from engine.campaign import Campaign, is_complete, read_manifest, write_manifest
from engine.config import CampaignConfig, result_values
from engine.errors import InputError
from engine.labels import LABELS_SCHEMA
from engine.pool import read_ranges, read_shards
from engine.report_survey import Bins, Members, survey
from engine.selection.picks import picked_items
from engine.selection.stage import reason_of
from engine.storage import Location

MOST_IMAGES = 48
"""Images on the page from the picked ones, and as many from the others."""
MOST_FAULTS = 10
"""Kinds of faults in the quarantine that are counted, and items in it that are shown."""
LOSSES = {
    "transductive": "The VAE’s own objective, reconstruction and KL, summed over both pools.",
    "adversarial": "How far the VAE is from making both pools look labelled.",
    "discriminator": "How badly the discriminators tell the pools apart, summed over the folds.",
    "held_out": "The same on the images that each discriminator does not train on.",
    "task": "The task learner’s cross-entropy on the labelled images.",
}
Row = dict[str, Any]


class Stages(NamedTuple):
    """The manifests that a report is made of."""

    train: Row
    scores: Row
    selection: Row


class Fault(NamedTuple):
    """A kind of fault in the quarantine."""

    stage: str
    error: str


class Quarantine(NamedTuple):
    """The quarantine by kind, most frequent first, and some of its rows, of every kind where there is room."""

    counts: list[tuple[Fault, int]]
    examples: list[Row]


def write_report(campaign: Campaign) -> dict[str, Any]:
    """Complete the report stage: report.html and its pictures. Returns its manifest; a complete stage is left alone.

    Raises:
        InputError: training, scoring or selection is not complete, a file of theirs is not the one that its manifest
            names, or a shard has changed since init.
    """
    folder = campaign.stage("report")
    if is_complete(folder):
        return read_manifest(folder, "report")
    stages, inputs = _read_stages(campaign)
    labels = _labels_at_selection(campaign.home, stages.selection)
    picks = _table(campaign.stage("selection"), "selection.parquet", stages.selection)
    before = picked_items(campaign.home, before=campaign.round)
    members = Members(_identities(labels), _identities(picks), _identities(before))
    shown = picks.slice(0, MOST_IMAGES).to_pylist()
    bins, sample = survey(campaign, stages.scores["shards"], members, len(shown))
    thumbnails = {"picked": _thumbnails(campaign, shown), "sample": _thumbnails(campaign, sample)}
    charts = _charts(campaign, stages, bins)
    groups = {name: int(counts.sum()) for name, counts in bins.counts.items()}

    files = {f"{name}.png": png for name, png in charts.items()}
    files |= {f"{name}.png": _sheet(images) for name, images in thumbnails.items() if images}
    files["report.html"] = _render(
        campaign=campaign,
        stages=stages,
        picked_at=datetime.fromisoformat(stages.selection["completed_at"]),
        picked=list(zip(shown, map(_Thumbnail.of, thumbnails["picked"]), strict=True)),
        sample=list(zip(sample, map(_Thumbnail.of, thumbnails["sample"]), strict=True)),
        signal=stages.train.get("signal"),
        diagnosis=stages.train.get("diagnosis"),
        cut=stages.selection["highest_picked_logit"],
        reason=reason_of(stages.selection),
        charts={name: pictures.data_uri(png) for name, png in charts.items()},
        losses={name: text for name, text in LOSSES.items() if f"loss-{name}" in charts},
        smoothing_steps=pictures.smoothing_steps(stages.train["counts"]["steps"]),
        num_labelled=len(labels),
        groups=groups,
        facts=_facts(campaign, stages, labels, groups),
        settings=list(_settings(campaign.config)),
        quarantine=_quarantine(campaign, stages.scores["shards"]),
        themes=pictures.THEMES,
    ).encode()
    return write_manifest(
        folder,
        campaign,
        inputs=inputs,
        counts={**groups, "images": len(shown) + len(sample)},
        files={name: (folder / name).write_bytes(content) for name, content in files.items()},
    )


def _read_stages(campaign: Campaign) -> tuple[Stages, dict[str, str]]:
    """The manifests and the SHA-256 of each. Raises InputError when one is missing or they do not belong together."""
    folders = {"selection": "select", "scores": "score", "train": "train"}
    found = {name: read_manifest(campaign.stage(name), command) for name, command in folders.items()}
    inputs = {
        name: hashlib.sha256((campaign.stage(name) / "manifest.json").read_bytes()).hexdigest() for name in folders
    }
    if found["selection"]["inputs"]["scores"] != inputs["scores"]:
        folder = campaign.stage("selection")
        raise InputError(f"{folder}: made from other scores than there are now; delete it, then run: vaal select")
    return Stages(found["train"], found["scores"], found["selection"]), inputs


def _table(folder: Location, name: str, manifest: Row) -> pa.Table:
    return _read_checked(folder / name, manifest["files"][name])


def _read_checked(file: Location, sha256: str) -> pa.Table:
    content = file.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise InputError(f"{file}: not the file that was committed; restore it, then run again: vaal report")
    return pq.read_table(pa.BufferReader(content))


def _labels_at_selection(home: Location, selection: Row) -> pa.Table:
    """LABELS_SCHEMA: the labels that the selection knew."""
    files = {name: sha256 for name, sha256 in selection["inputs"].items() if name.startswith("labels/")}
    tables = [_read_checked(home / name, sha256).cast(LABELS_SCHEMA) for name, sha256 in files.items()]
    return pa.concat_tables([LABELS_SCHEMA.empty_table(), *tables])


def _identities(table: pa.Table) -> set[tuple[str, str]]:
    return set(zip(table["shard"].to_pylist(), table["key"].to_pylist(), strict=True))


def _thumbnails(campaign: Campaign, rows: list[Row]) -> list[Image.Image]:
    """A thumbnail for each row, in their order. Raises InputError when a shard has changed."""
    by_shard: dict[str, list[int]] = defaultdict(list)
    for number, row in enumerate(rows):
        by_shard[row["shard"]].append(number)
    shards = {shard.shard: shard for shard in read_shards(campaign.home)}
    found: dict[int, Image.Image] = {}
    image = campaign.config.image
    for name, numbers in by_shard.items():
        contents = read_ranges(shards[name], [(rows[n]["offset"], rows[n]["size_bytes"]) for n in numbers])
        found |= {n: pictures.thumbnail(content, image) for n, content in zip(numbers, contents, strict=True)}
    return [found[number] for number in range(len(rows))]


class _Thumbnail(NamedTuple):
    """A thumbnail as the page holds it."""

    uri: str
    is_small: bool

    @classmethod
    def of(cls, image: Image.Image) -> "_Thumbnail":
        return cls(pictures.data_uri(pictures.to_png(image)), max(image.size) < pictures.THUMBNAIL_SIDE // 2)


def _sheet(thumbnails: list[Image.Image]) -> bytes:
    return pictures.to_png(pictures.contact_sheet(thumbnails))


def _charts(campaign: Campaign, stages: Stages, bins: Bins) -> dict[str, bytes]:
    """PNG by name, each for light and for dark surroundings."""
    references = pictures.reference_losses(campaign.config.train.folds)
    metrics = _table(campaign.stage("train"), "metrics.parquet", stages.train)
    kl_Z = stages.train.get("diagnosis", {}).get("kl_per_unit")
    charts = {}
    for name, theme in pictures.THEMES.items():
        suffix = "" if name == "light" else f"-{name}"
        cut = stages.selection["highest_picked_logit"]
        charts[f"histogram{suffix}"] = pictures.histogram_chart(bins, cut, theme)
        if kl_Z:
            charts[f"kl{suffix}"] = pictures.kl_chart(kl_Z, theme)
        for loss in (name for name in LOSSES if name in metrics.column_names):
            rows = metrics.select(["step", loss]).drop_null()
            if len(rows):
                step, values = (rows[column].to_numpy() for column in ("step", loss))
                curve = pictures.loss_chart(step, values, references.get(loss), theme)
                charts[f"loss-{loss}{suffix}"] = curve
    return charts


def _quarantine(campaign: Campaign, entries: list[Row]) -> Quarantine:
    counts: dict[Fault, int] = defaultdict(int)
    examples: dict[Fault, list[Row]] = defaultdict(list)
    for entry in entries:
        if not entry["quarantined"]:
            continue
        for row in (campaign.stage("quarantine") / entry["file"]).read_table().to_pylist():
            fault = Fault(row["stage"], row["error"])
            counts[fault] += 1
            if len(examples[fault]) < MOST_FAULTS:
                examples[fault].append(row)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    turns = sorted((turn, place) for place, (fault, _) in enumerate(ordered) for turn in range(len(examples[fault])))
    chosen = [examples[ordered[place][0]][turn] for turn, place in turns[:MOST_FAULTS]]
    return Quarantine(ordered, chosen)


def _facts(campaign: Campaign, stages: Stages, labels: pa.Table, groups: dict[str, int]) -> dict[str, dict[str, Any]]:
    """Counts of the round under headings."""
    rounds = labels["round"].to_pylist()
    by_round = {f"from round {number:03d}": rounds.count(number) for number in sorted({*rounds} - {None})}
    scores, selection, train = stages.scores["counts"], stages.selection["counts"], stages.train
    cut = stages.selection["highest_picked_logit"]
    versions = sorted({manifest["code_version"] for manifest in stages})
    return {
        "Pool": {
            "shards": scores["shards"],
            "images listed": scores["listed"],
            "scored": scores["scored"],
            "quarantined": scores["quarantined"],
        },
        "Labels": {
            "at init": rounds.count(None),
            **by_round,
            "picked earlier, no label yet": groups["out"],
        },
        "Selection": {
            "candidates": selection["candidates"],
            "picked": selection["picked"],
            "picked in earlier rounds": selection["picked_before"],
            **({} if cut is None else {"highest logit picked": _logit(cut)}),
            "how": reason_of(stages.selection),
        },
        "Run": {
            "training steps": train["counts"]["steps"],
            "training device": train["device"],
            "scoring device": stages.scores["device"] or "scored by an earlier run",
            "seed": campaign.config.train.seed,
            "code version": ", ".join(versions),
        },
    }


def _settings(config: CampaignConfig) -> Iterator[tuple[str, str, bool]]:
    """What may change results: key, value, and whether it is not the default."""
    for name in ("image", "train", "score", "select"):
        section = getattr(config, name)
        defaults = result_values(type(section)())
        for key, value in result_values(section).items():
            yield f"{name}.{key}", f"{value:,}" if type(value) is int else str(value), value != defaults[key]


def _logit(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def _render(**content: Any) -> str:
    # Keys and messages come from the pool: whoever filled it must not write into the page.
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"two": lambda value: f"{value:.2f}", "logit": _logit, "grouped": lambda value: f"{value:,}"}
    source = Path(__file__).with_name("report.html.j2").read_text(encoding="utf-8")
    return environment.from_string(source).render(**content)
