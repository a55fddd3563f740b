"""The page about a round that a person looks at: one HTML file that holds its pictures and loads nothing.

It is a function of committed files alone, which its manifest names. What was picked, and why, is shown as it stood when
the round's images were picked. What the labels show of the rounds up to this one is shown as it is known now, so that a
report that is asked for again is made again once more is known.
"""

import hashlib
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any

import pyarrow as pa
from PIL import Image

from engine.campaign.changes import current_shards
from engine.campaign.decided import decided_by, first_ranks, highest_scores, ranks, reason_of, scored_by
from engine.campaign.folder import Campaign, is_complete
from engine.campaign.labels import Snapshot, identities, read_snapshot, snapshot_of
from engine.campaign.manifests import Manifest, SelectionManifest, read_committed, read_manifest, write_manifest
from engine.campaign.opening import open_campaign
from engine.campaign.scored_shards import damaged_in, shard_records
from engine.campaign.stages import QUIET, Run
from engine.config.texts import plural
from engine.models.diagnosis import findings_of
from engine.models.task_words import task_facts
from engine.pool.shard import ShardError
from engine.report import arms, charts, facts, lacking
from engine.report.answers_page import MOVED, answers_inputs, answers_page, hashes, page_of
from engine.report.control_arm import MASKS, ControlArm, control_arm
from engine.report.facts import Manifests, read_manifests
from engine.report.latent_map import LatentMap, map_of
from engine.report.page import render, shown_thumbnails
from engine.report.sheet import KIND_TEXTS, groups_of, in_turns, pairs_of
from engine.report.thumbnails import BLANK, Identity, contact_sheet, data_uri, read_thumbnails, to_png
from engine.storage.location import Location
from engine.tables import selections
from engine.tables.error_classes import ErrorClass, survey
from engine.tables.rows import Row
from engine.tables.shard_records import records_in
from vaal.acquisition import column_of

Draw = Callable[[charts.Theme], bytes]
MOST_IMAGES = 48
"""Images on the page from the picked ones, and as many from the others."""
MOST_FAULTS = 10
"""Kinds of faults in the quarantine that are counted, and items in it that are shown."""
LOSSES = {
    "transductive": "Redrawing (transductive): The error of redrawn images and the size of their descriptions (KL).",
    "adversarial": "Likeness (adversarial): How far the autoencoder is from describing all images as if labelled.",
    "discriminator": "Telling apart (discriminator): The error of telling labelled images from others, over all folds.",
    "held_out": "Telling apart new images (held-out): The same on images that a discriminator does not train on.",
    "task": "Task (cross-entropy): The error of the task learner on the labelled images.",
}


def report(campaign: Campaign, run: Run = QUIET) -> Manifest:
    """Complete the report stage: report.html and its pictures. Returns its manifest. A complete stage is left alone
    where nothing that it shows changed; else it is made again, with grey for images that cannot be read any more.

    Where answers came, the page about them is made, or made again if they changed: see `engine.report.answers_page`.

    Raises InputError if training, scoring or selection is not complete, or is of an earlier version; a file of theirs
    is not the one that its manifest names, or a shard changes meanwhile.
    """
    folder, manifests = campaign.stage("report"), read_manifests(campaign)
    inputs = manifests.inputs | answers_inputs(open_campaign(campaign.home.url), campaign.round)
    made = read_manifest(campaign, "report", Manifest) if is_complete(folder) else None
    if made is None or made["inputs"] != inputs or made["counts"].get("unread"):
        made = _complete(campaign, manifests, inputs, run, made)
    answers_page(campaign, run.log)
    return made


def _complete(
    campaign: Campaign, manifests: Manifests, inputs: dict[str, str], run: Run, made: Manifest | None
) -> Manifest:
    """The manifest of the stage, that of `made` where the report is the same as it was then."""
    folder, faults = campaign.stage("report"), list[ShardError]()
    files, counts = _make(campaign, manifests, run, faults.append if made else None)
    for fault in faults:
        run.log(f"{fault}; its images are shown grey")
    counts |= {"unread": len(faults)} if faults else {}
    # Looking at the pool may have found that images moved.
    inputs |= hashes(campaign.home, [MOVED])
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    if made and (made["inputs"], made["counts"], made["files"]) == (inputs, counts, digests):
        # A shard that cannot be read is tried each time. As long as it is gone, nothing is done.
        return made
    run.log(f"the report shows {plural(counts['images'], 'image')}")
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return write_manifest(campaign, "report", Manifest, inputs=inputs, counts=counts, files=digests)


def describe(campaign: Campaign, manifest: Manifest) -> dict[str, Any]:
    """What a person is shown of a complete stage."""
    answers = page_of(campaign)
    return {
        "report": campaign.stage(manifest["stage"]) / "report.html",
        **({"answers": answers} if answers else {}),
    }


def _make(
    campaign: Campaign, manifests: Manifests, run: Run, on_fault: Callable[[ShardError], None] | None
) -> tuple[dict[str, bytes], dict[str, int]]:
    """The files of the report by name, and its counts. `on_fault`: see `read_thumbnails`."""
    train, scores, selection, _ = manifests
    labels = _snapshot_at_selection(campaign.home, selection).labels
    picks, candidates, histogram, drawn = (
        read_committed(campaign.stage("selection"), name)
        for name in ("selection.parquet", selections.CANDIDATES_FILE, selections.HISTOGRAM_FILE, selections.SAMPLE_FILE)
    )
    groups, pairs = groups_of(picks, MOST_IMAGES), pairs_of(candidates, picks, set(identities(labels)))
    picked = [row for group in groups for row in group.rows]
    shown = {"picked": picked, "sample": drawn.slice(0, len(picked)).to_pylist()}
    shown["sample"].sort(key=lambda row: (row["score"], row["shard"], row["key"]))
    images = [*picked, *shown["sample"], *(row for pair in pairs for row in (pair.dropped, pair.kept))]
    clusters = lacking.clusters_of(campaign, train, selection)
    known, control = _known_now(campaign)
    gains = [gain for gain in known if gain.has_labels and control.why != MASKS]
    images += [cluster.example for cluster in clusters.shown]
    thumbnails = _thumbnails(campaign, images, run, on_fault)
    latent_map, (bins, counts) = map_of(candidates), _binned(selection, histogram, picks)
    pictures = _draw(campaign, manifests, bins, latent_map, _bars_of(clusters, gains, control))
    faults = survey(
        campaign.stage("quarantine"), list(records_in(damaged_in(shard_records(campaign, scores)))), MOST_FAULTS
    )
    page = render(
        "report.html.j2",
        campaign=campaign,
        manifests=manifests,
        labels=labels,
        facts=facts,
        charts=charts,
        **_decision(selection),
        classes=train.get("task", {}).get("classes") or [],
        num_back=sum(counts.total() for counts in known[-1].labels.values()),
        findings=findings_of(train, ranks(selection)),
        learned=task_facts(train),
        lacking=lacking,
        clusters=clusters,
        gains=gains,
        control=control,
        class_counts=arms.class_counts,
        groups=groups,
        sample=shown["sample"],
        pairs=pairs,
        thumbnails=shown_thumbnails(thumbnails),
        fates=Counter(candidates["fate"].to_pylist()),
        kinds=KIND_TEXTS,
        duplicates={text: selection["counts"][f"duplicates_{kind}"] for kind, text in KIND_TEXTS.items()},
        map=latent_map,
        pictures={name: data_uri(png) for name, png in pictures.items()},
        losses={name: text.partition(": ") for name, text in LOSSES.items() if f"loss-{name}" in pictures},
        counts=counts,
        faults=_counted(faults),
        examples=in_turns(fault.examples for fault in faults)[:MOST_FAULTS],
    )
    contents = {name: [thumbnails[row["shard"], row["key"]] for row in rows] for name, rows in shown.items() if rows}
    pictures |= {name: to_png(contact_sheet(content)) for name, content in contents.items()}
    files = {**{f"{name}.png": png for name, png in pictures.items()}, "report.html": page.encode()}
    return files, {**counts, "images": len(images)}


def _known_now(campaign: Campaign) -> tuple[list[arms.Gain], ControlArm]:
    """What the labels that there are show of the rounds up to the campaign's."""
    snapshot = read_snapshot(campaign.home, arms.LABEL_COLUMNS)
    gains = arms.gains_of(campaign, snapshot, range(campaign.round + 1))
    return gains, control_arm(campaign, snapshot, gains)


def _thumbnails(
    campaign: Campaign, images: list[Row], run: Run, on_fault: Callable[[ShardError], None] | None
) -> dict[Identity, Image.Image]:
    with current_shards(campaign, run.log, only={row["shard"] for row in images}):
        found = read_thumbnails(campaign, images, on_fault)
    if num_blank := sum(image is BLANK for image in found.values()):
        run.log(f"shown grey, because in their shards no more or forgotten: {plural(num_blank, 'image')}")
    return found


def _decision(selection: SelectionManifest) -> dict[str, Any]:
    """How the images were picked: names of acquisition functions, the levels of scores, and the reason in words."""
    return {
        "picked_at": datetime.fromisoformat(selection["completed_at"]),
        "reason": reason_of(selection),
        "ranks": ranks(selection),
        "first_ranks": first_ranks(selection),
        "decided": decided_by(selection),
        "scored": scored_by(selection),
        # A score that did not decide says nothing of a pick.
        "is_scored": scored_by(selection) == decided_by(selection),
        "levels": highest_scores(selection),
    }


def _binned(selection: SelectionManifest, histogram: pa.Table, picks: pa.Table) -> tuple[charts.Bins, dict[str, int]]:
    """The scores of the pool by group, and the size of each group."""
    # What candidates alone were scored by has no place among the scores of the pool.
    shown = picks if first_ranks(selection) == ranks(selection) else picks.slice(0, 0)
    column = "score" if scored_by(selection) == first_ranks(selection) else column_of(first_ranks(selection))
    bins = charts.bins_of(histogram, shown[column if len(shown) else "score"].to_numpy())
    counts = {name: int(found.sum()) for name, found in bins.counts.items()}
    return bins, {**counts, "picked": len(picks), "not_picked": counts["not_picked"] + len(shown) - len(picks)}


def _counted(faults: list[ErrorClass]) -> dict[str, int]:
    """How many images have each of the first faults, and how many others."""
    others = sum(fault.items for fault in faults[MOST_FAULTS:])
    return {fault.name: fault.items for fault in faults[:MOST_FAULTS]} | ({"others": others} if others else {})


def _snapshot_at_selection(home: Location, selection: SelectionManifest) -> Snapshot:
    """The labels that the selection knew."""
    files = {name: sha256 for name, sha256 in selection["inputs"].items() if name.startswith("labels/")}
    advice = "restore it from a copy"
    return snapshot_of((name, (home / name).read_verified(sha256, advice)) for name, sha256 in files.items())


def _bars_of(clusters: lacking.Clusters, gains: list[arms.Gain], control: ControlArm) -> dict[str, Draw]:
    """Charts of shares by name: of the clusters that lack most, of the classes of the newest labels by arm, and of what
    the task learner of each round was right about."""
    found: dict[str, Draw] = {}
    if shown := clusters.shown:
        colours = {"not_picked": "pool", "labelled": "labels", "picked": "picks"}
        shares = {colour: [cluster.shares[name] for cluster in shown] for colour, name in colours.items()}
        found["clusters"] = partial(charts.shares_chart, [f"{c.number}" for c in shown], shares, "cluster")
    if compared := [gain for gain in gains if gain.variation]:
        gain = compared[-1]
        names = [name for name, *_ in arms.class_counts(gain)]
        by_colour = {"picked": gain.shares(arms.QUERY, names), "not_picked": gain.shares(arms.CONTROL, names)}
        found["arms"] = partial(charts.shares_chart, names, by_colour, "label")
    if judged := [one for one in control.rounds if one.learned and any(one.gain.known or ())]:
        learned = [one.learned or 0 for one in judged]
        known = [one.gain.known or arms.Known(None, None, None) for one in judged]
        by_colour_known = {"not_picked": [one.control for one in known], "picked": [one.query for one in known]}
        found["right"] = partial(charts.right_chart, learned, by_colour_known)
    return found


def _draw(
    campaign: Campaign, manifests: Manifests, bins: charts.Bins, latent_map: LatentMap, bars: dict[str, Draw]
) -> dict[str, bytes]:
    """PNG by name, each for light and for dark surroundings. `bars`: further charts."""
    train, _, selection, _ = manifests
    first = first_ranks(selection)
    levels = highest_scores(selection) if first == ranks(selection) else (None, None)
    histogram = partial(charts.histogram_chart, bins, *levels, charts.score_name(first))
    found: dict[str, Draw] = {"histogram": histogram, **bars}
    if len(latent_map.points_N2):
        found["map"] = partial(charts.map_chart, latent_map)
    if kl_Z := train["diagnosis"]["kl_per_unit"]:
        found["kl"] = partial(charts.kl_chart, kl_Z)
    metrics = read_committed(campaign.stage("train"), "metrics.parquet")
    references = charts.reference_losses(campaign.config.train.folds)
    for loss in (name for name in LOSSES if name in metrics.column_names):
        rows = metrics.select(["step", loss]).drop_null()
        if len(rows):
            curve = rows["step"].to_numpy(), rows[loss].to_numpy()
            found[f"loss-{loss}"] = partial(charts.loss_chart, *curve, references.get(loss))
    return {f"{name}{suffix}": draw(theme) for name, draw in found.items() for suffix, theme in charts.THEMES.items()}
