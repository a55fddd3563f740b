"""No gold image is one that its vendor saw before, by any name: it could tell it from the others."""

import io
from pathlib import Path

import pyarrow.compute as pc
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from engine.campaign.folder import Campaign
from engine.campaign.handed_out import batches
from engine.campaign.labels import INITIAL, append_labels, identities, labelled_items, read_snapshot
from engine.campaign.stages import Run
from engine.handoff.choice import Wish
from engine.handoff.export import export
from tests.sendings import take_in
from tests.small import copied, images, make_small


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    return make_small(tmp_path_factory.mktemp("gold"))


def answered(campaign: Campaign, folder: Path, vendor: str) -> None:
    """The vendor's newest batch gets labels."""
    ids = batches(campaign.home, 0)[-1].images()["item_id"].to_pylist()
    (folder / "a.csv").write_text("item_id,label\n" + "".join(f"{item_id},x\n" for item_id in ids))
    take_in(campaign, folder / "a.csv", vendor)


def test_nothing_that_a_vendor_was_sent_comes_again_as_gold(base: Campaign, tmp_path: Path) -> None:
    campaign, seen = copied(base, tmp_path / "c", handoff__gold_fraction=1.0), set[str]()
    first = {*identities(read_snapshot(campaign.home).tables[f"labels/{INITIAL}.parquet"])}
    lines: list[str] = []
    for _ in range(2):
        export(campaign, Run(log=lines.append), wish=Wish(limit=2))
        rows = batches(campaign.home, 0)[-1].rows()
        hashes = rows["sha256"].to_pylist()
        assert len({*hashes}) == len(hashes)
        assert not seen & {*hashes}
        seen |= {*hashes}
        assert {*identities(rows.filter(rows["gold"]))} <= first
        answered(campaign, tmp_path, "generic")
    # Another vendor saw none of them; what was gold less often comes first, and first labels before others.
    export(campaign, Run(log=lines.append), vendor="coco", wish=Wish(limit=1))
    rows = batches(campaign.home, 0)[-1].rows()
    (gold,) = identities(rows.filter(rows["gold"]))
    assert gold in first
    assert not [line for line in lines if "gold" in line]


def test_where_the_vendor_saw_all_of_them_there_are_fewer_and_it_is_said(base: Campaign, tmp_path: Path) -> None:
    campaign = copied(base, tmp_path / "c", handoff__gold_fraction=1.0)
    lines: list[str] = []
    total = len(labelled_items(campaign.home))
    export(campaign, Run(log=lines.append), wish=Wish(limit=4))
    keep = {*identities(batches(campaign.home, 0)[0].rows())}
    gone = [item for item in labelled_items(campaign.home) if item not in keep][1:]
    append_labels(campaign.home, "retract", [(*item, None, None, "correction") for item in gone])
    export(campaign, Run(log=lines.append), wish=Wish(limit=4))
    assert batches(campaign.home, 0)[-1].manifest["counts"]["gold"] == 1
    assert total > 5
    assert [line for line in lines if "gold" in line] == [
        "handoff.gold_fraction asks for 4 gold images, and 1 labelled fit that generic was never sent: all are used"
    ]


def test_two_copies_of_one_image_are_not_both_gold(tmp_path: Path) -> None:
    pool = images()
    twins = sorted(pool)[:6]
    campaign = make_small(tmp_path, pool | dict.fromkeys(twins, pool[twins[0]]), handoff__gold_fraction=1.0)
    export(campaign, wish=Wish(limit=4))
    assert batches(campaign.home, 0)[-1].manifest["counts"]["gold"] == 1


def test_more_people_are_asked_without_gold_that_would_be_new_to_them(base: Campaign, tmp_path: Path) -> None:
    campaign = copied(base, tmp_path / "c", handoff__gold_fraction=1.0, handoff__annotators=2)
    export(campaign, wish=Wish(limit=2))
    ids = batches(campaign.home, 0)[0].images()["item_id"].to_pylist()
    text = "".join(f"{item_id},{label},{who}\n" for item_id in ids for label, who in (("x", "ann"), ("y", "bob")))
    (tmp_path / "a.csv").write_text(f"item_id,label,annotator\n{text}")
    take_in(campaign, tmp_path / "a.csv")
    lines: list[str] = []
    elsewhere = copied(campaign, tmp_path / "d")
    export(campaign, Run(log=lines.append), wish=Wish(is_disputed=True))
    assert batches(campaign.home, 0)[-1].manifest["counts"] | {"bytes": 0} == {"images": 2, "gold": 0, "bytes": 0}
    assert (
        "no gold image goes along: generic was sent all of these images before, so that a new one would stand out"
        in lines
    )
    export(elsewhere, vendor="coco", wish=Wish(is_disputed=True))
    assert batches(elsewhere.home, 0)[-1].manifest["counts"]["gold"] == 2


def test_files_that_differ_in_metadata_alone_are_one_image_to_the_vendor(tmp_path: Path) -> None:
    """Stripped they are the same bytes, and of two equal files one would be the gold one."""
    plain = list(images().items())[:12]
    with_text = [((f"s-{1 + n // 6}.tar", f"1{n:02d}"), commented(content)) for n, (_, content) in enumerate(plain)]
    campaign = make_small(
        tmp_path / "world", {**dict(plain), **dict(with_text)}, select__duplicates="off", handoff__gold_fraction=0.6
    )
    lines: list[str] = []
    manifest = export(campaign, Run(log=lines.append))
    rows = batches(campaign.home, 0)[0].rows()
    gold = set(rows.filter(rows["gold"])["sha256"].to_pylist())
    assert not gold & set(rows.filter(pc.invert(rows["gold"]))["sha256"].to_pylist())
    assert any(line.startswith("left out, because the vendor would know their bytes: ") for line in lines)
    folder = Path(campaign.stage("handoff/generic/images").path)
    assert {file.name for file in folder.iterdir()} == {Path(row["file"]).name for row in rows.to_pylist()}
    assert manifest["counts"]["gold"] == len(gold)


def commented(png: bytes) -> bytes:
    """The same picture with a text in its metadata."""
    stream, info = io.BytesIO(), PngInfo()
    info.add_text("comment", "another")
    Image.open(io.BytesIO(png)).save(stream, "PNG", pnginfo=info)
    return stream.getvalue()
