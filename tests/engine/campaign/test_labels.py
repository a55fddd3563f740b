"""Law 9: labels come in any order, repeated, partial or wrong; and labels at init are looked up by name."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.campaign.corrections import set_label
from engine.campaign.labels import labelled_items, labelled_values, read_labels, read_snapshot
from engine.campaign.positions import positions_of
from engine.errors import InputError
from engine.pool.manifest import read_shards
from engine.simulation.demo_pools import DemoPool
from engine.tables.item_keys import rows_of_items
from tests.conftest import MakeCampaign


def write(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text)
    return folder / name


HEADER = "shard,key,label\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEADER + "digits-00000.tar,nobody,3\n", "line 2: no item 'nobody' in shard 'digits-00000.tar'"),
        (HEADER + "elsewhere.tar,000001,3\n", "line 2: shard 'elsewhere.tar' is not in the pool; .*'digits-00000.tar'"),
        (HEADER + "digits-00000.tar,000001,3\n" * 2, "line 3: item digits-00000.tar/000001 has two rows; keep one"),
        (HEADER + "digits-00000.tar,000001, \n", "line 2: item digits-00000.tar/000001 has an empty label"),
        (
            "shard,label\ndigits-00000.tar,3\n",
            "no column 'key' among 'shard', 'label'; every row needs shard, key, label",
        ),
        (HEADER + "digits-00000.tar,1,3\n", "line 2: no item '1' in shard 'digits-00000.tar'; did you mean '0*1'"),
        (HEADER + "digits-00000.tar,000001.png,3\n", "no item '000001.png' .* did you mean '000001'"),
        (HEADER + "./digits-0.tar,000001,3\n", "'./digits-0.tar' is not in the pool; did you mean 'digits-00000.tar'"),
        (HEADER.replace(",", ";") + "a;b;c\n", "no column 'shard' .*; save it with commas instead of ';'"),
        (HEADER.title() + "a,b,c\n", "no column 'shard' .*; rename 'Shard' to 'shard'"),
        (HEADER, "no labels; training needs at least one"),
    ],
)
def test_wrong_labels_are_refused_by_line_and_name(
    make_campaign: MakeCampaign, tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        make_campaign(labels=write(tmp_path, "labels.csv", text))
    assert not (tmp_path / "campaign/campaign.toml").exists()


def test_labels_that_are_masks_are_asked_for_by_the_option_that_says_where_they_are(
    make_campaign: MakeCampaign, tmp_path: Path
) -> None:
    labels = write(tmp_path, "labels.csv", "shard,key\ndigits-00000.tar,000001\n")
    masks = ("train.task=segmentation", 'handoff.question={task="mask",classes=["road","sky"]}')
    with pytest.raises(InputError, match=r"no column 'label' .*; or say where the masks are: --set labels.masks="):
        make_campaign(*masks, labels=labels)
    with pytest.raises(InputError, match=r"no column 'label' among 'shard', 'key'; every row needs shard, key, label$"):
        make_campaign(labels=labels)


@pytest.mark.parametrize(("name", "text"), [("l.txt", ""), ("l.jsonl", "{"), ("l.parquet", "x")])
def test_an_unreadable_label_file_is_refused(make_campaign: MakeCampaign, tmp_path: Path, name: str, text: str) -> None:
    with pytest.raises(InputError, match=f"{name}: (unknown format|line 1: truncated|not a readable)"):
        make_campaign(labels=write(tmp_path, name, text))


def test_the_three_formats_say_the_same(make_campaign: MakeCampaign, tmp_path: Path, pool: DemoPool) -> None:
    rows = [{"shard": s, "key": k, "label": label} for (s, k), label in sorted(pool.oracle.items())[::50]]
    as_csv = HEADER + "".join(f"{r['shard']},{r['key']},{r['label']}\n" for r in rows)
    files = [
        write(tmp_path, "l.csv", as_csv),
        write(tmp_path, "l.jsonl", "".join(json.dumps({**r, "label": int(r["label"])}) + "\n" for r in rows)),
        tmp_path / "l.parquet",
    ]
    pq.write_table(pa.Table.from_pylist(rows), files[2])
    columns = ["shard", "key", "label", "round"]
    tables = [
        read_labels(make_campaign(name=f"from-{file.suffix[1:]}", labels=file).home).select(columns) for file in files
    ]
    assert tables[0] == tables[1] == tables[2]
    assert tables[0].num_rows == len(rows)


def test_every_format_gives_the_same_classes_whatever_reads_them(
    make_campaign: MakeCampaign, tmp_path: Path, pool: DemoPool
) -> None:
    items = sorted(pool.oracle)[:4]
    cells = [3.0, True, False, 0]
    classes = {"3", "true", "false", "0"}
    rows = [{"shard": s, "key": k, "label": cell} for (s, k), cell in zip(items, cells, strict=True)]
    as_csv = HEADER + "".join(f"{r['shard']},{r['key']},{r['label']}\n" for r in rows)
    as_text = [{**row, "label": str(row["label"])} for row in rows]
    write(tmp_path, "a.csv", as_csv)
    for name, said in (("b.jsonl", rows), ("c.jsonl", as_text)):
        write(tmp_path, name, "".join(json.dumps(row) + "\n" for row in said))
    pq.write_table(pa.Table.from_pylist(as_text), tmp_path / "d.parquet")
    for name in ("a.csv", "b.jsonl", "c.jsonl", "d.parquet"):
        campaign = make_campaign(
            'labels.classes=["3.0", "True", "false", "0"]', name=f"of-{name}", labels=tmp_path / name
        )
        assert set(labelled_values(campaign.home).values()) == classes
        assert {set_label(campaign, items[0], word, print) for word in ("3.0", "3", " 3 ")} == {"3"}
        assert set_label(campaign, items[1], "TRUE", print) == "true"
        assert read_labels(campaign.home).num_rows == 4
        with pytest.raises(InputError, match="the label is empty"):
            set_label(campaign, items[0], "NaN", print)
        assert len(read_snapshot(campaign.home).files) == 1


def test_positions_lead_to_the_labelled_images(make_campaign: MakeCampaign) -> None:
    campaign = make_campaign()
    labelled = labelled_items(campaign.home)
    positions = positions_of(
        campaign.home, rows_of_items(labelled), read_shards(campaign.home), campaign.config.image, print
    )
    assert {position[:2] for position in positions} == labelled
    for shard, _, offset, size_bytes, _ in positions[::40]:
        with Path(campaign.config.pool.root, shard).open("rb") as file:
            file.seek(offset)
            assert file.read(size_bytes)[:4] == b"\x89PNG"


@pytest.mark.parametrize("text", ["shard,key\n{0}\n", "shard,key,label\n{0},\n", "shard,key,label\n{0},mask\n"])
def test_where_masks_are_the_labels_no_other_label_is_asked_for(
    make_campaign: MakeCampaign, tmp_path: Path, pool: DemoPool, text: str
) -> None:
    item = min(pool.oracle)
    file = write(tmp_path, "labels.csv", text.format(",".join(item)))
    learns = ('handoff.question={task="mask", classes=["paper", "ink"]}', "train.task=segmentation", "image.size=16")
    masked = make_campaign(*learns, "labels.masks=member:seg.png", labels=file)
    assert labelled_values(masked.home) == {item: "mask"}
    # Without labels.masks the label has to say what the mask is.
    if not text.endswith("mask\n"):
        with pytest.raises(InputError, match=r"no column 'label'|has an empty label"):
            make_campaign(*learns, name="without", labels=file)


def test_a_label_may_name_the_file_of_a_mask(make_campaign: MakeCampaign, tmp_path: Path, pool: DemoPool) -> None:
    first, second = sorted(pool.oracle)[:2]
    text = f"{HEADER}{','.join(first)},other/a.png\n{','.join(second)},\n"
    settings = ('handoff.question={task="mask", classes=["paper", "ink"]}', "train.task=segmentation", "image.size=16")
    campaign = make_campaign(*settings, "labels.masks=masks", labels=write(tmp_path, "labels.csv", text))
    assert labelled_values(campaign.home) == {first: "other/a.png", second: "mask"}
