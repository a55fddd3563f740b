"""A pool that moved as a whole goes on from its new folder; one that is gone is an error, and nothing is lost by it."""

import shutil

import pyarrow.parquet as pq
import pytest

from tests.engine.selection.test_sent_once import PAPER, Customer, customer  # noqa: F401

pytestmark = pytest.mark.heavy


def test_a_pool_that_moved_goes_on_and_is_not_scored_again(customer: Customer) -> None:  # noqa: F811
    customer.init(*PAPER)
    customer.vaal("train")
    customer.vaal("score")
    scores = {file: file.stat().st_mtime_ns for file in customer.home.glob("rounds/000/scores/*.parquet")}
    there = shutil.move(customer.folder / "pool", customer.folder / "bucket")
    for path in there.glob("*.tar"):
        path.touch()
    gone = customer.vaal("round", status=4).err
    assert "pool/0.tar: gone, and so are all 3 shards of the pool" in gone
    assert "--set pool.root=FOLDER" in gone
    nowhere = customer.vaal("score", "--set", f"pool.root={customer.folder}/nowhere", status=4).err
    assert "nowhere/0.tar: gone" in nowhere
    done = customer.vaal("round", "--set", f"pool.root={there}/")
    assert "another time and the same bytes" in done.err
    assert {file: file.stat().st_mtime_ns for file in customer.home.glob("rounds/000/scores/*.parquet")} == scores
    urls = pq.read_table(customer.home / "pool/shards.parquet")["url"].to_pylist()
    assert urls == [f"{there}/{number}.tar" for number in range(3)]
    first = customer.sent()
    assert len(first) == 4
    customer.answer(first)
    customer.vaal("round")
    assert len(customer.sent()) == 8
    assert not customer.sent_twice()


def test_a_pool_that_is_gone_while_it_is_to_be_scored_is_not_quarantined(customer: Customer) -> None:  # noqa: F811
    customer.init(*PAPER)
    customer.vaal("train")
    customer.pool.folder.rename(customer.folder / "away")
    assert "gone, and so are all" in customer.vaal("score", status=4).err
    assert not list(customer.home.glob("rounds/000/quarantine/*"))
    (customer.folder / "away").rename(customer.pool.folder)
    customer.vaal("round")
    assert len(customer.sent()) == 4
