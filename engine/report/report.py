"""The page about a round that a person looks at: one HTML file that holds its pictures and loads nothing.

It is a function of the committed stages alone. Labels count as they stood when the round's images were picked, so that
the report on an earlier round does not change as labels come back.
"""

import hashlib
from collections import defaultdict
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jinja2 import Environment, StrictUndefined

from engine.campaign.folder import Campaign, is_complete, read_manifest, write_manifest
from engine.campaign.labels import LABELS_SCHEMA
from engine.errors import InputError
from engine.report import pictures
from engine.report.facts import Stages, facts, logit_text, settings
from engine.report.latent_map import Map, map_of
from engine.report.sheet import KIND_TEXTS, Pair, Sheet, pairs_of, sheet_of
from engine.report.survey import Bins, Members, survey
from engine.report.thumbnails import Thumbnail, contact_sheet_png, read_thumbnails
from engine.selection.duplicates import KINDS
from engine.selection.select import reason_of
from engine.storage.location import Location
from engine.tables.selections import CANDIDATES_FILE, CONTROL, DUPLICATE, PASSED_OVER, PICKED, picked_items

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
FATES = (PICKED, CONTROL, DUPLICATE, PASSED_OVER)
Row = dict[str, Any]


class Fault(NamedTuple):
    """A kind of fault in the quarantine."""

    stage: str
    error: str


class Quarantine(NamedTuple):
    """The quarantine by kind, most frequent first, and some of its rows, of every kind where there is room."""

    counts: list[tuple[Fault, int]]
    examples: list[Row]


class Batch(NamedTuple):
    """What is shown of the batch. Of an earlier version there is no map, and nothing is known of the candidates: their
    number by what became of them, and of the duplicates by kind."""

    sheet: Sheet
    map: Map | None
    fates: dict[str, int]
    duplicates: dict[str, int]
    pairs: list[Pair]


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
    members = Members(*map(_identities, (labels, picks, picked_items(campaign.home, before=campaign.round))))
    batch = _batch(campaign, stages.selection, picks, members)
    shown = batch.sheet.rows()
    bins, sample = survey(campaign, stages.scores["shards"], members, len(shown))
    pairs = [row for pair in batch.pairs for row in (pair.dropped, pair.kept)]
    thumbnails = read_thumbnails(campaign, [*shown, *sample, *pairs])
    charts = _charts(campaign, stages, bins, batch.map)
    groups = {name: int(counts.sum()) for name, counts in bins.counts.items()}

    files = {f"{name}.png": png for name, png in charts.items()}
    sheets = {"picked.png": shown, "sample.png": sample}
    files |= {name: contact_sheet_png(thumbnails, rows) for name, rows in sheets.items() if rows}
    files["report.html"] = _render(
        campaign=campaign,
        stages=stages,
        picked_at=datetime.fromisoformat(stages.selection["completed_at"]),
        batch=batch,
        sample=sample,
        thumbnails={item: Thumbnail.of(image) for item, image in thumbnails.items()},
        signal=stages.train.get("signal"),
        diagnosis=stages.train.get("diagnosis"),
        fallback=stages.selection.get("when_no_signal"),
        cut=stages.selection["highest_picked_logit"],
        highest_candidate=stages.selection.get("highest_candidate_logit"),
        kinds=KIND_TEXTS,
        reason=reason_of(stages.selection),
        charts={name: pictures.data_uri(png) for name, png in charts.items()},
        losses={name: text for name, text in LOSSES.items() if f"loss-{name}" in charts},
        smoothing_steps=pictures.smoothing_steps(stages.train["counts"]["steps"]),
        num_labelled=len(labels),
        groups=groups,
        facts=facts(campaign.config, stages, labels, groups["out"]),
        settings=list(settings(campaign.config)),
        quarantine=_quarantine(campaign, stages.scores["shards"]),
        themes=pictures.THEMES,
    ).encode()
    return write_manifest(
        folder,
        campaign,
        inputs=inputs,
        counts={**groups, "images": len(shown) + len(sample) + len(pairs)},
        files={name: (folder / name).write_bytes(content) for name, content in files.items()},
    )


def _batch(campaign: Campaign, selection: Row, picks: pa.Table, members: Members) -> Batch:
    sheet = sheet_of(picks, MOST_IMAGES)
    if CANDIDATES_FILE not in selection["files"]:
        return Batch(sheet, None, {}, {}, [])
    candidates = _table(campaign.stage("selection"), CANDIDATES_FILE, selection)
    found = {row["values"]: row["counts"] for row in pc.value_counts(candidates["fate"]).to_pylist()}
    fates = {fate: found.get(fate, 0) for fate in FATES}
    duplicates = {kind: selection["counts"][f"duplicates_{kind}"] for kind in KINDS}
    return Batch(sheet, map_of(candidates), fates, duplicates, pairs_of(candidates, picks, members))


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


def _charts(campaign: Campaign, stages: Stages, bins: Bins, latents: Map | None) -> dict[str, bytes]:
    """PNG by name, each for light and for dark surroundings."""
    references = pictures.reference_losses(campaign.config.train.folds)
    metrics = _table(campaign.stage("train"), "metrics.parquet", stages.train)
    kl_Z = stages.train.get("diagnosis", {}).get("kl_per_unit")
    charts = {}
    for name, theme in pictures.THEMES.items():
        suffix = "" if name == "light" else f"-{name}"
        levels = pictures.Levels(*map(stages.selection.get, ("highest_picked_logit", "highest_candidate_logit")))
        charts[f"histogram{suffix}"] = pictures.histogram_chart(bins, levels, theme)
        if latents and latents.plane:
            charts[f"map{suffix}"] = pictures.map_chart(latents.plane, theme)
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


def _render(**content: Any) -> str:
    # Keys and messages come from the pool: whoever filled it must not write into the page.
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "two": lambda value: f"{value:.2f}",
        "logit": logit_text,
        "grouped": lambda value: f"{value:,}",
    }
    source = Path(__file__).with_name("report.html.j2").read_text(encoding="utf-8")
    return environment.from_string(source).render(**content)
