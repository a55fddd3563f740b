"""The labelled set as shards: exactly the pool's bytes, in seeded parts, the same at every run."""

import dataclasses
import io
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import webdataset as wds
from PIL import Image

from engine.campaign.corrections import retract, set_label
from engine.campaign.folder import Campaign
from engine.campaign.handed_out import batches
from engine.campaign.labels import labelled_values
from engine.campaign.opening import create
from engine.config.options import CampaignConfig
from engine.config.toml import override
from engine.errors import InputError
from engine.handoff import export as handoff
from engine.handoff import labelled_samples
from engine.handoff.training_data import Exported, export_labels
from engine.pool.identity import item_id_of
from engine.pool.items import read_shard
from engine.pool.manifest import list_shards
from engine.selection.select import select
from engine.storage.location import Location
from tests.conftest import MakeCampaign, pretend_trained
from tests.fabricate import fabricate_scores
from tests.rounds import make_round
from tests.sendings import take_in

SPLIT = "train=0.8,val=0.1,test=0.1"


def export(campaign: Campaign, folder: Path, split: str = SPLIT, seed: int = 0) -> Exported:
    return export_labels(campaign, Location.of(str(folder)), split, seed, lambda *_: None, lambda _: None)


def with_options(campaign: Campaign, **options: object) -> Campaign:
    named = {name.replace("__", "."): value for name, value in options.items()}
    return dataclasses.replace(campaign, config=override(campaign.config, named, "test"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def images_of(campaign: Campaign) -> dict[str, tuple[tuple[str, str], bytes]]:
    """Identity and bytes of every image of the pool by item_id, by another reader."""
    found = {}
    for path in sorted(Path(campaign.config.pool.root).glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                key, _, suffix = member.name.partition(".")
                file = tar.extractfile(member)
                if suffix == "png" and file:
                    item_id = item_id_of(path.name, key, campaign.config.salt)
                    found[item_id] = (path.name, key), file.read()
    return found


def test_webdataset_reads_exactly_the_labelled_images_back(make_campaign: MakeCampaign, tmp_path: Path) -> None:
    campaign = make_campaign()
    found = export(campaign, tmp_path / "set")
    labels, pool = labelled_values(campaign.home), images_of(campaign)
    classes = json.loads((tmp_path / "set/classes.json").read_text())
    assert classes == found.classes == sorted(set(labels.values()))
    seen = {}
    for name in found.shards:
        for sample in wds.WebDataset(str(tmp_path / "set" / name), shardshuffle=False):
            item, content = pool[sample["__key__"]]
            facts = json.loads(sample["json"])
            assert sample["png"] == content
            assert classes[int(sample["cls"])] == facts["label"] == labels[item]
            assert (facts["shard"], facts["key"], facts["round"], facts["source"]) == (*item, None, "init")
            assert (facts["num_votes"], facts["posterior"]) == (1, None)
            assert item not in seen
            seen[item] = name.rpartition("-")[0]
    assert seen.keys() == labels.keys()
    assert found.images == {part: list(seen.values()).count(part) for part in ("train", "val", "test")}
    assert 140 < found.images["train"] < 180


def test_the_shards_are_a_pool_again(make_campaign: MakeCampaign, tmp_path: Path) -> None:
    campaign = make_campaign()
    found = export(campaign, tmp_path / "set", "all=1")
    shards, _ = list_shards([str(tmp_path / "set/*.tar")], "")
    items = [item for shard in shards for item in read_shard(shard, campaign.config.image)]
    assert len(items) == found.images["all"] == 200
    assert not [item.fault for item in items if item.fault]
    assert {item.key: item.data for item in items}.items() <= {
        item_id: content for item_id, (_, content) in images_of(campaign).items()
    }.items()
    (tmp_path / "labels.csv").write_text(f"shard,key,label\nall-00000.tar,{items[0].key},1\n")
    config = override(CampaignConfig(), {"image.size": 8, "select.budget": 9}, "test")
    create(str(tmp_path / "again"), [str(tmp_path / "set/*.tar")], str(tmp_path / "labels.csv"), config, lambda _: None)


def test_the_same_labels_give_the_same_bytes_and_a_complete_set_stays(
    make_campaign: MakeCampaign, tmp_path: Path
) -> None:
    campaign = make_campaign()
    found = export(campaign, tmp_path / "one")
    assert export(campaign, tmp_path / "two") == found
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert set(contents(tmp_path / "one")) == {*found.shards, "classes.json", "dataset.json"}
    times = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "one").iterdir()}
    assert export(campaign, tmp_path / "one") == found
    assert times == {path.name: path.stat().st_mtime_ns for path in (tmp_path / "one").iterdir()}


def test_another_set_is_refused_and_so_is_a_folder_of_other_files(make_campaign: MakeCampaign, tmp_path: Path) -> None:
    campaign = make_campaign()
    export(campaign, tmp_path / "set")
    before = contents(tmp_path / "set")
    for split, seed in ((SPLIT, 1), ("train=0.7,val=0.3", 0)):
        with pytest.raises(InputError, match="a data set of other labels, images or parts is there; export into"):
            export(campaign, tmp_path / "set", split, seed)
    retract(campaign, min(labelled_values(campaign.home)))
    with pytest.raises(InputError, match="other labels"):
        export(campaign, tmp_path / "set")
    assert contents(tmp_path / "set") == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/train-00000.tar").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"holds 'train-00000.tar', which is no export of labels; give a new or empty"):
        export(campaign, tmp_path / "mine")
    assert contents(tmp_path / "mine") == {"train-00000.tar": b"mine"}


def test_a_set_of_which_a_shard_is_gone_is_named(make_campaign: MakeCampaign, tmp_path: Path) -> None:
    campaign = make_campaign()
    export(campaign, tmp_path / "set")
    (tmp_path / "set/train-00000.tar").unlink()
    with pytest.raises(InputError, match=r"train-00000.tar is gone, or not the file that was written"):
        export(campaign, tmp_path / "set")


@pytest.mark.heavy
def test_an_export_killed_after_any_write_is_completed_with_the_same_bytes(
    make_campaign: MakeCampaign, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign = make_campaign()
    monkeypatch.setattr(labelled_samples, "MOST_SAMPLES", 60)
    export(campaign, tmp_path / "calm")
    expected, num_writes = contents(tmp_path / "calm"), len(contents(tmp_path / "calm")) + 1
    assert num_writes > 6
    for last in range(num_writes + 1):
        folder = tmp_path / f"killed-{last}"
        with monkeypatch.context() as patch:
            kill_after(patch, last)
            with pytest.raises(KeyboardInterrupt):
                export(campaign, folder, "other=1" if last == 3 else SPLIT)
        # One of those that were interrupted was another one, with other shards.
        assert ((folder / "dataset.json").exists()) == (last == num_writes)
        export(campaign, folder)
        assert contents(folder) == expected


def kill_after(patch: pytest.MonkeyPatch, number: int) -> None:
    """Let the process end after so many more writes; then before the next write or deletion."""
    write, delete, left = Location.write_file, Location.delete, [number]

    def counted_write(self: Location, source: io.BytesIO) -> str:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return write(self, source)

    def counted_delete(self: Location) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        delete(self)

    patch.setattr(Location, "write_file", counted_write)
    patch.setattr(Location, "delete", counted_delete)


@pytest.mark.heavy
def test_groups_stay_together_and_parts_do_not_depend_on_other_labels(
    make_campaign: MakeCampaign, tmp_path: Path
) -> None:
    campaign = with_options(make_campaign(), pool__group="^([0-9]{5})")
    export(campaign, tmp_path / "set", "a=0.5,b=0.5")
    parts = parts_of(tmp_path / "set")
    by_group: dict[str, set[str]] = {}
    for (_, key), part in parts.items():
        by_group.setdefault(key[:5], set()).add(part)
    assert all(len(found) == 1 for found in by_group.values())
    assert set.union(*by_group.values()) == {"a", "b"}
    assert len(by_group) < 0.9 * len(parts)
    gone = sorted(parts)[::3]
    for item in gone:
        retract(campaign, item)
    export(campaign, tmp_path / "fewer", "a=0.5,b=0.5")
    assert parts_of(tmp_path / "fewer") == {item: part for item, part in parts.items() if item not in gone}
    export(campaign, tmp_path / "seed", "a=0.5,b=0.5", seed=1)
    assert parts_of(tmp_path / "seed") != parts_of(tmp_path / "fewer")


def parts_of(folder: Path) -> dict[tuple[str, str], str]:
    found = {}
    for path in folder.glob("*.tar"):
        for sample in wds.WebDataset(str(path), shardshuffle=False):
            facts = json.loads(sample["json"])
            found[facts["shard"], facts["key"]] = path.name.rpartition("-")[0]
    return found


def test_images_that_are_in_their_shards_no_more_are_named_and_left_out(tmp_path: Path) -> None:
    made = make_round(tmp_path)
    shard, key = min(item for item in made.labelled if item[0] == "s-0.tar")
    with tarfile.open(tmp_path / shard) as tar:
        members = [(member, tar.extractfile(member).read()) for member in tar]  # type: ignore[union-attr]
    with tarfile.open(tmp_path / shard, "w") as tar:
        for member, content in members:
            if member.name.partition(".")[0] != key:
                tar.addfile(member, io.BytesIO(content))
    found = export(made.campaign, tmp_path / "set", "all=1")
    assert found.left_out == [f"{shard}/{key}: its shard does not hold the image that was labelled any more"]
    assert found.images == {"all": 19}
    assert (shard, key) not in parts_of(tmp_path / "set")
    assert json.loads((tmp_path / "set/dataset.json").read_text())["left_out"] == 1


def test_votes_and_the_probability_of_a_label_go_along(make_campaign: MakeCampaign, tmp_path: Path) -> None:
    campaign = make_campaign("handoff.annotators=2", "select.budget=10")
    pretend_trained(campaign)
    fabricate_scores(campaign, lambda _, keys: np.arange(len(keys), dtype=np.float32))
    select(campaign)
    handoff.export(campaign)
    picks = batches(campaign.home, 0)[0].rows().to_pylist()
    voted, corrected = (pick["item_id"] for pick in picks[:2])
    second = (picks[1]["shard"], picks[1]["key"])
    lines = [f"{name},{who},3\n" for name in (voted, corrected) for who in ("ann", "bob")]
    (tmp_path / "answers.csv").write_text("item_id,annotator,label\n" + "".join(lines))
    take_in(campaign, tmp_path / "answers.csv")
    set_label(campaign, second, "4", lambda _: None)
    export(campaign, tmp_path / "set", "all=1")
    samples = {
        sample["__key__"]: json.loads(sample["json"])
        for path in (tmp_path / "set").glob("*.tar")
        for sample in wds.WebDataset(str(path), shardshuffle=False)
    }
    assert samples[voted]["num_votes"] == 2
    assert 0.5 < samples[voted]["posterior"] <= 1
    assert (samples[voted]["label"], samples[voted]["round"], samples[voted]["source"]) == ("3", 0, "generic")
    # A person's label is not that of the votes.
    assert samples[corrected] == {
        "label": "4", "shard": second[0], "key": second[1], "num_votes": 1, "posterior": None, "round": 0,
        "source": "correction",
    }  # fmt: skip


def test_boxes_and_several_classes_are_values_in_json(make_campaign: MakeCampaign, tmp_path: Path) -> None:
    campaign = make_campaign()
    items = sorted(labelled_values(campaign.home))
    values = ['[{"box": [1, 2, 3, 4], "label": "cat"}]', '["cat", "dog"]']
    for item, value in zip(items, values, strict=False):
        set_label(campaign, item, value, lambda _: None)
    boxes = export(with_options(campaign, **{"handoff.question.task": "boxes"}), tmp_path / "boxes", "all=1")
    assert (boxes.images["all"], len(boxes.left_out), boxes.classes) == (1, 199, ["cat"])
    (sample,) = wds.WebDataset(str(tmp_path / "boxes/all-00000.tar"), shardshuffle=False)
    assert "cls" not in sample
    assert json.loads(sample["json"])["label"] == [{"box": [1, 2, 3, 4], "label": "cat"}]
    Image.open(io.BytesIO(sample["png"])).load()
    retract(campaign, items[0])
    export(with_options(campaign, **{"handoff.question.task": "classes"}), tmp_path / "classes", "all=1")
    found = {
        (facts["shard"], facts["key"]): facts["label"]
        for sample in wds.WebDataset(str(tmp_path / "classes/all-00000.tar"), shardshuffle=False)
        for facts in [json.loads(sample["json"])]
    }
    assert found[items[1]] == ["cat", "dog"]
    assert found[items[2]] == [labelled_values(campaign.home)[items[2]]]


def test_shards_are_cut_by_number_and_by_size(
    make_campaign: MakeCampaign, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign = make_campaign()
    for name, value, least in (("MOST_SAMPLES", 64, 4), ("MOST_BYTES", 100_000, 5)):
        with monkeypatch.context() as patch:
            patch.setattr(labelled_samples, name, value)
            found = export(campaign, tmp_path / name, "all=1")
        facts = json.loads((tmp_path / name / "dataset.json").read_text())["shards"]
        assert least <= len(found.shards) < 20
        assert (
            max(shard["images" if name == "MOST_SAMPLES" else "size_bytes"] for shard in facts.values())
            <= value + 10240
        )
        assert sum(shard["images"] for shard in facts.values()) == 200
        shutil.rmtree(tmp_path / name)
