"""select.where and select.exclude: nothing that is kept out is picked, by any method; all else is as without it."""

import csv
import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.campaign.folder import Campaign
from engine.campaign.freshness import current_selection
from engine.campaign.labels import labelled_items
from engine.campaign.stages import Run
from engine.config.options import CampaignConfig
from engine.config.texts import parse_settings
from engine.config.toml import override
from engine.errors import ConfigError, InputError
from engine.selection import parts
from engine.selection.explanation import explain
from engine.selection.select import select
from engine.tables.selections import CANDIDATES_FILE, SAMPLE_FILE
from tests.conftest import MakeCampaign, pretend_trained
from tests.fabricate import fabricate_scores
from tests.jobs.test_cli import vaal
from tests.small import make_small

Item = tuple[str, str]
Scored = Callable[..., Campaign]
PAPER = ("select.diversity=none", "select.duplicates=off", "select.control_fraction=0", "select.budget=60")
SHARDS = [f"digits-{number:05d}.tar" for number in range(8)]


@pytest.fixture
def metadata(tmp_path: Path) -> Path:
    rows = ["shard,camera,year,taken", *(f"{s},{'ab'[n % 2]},{2015 + n if n else ''},2020-0{n + 1}-15"
            for n, s in enumerate(SHARDS))]  # fmt: skip
    (tmp_path / "shards.csv").write_text("\n".join(rows))
    return tmp_path / "shards.csv"


@pytest.fixture
def scored(make_campaign: MakeCampaign, metadata: Path) -> Scored:
    def make(*settings: str) -> Campaign:
        campaign = make_campaign(f"pool.metadata={metadata}")
        campaign = with_settings(campaign, *settings)
        pretend_trained(campaign)
        rng = np.random.default_rng(0)
        fabricate_scores(
            campaign, lambda _, keys: rng.integers(-20, 20, len(keys)),
            latents=lambda _, keys: rng.normal(size=(len(keys), 32)),
        )  # fmt: skip
        return campaign

    return make


def with_settings(campaign: Campaign, *settings: str) -> Campaign:
    config: CampaignConfig = override(campaign.config, parse_settings(settings), "test")
    return dataclasses.replace(campaign, config=config)


def rows(campaign: Campaign, stage: str, name: str = "") -> list[dict[str, Any]]:
    files = [name] if name else sorted(campaign.stage(stage).children())
    tables = [(campaign.stage(stage) / file).read_table() for file in files if file.endswith(".parquet")]
    return list(pa.concat_tables(tables).to_pylist())


def items(found: list[dict[str, Any]]) -> list[Item]:
    return [(row["shard"], row["key"]) for row in found]


def write_csv(file: Path, columns: tuple[str, ...], found: list[tuple[str, ...]]) -> Path:
    with file.open("w", newline="") as stream:
        csv.writer(stream).writerows([columns, *found])
    return file


def lowest(campaign: Campaign, out: set[Item], b: int = 60) -> list[Item]:
    """The definition: sort everything that may be picked."""
    taken = labelled_items(campaign.home) | out
    found = [row for row in rows(campaign, "scores") if (row["shard"], row["key"]) not in taken]
    return items(sorted(found, key=lambda row: (row["logit"], row["shard"], row["key"])))[:b]


@pytest.mark.heavy
def test_what_the_file_names_is_not_picked_and_the_next_lowest_are(scored: Scored, tmp_path: Path) -> None:
    campaign = scored(*PAPER)
    before = lowest(campaign, set())
    by_name, by_bytes = before[:10], before[10:15]
    hashes = {(row["shard"], row["key"]): row["content_hash"] for row in rows(campaign, "scores")}
    found = [(*item, "") for item in by_name] + [("", "", hashes[item].upper()) for item in by_bytes]
    found += [("digits-00000.tar", "no such key", ""), ("gone.tar", "0", ""), ("", "", "0" * 32)]
    file = write_csv(tmp_path / "out.csv", ("shard", "key", "content_hash"), found * 2)
    lines: list[str] = []
    campaign = with_settings(campaign, f"select.exclude={file}")
    manifest = select(campaign, Run(log=lines.append))
    assert items(rows(campaign, "selection", "selection.parquet")) == lowest(campaign, {*by_name, *by_bytes})
    counts = manifest["counts"]
    assert (counts["excluded"], counts["exclude_unmatched"]) == (15, 3)
    assert counts["eligible"] == len(rows(campaign, "scores")) - 200 - 15
    assert "select.exclude keeps out 15 images; 3 of its entries match no scored image" in lines
    assert not {*by_name, *by_bytes} & {*items(rows(campaign, "selection", SAMPLE_FILE))}
    why = "select.exclude names it, or an image with the same bytes"
    assert explain(campaign, *by_bytes[0]) | {"why": why} == explain(campaign, *by_name[0]) | {
        "shard": by_bytes[0][0], "key": by_bytes[0][1], "outcome": "kept out",
    }  # fmt: skip


METHODS = [
    *(("select.diversity=" + name,) for name in ("none", "gumbel", "clusters", "k_center", "facility", "typiclust")),
    ("select.diversity=herding", "select.acquisition=random", "score.acquisition=['vaal']"),
    ("select.diversity=mini_batches", "select.control_fraction=0.5"),
    ("select.diversity=completion", "labels.are_biased=yes"),
    ("select.diversity=none", "labels.are_biased=no", "select.when_no_signal=random"),
    ("select.diversity=none", "labels.are_biased=no", "select.when_no_signal=diversity"),
    ("select.control_fraction=1",),
]


@pytest.mark.heavy
@pytest.mark.parametrize("method", [m for m in METHODS if "select.acquisition=random" not in m], ids="+".join)
def test_no_method_and_no_control_arm_picks_what_is_kept_out(
    scored: Scored, tmp_path: Path, method: tuple[str, ...]
) -> None:
    campaign = scored("select.budget=40", *method)
    out = set(items(rows(campaign, "scores"))[::2])
    file = tmp_path / "out.parquet"
    pq.write_table(pa.table({"shard": [s for s, _ in out], "key": [k for _, k in out]}), file)
    campaign = with_settings(campaign, f"select.exclude={file}", "select.where=camera = 'a' and year is not null")
    manifest = select(campaign)
    picks = items(rows(campaign, "selection", "selection.parquet"))
    assert len(picks) == 40
    assert {shard for shard, _ in picks} <= {SHARDS[2], SHARDS[4], SHARDS[6]}
    assert not {*picks} & out
    assert not {*items(rows(campaign, "selection", CANDIDATES_FILE))} & out
    counts, labelled = manifest["counts"], labelled_items(campaign.home)
    everything = {*items(rows(campaign, "scores"))}
    free = {(s, k) for s, k in everything - out - labelled if s in (SHARDS[2], SHARDS[4], SHARDS[6])}
    assert counts["eligible"] == len(free)
    assert counts["excluded"] == len(out)
    assert counts["out_by_where"] == len(everything - out - labelled - free)


def test_the_parts_do_not_matter(scored: Scored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    campaign = scored(*PAPER)
    out = lowest(campaign, set())[::3]
    hashes = [row["content_hash"] for row in rows(campaign, "scores") if (row["shard"], row["key"]) in out]
    file = write_csv(tmp_path / "out.csv", ("content_hash",), [(digest,) for digest in hashes])
    campaign = with_settings(campaign, f"select.exclude={file}", "select.where=year >= 2017")
    select(campaign)
    whole = (campaign.stage("selection") / "selection.parquet").read_bytes()
    monkeypatch.setattr(parts, "map_reduce", lambda map_, merge, parts, _: merge([map_([i]) for p in parts for i in p]))
    for module in ("kept_out", "reduction"):
        monkeypatch.setattr(f"engine.selection.{module}.map_reduce", parts.map_reduce)
    select(campaign, force=True)
    assert (campaign.stage("selection") / "selection.parquet").read_bytes() == whole


def test_a_copy_of_an_excluded_image_is_a_duplicate_of_it(tmp_path: Path) -> None:
    campaign = make_small(tmp_path / "small", select__budget=20, select__control_fraction=0.5)
    hashes = {(row["shard"], row["key"]): row["content_hash"] for row in rows(campaign, "scores")}
    twins = {item for item, digest in hashes.items() if list(hashes.values()).count(digest) > 1}
    last = {item for item in twins if item[0] == "s-2.tar"}
    assert len(last) == 5
    file = write_csv(tmp_path / "out.csv", ("shard", "key"), [*last])
    campaign = with_settings(campaign, f"select.exclude={file}")
    manifest = select(campaign)
    picks = items(rows(campaign, "selection", "selection.parquet"))
    assert len(picks) == 20
    assert not {hashes[item] for item in last} & {hashes[item] for item in picks}
    # The others of the same bytes can be picked as far as the counts go: they are duplicates of what is excluded.
    assert manifest["counts"]["duplicates_bytes"] > 0


def test_a_file_with_other_content_makes_the_selection_again_and_one_that_is_only_rewritten_does_not(
    scored: Scored, tmp_path: Path
) -> None:
    campaign = scored(*PAPER)
    first, second = lowest(campaign, set())[:2]
    file = write_csv(tmp_path / "out.csv", ("shard", "key"), [first])
    campaign = with_settings(campaign, f"select.exclude={file}")
    made = select(campaign)
    file.write_bytes(file.read_bytes())
    assert select(campaign) == made
    write_csv(file, ("shard", "key"), [first, second])
    with pytest.raises(ConfigError, match=r"made before select.exclude changed; run: vaal select"):
        current_selection(campaign)
    lines: list[str] = []
    select(campaign, Run(log=lines.append))
    assert lines[0] == "the selection is made again: select.exclude changed"
    assert second not in items(rows(campaign, "selection", "selection.parquet"))
    file.unlink()
    with pytest.raises(InputError, match=r"out.csv: no such file; .*--set select.exclude=''"):
        select(campaign)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("name\nx\n", "no columns shard and key, nor content_hash, among name"),
        ("shard,key\na.tar,\n", "row 1: shard and key go together"),
        ("shard,key,content_hash\na.tar,b,\n,,\n", "row 2: names no image"),
        ("content_hash\nxyz\n", "row 1: content_hash 'xyz' is none: they have 32 hex digits"),
        ("shard,key\na.tar,b,c\n", r"cannot be read as .csv: .*Expected 2 columns, got 3"),
        ("", "cannot be read as .csv: Empty CSV file"),
    ],
)
def test_a_faulty_file_is_refused_by_name_and_row(scored: Scored, tmp_path: Path, content: str, fault: str) -> None:
    file = tmp_path / "out.csv"
    file.write_text(content)
    with pytest.raises(InputError, match=f"out.csv: {fault}"):
        select(scored(*PAPER, f"select.exclude={file}"))


def test_what_is_labelled_and_kept_out_stays_a_label(scored: Scored) -> None:
    campaign = scored("select.budget=10", "select.where=camera = 'zz' or camera = 'a'")
    manifest = select(campaign)
    picks = items(rows(campaign, "selection", "selection.parquet"))
    assert {shard for shard, _ in picks} <= {*SHARDS[::2]}
    free = {*items(rows(campaign, "scores"))} - labelled_items(campaign.home)
    assert manifest["counts"]["eligible"] == sum(shard in SHARDS[::2] for shard, _ in free)
    histogram = (campaign.stage("selection") / "candidates/scores.parquet").read_table()
    assert sum(histogram["labelled"].to_pylist()) == len(labelled_items(campaign.home)) == 200
    item = next(item for item in labelled_items(campaign.home) if item[0] == SHARDS[1])
    assert explain(campaign, *item)["outcome"] == "labelled"
    other = next(row for row in items(rows(campaign, "scores")) if row[0] == SHARDS[1] and row not in
                 labelled_items(campaign.home))  # fmt: skip
    found = explain(campaign, *other)
    assert found["outcome"] == "kept out"
    assert found["why"] == "its shard does not meet select.where=camera = 'zz' or camera = 'a'"
    for absent in ((SHARDS[1], "never"), ("never.tar", other[1])):
        with pytest.raises(InputError, match=r"no (item|such shard)"):
            explain(campaign, *absent)
    assert (out := manifest["counts"]["out_by_where"]) > 500
    assert re.search(f"kept out +select.where keeps out {out} images", vaal("status", str(campaign.home)).stdout)


def test_a_condition_that_nothing_meets_is_refused(scored: Scored) -> None:
    with pytest.raises(ConfigError, match=r"select.where=year > 2999: none of the 8 shards of the pool meets it"):
        select(scored("select.where=year > 2999"))
