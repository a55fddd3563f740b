"""What `vaal ingest` and `vaal labels` say to a person: counts that add up, and commands that can be pasted."""

import json
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from engine.campaign.folder import Campaign
from engine.campaign.handed_out import batches
from engine.campaign.labels import labelled_values
from engine.handoff import VENDORS
from engine.handoff.export import export
from jobs.cli import app
from tests.answering import VENDORS as ANSWERING
from tests.small import copied, make_small


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    return make_small(tmp_path_factory.mktemp("says"), handoff__gold_fraction=0.25)


@pytest.fixture
def small(base: Campaign, tmp_path: Path) -> Campaign:
    return copied(base, tmp_path / "campaign")


def done(*words: str) -> dict[str, str]:
    """The facts that a command prints."""
    found = CliRunner().invoke(app, list(words))
    assert found.exit_code == 0, found.stderr
    return dict(line.strip().split("  ", 1) for line in found.stdout.splitlines() if line.startswith("  "))


def refused(*words: str) -> str:
    found = CliRunner().invoke(app, list(words))
    assert found.exit_code in (2, 4), found.stdout
    (line,) = (line for line in found.stderr.splitlines() if line.startswith("error: "))
    return line


def test_the_counts_of_answers_add_up_and_those_of_labels_are_apart(small: Campaign, tmp_path: Path) -> None:
    export(small)
    home, ids = str(small.home), batches(small.home, 0)[0].images()["item_id"].to_pylist()
    file = tmp_path / "a.csv"

    def ingest(*rows: str, status: int = 0) -> dict[str, str]:
        file.write_text("item_id,label,answer_id,labelled_at,skipped\n" + "".join(f"{row}\n" for row in rows))
        facts = {name: value.strip() for name, value in done("ingest", home, str(file)).items()}
        given = [int(facts.get(name, "0").split()[0]) for name in ("new", "known already", "still blank", "refused")]
        assert int(facts["answers in the files"]) == len(rows) == sum(given)
        assert not {"replaced", "new answers", "newer versions"} & facts.keys()
        return facts

    rows = [f"{item_id},cat,{n},2026-01-01," for n, item_id in enumerate(ids)]
    facts = ingest(*rows[:5], f"{ids[5]},,5,2026-01-01,")
    assert (facts["new"], facts["still blank"], facts["labels new"]) == ("5", "1", "5")
    # One has only another time: it is known, and kept, and no label changes.
    facts = ingest(*rows[:4], rows[4].replace("01-01", "01-02"))
    assert (facts["new"], facts["known already"], facts["labels new"]) == ("1", "4", "0")
    facts = ingest(rows[0].replace("01-01", "01-03").replace("cat", "dog"), f"{ids[1]},,1,2026-01-03,true", rows[2])
    assert facts["new"] == "2 (2 of known ones, 1 skipped)"
    assert (facts["labels new"], facts["labels changed"], facts["labels taken away"]) == ("0", "1", "1")


def test_what_comes_next_is_what_status_says(small: Campaign, tmp_path: Path) -> None:
    export(small)
    home, ids = str(small.home), batches(small.home, 0)[0].images()["item_id"].to_pylist()
    file, found = tmp_path / "a.csv", []
    # One is answered; all are, which ends the round; and all are known.
    for count in (1, len(ids), len(ids)):
        file.write_text("item_id,label\n" + "".join(f"{item_id},cat\n" for item_id in ids[:count]))
        found.append(done("ingest", home, str(file))["next"].strip())
        assert found[-1] == json.loads(CliRunner().invoke(app, ["status", home, "--json"]).stdout)["next"]
    # The report of the round is not made yet.
    assert found == [f"vaal round {home}"] * 3


def test_every_key_of_the_counts_is_documented(small: Campaign, tmp_path: Path) -> None:
    export(small)
    file = tmp_path / "a.csv"
    file.write_text(f"item_id,label\n{batches(small.home, 0)[0].images()['item_id'][0]},cat\n")
    text = (Path(__file__).parents[2] / "docs/handoff.md").read_text().partition("### What `ingest --json` counts")[2]
    counts = json.loads(CliRunner().invoke(app, ["ingest", str(small.home), str(file), "--json"]).stdout)
    assert counts["answers"] == counts["votes"] + counts["known"] + counts["blank"] + len(counts["refused"]) == 1
    assert not [key for key in counts if f"`{key}`" not in text.partition("### From")[0]]


def test_the_page_about_answers_is_that_of_the_round_of_their_images(small: Campaign, tmp_path: Path) -> None:
    export(small)
    home, ids = str(small.home), batches(small.home, 0)[0].images()["item_id"].to_pylist()
    files = [tmp_path / f"{n}.csv" for n in range(3)]
    for n, file in enumerate(files):
        file.write_text(f"item_id,label\n{ids[n]},cat\n")
    assert done("ingest", home, str(files[0]))["look at the answers"].strip() == f"vaal report {home}"
    assert CliRunner().invoke(app, ["round", home, "--close", "--set", "train.steps=x"]).exit_code
    facts = done("ingest", home, str(files[1]), "--set", "labels.close_when=0.1")
    assert facts["look at the answers"].strip() == f"vaal report {home} --round 0"
    # Late.
    assert done("ingest", home, str(files[2]))["look at the answers"].strip() == f"vaal report {home} --round 0"


def test_a_reason_that_many_rows_have_is_said_once(small: Campaign, tmp_path: Path) -> None:
    export(small)
    file, ids = tmp_path / "a.jsonl", batches(small.home, 0)[0].images()["item_id"].to_pylist()
    file.write_text("\n".join(json.dumps({"item_id": item_id, "label": "catt"}) for item_id in ids[:3]))
    words = ["ingest", str(small.home), str(file), "--set", 'handoff.question.classes=["cat","dog"]']
    why, error = CliRunner().invoke(app, words).stderr.splitlines()
    option = "handoff.question.classes"
    assert why == f"refused: {file}: line 1 and 2 more: label 'catt' is not one of {option}; did you mean 'cat'?"
    head, _, setting = error.partition("to allow 'catt', too: --set ")
    assert head.startswith("error: 3 rows do not fit; nothing was taken in: correct them, or take the others: ")
    assert head.count(f"{option} has cat, dog; ") == 1
    words[-1:] = shlex.split(setting)
    assert done(*words)["labels new"].strip() == "3"


@pytest.mark.parametrize("vendor", VENDORS)
def test_the_folder_that_was_sent_is_not_what_came_back(small: Campaign, vendor: str, tmp_path: Path) -> None:
    export(small, vendor=vendor)
    home, folder = str(small.home), small.stage(f"handoff/{vendor}").path
    for source in {vendor, "generic", "imagefolder"}:
        assert "this is what was sent (" in refused("ingest", home, folder, "--from", source)
    assert not Path(small.home.path, "votes").exists()
    # Filled in, it is.
    for name, content in ANSWERING[vendor](Path(folder), lambda _, classes: classes[0]):
        (Path(folder) / name).parent.mkdir(exist_ok=True, parents=True)
        (Path(folder) / name).write_text(content)
    assert done("ingest", home, folder, "--from", vendor)["labels new"].strip() == "9"


def test_what_is_missing_or_cut_off_is_said(small: Campaign, tmp_path: Path) -> None:
    export(small)
    home, file = str(small.home), tmp_path / "a.csv"
    for name, content, why in (
        ("a.csv", "", "a.csv: the file is empty; every row needs item_id or file"),
        (
            "a.jsonl",
            '{"item_id": "a", "label": "b"}\n{"item',
            "line 2: truncated: the file is cut off in its last line;",
        ),
        ("a.jsonl", '{"item_id": "a" "label": "b"}', "line 1: not valid JSON"),
    ):
        file = tmp_path / name
        file.write_text(content)
        assert why in refused("ingest", home, str(file))


def test_what_an_item_is_named_by_is_said_where_the_name_is_wrong(small: Campaign) -> None:
    export(small)
    gold = next(row for row in batches(small.home, 0)[0].rows().to_pylist() if row["gold"])
    for words, why in (
        (("s-1.tar", "016"), "'s-1.tar' is a shard, so something is missing after it; give SHARD KEY LABEL"),
        (("s-1.tar",), "labels set: 1 argument; give SHARD KEY LABEL or ITEM_ID LABEL"),
        (("nobody", "cat"), "item_id 'nobody' was never handed out or labelled; give SHARD KEY LABEL"),
        (
            (gold["item_id"], "cat"),
            f"gold with rounds/000/handed_out/generic-000: it is the image {gold['shard']} {gold['key']};",
        ),
    ):
        assert why in refused("labels", str(small.home), "set", *words)


def test_labels_are_listed_with_the_names_that_the_commands_take(small: Campaign) -> None:
    home = str(small.home)
    found = CliRunner().invoke(app, ["labels", home, "list"]).stdout.splitlines()
    assert found[0] == f"{len(labelled_values(small.home))} labels"
    item_id, shard, key, label = found[1].split()
    assert labelled_values(small.home)[shard, key] == label
    done("labels", home, "set", item_id, "bird")
    assert labelled_values(small.home)[shard, key] == "bird"


def test_forgetting_is_short_and_names_the_reports_to_make_again(small: Campaign, tmp_path: Path) -> None:
    home, file = str(small.home), tmp_path / "forget.csv"
    item = min(labelled_values(small.home))
    file.write_text(f"shard,key\n{','.join(item)}\n")
    for name in range(22):
        (small.stage("report") / f"{name}.png").write_bytes(b"shows it")
    found = CliRunner().invoke(app, ["labels", home, "forget", "--items", str(file)])
    assert found.exit_code == 0
    assert "Forgotten: 1 image\n" in found.stdout
    assert "22; reports are made again, without the images, by: vaal report" in found.stdout
    assert f"{home} --round 0\n" in found.stdout
    assert "which hold the images still: delete these folders" in found.stdout
    assert found.stderr.count("\n") < 5


def test_an_init_that_is_refused_leaves_nothing(small: Campaign, tmp_path: Path) -> None:
    home, root = tmp_path / "new", Path(small.config.pool.root)
    words = ("init", str(home), "--pool", f"{root}/s-0.tar", "--labels", f"{root}/labels.csv")
    assert "select.budget=1000 is more than the 10 items" in refused(*words)
    assert [*home.rglob("*")] == []
    # What was there stays.
    (home / "labels").mkdir()
    (home / "labels/mine.txt").write_text("mine")
    refused(*words)
    assert (home / "labels/mine.txt").exists()
    (home / "labels/mine.txt").unlink()
    done(*words, "--set", "select.budget=10")
