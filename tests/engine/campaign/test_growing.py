"""What a round reads of a pool that shards joined and left."""

import os
from pathlib import Path

import pytest

from engine.campaign.folder import Campaign
from engine.campaign.growing import follow, forget, take_new
from engine.campaign.handed_out import picked_items
from engine.campaign.labels import append_labels, labelled_items
from engine.campaign.opening import check_budget, open_campaign
from engine.campaign.stages import Run
from engine.errors import ConfigError, InputError
from engine.handoff.export import export
from engine.pool.manifest import MOST_SINGLE, read_shards, shards_at, write_shards
from engine.selection.select import select
from engine.storage.location import Location
from engine.storage.placing import duplicate, require_exclusive
from engine.training.plan import plan_training
from tests.growing import EACH, glob_campaign, in_next_round, names_of, new_shard, vaal
from tests.servers import gcs_server, s3_server
from tests.small import picked, with_settings

S = [f"s-{number}.tar" for number in range(6)]


@pytest.fixture
def campaign(tmp_path: Path) -> Campaign:
    return glob_campaign(tmp_path, train__folds=1)


def label(campaign: Campaign, shard: str, *keys: str) -> None:
    append_labels(campaign.home, "set", [(shard, key, "a", None, "me", None, None, None, None) for key in keys])


def test_labels_of_a_shard_that_left_are_trained_on_while_it_can_be_read(campaign: Campaign, tmp_path: Path) -> None:
    label(campaign, S[1], *(f"{EACH + n:03d}" for n in range(4)))
    forget(campaign, [S[0]])
    plan, lines = plan_training(campaign), list[str]()
    assert [shard.shard for shard in plan.pool.shards] == S[1:3]
    assert {position[0] for position in plan.positions} == {S[0], S[1]}
    assert len(plan.positions) == 10
    left = plan.pool.shard(S[0])
    assert left.url == f"{tmp_path}/pool/{S[0]}"
    Path(left.url).unlink()
    plan = plan_training(campaign, log=lines.append)
    assert {position[0] for position in plan.positions} == {S[1]}
    assert set(plan.labels) == labelled_items(campaign.home)
    assert lines[-1] == (
        "6 labelled images of 1 shard that left the pool cannot be read any more, first s-0.tar: not used; the labels "
        "stay"
    )
    assert len(labelled_items(campaign.home)) == 10


@pytest.mark.heavy
def test_nothing_is_picked_from_a_shard_that_left(campaign: Campaign) -> None:
    picked(campaign)
    assert S[1] in picked_items(campaign.home, 1)["shard"].to_pylist()
    # The round has begun, and has scored it.
    assert forget(campaign, [S[1]]).round == 1
    assert S[1] in names_of(campaign, 0)
    with pytest.raises(ConfigError, match="made before shards that left the pool changed; run: vaal select"):
        export(campaign)
    lines: list[str] = []
    select(campaign, Run(log=lines.append))
    assert "the selection is made again: shards that left the pool changed" in lines
    assert S[1] not in picked_items(campaign.home, 1)["shard"].to_pylist()
    export(campaign)


def test_the_budget_is_that_of_the_round(campaign: Campaign, tmp_path: Path) -> None:
    new_shard(tmp_path / "pool", 3)
    counted = [shard._replace(num_items=EACH) for shard in read_shards(campaign.home)]
    write_shards(campaign.home, counted)
    too_much = with_settings(campaign, select__budget=3 * EACH - 5)
    with pytest.raises(ConfigError, match=f"is more than the {3 * EACH - 6} items"):
        check_budget(too_much)
    forget(campaign, [S[0]])
    with pytest.raises(ConfigError, match=f"is more than the {2 * EACH} items"):
        check_budget(too_much)
    take_new(campaign, lambda _: None)
    # The new one is not counted yet.
    check_budget(too_much)


def test_a_round_takes_new_shards_when_it_begins_or_says_that_they_are_there(
    campaign: Campaign, tmp_path: Path
) -> None:
    new, lines = new_shard(tmp_path / "pool", 3), list[str]()
    follow(campaign, lines.append)
    seen = "1 new shard below the pool's globs, not in it yet, first"
    assert lines == [f"{seen} {new}; to take them: vaal pool {campaign.home} refresh"]
    following = with_settings(campaign, pool__follow=True)
    follow(following, lines.append)
    assert lines[1:] == [f"1 shard joined the pool, first {new}"]
    picked(following)
    new = new_shard(tmp_path / "pool", 4)
    follow(following, lines.append)
    assert lines[2:] == [f"{seen} {new}; pool.follow takes them when the next round begins"]
    assert names_of(campaign, 0) == names_of(campaign, 1) == S[:4]
    follow(with_settings(in_next_round(campaign), pool__follow=True), lines.append)
    assert names_of(campaign, 1) == S[:5]


def test_a_shard_without_metadata_does_not_join(tmp_path: Path) -> None:
    table = tmp_path / "sources.csv"
    table.write_text("shard,source\n" + "".join(f"{name},x\n" for name in S[:3]))
    campaign = glob_campaign(tmp_path, pool__metadata=str(table), select__stratify="source")
    new_shard(tmp_path / "pool", 3)
    with pytest.raises(InputError, match=r"no row for 1 of 4 shards, first 's-3\.tar'"):
        take_new(campaign, lambda _: None)
    assert names_of(campaign, 0) == S[:3]
    table.write_text(table.read_text() + f"{S[3]},y\n")
    assert take_new(campaign, lambda _: None).joined


@pytest.mark.heavy
@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_a_pool_grows_and_moves_on_a_store(scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (s3_server if scheme == "s3" else gcs_server)("bucket") as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        root, there = (Location(f"{scheme}://bucket/{tmp_path.name}/{name}") for name in ("pool", "there"))

        def put(folder: Location, number: int) -> None:
            (folder / S[number]).write_bytes(new_shard(tmp_path / "local", number).read_bytes())

        for number in range(3):
            put(root, number)
        home = str(glob_campaign(tmp_path, pool=f"{root}/*.tar").home)
        put(root, 3)
        assert vaal(0, "status", home)["pool"]["first_new"] == f"{root}/{S[3]}"
        assert vaal(0, "pool", home, "refresh")["joined"] == [S[3]]
        assert vaal(0, "pool", home, "add", f"{root}/{S[1]}")["known"] == 1
        (root / S[2]).delete()
        assert vaal(0, "pool", home, "refresh")["left"] == [S[2]]
        if scheme == "gs":
            # Its emulator neither copies nor gives ranges.
            return
        for number in (0, 1):
            duplicate(root / S[number], there / S[number])
        assert "1 of 3 shards are missing" in vaal(4, "pool", home, "move", "--root", str(there))["error"]
        put(there, 3)
        assert vaal(0, "pool", home, "move", "--root", str(there))["images"] == 6
        opened = open_campaign(home)
        assert {shard.url for shard in read_shards(opened.home) if shard.left is None} == {
            f"{there}/{S[number]}" for number in (0, 1, 3)
        }


@pytest.mark.heavy
def test_a_store_that_does_not_know_the_condition_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with gcs_server("bucket") as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        file = Location(f"gs://bucket/{tmp_path.name}/000001.parquet")
        # So does this emulator.
        with pytest.raises(InputError, match="this store replaces files that are there, although asked not to"):
            require_exclusive(file)


def test_a_name_with_a_bracket_names_no_other_shard(tmp_path: Path) -> None:
    new_shard(tmp_path / "pool", 3).rename(tmp_path / "pool/s-[12].tar")
    for number in range(3):
        new_shard(tmp_path / "pool", number)
    campaign = glob_campaign(tmp_path, pool=f"{tmp_path}/pool/*.tar")
    assert [shard.shard for shard in forget(campaign, ["s-[12].tar"]).left] == ["s-[12].tar"]
    assert [shard.shard for shard in forget(campaign, [f"{tmp_path}/pool/s-[0-1].tar"]).left] == [S[0], S[1]]


@pytest.mark.parametrize("name", [b"\xff.txt", b"\xff.tar"])
def test_a_file_whose_name_is_not_utf8_is_named(campaign: Campaign, tmp_path: Path, name: bytes) -> None:
    (tmp_path / "pool" / os.fsdecode(name)).write_bytes(b"x")
    assert f"{name!r} is not UTF-8; rename that file" in vaal(4, "pool", campaign.home.url, "refresh")["error"]
    assert "is not UTF-8; rename that file" in vaal(0, "status", campaign.home.url)["pool"]["fault"]
    large = [Location(f"{tmp_path}/pool/{S[0]}")] * (MOST_SINGLE + 1)
    with pytest.raises(InputError, match="is not UTF-8"):
        shards_at(large, f"{tmp_path}/pool")
