"""The report shows what was picked, exactly; it loads nothing, trusts no name, and is a function of committed files."""

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from engine.campaign.folder import Campaign
from engine.campaign.freshness import content_of
from engine.campaign.handed_out import picked_items
from engine.campaign.manifests import TrainManifest, read_manifest
from engine.config.toml import override
from engine.errors import InputError
from engine.report.facts import strength
from engine.report.report import MOST_IMAGES, describe, report
from engine.tables.scores import QUARANTINE_SCHEMA
from engine.tables.selections import SAMPLE_FILE
from tests.committed import with_entries_inside
from tests.rounds import BUDGET, DAMAGED, SCRIPT, WIDE, Identity, Made, make_round, score_and_pick, without_report
from tests.sendings import take_in
from vaal.diversity import WITHOUT_SIGNAL


class Page(HTMLParser):
    """The tags of a page, and its thumbnails as (title, picture)."""

    def __init__(self, campaign: Campaign) -> None:
        super().__init__()
        self.text = (campaign.stage("report") / "report.html").read_bytes().decode()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.thumbnails: list[tuple[str, Image.Image]] = []
        self.feed(self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        if tag == "img" and self.tags[-1][0] == "li":
            self.thumbnails.append((str(self.tags[-1][1]["title"]), decoded(str(attributes["src"]))))
        self.tags.append((tag, attributes))

    def sample(self) -> list[Identity]:
        titles = [title for title, _ in self.thumbnails if not title.startswith("rank ")]
        return [(shard, key) for shard, _, key in (title.partition(" / ") for title in titles)]


def decoded(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/png;base64,"), validate=True)))


def snapshot(campaign: Campaign) -> dict[str, tuple[bytes, int]]:
    folder = Path(campaign.stage("report").path)
    return {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in folder.iterdir()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    made = make_round(tmp_path_factory.mktemp("report"))
    report(made.campaign)
    return made


@pytest.fixture
def fresh(made: Made, tmp_path: Path) -> Made:
    """A copy of the campaign without its report."""
    return made._replace(campaign=without_report(made.campaign, tmp_path / "campaign"))


def take_back(campaign: Campaign, picks: pa.Table) -> None:
    """Ingest a label for each of these picks."""
    answers = Path(campaign.home.path).with_name("answers.csv")
    answers.write_text("item_id,label\n" + "".join(f"{item_id},x\n" for item_id in picks["item_id"].to_pylist()))
    take_in(campaign, answers)


def test_page_loads_nothing(made: Made) -> None:
    page = Page(made.campaign)
    for tag, attributes in page.tags:
        assert tag not in {"script", "link", "iframe", "object", "base"}
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in {"src", "srcset", "href", "data", "action"}:
                assert str(value).startswith("data:image/png;base64,")
    assert "://" not in page.text
    assert not re.search(r"url\(|@import", page.text)


def test_names_and_messages_are_escaped(made: Made) -> None:
    page = Page(made.campaign)
    for _, key in (SCRIPT, WIDE, DAMAGED):
        assert key not in page.text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page.text
    assert "&lt;img src=x onerror=alert(1)&gt;" in page.text
    assert page.thumbnails[0][0] == "rank 1: s-0.tar / <script>alert(1)</script>"


def picks_of(campaign: Campaign) -> list[dict[str, Any]]:
    picks: list[dict[str, Any]] = (campaign.stage("selection") / "selection.parquet").read_table().to_pylist()
    return picks


def test_thumbnails_are_the_picked_images_in_rank_order(made: Made) -> None:
    # All latents are equal, and so there is one cluster; the control arm stands last.
    query, control = ([row for row in picks_of(made.campaign) if row["arm"] == arm] for arm in ("query", "control"))
    assert len(control) == 3
    expected = [*query[: MOST_IMAGES - 3], *control]
    shown = Page(made.campaign).thumbnails[:MOST_IMAGES]
    assert [title for title, _ in shown] == [
        f"rank {row['rank'] + 1}{' (control)' * (row['arm'] == 'control')}: {row['shard']} / {row['key']}"
        for row in expected
    ]
    assert (expected[0]["shard"], expected[0]["key"]) == SCRIPT
    assert shown[0][1].size == (128, 64)
    for (_, image), row in list(zip(shown, expected, strict=True))[1:]:
        original = np.asarray(Image.open(io.BytesIO(made.images[row["shard"], row["key"]])))
        np.testing.assert_array_equal(np.asarray(image), original)


def test_sample_is_of_what_could_be_picked_and_was_not(made: Made) -> None:
    sample = Page(made.campaign).sample()
    picked = {(row["shard"], row["key"]) for row in picks_of(made.campaign)}
    assert len(set(sample)) == MOST_IMAGES
    assert set(sample) <= made.logits.keys() - made.labelled - picked
    assert sample == sorted(sample, key=lambda item: (made.logits[item], item))


def test_every_scored_item_is_counted_once(made: Made) -> None:
    counts = report(made.campaign)["counts"]
    assert counts["labelled"] == len(made.labelled)
    assert counts["picked"] == BUDGET
    assert counts["not_picked"] == len(made.logits) - len(made.labelled) - BUDGET
    assert counts["out"] == 0


def test_equal_latents_have_no_map(made: Made) -> None:
    assert not [name for name in report(made.campaign)["files"] if name.startswith("map")]
    size = len(made.logits) - len(made.labelled)
    assert f"no two of {size} candidates have different latents" in Page(made.campaign).text
    assert f"None was found among the {size} candidates." in Page(made.campaign).text


def test_pictures_are_those_on_the_page(made: Made) -> None:
    files = report(made.campaign)["files"]
    # No task learner was trained, and so it has no curve.
    losses = ("transductive", "adversarial", "discriminator", "held_out")
    names = ["histogram", "kl", *(f"loss-{name}" for name in losses)]
    charts = {f"{name}{suffix}.png" for name in names for suffix in ("", "-dark")}
    assert set(files) == charts | {"picked.png", "sample.png", "report.html"}
    text = Page(made.campaign).text
    for name in charts:
        assert base64.b64encode((made.campaign.stage("report") / name).read_bytes()).decode() in text


def test_quarantine_is_counted_and_shown(made: Made) -> None:
    text = Page(made.campaign).text
    assert '<th scope="row">decode/UnknownFormat</th><td>1</td>' in text
    assert '<th scope="row">read/NotOneImage</th><td>1</td>' in text
    assert "NotOneImage: 2 images in the sample, expected 1 (png, jpg); name the suffix" in text


def test_a_signal_has_its_strength_its_interval_and_the_cut(made: Made) -> None:
    text = Page(made.campaign).text
    assert "<strong>Yes, the signal is strong.</strong>" in text
    assert "weak below an AUC of 0.7, moderate below 0.9" in " ".join(text.split())
    assert "<dt>signal (strong, AUC 0.93 of 1)</dt><dd>present</dd>" in text
    assert re.search(r'<th scope="row">AUC \([^)]*\)</th><td>0.93</td>', text)
    assert re.search(r"its 95% confidence interval</th><td>0.88 to 0.97</td>", text)
    assert re.search(r"\(active units\)</th><td>30 of 32</td>", text)
    assert "The shading ends at the highest score that the rule picked, −" in text
    assert "<dt>highest score picked (logit)</dt>" in text


def test_without_a_signal_the_page_has_no_cut_and_says_why_these_were_picked(made: Made, tmp_path: Path) -> None:
    blind = make_round(tmp_path, signal="none")
    report(blind.campaign)
    text = Page(blind.campaign).text
    assert "<strong>No signal was found.</strong>" in text
    assert "<dt>signal (not above chance, AUC 0.52 of 1)</dt><dd>none</dd>" in text
    assert '<p class="warning">no signal, the AUC&#39;s interval, 0.46 to 0.58, includes 0.5' in text
    for wrong in ("highest score picked", "shading", "thin line"):
        assert wrong not in text
    assert text.count(WITHOUT_SIGNAL["diversity"].reason) == 2
    assert "Whatever their score: no signal was found." in text
    assert report(blind.campaign)["counts"] == report(made.campaign)["counts"]


@pytest.mark.parametrize(("auc", "word"), [(0.55, "weak"), (0.7, "moderate"), (0.89, "moderate"), (0.9, "strong")])
def test_the_strength_of_a_signal_is_that_of_its_auc(made: Made, auc: float, word: str) -> None:
    trained = read_manifest(made.campaign, "train", TrainManifest)
    assert strength({**trained, "diagnosis": {**trained["diagnosis"], "auc": auc}}) == word


def test_a_selection_of_an_earlier_version_has_no_report(fresh: Made) -> None:
    file = fresh.campaign.stage("selection") / "manifest.json"
    manifest = json.loads(file.read_bytes())
    del manifest["files"][SAMPLE_FILE]
    file.write_json(manifest)
    with pytest.raises(
        InputError, match="handed out by an earlier version; this round gets no report; go on: vaal ingest"
    ):
        report(fresh.campaign)


def test_second_call_changes_nothing(made: Made) -> None:
    before = snapshot(made.campaign)
    manifest = report(made.campaign)
    assert describe(made.campaign, manifest) == {"report": made.campaign.stage("report") / "report.html"}
    assert snapshot(made.campaign) == before
    assert manifest == json.loads((made.campaign.stage("report") / "manifest.json").read_bytes())


def next_round(made: Made, budget: int) -> Campaign:
    config = override(made.campaign.config, {"select.budget": budget}, "test")
    later = Campaign(made.campaign.home, config, made.campaign.round + 1)
    score_and_pick(made._replace(campaign=later))
    return later


def test_items_out_at_a_vendor_are_no_candidates(fresh: Made) -> None:
    picks = picked_items(fresh.campaign.home, before=1)
    take_back(fresh.campaign, picks.slice(0, 10))
    later = next_round(fresh, budget=5)
    counts = report(later)["counts"]
    assert (counts["labelled"], counts["out"], counts["picked"]) == (len(fresh.labelled) + 10, BUDGET - 10, 5)
    assert counts["labelled"] + counts["out"] + counts["picked"] + counts["not_picked"] == len(fresh.logits)
    page = Page(later)
    assert not set(page.sample()) & set(zip(picks["shard"].to_pylist(), picks["key"].to_pylist(), strict=True))
    assert len(page.sample()) == 5
    assert '<th scope="row">from round 000</th><td>10</td>' in page.text


def test_a_round_that_picks_everything_has_no_sample(fresh: Made) -> None:
    later = next_round(fresh, budget=len(fresh.logits) - len(fresh.labelled) - BUDGET)
    assert "sample.png" not in report(later)["files"]
    assert Page(later).sample() == []
    assert "0 images could have been picked and were not." in Page(later).text


def test_every_kind_of_fault_has_an_example_while_there_is_room(fresh: Made) -> None:
    kinds = [f"Fault{number:02d}" for number in range(12)]
    rows = [(DAMAGED[0], "key", 0, "decode", kind, "why", None) for n, kind in enumerate(kinds) for _ in range(30 - n)]
    table = pa.table([list(column) for column in zip(*rows, strict=True)], schema=QUARANTINE_SCHEMA)
    scores, selection = (fresh.campaign.stage(name) / "manifest.json" for name in ("scores", "selection"))
    manifest = with_entries_inside(fresh.campaign)
    (fresh.campaign.stage("quarantine") / manifest["shards"][2]["file"]).write_table(table)
    manifest["shards"][2]["errors"] = {f"decode/{kind}": 30 - n for n, kind in enumerate(kinds)}
    scores.write_json(manifest)
    selected = json.loads(selection.read_bytes())
    selection.write_json({**selected, "inputs": {**selected["inputs"], "scores": content_of(manifest)}})
    report(fresh.campaign)
    text = Page(fresh.campaign).text
    for number, kind in enumerate(kinds[:10]):
        assert f'<th scope="row">decode/{kind}</th><td>{30 - number}</td>' in text
        assert text.count(f"{kind}: why") == 1
    assert "Fault10" not in text
    assert '<th scope="row">others</th><td>39</td>' in text


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("rounds/000/selection/manifest.json", "not complete; run: vaal select"),
        ("rounds/000/train/metrics.parquet", "metrics.parquet: not the file that was committed"),
        ("rounds/000/selection/selection.parquet", "selection.parquet: not the file that was committed"),
        ("labels/initial.parquet", "labels/initial.parquet: not a table with the columns shard, key, label"),
        (
            "rounds/000/selection/candidates/scores.parquet",
            "scores.parquet: not the file that was committed",
        ),
        ("rounds/000/selection/candidates/sample.parquet", "sample.parquet: not the file that was committed"),
    ],
)
def test_a_stage_that_is_not_what_was_committed_is_refused(fresh: Made, file: str, message: str) -> None:
    path = Path(fresh.campaign.home.path) / file
    is_kept = not file.endswith("selection/manifest.json")
    path.write_bytes(path.read_bytes() + b"\n") if is_kept else path.unlink()
    with pytest.raises(InputError, match=re.escape(message)):
        report(fresh.campaign)
    assert not (fresh.campaign.stage("report") / "manifest.json").exists()
