"""`vaal labels forget` and `vaal labels export`, as a person types them."""

import json
from pathlib import Path

from typer.testing import CliRunner

from engine.campaign.decisions import FORGOTTEN, read_decisions
from engine.campaign.labels import labelled_values
from jobs.cli import app
from tests.conftest import MakeCampaign


def test_forget_says_what_is_done_and_what_is_left(make_campaign: MakeCampaign, tmp_path: Path) -> None:
    home = make_campaign().home
    item = min(labelled_values(home))
    file = tmp_path / "forget.jsonl"
    file.write_text(json.dumps({"shard": item[0], "key": item[1]}) + "\n")
    words = ["labels", str(home), "forget", "--items", str(file), "--who", "ann", "--why", "asked to"]
    found = CliRunner().invoke(app, [*words, "--json"])
    assert found.exit_code == 0, found.stderr
    data = json.loads(found.stdout)
    assert (data["images"], data["labels"], data["deleted"]) == (1, 1, [])
    assert any(f"shard {item[0]}, key {item[1]}" in line for line in data["left"])
    assert item not in labelled_values(home)
    (row,) = read_decisions(home).to_pylist()
    assert (row["kind"], row["shard"], row["key"], row["who"], row["why"]) == (FORGOTTEN, *item, "ann", "asked to")
    again = CliRunner().invoke(app, words)
    assert again.exit_code == 0
    assert "Forgotten: 1 image\n" in again.stdout
    assert "delete it there" in " ".join(again.stdout.split())


def test_forget_refuses_a_table_that_names_nothing(make_campaign: MakeCampaign, tmp_path: Path) -> None:
    home = make_campaign().home
    (tmp_path / "forget.csv").write_text("item_id\nnobody\n")
    found = CliRunner().invoke(app, ["labels", str(home), "forget", "--items", str(tmp_path / "forget.csv")])
    assert found.exit_code == 4
    assert "line 2: item_id 'nobody' was never handed out or labelled" in " ".join(found.stderr.split())
    assert not (home / "decisions").children()
    assert CliRunner().invoke(app, ["labels", str(home), "forget"]).exit_code == 2


def test_export_writes_parts_and_says_how_many(make_campaign: MakeCampaign, tmp_path: Path) -> None:
    home, out = make_campaign().home, tmp_path / "set"
    words = ["labels", str(home), "export", "--out", str(out), "--split", "train=0.8,val=0.2", "--seed", "3"]
    found = CliRunner().invoke(app, [*words, "--json"])
    assert found.exit_code == 0, found.stderr
    data = json.loads(found.stdout)
    assert sum(data["images"].values()) == 200
    assert sorted(data["images"]) == ["train", "val"]
    assert data["shards"] == sorted(path.name for path in out.glob("*.tar"))
    assert (out / "dataset.json").exists()
    wrong = CliRunner().invoke(app, [*words[:-1], "4"])
    assert wrong.exit_code == 4
    assert "export into another folder" in " ".join(wrong.stderr.split())
    wrong = CliRunner().invoke(app, ["labels", str(home), "export", "--out", str(out), "--split", "train=0.8"])
    assert wrong.exit_code == 2
    assert "the shares sum to 0.8" in wrong.stderr
