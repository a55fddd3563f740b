"""The report shows the batch: its picks by cluster, its control arm, and duplicates beside what is kept."""

import base64
import csv
import io
import re
from collections import Counter, defaultdict
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from engine.campaign.folder import Campaign
from engine.campaign.opening import create
from engine.config.options import CampaignConfig
from engine.config.texts import score_text
from engine.config.toml import override
from engine.models.weights import make_networks
from engine.report.report import report
from engine.report.sheet import KIND_TEXTS
from engine.selection.select import select
from engine.tables.selections import CANDIDATES_FILE, CONTROL, DUPLICATE, PASSED_OVER, PICKED
from tests.conftest import pretend_trained
from tests.fabricate import fabricate_scores
from tests.rounds import without_report, write_shard

RNG = np.random.default_rng(0)
COPY = ("s-0.tar", "copy<b>&")
AGAIN, NEAR, OF_LABELLED = ("s-1.tar", "again"), ("s-1.tar", "near"), ("s-0.tar", "of-labelled")
SOURCES = {COPY: "0003", AGAIN: "0014", NEAR: "0005", OF_LABELLED: "0010"}
"""What each is a duplicate of, in s-0.tar."""
SETTINGS = {
    "image.size": 16, "select.budget": 12, "select.oversample": 3.0, "select.control_fraction": 0.25,
    "select.diversity": "clusters",
}  # fmt: skip


class Page(HTMLParser):
    """Headings, each with what is below it as (title, picture, caption), and the page's text."""

    def __init__(self, campaign: Campaign) -> None:
        super().__init__()
        self.text = (campaign.stage("report") / "report.html").read_bytes().decode()
        self.plain = ""
        self.tag = ""
        self.blocks: list[tuple[str, list[tuple[str, str, str]]]] = []
        self.feed(self.text)
        self.plain = re.sub(r"\s+", " ", self.plain)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        if tag in ("h2", "h3", "h4"):
            self.blocks.append(("", []))
        elif tag in ("li", "figure") and attributes.get("title"):
            self.blocks[-1][1].append((str(attributes["title"]), "", ""))
        elif tag == "img" and self.blocks[-1][1]:
            title, picture, caption = self.blocks[-1][1][-1]
            self.blocks[-1][1][-1] = (title, picture or str(attributes["src"]), caption)
        self.tag = tag

    def handle_endtag(self, tag: str) -> None:
        if tag in ("h2", "h3", "h4", "ul"):
            self.tag = tag + " ended"

    def handle_data(self, data: str) -> None:
        self.plain += data
        if self.tag in ("h2", "h3", "h4"):
            self.blocks[-1] = (" ".join(data.split()), self.blocks[-1][1])
        elif self.blocks and self.blocks[-1][1] and self.tag != "ul ended":
            title, picture, caption = self.blocks[-1][1][-1]
            self.blocks[-1][1][-1] = (title, picture, " ".join([*caption.split(), *data.split()]))

    def groups(self) -> dict[str, list[tuple[str, str, str]]]:
        return {name: images for name, images in self.blocks if name.startswith(("Cluster", "Control"))}

    def pairs(self) -> list[tuple[str, list[tuple[str, str, str]]]]:
        return [(name, figures) for name, figures in self.blocks if len(figures) == 2 and "ame" in name]


def pixels(uri: str) -> bytes:
    png = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
    return Image.open(io.BytesIO(png)).convert("RGB").tobytes()


class Made(NamedTuple):
    """A campaign and the pixels of its images."""

    campaign: Campaign
    images: dict[tuple[str, str], bytes]


def made_pool(folder: Path) -> Made:
    """Two shards of 30 images, with four duplicates of images in the first, one of which is labelled."""
    original = {(f"s-{n // 30}.tar", f"{n:04d}"): RNG.integers(0, 256, (16, 16, 3), np.uint8) for n in range(60)}
    image = {item: original[item if item in original else ("s-0.tar", "0000")] for item in [*original, *SOURCES]}
    image |= {item: original["s-0.tar", SOURCES[item]] for item in (COPY, AGAIN, OF_LABELLED)}
    image[NEAR] = RNG.integers(0, 256, (16, 16, 3), np.uint8)
    members: dict[str, dict[str, bytes]] = defaultdict(dict)
    for (shard, key), shown in image.items():
        content = io.BytesIO()
        Image.fromarray(shown).save(content, "PNG", compress_level=0 if (shard, key) == AGAIN else 9)
        members[shard][f"{key}.png"] = content.getvalue()
    for shard, files in members.items():
        write_shard(folder / shard, files)
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("shard", "key", "label"), ("s-0.tar", "0010", "x")])
    config = override(CampaignConfig(), SETTINGS, "test")
    shards = [f"{folder}/s-{n}.tar" for n in (0, 1)]
    campaign = create(f"{folder}/campaign", shards, f"{folder}/labels.csv", config, lambda _: None)
    return Made(campaign, {item: shown.tobytes() for item, shown in image.items()})


def number_of(key: str) -> int:
    return int({item[1]: source for item, source in SOURCES.items()}.get(key, key))


def score(campaign: Campaign) -> None:
    """Item n has the logit -6 + n / 10, and a duplicate 0.01 more than what it is one of."""
    pretend_trained(campaign)
    size = make_networks(campaign.config).num_latents

    def logits(shard: str, keys: list[str]) -> Any:
        return np.array([-6 + number_of(key) / 10 + (0 if key.isdigit() else 0.01) for key in keys], np.float32)

    def latents(shard: str, keys: list[str]) -> Any:
        own = [key for key in keys if key in (COPY[1], AGAIN[1], OF_LABELLED[1])]
        seeds = [number_of(key) + 100 * (key in own) for key in keys]
        return np.array([np.random.default_rng(seed).normal(size=size) for seed in seeds])

    fabricate_scores(campaign, logits, latents=latents)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    made = made_pool(tmp_path_factory.mktemp("batch"))
    score(made.campaign)
    select(made.campaign)
    report(made.campaign)
    return made


@pytest.fixture
def fresh(made: Made, tmp_path: Path) -> Campaign:
    """A copy of the campaign without its report."""
    return without_report(made.campaign, tmp_path / "campaign")


def picked_again(campaign: Campaign, settings: dict[str, Any]) -> Page:
    changed = replace(campaign, config=override(campaign.config, settings, "test"))
    select(changed)
    report(changed)
    return Page(changed)


def test_picks_stand_by_cluster_and_the_control_arm_last(made: Made) -> None:
    picks = (made.campaign.stage("selection") / "selection.parquet").read_table().to_pylist()
    by_cluster: dict[int | None, list[dict[str, Any]]] = defaultdict(list)
    for row in picks:
        by_cluster[row["cluster"]].append(row)
    control = by_cluster.pop(None)
    ordered = sorted(by_cluster.items(), key=lambda item: (-len(item[1]), item[1][0]["rank"]))
    assert len({len(rows) for rows in by_cluster.values()}) > 1
    assert [row["arm"] for row in control] == ["control"] * 3
    names = [(f"Cluster {cluster} · {len(rows)} image{'s' * (len(rows) > 1)}", rows) for cluster, rows in ordered]
    names.append(("Control group · 3 images", control))
    shown = Page(made.campaign).groups()
    assert list(shown) == [name for name, _ in names]
    for name, rows in names:
        assert [title.split(" and ")[0] for title, _, _ in shown[name]] == [
            f"rank {row['rank'] + 1}{' (control)' * (row['arm'] == 'control')}: {row['shard']} / {row['key']}"
            for row in rows
        ]
        for (_, picture, caption), row in zip(shown[name], rows, strict=True):
            assert pixels(picture) == made.images[row["shard"], row["key"]]
            mark = f" ×{row['group_size']}" * (row["group_size"] > 1)
            assert caption == f"{score_text(row['logit'])}{mark}{' control' * (row['arm'] == 'control')}"


def test_a_pick_says_how_many_are_like_it_and_the_text_what_the_control_arm_is_for(made: Made) -> None:
    page = Page(made.campaign)
    marked = [(title, caption) for rows in page.groups().values() for title, _, caption in rows if "×" in caption]
    assert marked == [(marked[0][0], "−4.60 ×2")]
    assert marked[0][0].endswith(": s-0.tar / 0014 and 1 like it")
    control = "The control group is drawn at random: once it is labelled, it shows how the picks of the rule differ"
    assert f"{control} from random ones." in page.plain
    assert "picked, −3.20. Picks right of it are the control group alone." in page.plain
    assert "Up to the thin line, −2.80, are the rule’s 36 candidates." in page.plain


def test_duplicates_stand_beside_what_is_kept(made: Made) -> None:
    page = Page(made.campaign)
    expected = [
        ("Same bytes", COPY, "score −5.69", "0003", "passed over score −5.70"),
        ("Same bytes", OF_LABELLED, "score −4.99", "0010", "labelled"),
        (KIND_TEXTS["picture"], AGAIN, "score −4.59", "0014", "picked score −4.60"),
        (KIND_TEXTS["latent"], NEAR, "score −5.49", "0005", "passed over score −5.50"),
    ]
    for (name, figures), (kind, dropped, logit, key, kept) in zip(page.pairs(), expected, strict=True):
        assert name == kind
        texts = [(title, caption.replace(" ,", ",")) for title, _, caption in figures]
        assert texts == [
            (f"dropped: {dropped[0]} / {dropped[1]}", f"dropped {logit} {dropped[0]} / {dropped[1]}"),
            (f"kept: s-0.tar / {key}", f"kept, {kept} s-0.tar / {key}"),
        ]
        assert [pixels(picture) for _, picture, _ in figures] == [made.images[dropped], made.images["s-0.tar", key]]
    assert COPY[1] not in page.text
    assert "4 of 36 candidates were dropped" in page.plain
    kinds = [f"{KIND_TEXTS[kind]}{number}" for kind, number in (("bytes", 2), ("picture", 1), ("latent", 1))]
    assert " ".join([*kinds, "All of them"]) in page.plain


def test_the_funnel_is_in_numbers(made: Made) -> None:
    numbers = "listed in the pool64 scored64 can be picked63 candidates36 without duplicates32 picked12"
    plain = Page(made.campaign).plain
    assert f"{numbers} by the rule (query)9 at random (control)3 picked in earlier batches0" in plain
    # What is not the default stands beside it.
    assert "oversample3.0 duplicates" in plain
    assert "control_fraction0.25 (default 0.05)" in plain


def test_the_map_says_what_became_of_the_candidates(made: Made) -> None:
    page = Page(made.campaign)
    fates = Counter((made.campaign.stage("selection") / CANDIDATES_FILE).read_table()["fate"].to_pylist())
    assert fates[DUPLICATE] == 4
    assert fates[PICKED] == 9
    legend = f"9 picked by the rule {fates[CONTROL]} picked at random 4 duplicates {fates[PASSED_OVER]} passed over"
    assert f"{legend} {3 - fates[CONTROL]} not shown" in page.plain
    for name in ("map.png", "map-dark.png"):
        assert base64.b64encode((made.campaign.stage("report") / name).read_bytes()).decode() in page.text


def test_a_budget_of_nothing_is_not_taken_for_a_lack_of_signal(fresh: Campaign) -> None:
    page = picked_again(fresh, {"select.budget": 0})
    assert "Nothing was picked: select.budget=0." in page.plain
    assert "There is nothing to draw: no two of 0 candidates have different latents." in page.plain
    assert "None was found among the 0 candidates." in page.plain
    assert "63 images could have been picked and were not; none is shown, because there is no pick" in page.plain
    assert "signal (strong, AUC 0.93 of 1)present" in page.plain
    for wrong in ("no signal", "Without a signal", "control group", "thin line", "highest score picked"):
        assert wrong not in page.plain
    assert page.groups() == {}


def test_a_batch_that_is_all_control_has_a_signal_and_no_cut(fresh: Campaign) -> None:
    page = picked_again(fresh, {"select.control_fraction": 1.0})
    assert list(page.groups()) == ["Control group · 12 images"]
    assert "All of the control group. Up to the thin line, −2.80, are the rule’s 36 candidates." in page.plain
    for wrong in ("no signal", "Without a signal", "shading", "highest score picked"):
        assert wrong not in page.plain


@pytest.mark.parametrize(
    ("mode", "text"),
    [
        ("off", "They were not looked for: select.duplicates=off."),
        ("exact", f"Same bytes2 {KIND_TEXTS['picture']}0 {KIND_TEXTS['latent']}0"),
    ],
)
def test_the_page_says_what_was_not_looked_for(fresh: Campaign, mode: str, text: str) -> None:
    assert text in picked_again(fresh, {"select.duplicates": mode}).plain
