"""Labels that a file brings after init: images without any get theirs, and nothing that was said before changes."""

from pathlib import Path

import pytest

from engine.campaign.corrections import retract
from engine.campaign.labels import labelled_values, labels_fingerprints
from engine.campaign.later_labels import Added, add_labels
from engine.campaign.positions import labelled_positions
from engine.errors import InputError
from engine.pool.identity import item_id_of
from engine.simulation.demo_pools import DemoPool
from engine.storage.location import Location
from tests.conftest import MakeCampaign
from tests.jobs.test_cli import vaal
from tests.sendings import hand_out


def test_what_had_a_word_keeps_it(make_campaign: MakeCampaign, pool: DemoPool, tmp_path: Path) -> None:
    campaign = make_campaign()
    before = labelled_values(campaign.home)
    same, other, gone = sorted(before)[:3]
    new = sorted(pool.oracle.keys() - before.keys())[:3]
    retract(campaign, gone)
    label_of = {item: pool.oracle[item] for item in (*new, same, gone)} | {other: "a8"}
    file = tmp_path / "labels.csv"
    file.write_text("shard,key,label\n" + "".join(f"{s},{k},{label}\n" for (s, k), label in label_of.items()))
    log: list[str] = []
    assert add_labels(campaign, Location(str(file)), log.append) == Added(added=3, same=1, kept=2, out=0)
    expected = {**before, **{item: pool.oracle[item] for item in new}}
    del expected[gone]
    assert labelled_values(campaign.home) == expected
    places = labelled_positions(campaign.home)
    found = zip(places["shard"].cast("string").to_pylist(), places["key"].to_pylist(), strict=True)
    assert set(new) <= set(found)
    unchanged = labels_fingerprints(campaign.home)
    assert add_labels(campaign, Location(str(file)), log.append) == Added(added=0, same=4, kept=2, out=0)
    assert labels_fingerprints(campaign.home) == unchanged
    name = next(name for name in (campaign.home / "labels").children() if "-add-" in name)
    undone = vaal("labels", str(campaign.home), "undo", f"labels/{name}")
    assert undone.exit_code == 0, undone.output
    assert labelled_values(campaign.home) == {item: label for item, label in before.items() if item != gone}
    # As after a wrong file: the right one counts.
    assert add_labels(campaign, Location(str(file)), log.append) == Added(added=3, same=1, kept=2, out=0)
    assert labelled_values(campaign.home) == expected
    assert labelled_positions(campaign.home).equals(places)


def test_a_file_that_is_not_there_is_named_with_its_command(make_campaign: MakeCampaign) -> None:
    with pytest.raises(InputError, match=r"vaal labels add /none\.csv: no such file"):
        add_labels(make_campaign(), Location("/none.csv"), lambda _: None)


def test_what_is_out_gets_the_answer_that_is_paid_for(
    make_campaign: MakeCampaign, pool: DemoPool, tmp_path: Path
) -> None:
    campaign = make_campaign()
    out, free = sorted(pool.oracle.keys() - labelled_values(campaign.home).keys())[:2]
    hand_out(campaign, {item_id_of(*out, campaign.config.salt): out})
    file = tmp_path / "labels.csv"
    file.write_text("shard,key,label\n" + "".join(f"{shard},{key},3\n" for shard, key in (out, free)))
    shown = vaal("labels", str(campaign.home), "add", str(file))
    assert "at a vendor          1: their answers are paid for, and count" in shown.stdout, shown.output
    found = labelled_values(campaign.home)
    assert (found.get(out), found[free]) == (None, "3")


@pytest.mark.parametrize(
    ("row", "line"),
    [
        ("digits-00000.tar,never,3", "labels.csv: no item 'never' with one image in shard 'digits-00000.tar'"),
        ("other.tar,000001,3", "labels.csv: line 3: shard 'other.tar' is not in the pool"),
        ("digits-00000.tar,000002,", "labels.csv: line 3: item digits-00000.tar/000002 has an empty label"),
        ("digits-00000.tar,000002,owl", "'owl'"),
    ],
)
def test_a_wrong_row_is_refused_and_nothing_is_added(
    make_campaign: MakeCampaign, pool: DemoPool, tmp_path: Path, row: str, line: str
) -> None:
    campaign = make_campaign("labels.classes=['0','1','2','3','4','5','6','7','8','9']")
    before = labels_fingerprints(campaign.home)
    shard, key = min(pool.oracle.keys() - labelled_values(campaign.home).keys())
    (tmp_path / "labels.csv").write_text(f"shard,key,label\n{shard},{key},3\n{row}\n")
    with pytest.raises(InputError, match=line):
        add_labels(campaign, Location(f"{tmp_path}/labels.csv"), lambda _: None)
    assert labels_fingerprints(campaign.home) == before
