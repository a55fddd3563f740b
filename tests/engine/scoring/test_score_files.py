"""Law 1: a shard is committed only if every listed item is scored or quarantined, whatever the order of its chunks."""

import itertools
import resource
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.campaign.folder import Campaign
from engine.errors import StorageError
from engine.scoring import drafts as score_files
from engine.scoring.drafts import Draft, recall
from engine.tables.scores import BAD_SCHEMA, pack, to_table
from engine.tables.shard_records import records_in, table_of
from tests.committed import folders_of
from tests.conftest import MakeCampaign
from vaal.duplicates.perceptual_hash import HASH_BYTES

HASH_TYPE = pa.binary(HASH_BYTES)


@pytest.fixture
def campaign(make_campaign: MakeCampaign) -> Campaign:
    return make_campaign()


def row(chunk: int, count: int, *, listed: int = -1, bad: int = 0, failure: str = "") -> dict[str, object]:
    """A scored chunk of `count` items and `bad` quarantined ones."""
    rng = np.random.default_rng(chunk)
    items = {
        "key": pa.array([f"{chunk}-{n}" for n in range(count)], pa.string()),
        "offset": pa.array(range(count), pa.int64()),
        "size_bytes": pa.array([9] * count, pa.int64()),
        "content_hash": pa.array(["00"] * count, pa.string()),
        "perceptual_hash": pa.array([None if n % 2 else bytes([n] * HASH_BYTES) for n in range(count)], HASH_TYPE),
        "logit": pa.array(rng.normal(size=count).astype(np.float32)),
        "latent": pa.FixedSizeListArray.from_arrays(pa.array(rng.normal(size=3 * count).astype(np.float16)), 3),
    }
    lost = to_table([(f"{chunk}-bad-{n}", n, "decode", "CutOff", "cut", None) for n in range(bad)], BAD_SCHEMA)
    return {
        "chunk": chunk, "listed": listed, "failure": failure, "scored": pack(pa.table(items)),
        "bad": pack(lost) if bad else b"",
    }  # fmt: skip


ROWS = [row(0, 4), row(1, 3, bad=2), row(2, 0), row(3, 5, listed=14)]


def draft_of(rows: list[dict[str, object]], shard: str = "folder/a.tar") -> Draft:
    draft = Draft(shard)
    for one in rows:
        draft.add(one)
    return draft


def contents(campaign: Campaign) -> dict[str, bytes]:
    folder = Path(campaign.round_home.path)
    return {f"{f.parent.name}/{f.name}": f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def test_any_order_of_chunks_makes_the_same_files(campaign: Campaign) -> None:
    ledger = draft_of(ROWS).commit(*folders_of(campaign), "a.parquet")
    assert (ledger.listed, ledger.scored, ledger.quarantined, ledger.errors) == (14, 12, 2, {"decode/CutOff": 2})
    made = contents(campaign)
    assert set(made) == {"scores/a.parquet", "quarantine/a.parquet"}
    table = pq.read_table(pa.BufferReader(made["scores/a.parquet"]))
    assert table["key"].to_pylist() == [f"{c}-{n}" for c, count in enumerate([4, 3, 0, 5]) for n in range(count)]
    assert set(table["shard"].to_pylist()) == {"folder/a.tar"}
    assert table.schema.field("perceptual_hash") == pa.field("perceptual_hash", HASH_TYPE)
    assert table["perceptual_hash"].to_pylist()[:3] == [bytes(HASH_BYTES), None, bytes([2] * HASH_BYTES)]
    for order in itertools.permutations(ROWS):
        assert draft_of([*order, ROWS[1]]).commit(*folders_of(campaign), "a.parquet") == ledger
        assert contents(campaign) == made


def test_a_chunk_that_comes_twice_counts_once() -> None:
    draft = Draft("a.tar")
    assert [draft.add(one) for one in (ROWS[1], ROWS[1], ROWS[0], ROWS[0], ROWS[1])] == [
        True,
        False,
        True,
        False,
        False,
    ]
    assert (draft._num_held, draft.is_whole) == (7, False)
    assert draft.add(ROWS[3])
    assert not draft.is_whole
    assert draft.add(ROWS[2])
    assert draft.is_whole


@pytest.mark.parametrize("listed", [13, 15])
def test_what_does_not_add_up_is_not_committed(campaign: Campaign, listed: int) -> None:
    with pytest.raises(
        RuntimeError, match=rf"listed {listed}, scored 12, quarantined 2; nothing of the shard is committed"
    ):
        draft_of([*ROWS[:3], {**ROWS[3], "listed": listed}]).commit(*folders_of(campaign), "a.parquet")
    assert not contents(campaign)


def test_of_a_shard_that_failed_nothing_is_used(campaign: Campaign, monkeypatch: pytest.MonkeyPatch) -> None:
    # Small row groups: part of it is in the draft's file already when the failure comes.
    monkeypatch.setattr(score_files, "ROW_GROUP_ITEMS", 2)
    ledger = draft_of([*ROWS[:3], row(3, 0, listed=0, failure="cut off")]).commit(*folders_of(campaign), "a.parquet")
    assert (ledger.listed, ledger.scored, ledger.quarantined) == (1, 0, 1)
    assert ledger.failure == "cut off"
    made = contents(campaign)
    assert pq.read_table(pa.BufferReader(made["scores/a.parquet"])).num_rows == 0
    (bad,) = pq.read_table(pa.BufferReader(made["quarantine/a.parquet"])).to_pylist()
    assert bad == {
        "shard": "folder/a.tar", "key": "", "offset": 0, "stage": "read", "error": "ShardFailed", "message": "cut off",
        "content_hash": None,
    }  # fmt: skip


def test_rows_leave_the_memory_as_they_come(campaign: Campaign, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score_files, "ROW_GROUP_ITEMS", 4)
    draft = draft_of(ROWS)
    assert draft._num_held < 4
    draft.commit(*folders_of(campaign), "a.parquet")
    metadata = pq.read_metadata(campaign.stage("scores").path + "/a.parquet")
    assert [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)] == [4, 4, 4]


def test_a_full_scratch_disk_is_named_and_nothing_is_committed(
    campaign: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score_files, "DRAFT_BYTES", 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for rows_in_memory in (4, 1000):
        monkeypatch.setattr(score_files, "ROW_GROUP_ITEMS", rows_in_memory)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200, hard))
        try:
            with pytest.raises(StorageError) as caught:
                draft_of(ROWS).commit(*folders_of(campaign), "a.parquet")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert str(caught.value).startswith(f"{tempfile.gettempdir()}: cannot be written: File too large; free space")
        assert not contents(campaign)
    assert draft_of(ROWS).commit(*folders_of(campaign), "a.parquet").listed == 14


def test_the_ledger_is_read_back_from_the_file(campaign: Campaign) -> None:
    ledger = draft_of(ROWS).commit(*folders_of(campaign), "a.parquet")
    folder = campaign.stage("scores")
    assert recall(folder, "a.parquet") == ledger
    assert list(records_in(table_of([ledger]))) == [ledger]
    file = Path((folder / "a.parquet").path)
    for damaged in (b"", file.read_bytes()[:-9], b"no parquet"):
        file.write_bytes(damaged)
        assert recall(folder, "a.parquet") is None
