"""A picture is sent once: an image is its bytes, whatever key and shard they have by now."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.machine.product import Done, Product, logit_of
from tests.machine.tiny_pool import TinyPool

PAPER = ("select.control_fraction=0", "select.diversity=none")


class Customer:
    """A campaign on the tiny pool, and the commands of the one who works with it."""

    def __init__(self, folder: Path, product: Product) -> None:
        self.folder, self.pool, self.product, self.home = folder, TinyPool(folder / "pool"), product, folder / "c"

    def vaal(self, command: str, *arguments: str, status: int = 0) -> Done:
        done = self.product.run(command, str(self.home), *arguments)
        assert done.status == status, done
        return done

    def init(self, *settings: str, status: int = 0) -> Done:
        labels = self.folder / "labels.csv"
        rows = [f"{shard},{key},a" for shard, key in self.pool.items() if key in ("00", "05")]
        labels.write_text("\n".join(["shard,key,label", *rows]))
        options = [word for text in ("image.size=8", "select.budget=4", *settings) for word in ("--set", text)]
        shards = str(self.folder / "pool/*.tar")
        return self.vaal("init", "--pool", shards, "--labels", str(labels), *options, status=status)

    def sent(self, number: int | str = "*") -> list[dict[str, Any]]:
        files = sorted(self.home.glob(f"rounds/{number}/handed_out/*/images.parquet"))
        return [row for file in files for row in pq.read_table(file).to_pylist()]

    def answer(self, rows: list[dict[str, Any]]) -> None:
        file = self.folder / "answers.csv"
        file.write_text("\n".join(["item_id,label", *(f"{row['item_id']},b" for row in rows), ""]))
        self.vaal("ingest", str(file))

    def rename(self, shard: str, key: str, to: str) -> None:
        files = self.pool.files[shard]
        self.pool.files[shard] = {(to if name == key else name): data for name, data in files.items()}
        self.pool.write(shard)

    def sent_twice(self) -> list[str]:
        return [content for content, count in Counter(row["content_hash"] for row in self.sent()).items() if count > 1]


@pytest.fixture
def customer(tmp_path: Path) -> Iterator[Customer]:
    product = Product()
    with product.in_place():
        yield Customer(tmp_path, product)


@pytest.mark.heavy
@pytest.mark.parametrize("mode", ["exact", "near"])
def test_an_image_that_is_out_and_renamed_is_not_sent_again(customer: Customer, mode: str) -> None:
    customer.init(*PAPER, f"select.duplicates={mode}")
    customer.vaal("round")
    first, *rest = customer.sent()
    customer.rename(first["shard"], first["key"], "zz")
    customer.answer(rest)
    customer.vaal("round", "--close")
    assert len(customer.sent()) == 8
    assert not customer.sent_twice()
    fate = customer.vaal("select", "--explain", first["shard"], "zz").out
    assert f"the same bytes as {first['shard']} {first['key']}" in fate


@pytest.mark.heavy
def test_a_copy_of_what_is_out_is_not_sent_when_the_first_is_cut_off(customer: Customer) -> None:
    lowest = min(customer.pool.items(), key=lambda item: logit_of(customer.pool.content(item)))
    copied_to = "1.tar" if lowest[0] == "0.tar" else "0.tar"
    customer.pool.files[copied_to]["07"] = customer.pool.files[lowest[0]][lowest[1]]
    customer.pool.write(copied_to)
    customer.init(*PAPER)
    customer.vaal("round")
    first, *rest = customer.sent()
    customer.pool.cut(first["shard"], 0.0)
    customer.answer(rest)
    customer.vaal("round", "--close", "--set", "score.max_bad_fraction=1")
    assert len(customer.sent()) == 8
    assert not customer.sent_twice()


def test_a_labelled_image_that_is_renamed_is_not_sent(customer: Customer) -> None:
    customer.init("select.control_fraction=0.5")
    shard, key = min(customer.pool.items(), key=lambda item: logit_of(customer.pool.content(item)))
    customer.vaal("labels", "set", shard, key, "b")
    content = customer.pool.content((shard, key))
    customer.rename(shard, key, "zz")
    customer.vaal("round", "--set", "select.budget=20")
    assert content not in {row["content_hash"] for row in customer.sent()}


@pytest.mark.heavy
def test_a_pick_that_was_left_out_of_its_batch_is_picked_again_once_it_is_back(customer: Customer) -> None:
    customer.init(*PAPER)
    for command in ("train", "score", "select"):
        customer.vaal(command)
    first = pq.read_table(customer.home / "rounds/000/selection/selection.parquet").to_pylist()[0]
    shard, key = first["shard"], first["key"]
    whole = customer.pool.files[shard][key]
    customer.pool.replace(shard, key, is_later=True)
    assert "1 of 4 picks are left out of the batch" in customer.vaal("export").err
    customer.pool.files[shard][key] = whole
    customer.pool.write(shard)
    customer.vaal("round")
    assert len(customer.sent()) == 3
    for name in ((shard, key), (first["item_id"], "")):
        assert "left out of the batch" in customer.vaal("select", "--explain", *name).out
    customer.answer(customer.sent())
    customer.vaal("round")
    assert (shard, key) in {(row["shard"], row["key"]) for row in customer.sent("001")}
    assert len(customer.sent("001")) == 4
    assert not customer.sent_twice()


def test_a_setting_of_a_refused_export_is_repeated_in_its_advice(customer: Customer) -> None:
    customer.init(*PAPER)
    for command in ("train", "score", "select"):
        customer.vaal(command)
    error = customer.vaal("export", "--set", "select.budget=3", "--set", "select.diversity=k_center", status=2).err
    assert f"run: vaal select {customer.home} --set select.budget=3 --set select.diversity=k_center" in error
    customer.vaal("select", "--set", "select.budget=3", "--set", "select.diversity=k_center")
    customer.vaal("export")
    assert len(customer.sent()) == 3


@pytest.mark.heavy
def test_words_when_nothing_is_left_an_image_is_lost_or_the_list_is_damaged(customer: Customer) -> None:
    customer.init(*PAPER, "labels.close_when=0.25")
    customer.vaal("round")
    first, second, *_ = customer.sent()
    customer.pool.replace(first["shard"], first["key"], is_later=True)
    customer.pool.replace("0.tar", "00", is_later=True)
    customer.answer([second])
    lines = customer.vaal("train").err.splitlines()
    (out,) = {line for line in lines if f"{first['shard']}: item {first['key']} has other bytes" in line}
    assert out.endswith("restore the shard")
    (labelled,) = {line for line in lines if "0.tar: item 00 has other bytes" in line}
    assert labelled.endswith("restore the shard, or correct or retract the label")
    left = customer.vaal("round", "--set", "select.budget=100", status=2).err
    assert "lower it: --set select.budget=" in left
    (customer.home / "pool/shards.parquet").write_bytes(b"x")
    assert "shards.parquet" in (error := customer.vaal("status", status=4).err)
    assert "restore it from a copy" in error
