"""`vaal labels` and `vaal ingest` beside another run, and refused."""

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from engine.campaign import heartbeat
from engine.campaign.folder import Campaign
from engine.campaign.labels import labelled_values, labels_fingerprints
from engine.simulation.demo_pools import DemoPool
from jobs.cli import app
from tests.conftest import MakeCampaign, pretend_trained
from tests.sendings import hand_out, take_in
from tests.small import copied, make_small


@pytest.fixture
def small(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Campaign:
    return copied(make_small(tmp_path_factory.mktemp("small")), tmp_path / "campaign")


@pytest.mark.parametrize("words", [("set", "owl"), ("retract",)])
def test_labels_are_not_corrected_while_another_run_is_at_work(
    make_campaign: MakeCampaign, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0.02)
    monkeypatch.setattr(heartbeat, "PATIENCE_SECONDS", 0.4)
    home = make_campaign().home
    item, before = min(labelled_values(home)), labels_fingerprints(home)
    with heartbeat.alone(home, "ingest"):
        # As another process sees it.
        held = heartbeat._held.set(frozenset())
        found = CliRunner().invoke(app, ["labels", str(home), words[0], *item, *words[1:]])
        listed = CliRunner().invoke(app, ["labels", str(home), "list"])
        heartbeat._held.reset(held)
    assert (found.exit_code, listed.exit_code) == (5, 0)
    assert "another run (ingest) is at work" in found.stderr
    assert labels_fingerprints(home) == before
    assert not (home / heartbeat.LOCK_FILE).exists()


def test_what_a_refused_ingest_sets_is_not_kept(make_campaign: MakeCampaign, tmp_path: Path) -> None:
    home = make_campaign().home
    file = tmp_path / "answers.csv"
    file.write_text("item_id,label\nnobody,1\n")
    found = CliRunner().invoke(app, ["ingest", str(home), str(file), "--set", 'labels.classes=["1"]'])
    assert found.exit_code == 4
    assert "'nobody' was never handed out" in found.stderr
    assert not (home / "rounds/000/overrides.json").exists()


def test_a_wrong_item_is_refused_with_the_one_that_is_meant(make_campaign: MakeCampaign) -> None:
    home = str(make_campaign().home)
    for arguments, message in (
        (("digits-00000.tar", "1.png", "owl"), "no item '1.png' .* in shard 'digits-00000.tar'; did you mean '0*1'"),
        (("digits-0.tar", "000001", "owl"), "shard 'digits-0.tar' is not in the pool; did you mean 'digits-00000.tar'"),
        (("digits-00000.tar", "nobody", "owl"), "no item 'nobody' .*; give the shard and the key of an image"),
        (("nowhere.tar", "000001", "owl"), "'nowhere.tar' is not in the pool; give the shard and the key of an image"),
        (("digits-00000.tar", "000001", "o\nwl"), r"label is 'o\\nwl', with a line break"),
        # Bytes that are not UTF-8, as Python hands them over.
        (("digits-00000.tar", "000001", "\udcff"), r"label is '\\udcff', which is not Unicode text"),
        (("digits-00000.tar", "\udcff", "owl"), r"'\\udcff', which is not Unicode text"),
        (("\udcff", "owl"), r"'\\udcff', which is not Unicode text"),
    ):
        found = CliRunner().invoke(app, ["labels", home, "set", *arguments])
        (line,) = (line for line in found.stderr.splitlines() if line.startswith("error:"))
        assert found.exit_code == 4
        assert re.search(message, line)
        assert "label file" not in line


def test_a_label_after_training_says_when_it_counts(make_campaign: MakeCampaign, pool: DemoPool) -> None:
    campaign = make_campaign()
    items = sorted(set(pool.oracle) - set(labelled_values(campaign.home)))
    words = "these labels came after round 000 was trained; they count from the next training on"
    for item, is_late in zip(items, (False, True), strict=False):
        found = CliRunner().invoke(app, ["labels", str(campaign.home), "set", *item, "3.0", "--json"])
        assert (words in found.stderr) == is_late
        assert json.loads(found.stdout)["label"] == "3"
        pretend_trained(campaign)


@pytest.mark.parametrize(("prefix", "suffix"), [("", ""), ("", ".parquet"), ("labels/", ".parquet"), ("HOME", "")])
def test_a_retraction_is_undone_by_the_name_of_its_file(make_campaign: MakeCampaign, prefix: str, suffix: str) -> None:
    home = make_campaign().home
    before = labelled_values(home)
    item = min(before)
    assert CliRunner().invoke(app, ["labels", str(home), "retract", *item]).exit_code == 0
    (name,) = (name.removeprefix("labels/") for name in labels_fingerprints(home) if "-retract-" in name)
    given = prefix.replace("HOME", f"{home}/labels/") + name.removesuffix(".parquet") + suffix
    arguments = ["labels", str(home), "undo", given]
    assert item not in labelled_values(home)
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert labelled_values(home) == before
    assert "whose rows count" in CliRunner().invoke(app, arguments).stderr


def test_what_can_be_undone_is_listed_as_it_is_named(small: Campaign) -> None:
    """Of votes, labels and decisions: each of these names undoes its file."""
    home, ids = str(small.home), {f"{n:032x}": ("s-1.tar", f"{n:03d}") for n in range(16, 18)}
    hand_out(small, ids)
    for n in range(22):
        file = Path(small.home.path).parent / f"{n}.jsonl"
        file.write_text(json.dumps({"item_id": min(ids), "label": f"c{n}", "answer_id": "a", "labelled_at": n + 1e9}))
        take_in(small, file)
    for words in (("set", *ids[max(ids)], "cat"), ("retract", "s-1.tar", "020", "--never-pick")):
        assert CliRunner().invoke(app, ["labels", home, *words]).exit_code == 0
    found = CliRunner().invoke(app, ["labels", home, "undo", "votes/nothing"])
    assert found.exit_code == 4
    assert "no file 'votes/nothing.parquet' of votes/, labels/ or decisions/" in found.stderr
    listed = re.findall(r"(?:votes|labels|decisions)/\d+-[^;, \n]+", found.stderr)
    assert "newest last: 16 earlier ones, votes/000017-generic.parquet, " in found.stderr
    assert [name.partition("/")[0] for name in listed] == ["votes"] * 6 + ["labels", "decisions"]
    for name in listed[-3:]:
        assert CliRunner().invoke(app, ["labels", home, "undo", name]).exit_code == 0, name
    found = CliRunner().invoke(app, ["labels", home, "undo", "nothing"])
    assert not set(listed[-3:]) & set(re.findall(r"[^;, \n]+", found.stderr))
