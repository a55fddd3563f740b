"""The selection, a pure function of committed scores and weights, labels and configuration.

The candidates are the lowest logits, or, without a signal, a random sample; the batch is chosen among them.
"""

import hashlib
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.campaign.folder import Campaign, Report, is_complete, read_manifest, write_manifest
from engine.campaign.labels import labels_fingerprints
from engine.errors import ConfigError, InputError, NotAcceptableError
from engine.models.diagnosis import has_signal, interval_of
from engine.selection.batch import Batch
from engine.selection.candidates import REASONS, Ground, choose_batch, num_candidates
from engine.selection.parts import Progress, room_for
from engine.selection.reduction import count, parts_of
from engine.selection.replacement import is_handed_out, replace
from engine.selection.sources import sources_of
from engine.tables.selections import CANDIDATES_FILE, picked_items


def select(
    campaign: Campaign,
    address: str = "local",
    on_progress: Progress = lambda _: None,
    report: Report = lambda _: None,
    *,
    force: bool = False,
) -> dict[str, Any]:
    """Pick the round's images and complete the selection stage. Returns its manifest.

    A complete stage is left alone, unless its options or inputs changed since: then it is made anew. One that was
    handed out needs `force` for that; its picks stay out at the vendor, and the new ones are others.

    Raises:
        InputError: training or scoring is not complete, or a scores file is not the committed one.
        ConfigError: there are fewer items than the budget, or the selection was handed out.
        NotAcceptableError: there is no signal, and select.when_no_signal is refuse.
    """
    folder = campaign.stage("selection")
    scores = read_manifest(campaign.stage("scores"), "score")
    train = read_manifest(campaign.stage("train"), "train")
    is_again = is_complete(folder)
    if is_again and not _is_due_again(campaign, report, force=force):
        return read_manifest(folder, "select")
    _require_same_weights(campaign, train, scores)
    fallback = _without_signal(campaign, train)
    # What was handed out stays out, though its selection is about to be replaced.
    is_out = is_again and is_handed_out(campaign)
    picked_before = picked_items(campaign.home, before=campaign.round + is_out)
    sources = sources_of(campaign.home, scores["shards"], picked_before)
    with room_for(parts_of(sources), address):
        # Four times as many, because there are more candidates where many are duplicates.
        size = 0 if fallback else 4 * num_candidates(campaign.config.select, fallback)
        counted = count(campaign.stage("scores"), sources, size, lambda share: on_progress(share / 2))
        report(f"{scores['counts']['scored']:,} scores are as committed, {counted.num_eligible:,} can be picked")
        ground = Ground(campaign.stage("scores"), sources, counted, _round_seed(campaign), fallback)
        batch = choose_batch(campaign, ground, lambda share: on_progress((1 + share) / 2))
    counts = {
        "scored": scores["counts"]["scored"],
        "eligible": counted.num_eligible,
        **batch.counts,
        "picked_before": len(picked_before),
    }
    if is_again:
        replace(campaign)
    return _complete(campaign, batch, counts, fallback, _inputs(campaign, picked_before))


def _is_due_again(campaign: Campaign, report: Report, *, force: bool) -> bool:
    """Whether the complete selection is made anew. Raises ConfigError where it must not be."""
    folder = campaign.stage("selection")
    changed = _changed(read_manifest(folder, "select"), campaign)
    if not changed and not force:
        return False
    if is_handed_out(campaign) and not force:
        raise ConfigError(
            f"{folder}: {changed} changed, but its images are handed out; to pick others besides, run: "
            "vaal select --force"
        )
    report(f"the selection is made anew: {f'{changed} changed' if changed else '--force'}")
    return True


def _complete(
    campaign: Campaign, batch: Batch, counts: dict[str, int], fallback: str | None, inputs: dict[str, str]
) -> dict[str, Any]:
    folder = campaign.stage("selection")
    files = {
        name: (folder / name).write_table(table)
        for name, table in ((CANDIDATES_FILE, batch.candidates), ("selection.parquet", batch.selection))
    }
    query = batch.selection["logit"].filter(pc.equal(batch.selection["arm"], "query"))
    return write_manifest(
        folder,
        campaign,
        inputs=inputs,
        counts=counts,
        files=files,
        details={
            "signal": "none" if fallback else "present",
            "when_no_signal": fallback,
            "seed": campaign.config.select.seed,
            "round_seed": _round_seed(campaign),
            # Without a signal the logits decide nothing, and no logit divides the picked items from the others.
            "highest_picked_logit": None if fallback else pc.max(query).as_py(),
            "highest_candidate_logit": None if fallback else pc.max(batch.candidates["logit"]).as_py(),
            "objective": batch.objective,
        },
    )


def current_selection(campaign: Campaign) -> dict[str, Any]:
    """The manifest of the selection. Raises ConfigError when its options or inputs changed since it was made."""
    folder = campaign.stage("selection")
    manifest = read_manifest(folder, "select")
    if changed := _changed(manifest, campaign):
        raise ConfigError(f"{folder}: made before {changed} changed; run: vaal select")
    return manifest


def reason_of(manifest: dict[str, Any]) -> str:
    """How the images of a selection were picked, in words."""
    return REASONS[manifest.get("when_no_signal") or manifest["config"]["select"].get("diversity", "none")]


def _changed(manifest: dict[str, Any], campaign: Campaign) -> str:
    """What a complete selection was made of that is different now; empty when nothing is."""
    before, now = manifest["config"]["select"], campaign.config.select.model_dump()
    options = [f"select.{name}" for name in now if name in before and before[name] != now[name]]
    inputs = _inputs(campaign, picked_items(campaign.home, before=campaign.round))
    # The weights count by the scores that were made with them.
    files = [name for name, sha256 in manifest["inputs"].items() if name != "train" and inputs.get(name) != sha256]
    return ", ".join(options + files)


def _inputs(campaign: Campaign, picked_before: pa.Table) -> dict[str, str]:
    stages = {name: (campaign.stage(name) / "manifest.json").read_bytes() for name in ("train", "scores")}
    before = picked_before["item_id"].to_pylist()
    return {
        **{name: hashlib.sha256(content).hexdigest() for name, content in stages.items()},
        **labels_fingerprints(campaign.home),
        "picked_before": hashlib.sha256("\n".join(sorted(before)).encode()).hexdigest(),
    }


def _require_same_weights(campaign: Campaign, train: dict[str, Any], scores: dict[str, Any]) -> None:
    for name, sha256 in scores["inputs"].items():
        if name.endswith(".safetensors") and train["files"].get(name) != sha256:
            raise InputError(
                f"{campaign.stage('scores')}: made with another {name} than there is now in {campaign.stage('train')}; "
                "run: vaal score"
            )


def _without_signal(campaign: Campaign, trained: dict[str, Any]) -> str | None:
    """How to pick without a signal; None when the train manifest has one.

    Raises:
        NotAcceptableError: there is none, and select.when_no_signal is refuse.
    """
    method = campaign.config.select.when_no_signal
    if has_signal(trained):
        return None
    if method == "refuse":
        raise NotAcceptableError(
            f"{campaign.stage('train')}: no signal, {interval_of(trained)}: the labelled images cannot be told "
            "from the rest; label other images, or pick without a signal: --set select.when_no_signal=diversity"
        )
    return method


def _round_seed(campaign: Campaign) -> int:
    """Another one each round, 31 bits."""
    return int(np.random.SeedSequence([campaign.config.select.seed, campaign.round]).generate_state(1)[0] >> 1)
