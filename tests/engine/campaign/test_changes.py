"""Law 11: an item is its bytes. Shards are copied, remade and replaced between any two stages."""

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.campaign.changes import look_again, refresh
from engine.campaign.folder import Campaign
from engine.campaign.handed_out import completed, picked_items
from engine.campaign.labels import append_labels, labelled_items
from engine.campaign.manifests import ScoresManifest, read_manifest
from engine.campaign.positions import labelled_positions, write_positions
from engine.campaign.scored_shards import outdated
from engine.campaign.stages import QUIET, Run
from engine.config.texts import plural
from engine.config.toml import override, to_toml
from engine.errors import InputError
from engine.handoff.export import export
from engine.pool.manifest import read_shards
from engine.pool.shard import ChangedShardError, Place, read_images
from engine.pool.sight import Sight
from engine.report.thumbnails import BLANK, read_thumbnails, thumbnail
from engine.selection.select import select
from engine.storage.location import Location
from engine.tables.by_shard import ByShard
from engine.tables.selections import SAMPLE_FILE
from engine.training.labelled import as_seen, cache_labelled
from engine.training.streams import Pool
from tests.rounds import DAMAGED, Made, make_round, write_shard

Items = dict[str, bytes]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A round up to its selection."""
    return make_round(tmp_path_factory.mktemp("round"))


@pytest.fixture
def made(original: Made, tmp_path: Path) -> Made:
    """A copy of the round, on a pool of its own."""
    home = Path(original.campaign.home.path)
    shutil.copytree(home, tmp_path / "campaign")
    table = pq.read_table(home / "pool/shards.parquet")
    for url in table["url"].to_pylist():
        # With its time.
        shutil.copy2(url, tmp_path)
    urls = pa.array([f"{tmp_path}/{Path(url).name}" for url in table["url"].to_pylist()])
    pq.write_table(table.set_column(1, table.schema.field(1), urls), tmp_path / "campaign/pool/shards.parquet")
    config = override(original.campaign.config, {"pool.root": str(tmp_path)}, "test")
    (tmp_path / "campaign/campaign.toml").write_text(to_toml(config))
    return original._replace(campaign=replace(original.campaign, home=Location(f"{tmp_path}/campaign"), config=config))


def members(made: Made, shard: str) -> Items:
    found = {f"{key}.png": content for (name, key), content in made.images.items() if name == shard}
    return found | (
        {f"{DAMAGED[1]}.png": b"no image", "twice.png": b"", "twice.jpg": b""} if shard == DAMAGED[0] else {}
    )


def pool_of(made: Made) -> Path:
    return Path(made.campaign.home.path).parent


def remake(made: Made, shard: str, items: Items, *, keep_time: bool = False) -> None:
    path = pool_of(made) / shard
    before = path.stat()
    write_shard(path, items)
    if keep_time:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert path.stat().st_size == before.st_size


def refreshed(campaign: Campaign) -> list[str]:
    log: list[str] = []
    refresh(campaign, log.append)
    return log


def labelled_images(campaign: Campaign) -> dict[tuple[str, str], bytes]:
    """What training would read as the labelled images."""
    shards = {shard.shard: shard for shard in read_shards(campaign.home)}
    rows = [tuple(row.values()) for row in labelled_positions(campaign.home).to_pylist()]
    return {(row[0], row[1]): next(read_images(shards[row[0]], [Place(*row[1:])])) for row in rows}


def handed_out(campaign: Campaign, run: Run = QUIET) -> dict[str, bytes]:
    """The images of the handoff by item_id."""
    export(campaign, run)
    return {file.stem: file.read_bytes() for file in Path(campaign.stage("handoff/generic/images").path).iterdir()}


def picks(made: Made, shard: str = "") -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = picked_items(made.campaign.home, before=1).to_pylist()
    return [row for row in rows if row["shard"] == (shard or row["shard"])]


def is_outdated(campaign: Campaign) -> set[str]:
    return outdated(campaign, read_shards(campaign.home), read_manifest(campaign, "scores", ScoresManifest))


def right(made: Made) -> dict[str, bytes]:
    return {row["item_id"]: made.images[row["shard"], row["key"]] for row in picks(made)}


def test_a_pool_that_is_touched_or_copied_stays_the_same(made: Made) -> None:
    before = read_shards(made.campaign.home)
    for shard in before:
        os.utime(shard.url)
    assert refreshed(made.campaign) == ["3 of the pool's shards have another time and the same bytes: nothing changes"]
    after = read_shards(made.campaign.home)
    assert [shard.version for shard in after] == [shard.version for shard in before]
    assert not {shard.mtime_ns for shard in after} & {shard.mtime_ns for shard in before}
    assert not refreshed(made.campaign)
    assert not is_outdated(made.campaign)
    assert handed_out(made.campaign) == right(made)


def test_a_pool_that_is_touched_before_it_is_scored_keeps_its_labels(made: Made) -> None:
    shutil.rmtree(Path(made.campaign.round_home.path))
    for shard in read_shards(made.campaign.home):
        os.utime(shard.url)
    refreshed(made.campaign)
    assert labelled_images(made.campaign) == {item: made.images[item] for item in made.labelled}
    # The second time the items are known from the first.
    before = read_shards(made.campaign.home)
    for shard in before:
        os.utime(shard.url)
    refreshed(made.campaign)
    assert [shard.version for shard in read_shards(made.campaign.home)] == [shard.version for shard in before]


def test_in_a_shard_that_is_remade_every_image_is_found_again(made: Made) -> None:
    remake(made, "s-0.tar", dict(reversed(members(made, "s-0.tar").items())))
    (line,) = refreshed(made.campaign)
    count = len(
        {row["key"] for row in picks(made, "s-0.tar")} | {key for name, key in made.labelled if name == "s-0.tar"}
    )
    assert "s-0.tar: its bytes changed since it was listed; the next scoring scores it again; " in line
    assert line.endswith(f"; found again in it: {plural(count, 'labelled or picked image')}")
    assert is_outdated(made.campaign) == {"s-0.tar"}
    assert labelled_images(made.campaign) == {item: made.images[item] for item in made.labelled}
    assert handed_out(made.campaign) == right(made)


def test_labels_that_come_back_after_the_change_are_under_their_images(made: Made) -> None:
    remake(made, "s-0.tar", dict(reversed(members(made, "s-0.tar").items())))
    refreshed(made.campaign)
    rows = picks(made, "s-0.tar")
    names = ("shard", "key", "offset", "size_bytes", "content_hash")
    labels = [(row["shard"], row["key"], "x", 0, "generic", None, None) for row in rows]
    write_positions(made.campaign.home, [tuple(row[name] for name in names) for row in rows])
    append_labels(made.campaign.home, "later", labels)
    assert len(rows) > 10
    found = labelled_images(made.campaign)
    assert found == {item: made.images[item] for item in labelled_items(made.campaign.home)}


@pytest.mark.parametrize("keep_time", [False, True], ids=["new time", "same size and time"])
def test_what_has_other_bytes_or_is_gone_is_named_and_neither_trained_on_nor_handed_out(
    made: Made, keep_time: bool
) -> None:
    items = members(made, "s-1.tar")
    labelled = next(key for name, key in sorted(made.labelled) if name == "s-1.tar")
    replaced, renamed, *others = [row["key"] for row in picks(made, "s-1.tar")]
    for key in (labelled, replaced):
        content = items[f"{key}.png"]
        items[f"{key}.png"] = content[:-1] + bytes([content[-1] ^ 1])
    spoilt = {f"{key}.png" if key != renamed else "other.png": items[f"{key}.png"] for key in [n[:-4] for n in items]}
    remake(made, "s-1.tar", spoilt, keep_time=keep_time)
    if keep_time:
        with pytest.raises(ChangedShardError, match=r"s-1.tar: item .* has other bytes.*; run again"):
            export(made.campaign)
        assert not completed(made.campaign, "handoff")
    log: list[str] = []
    lost = {row["item_id"] for row in picks(made, "s-1.tar") if row["key"] in (replaced, renamed)}
    assert handed_out(made.campaign, Run(log=log.append)) == {i: c for i, c in right(made).items() if i not in lost}
    assert others
    for key, fault in ((labelled, "has other"), (replaced, "has other"), (renamed, "is not found")):
        assert [line for line in log if line.startswith(f"s-1.tar: item {key} {fault}") and "restore the shard" in line]
    assert labelled_images(made.campaign).keys() == made.labelled - {("s-1.tar", labelled)}
    # Every later stage says so again, until it is decided; then nothing is left of it.
    assert len(refreshed(made.campaign)) == 3
    remake(made, "s-1.tar", members(made, "s-1.tar"))
    refreshed(made.campaign)
    assert labelled_images(made.campaign) == {item: made.images[item] for item in made.labelled}
    assert not refreshed(made.campaign)


def test_an_image_in_quarantine_that_is_repaired_in_place_is_seen(made: Made) -> None:
    items = members(made, DAMAGED[0])
    assert items[f"{DAMAGED[1]}.png"] == b"no image"
    remake(made, DAMAGED[0], items | {f"{DAMAGED[1]}.png": b"an image"})
    assert "its bytes changed" in refreshed(made.campaign)[0]
    assert is_outdated(made.campaign) == {DAMAGED[0]}


def test_a_shard_that_cannot_be_read_is_looked_at_by_every_stage(made: Made) -> None:
    (pool_of(made) / "s-2.tar").write_bytes(b"no tar" * 1000)
    log = refreshed(made.campaign)
    assert [line for line in log if "cannot be read: " in line and "not a tar header" in line]
    assert {name for name, _ in labelled_images(made.campaign)} == {"s-0.tar", "s-1.tar"}
    assert [line for line in refreshed(made.campaign) if "not a tar header" in line]
    remake(made, "s-2.tar", members(made, "s-2.tar"))
    refreshed(made.campaign)
    assert labelled_images(made.campaign) == {item: made.images[item] for item in made.labelled}


def test_nothing_is_picked_by_scores_of_other_bytes(made: Made) -> None:
    remake(made, "s-0.tar", dict(reversed(members(made, "s-0.tar").items())))
    refreshed(made.campaign)
    with pytest.raises(InputError, match=r"1 shards changed since they were scored \(s-0.tar\); run: vaal score"):
        select(made.campaign, force=True)
    export(made.campaign)
    log: list[str] = []
    options = made.campaign.config.select.model_copy(update={"budget": 5})
    again = replace(made.campaign, config=made.campaign.config.model_copy(update={"select": options}))
    select(again, Run(log=log.append), force=True)
    assert [line for line in log if "(s-0.tar): nothing is picked from them" in line]
    picked = (again.stage("selection") / "selection.parquet").read_table()["shard"].to_pylist()
    assert set(picked) == {"s-1.tar", "s-2.tar"}


def test_a_shard_is_looked_at_again_where_its_size_and_time_stay(made: Made) -> None:
    items = members(made, "s-0.tar")
    keys = list(items)
    a, b = next((a, b) for a in keys for b in keys if a < b and len(items[a]) == len(items[b]))
    swapped = items | {a: items[b], b: items[a]}
    remake(made, "s-0.tar", swapped, keep_time=True)
    assert not refreshed(made.campaign)
    look_again(made.campaign.home, {f"{pool_of(made)}/s-0.tar"})
    assert "its bytes changed" in refreshed(made.campaign)[0]


def test_a_campaign_of_an_older_version_goes_on(made: Made) -> None:
    """Without hashes of labelled images, and without versions of shards."""
    home = Path(made.campaign.home.path)
    before = read_shards(made.campaign.home)
    (items,) = (home / "pool/items").iterdir()
    for file, columns in ((home / "pool/shards.parquet", ["mtime_ns", "version"]), (items, ["content_hash"])):
        pq.write_table(pq.read_table(file).drop_columns(columns), file)
    assert read_shards(made.campaign.home) == before
    assert not is_outdated(made.campaign)
    assert labelled_positions(made.campaign.home)["content_hash"].null_count == len(made.labelled)
    for shard in before:
        os.utime(shard.url)
    refreshed(made.campaign)
    assert labelled_images(made.campaign) == {item: made.images[item] for item in made.labelled}
    # Where it was is all that is known of such an image.
    remake(made, "s-0.tar", dict(reversed(members(made, "s-0.tar").items())))
    refreshed(made.campaign)
    assert {item for item in labelled_images(made.campaign)} < made.labelled


def test_a_report_shows_an_image_or_grey_and_never_another(made: Made) -> None:
    remake(made, "s-0.tar", dict(reversed(members(made, "s-0.tar").items())))
    remake(made, "s-1.tar", {})
    refreshed(made.campaign)
    sample = (made.campaign.stage("selection") / SAMPLE_FILE).read_table().to_pylist()
    found = read_thumbnails(made.campaign, [*picks(made), *sample])
    assert {name for name, _ in found} == {"s-0.tar", "s-1.tar", "s-2.tar"}
    for (name, key), image in found.items():
        if image is not BLANK:
            expected = thumbnail(made.images[name, key], made.campaign.config.image)
            assert image.tobytes() == expected.tobytes()
    assert {item for item, image in found.items() if image is BLANK and item[0] != "s-0.tar"} == {
        item for item in found if item[0] == "s-1.tar"
    }
    assert not [row for row in picks(made, "s-0.tar") if found[row["shard"], row["key"]] is BLANK]
    assert [row for row in sample if row["shard"] == "s-0.tar"]


def test_other_bytes_are_never_trained_on_under_a_label(made: Made, tmp_path: Path) -> None:
    """Two labelled images of one shard in each other's places."""
    pool = Pool(
        read_shards(made.campaign.home), Sight(made.campaign.config.image), 1, ByShard.of_items(made.labelled), 0.0
    )
    right = [tuple(row.values()) for row in labelled_positions(made.campaign.home).to_pylist()]
    assert len(cache_labelled(pool, right, range(1), 1, as_seen(pool, tmp_path / "cache")).number_N) == len(right)
    first, second, *others = right
    swapped = [(*first[:2], *second[2:4], first[4]), (*second[:2], *first[2:4], second[4]), *others]
    with pytest.raises(ChangedShardError, match=f"s-0.tar: item {first[1]} has other bytes"):
        cache_labelled(pool, swapped, range(1), 1, as_seen(pool, tmp_path / "cache"))
