"""The report shows what the rule did: what the labels lacked, and what was gained once labels are back."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.campaign.decided import decided_by, scored_by
from engine.campaign.folder import Campaign
from engine.campaign.labels import read_snapshot
from engine.campaign.manifests import SelectionManifest, TrainManifest, read_manifest
from engine.config.texts import score_text
from engine.errors import InputError
from engine.report.arms import MOST_JUDGED, gains_of
from engine.report.lacking import MOST_CLUSTERS, NOT_MEASURED, clusters_of, finding_in_words
from engine.report.report import MOST_IMAGES, report
from engine.selection.select import select
from engine.storage.location import Location
from engine.tables.selections import CLUSTERS_FILE
from tests.conftest import MakeCampaign
from tests.engine.selection.test_completing import scored
from tests.judged import without_predictions
from tests.sendings import take_in
from vaal.proportions import wilson

pytestmark = pytest.mark.heavy
CLASSES = [str(number) for number in range(9)]
SETTINGS = ("select.budget=60", "select.control_fraction=0.2")


def with_classes(campaign: Campaign) -> None:
    """The task learner's classes stand in the manifest of a training that was none."""
    file = campaign.stage("train") / "manifest.json"
    entry = {"classes": CLASSES, "held_out_accuracy": 0.5}
    manifest = json.loads(file.read_bytes())
    manifest["counts"]["labelled"] = 40
    file.write_json({**manifest, "task": entry})


def rows_of(campaign: Campaign, stage: str) -> list[dict[str, Any]]:
    names = [name for name in campaign.stage(stage).children() if name.endswith(".parquet")]
    return [row for name in names for row in (campaign.stage(stage) / name).read_table().to_pylist()]


def label_of(pick: dict[str, Any]) -> str:
    """The rule's picks are ones, and the control arm's mostly sixes."""
    return "1" if pick["arm"] == "query" else "6" if pick["rank"] % 4 else "$x$ <b>"


def answered(campaign: Campaign) -> list[dict[str, Any]]:
    picks = rows_of(campaign, "selection")
    file = Location.of(f"{campaign.home.path}-answers.jsonl")
    lines = (json.dumps({"item_id": pick["item_id"], "label": label_of(pick)}) + "\n" for pick in picks)
    file.write_bytes("".join(lines).encode())
    take_in(campaign, file)
    return picks


def page(campaign: Campaign) -> str:
    report(campaign)
    text = (campaign.stage("report") / "report.html").read_bytes().decode()
    (campaign.stage("report") / "manifest.json").delete()
    return re.sub(r"\s+", " ", text)


def two_rounds(made: Campaign) -> tuple[Campaign, Campaign, list[dict[str, Any]]]:
    """A round whose labels are back, the next one, and the picks of the first."""
    first = scored(made, margins=True)
    with_classes(first)
    select(first)
    picks = answered(first)
    later = scored(replace(first, round=1), margins=True)
    select(later)
    return first, later, picks


def test_the_page_says_what_the_labels_lacked_and_shows_the_clusters(make_campaign: MakeCampaign) -> None:
    campaign = scored(make_campaign(*SETTINGS))
    manifest = select(campaign)
    gate, text = manifest["gate"], page(campaign)
    assert gate["lacking"] is not None
    assert f"<strong>{gate['lacking']:.0%} of the pool lacks labels.</strong>" in text
    assert f"the labels lack {gate['value']:.0%} (deficit)" in text
    assert "The labels were completed, cluster by cluster." in text
    assert "<td>cluster completion</td>" in text
    table = (campaign.stage("selection") / CLUSTERS_FILE).read_table().to_pylist()
    found = clusters_of(campaign, read_manifest(campaign, "train", TrainManifest), manifest)
    assert found.total == len(table)
    assert len(found.shown) == MOST_CLUSTERS
    for cluster, row in zip(found.shown, table, strict=False):
        assert cluster.number == row["cluster"]
        assert cluster.counts == {name: row[name] for name in ("pool", "labels", "picks")}
        assert cluster.shares["pool"] == row["pool"] / sum(row["pool"] for row in table)
        assert f'<li title="cluster {row["cluster"]}: {row["shard"]} / {row["key"]}">' in text
    assert "The rule’s picks against random ones" not in text
    assert "None of the 12 control picks has a label yet." in text
    assert "Round 000: 12 control picks say next to nothing of the pool" in text
    assert "Control group · 12 images" in text
    # Clusters of one pick do not stand one below the other.
    assert re.search(r"\d\d clusters with one pick each", text)
    assert not re.search(r"Cluster \d+ · 1 image<", text)
    assert text.count('<li title="rank ') == MOST_IMAGES


def test_a_gate_that_does_not_speak_and_one_that_is_overruled(make_campaign: MakeCampaign) -> None:
    campaign = scored(make_campaign(*SETTINGS), biased=False, margins=True)
    select(campaign)
    text = page(campaign)
    assert "The labels lack no part of the pool that could be shown." in text
    assert "Images were drawn by how unsure the task learner is of them" in text
    assert "Whatever their score: the labels lack no part of the pool." in text
    # Margin drew them: that is what stands under the pictures, and nothing else is said to have decided.
    manifest = read_manifest(campaign, "selection", SelectionManifest)
    assert (decided_by(manifest), scored_by(manifest)) == ("margin", "margin")
    assert "Below each image is its score, margin:" in text
    assert "where a batch comes from" not in text
    assert "None of this decided what was picked: margin decided." in text
    assert "<dt>signal (not above chance, AUC 0.52 of 1); it did not matter, margin decided</dt>" in text
    margins = {(row["shard"], row["key"]): row["margin"] for row in rows_of(campaign, "scores")}
    (first, *_) = rows_of(campaign, "selection")
    assert first["score"] == margins[first["shard"], first["key"]]
    title = f'<li title="rank 1: {first["shard"]} / {first["key"]}">'
    assert f"> {score_text(first['score'])} " in text.partition(title)[2][:2000]


@pytest.mark.parametrize("is_biased", [True, False])
def test_where_another_score_ranks_the_page_shows_what_the_labels_lacked(
    make_campaign: MakeCampaign, is_biased: bool
) -> None:
    settings = ("train.task=classification", 'score.acquisition=["vaal","margin"]', "select.acquisition=margin")
    campaign = scored(make_campaign(*SETTINGS, *settings), biased=is_biased, margins=True)
    manifest = select(campaign)
    gate, text = manifest["gate"], page(campaign)
    lacking = f"{gate['lacking']:.0%} of the pool lacks labels"
    shown = f"{lacking}." if is_biased else "The labels lack no part of the pool that could be shown."
    assert f"<strong>{shown}</strong>" in text
    assert "It decided nothing: select.acquisition ranked, whatever the labels lack." in text
    assert "The parts of the pool (clusters) that lack most" in text
    assert "The whole pool, before the batch and once it is labelled" in text


def test_without_a_control_arm_the_page_says_what_one_would_show(make_campaign: MakeCampaign) -> None:
    campaign = scored(make_campaign("select.budget=60", "select.control_fraction=0"))
    select(campaign)
    assert "There is no control arm (select.control_fraction=0); with one, its labels show" in page(campaign)


def test_without_clusters_it_says_that_it_was_not_measured(make_campaign: MakeCampaign) -> None:
    campaign = scored(make_campaign(*SETTINGS), num_centres=0)
    manifest = select(campaign)
    assert finding_in_words(manifest) == (NOT_MEASURED, "")
    text = page(campaign)
    assert NOT_MEASURED in text
    assert "Round against round" not in text
    assert clusters_of(campaign, read_manifest(campaign, "train", TrainManifest), manifest).shown == []


def test_the_next_round_shows_what_the_rule_gained(make_campaign: MakeCampaign) -> None:
    first, later, picks = two_rounds(make_campaign(*SETTINGS))
    (gain,) = gains_of(later, read_snapshot(later.home), range(1))
    predicted = {(row["shard"], row["key"]): row["predicted"] for row in rows_of(first, "scores")}
    for arm in ("query", "control"):
        of_arm = [pick for pick in picks if pick["arm"] == arm]
        right = [CLASSES[predicted[pick["shard"], pick["key"]]] == label_of(pick) for pick in of_arm]
        assert gain.known is not None
        assert getattr(gain.known, arm) == wilson(sum(right), len(right))
        assert gain.labels[arm].total() == len(of_arm) <= MOST_JUDGED
    assert gain.variation is not None
    assert (gain.variation.value, gain.variation.p) == (1, 1 / 2000)
    text = page(later)
    assert "The rule’s picks against random ones" in text
    assert gain.known is not None
    assert gain.known.gain is not None
    # It is how much more often the task learner was wrong, and no gain of accuracy.
    assert text.count("rule’s picks harder for the task learner by") == 2
    assert text.count(f"<td>{gain.known.gain.points_text}</td>") == 2
    assert '<tr><th scope="row">000</th><td>48</td><td>12</td>' in text
    assert "<td>0.0005</td>" in text
    # Every bar has its numbers; a label is text.
    assert '<tr><th scope="row">1</th><td>48</td><td>0</td></tr>' in text
    assert '<tr><th scope="row">$x$ &lt;b&gt;</th><td>0</td>' in text
    # What the control arm shows of the pool, too.
    assert "The pool, as the control group shows it" in text
    assert '<tr><th scope="row">000</th><td>12 of 12</td>' in text
    assert "It takes 3 rounds with control labels to tell, and there is 1." in text
    # The deficit of both rounds is there.
    assert text.count("<td>cluster completion</td>") == 2
    assert {"arms.png", "arms-dark.png", "clusters.png", "right.png"} <= set(report(later)["files"])


def test_what_is_gone_is_reported(make_campaign: MakeCampaign) -> None:
    first, later, _ = two_rounds(make_campaign(*SETTINGS))
    snapshot = read_snapshot(later.home)
    without_predictions(first)
    for name in first.stage("scores").children():
        if name.endswith(".parquet"):
            (first.stage("scores") / name).delete()
    assert gains_of(later, snapshot, range(1))[0].no_known == "its scores are not in the campaign any more"
    assert "Round 000: the task learner cannot be asked: its scores are not in the campaign any more." in page(later)
    file = first.stage("train") / "manifest.json"
    manifest = json.loads(file.read_bytes())
    del manifest["task"]
    file.write_json(manifest)
    (gain,) = gains_of(later, snapshot, range(1))
    assert gain.no_known == "no classes were learned; learn them in the next round: --set train.task=classification"
    assert gain.variation is not None


def test_scores_of_an_earlier_round_that_were_changed_are_refused(make_campaign: MakeCampaign) -> None:
    first, later, _ = two_rounds(make_campaign(*SETTINGS))
    without_predictions(first)
    for name in first.stage("scores").children():
        if name.endswith(".parquet"):
            file = Path((first.stage("scores") / name).path)
            content = bytearray(file.read_bytes())
            content[-20] ^= 1
            file.write_bytes(content)
    with pytest.raises(InputError, match="damaged since it was committed"):
        gains_of(later, read_snapshot(later.home), range(1))
