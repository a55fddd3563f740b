"""Two campaigns on one pool: no image is bought twice."""

import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from engine.campaign import sharing
from engine.campaign.decisions import USER
from engine.campaign.folder import Campaign
from engine.campaign.handed_out import batches
from engine.campaign.manifests import SelectionManifest, read_manifest
from engine.campaign.recalling import recall
from engine.campaign.settling import settle
from engine.campaign.stages import Run
from engine.errors import ConfigError, InputError, StorageError
from engine.handoff.choice import Wish
from engine.handoff.export import export
from engine.selection.explanation import explain
from engine.selection.select import select
from engine.storage.location import Location
from tests.growing import EACH, glob_campaign
from tests.sendings import take_in
from tests.servers import s3_server
from tests.small import picked, with_settings

Pair = tuple[Campaign, Campaign]


@pytest.fixture(params=["disk", pytest.param("s3", marks=pytest.mark.heavy)])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a folder that does not exist yet."""
    if request.param == "disk":
        yield f"{tmp_path}/shared"
        return
    with s3_server("bucket") as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        sharing.create.__globals__["_s3_client"].cache_clear()
        # The server keeps its objects from one test to the next.
        yield f"s3://bucket/{tmp_path.parent.name}/{tmp_path.name}"


def make_pair(tmp_path: Path, shared: str, pool: str = "", **settings: str) -> Pair:
    """Two campaigns with the same scores, so that they would pick the same images."""
    found = []
    for number, name in enumerate("ab"):
        folder = pool if number and pool else f"{tmp_path}/a/pool"
        given = {"pool__shared_ledger": shared, "salt": f"{number + 1:032x}", **settings}
        found.append(glob_campaign(tmp_path / name, pool=f"{folder}/*.tar" if number else "", **given))
    return found[0], found[1]


@pytest.fixture
def pair(tmp_path: Path, shared: str) -> Pair:
    return make_pair(tmp_path, shared)


def sent(campaign: Campaign) -> list[tuple[str, str]]:
    rows = [row for batch in batches(campaign.home, campaign.round) for row in batch.images().to_pylist()]
    return [(row["shard"], row["key"]) for row in rows]


def counts(campaign: Campaign) -> dict[str, int]:
    return read_manifest(campaign, "selection", SelectionManifest)["counts"]


@pytest.mark.heavy
def test_what_one_has_out_or_labelled_the_other_does_not_pick(pair: Pair, tmp_path: Path) -> None:
    first, second = pair
    export(picked(first))
    export(picked(second))
    assert len(sent(first)) == len(sent(second)) == 9
    assert not set(sent(first)) & set(sent(second))
    # Its first six images have labels in both.
    assert counts(second) | {"out_elsewhere": 9, "labelled_elsewhere": 6} == counts(second)
    rows = [row for batch in batches(first.home, 0) for row in batch.images().to_pylist()]
    answers = tmp_path / "answers.csv"
    answers.write_text("item_id,label\n" + "".join(f"{row['item_id']},a\n" for row in rows[:4]))
    take_in(first, answers)
    lines: list[str] = []
    select(second, Run(log=lines.append), force=True)
    assert counts(second) | {"out_elsewhere": 5, "labelled_elsewhere": 10} == counts(second)
    assert any("5 out at a vendor and 10 labelled" in line for line in lines)


@pytest.mark.heavy
def test_of_two_that_picked_the_same_the_second_is_refused_and_picks_others(pair: Pair) -> None:
    first, second = map(picked, pair)
    export(first)
    fix = rf"vaal select {second.home}"
    with pytest.raises(ConfigError, match=rf"made before pool.shared_ledger changed; run: {fix}$"):
        export(second)
    assert not sent(second)
    assert not (second.home / "rounds/000/handoff/generic").children()
    lines: list[str] = []
    select(second, Run(log=lines.append))
    assert "the selection is made again: pool.shared_ledger changed" in lines
    export(second)
    assert not set(sent(first)) & set(sent(second))
    assert len(sent(second)) == 9
    assert {explain(second, *item)["outcome"] for item in sent(first)} == {"taken"}


def test_two_exports_at_one_moment_send_no_image_twice(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both have read the ledger before one of them writes."""
    first, second = map(picked, pair)
    append, barrier, lock = sharing._append, threading.Barrier(2), threading.Lock()
    waited, refused = set[str](), list[str]()

    def together(campaign: Campaign, *rest: object) -> bool:
        if campaign.home.url not in waited:
            waited.add(campaign.home.url)
            barrier.wait(20)
        with lock:
            return append(campaign, *rest)  # type: ignore[arg-type]

    def send(campaign: Campaign) -> None:
        try:
            export(campaign)
        except ConfigError as error:
            refused.append(str(error))

    monkeypatch.setattr(sharing, "_append", together)
    threads = [threading.Thread(target=send, args=(campaign,)) for campaign in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (why,) = refused
    loser = second if sent(first) else first
    assert "9 of 9 images are out or labelled in another campaign, first s-" in why
    assert why.endswith(f"nothing was sent; to pick others in their place, run: vaal select {loser.home}")
    assert sorted(map(len, map(sent, (first, second)))) == [0, 9]


@pytest.mark.heavy
def test_the_rest_of_a_batch_that_another_one_took_is_picked_by_force(pair: Pair) -> None:
    first, second = map(picked, pair)
    export(first, wish=Wish(limit=3))
    select(second)
    # All others, so that the rest of the first one's picks is among them.
    export(picked(with_settings(second, select__budget=3 * EACH - 6 - 3, select__duplicates="off")))
    with pytest.raises(ConfigError, match=f"6 of 6 images .* run: vaal select --force {first.home}"):
        export(first)
    assert len(sent(first)) == 3


@pytest.mark.heavy
def test_what_is_taken_back_is_free(pair: Pair) -> None:
    first, second = pair
    export(picked(first))
    assert len(picks_of_others(second)) == 15
    recall(first, [], USER, pick_again=False)
    settle(first)
    assert len(picks_of_others(second)) == 6
    export(picked(second))
    assert set(sent(first)) & set(sent(second))


def picks_of_others(campaign: Campaign) -> list[str]:
    found: list[str] = sharing.elsewhere(campaign).rows["key"].to_pylist()
    return found


@pytest.mark.heavy
@pytest.mark.parametrize("duplicates", ["off", "exact"])
def test_an_image_is_its_bytes_also_in_another_pool(tmp_path: Path, duplicates: str) -> None:
    first = make_pair(tmp_path, f"{tmp_path}/shared")[0]
    export(picked(first))
    # Under another root, and under other names.
    shutil.copytree(tmp_path / "a/pool", tmp_path / "copy")
    other = f"{tmp_path}/copy"
    settings = {"pool__shared_ledger": f"{tmp_path}/shared", "salt": f"{3:032x}", "select__duplicates": duplicates}
    second = picked(glob_campaign(tmp_path / "c", pool=f"{other}/*.tar", **settings))
    export(second)
    third = picked(glob_campaign(tmp_path / "d", pool=f"{other}/*.tar", **settings | {"salt": f"{4:032x}"}))
    rows = batches(first.home, 0)[0].images()
    with pytest.raises(ConfigError, match="9 of 9 images are out or labelled in another campaign"):
        sharing.claim(third, rows, "vaal select")
    assert not set(sent(first)) & set(sent(second))


@pytest.mark.heavy
def test_a_claim_whose_export_was_killed_is_let_go(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = map(picked, pair)

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("engine.handoff.export.write_parcel", killed)
        with pytest.raises(KeyboardInterrupt):
            export(first)
    assert len(picks_of_others(second)) == 6 + 9
    # The same command goes on with its own claims.
    with monkeypatch.context() as patch:
        patch.setattr("engine.handoff.export.record_parcel", killed)
        with pytest.raises(KeyboardInterrupt):
            export(first)
    files = sharing._folder(first).children()
    settle(first)
    assert len(sharing._folder(first).children()) == len(files) + 1
    assert len(picks_of_others(second)) == 6
    export(first)
    assert len(picks_of_others(second)) == 6 + 9
    files = sharing._folder(first).children()
    settle(first)
    assert sharing._folder(first).children() == files


def test_a_store_that_replaces_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = picked(make_pair(tmp_path, f"{tmp_path}/shared")[0])
    monkeypatch.setattr("engine.storage.placing.create", lambda *_: True)
    with pytest.raises(InputError, match="this store replaces files that are there"):
        export(first)
    assert not sent(first)


def test_a_ledger_that_cannot_be_reached_sends_nothing(tmp_path: Path) -> None:
    first = picked(make_pair(tmp_path, f"{tmp_path}/shared")[0])
    (tmp_path / "file").write_text("")
    pool = first.config.pool.model_copy(update={"shared_ledger": f"{tmp_path}/file/shared"})
    with pytest.raises((StorageError, InputError), match="file/shared"):
        export(replace(first, config=first.config.model_copy(update={"pool": pool})))
    assert not sent(first)


def test_a_file_is_created_once(shared: str) -> None:
    from engine.storage.placing import create

    file = Location(f"{shared}/000001.parquet")
    assert [create(file, content) for content in (b"first", b"second")] == [True, False]
    assert file.read_bytes() == b"first"
    assert list(Location(shared).children()) == ["000001.parquet"]
