"""From votes to labels through a campaign: gold images tell who is right, tables of outcomes are repeatable, and no
annotator is named anywhere."""

import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from engine.campaign import corrections, undoing
from engine.campaign.folder import Campaign
from engine.campaign.labels import labelled_values
from engine.campaign.ledger import NO_REASON, read_ledger
from engine.campaign.settling import settle
from engine.errors import ConfigError
from engine.handoff.export import export
from jobs.cli import app
from tests.sendings import hand_out, take_in
from tests.small import copied, make_small, with_settings

IDS = {f"{n:032x}": (f"s-{n // 16}.tar", f"{n:03d}") for n in range(16, 28)}
DATA = Path(os.environ.get("VAAL_DATA", Path(__file__).parents[4] / "shared/data"))
EXAMPLES = DATA.parent / "reference/labelling_examples"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    return make_small(tmp_path_factory.mktemp("consensus"))


def gold_of(campaign: Campaign) -> dict[str, tuple[str, str]]:
    """Labelled images under names of gold images."""
    return {f"{number:032x}": item for number, item in enumerate(sorted(labelled_values(campaign.home)), 1000)}


def answer(campaign: Campaign, said: Iterable[tuple[str, str, str]], **more: Any) -> Any:
    """Ingest answers: item_id, annotator and class, where "(reason)" is a skip."""
    rows = []
    for item_id, person, name in said:
        skip = {"skipped": True, "reason": name.strip("()")} if name.startswith("(") else {"label": name}
        rows.append({"item_id": item_id, "annotator": person, **skip})
    file = Path(campaign.home.path).with_suffix(".jsonl")
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return take_in(campaign, file, **more)


def labels_of(campaign: Campaign) -> dict[str, str]:
    values = labelled_values(campaign.home)
    return {item_id: values[item] for item_id, item in IDS.items() if item in values}


def tables(campaign: Campaign) -> dict[str, bytes]:
    """The files of consensus/ by name."""
    return {file.name: file.read_bytes() for file in sorted(Path(campaign.home.path, "consensus").glob("*"))}


@pytest.mark.parametrize("method", ["one_coin", "dawid_skene", "majority"])
def test_of_two_who_disagree_the_one_who_knows_the_gold_images_is_right(
    base: Campaign, tmp_path: Path, method: str
) -> None:
    gold, truth = gold_of(base), labelled_values(base.home)
    other = {"cat": "dog", "dog": "cat"}
    votes = [(item_id, "ann", truth[item]) for item_id, item in gold.items()]
    votes += [(item_id, "bob", other[truth[item]]) for item_id, item in gold.items()]
    doubtful = [*[(name, "ann", "cat") for name in IDS], *[(name, "bob", "dog") for name in IDS]]
    for number, (sent, knows) in enumerate([({**IDS, **gold}, True), (IDS, False)]):
        campaign = copied(base, tmp_path / f"{number}", labels__consensus=method)
        hand_out(campaign, sent, gold=tuple(gold) if knows else (), annotators=2)
        answer(campaign, [*(votes if knows else []), *doubtful])
        ledger = read_ledger(campaign)
        if knows and method != "majority":
            assert labels_of(campaign) == dict.fromkeys(IDS, "cat")
        else:
            # Majority knows nothing of who is right; nor does anyone without gold images.
            assert labels_of(campaign) == {}
        if knows:
            people = {row["gold_right"]: row for row in ledger.outcomes.annotators.to_pylist()}
            assert {row["gold_seen"] for row in people.values()} == {len(gold)}
            assert set(people) == {0, len(gold)}
            if method == "one_coin":
                assert people[0]["accuracy"] < 0.6 < people[len(gold)]["accuracy"]
    # The labels of gold images are what they were, whatever was said of them.
    assert {item: labelled_values(campaign.home)[item] for item in truth} == truth


def test_the_same_votes_give_the_same_bytes_and_others_a_further_table(base: Campaign, tmp_path: Path) -> None:
    said = [(name, person, "cat" if n % 3 else "dog") for n, name in enumerate(IDS) for person in ("ann", "bob", "eve")]
    found = []
    for number in range(2):
        campaign = copied(base, tmp_path / f"{number}")
        hand_out(campaign, IDS, annotators=3)
        answer(campaign, said)
        found.append(tables(campaign))
    assert found[0] == found[1]
    assert list(found[0]) == ["000001.parquet"]
    metadata = pq.read_schema(Path(campaign.home.path, "consensus/000001.parquet")).metadata
    assert metadata[b"ingests"] == b"000001-generic"
    assert (metadata[b"method"], metadata[b"min_posterior"]) == (b"one_coin", b"0.6")
    settle(campaign)
    answer(campaign, said)
    assert tables(campaign) == found[0]
    answer(campaign, [(next(iter(IDS)), "zoe", "cat")])
    now = tables(campaign)
    assert list(now) == ["000001.parquet", "000002.parquet"]
    assert now["000001.parquet"] == found[0]["000001.parquet"]
    undoing.undo(campaign)
    settle(campaign)
    third = pq.read_table(Path(campaign.home.path, "consensus/000003.parquet"))
    assert third.equals(pq.read_table(Path(campaign.home.path, "consensus/000001.parquet")))


def test_options_that_are_set_count_from_the_next_settling_on(base: Campaign, tmp_path: Path) -> None:
    campaign = copied(base, tmp_path / "campaign", labels__min_posterior=1.0)
    name, *_ = IDS
    hand_out(campaign, {name: IDS[name]}, annotators=3)
    answer(campaign, [(name, "ann", "cat"), (name, "bob", "cat"), (name, "eve", "dog")])
    assert labels_of(campaign) == {}
    probability = float(np.nanmax(read_ledger(campaign).outcomes.posterior_K))
    assert 2 / 3 < probability < 1
    changes = settle(with_settings(campaign, labels__min_posterior=probability)).changes
    assert changes.by_item == {IDS[name]: (None, "cat")}
    assert labels_of(campaign) == {name: "cat"}
    # A label that is not certain enough any more is taken away, and the table says which options it follows from.
    assert settle(campaign).changes.by_item == {IDS[name]: ("cat", None)}
    assert labels_of(campaign) == {}
    assert settle(with_settings(campaign, labels__min_posterior=0.66, labels__consensus="majority")).changes.by_item
    names = list(tables(campaign))
    metadata = [pq.read_schema(Path(campaign.home.path, "consensus", name)).metadata for name in names]
    options = [(facts[b"method"].decode(), facts[b"min_posterior"].decode()) for facts in metadata]
    assert options == [
        ("one_coin", "1.0"), ("one_coin", str(probability)), ("one_coin", "1.0"), ("majority", "0.66")
    ]  # fmt: skip


def test_options_of_consensus_may_be_set_while_answers_come(base: Campaign, tmp_path: Path) -> None:
    """By the command, after the batch was handed out, and they stay."""
    campaign = copied(base, tmp_path / "campaign")
    export(campaign)
    sent = read_ledger(campaign).rows(["item_id"])["item_id"].to_pylist()
    file = tmp_path / "answers.csv"
    file.write_text(f"item_id,label,annotator\n{sent[0]},cat,ann\n{sent[1]},dog,ann\n")
    home = str(campaign.home)
    found = CliRunner().invoke(app, ["ingest", home, str(file), "--set", "labels.min_posterior=0.99", "--json"])
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)["disputed"] == 2
    again = CliRunner().invoke(app, ["ingest", home, str(file), "--set", "labels.min_posterior=0.5", "--json"])
    assert (json.loads(again.stdout)["new"], json.loads(again.stdout)["votes"]) == (2, 0)
    shown = json.loads(CliRunner().invoke(app, ["handoff", home, "--json"]).stdout)
    assert (shown["states"]["settled"], shown["disputed"]) == (2, [])


def test_a_skipped_image_has_the_reason_that_most_people_gave(base: Campaign, tmp_path: Path) -> None:
    campaign = copied(base, tmp_path / "campaign")
    a, b, c, d, *_ = IDS
    hand_out(campaign, {name: IDS[name] for name in (a, b, c, d)}, annotators=3)
    said = [(a, "ann", "(blurred)"), (a, "bob", "(blurred)"), (a, "eve", "(a hand)")]
    said += [(b, "ann", "()"), (b, "bob", "()"), (b, "eve", "cat")]
    said += [(c, "ann", "(two)"), (c, "bob", "(blurred)"), (c, "eve", "cat")]
    # Not all have answered yet.
    said += [(d, "ann", "(blurred)"), (d, "bob", "(blurred)")]
    answer(campaign, said)
    assert read_ledger(campaign).skip_reasons == {"blurred": 2, NO_REASON: 1}
    corrections.set_label(campaign, IDS[a], "cat", lambda _: None)
    assert read_ledger(campaign).skip_reasons == {"blurred": 1, NO_REASON: 1}


def texts_of(home: Path) -> Iterator[tuple[str, str]]:
    """Everything that is in a folder, by file: of tables each value, and what their metadata say."""
    for file in sorted(path for path in home.rglob("*") if path.is_file()):
        yield file.name, str(file)
        if file.suffix == ".parquet":
            table = pq.read_table(file)
            yield file.name, str(table.to_pylist()) + str(table.schema.metadata)
        else:
            yield file.name, file.read_bytes().decode("latin-1")


def assert_unnamed(home: str, *names: str) -> None:
    found = [(file, name) for file, text in texts_of(Path(home)) for name in names if name.lower() in text.lower()]
    assert not found


PERSON = "eve@home.example"


@pytest.mark.parametrize("where", ["raw", "reason", "answer_id"])
def test_addresses_in_what_vendors_say_beside_are_hashed_too(base: Campaign, tmp_path: Path, where: str) -> None:
    campaign = copied(base, tmp_path / "campaign", handoff__question__task="boxes")
    name, *_ = IDS
    hand_out(campaign, {name: IDS[name]})
    box = {"label": "cat", "box": [1, 1, 2, 2], **({"last edited by": PERSON} if where == "raw" else {})}
    row: dict[str, Any] = {"item_id": name, "annotator": PERSON, "label": [box]}
    if where == "reason":
        row |= {"label": None, "skipped": True, "reason": f"ask {PERSON}, or Bob"}
    if where == "answer_id":
        row["answer_id"] = f"17/{PERSON}"
    file = tmp_path / "answers.jsonl"
    file.write_text(json.dumps(row) + "\n")
    assert take_in(campaign, file).votes == 1
    assert_unnamed(campaign.home.path, PERSON, "home.example")
    assert take_in(campaign, file).votes == 0
    (vote,) = pq.read_table(next(Path(campaign.home.path, "votes").glob("*.parquet"))).to_pylist()
    if where == "raw":
        assert json.loads(vote["raw"])[0]["box"] == [1, 1, 2, 2]
    if where == "reason":
        assert re.fullmatch("ask [0-9a-f]{32}, or Bob", vote["reason"])


@pytest.mark.skipif(not EXAMPLES.exists(), reason="the examples are not here")
@pytest.mark.parametrize(
    ("vendor", "name", "task"),
    [
        ("label-studio", "label_studio/export.json", "class"),
        ("labelbox", "labelbox/export_v2.ndjson", "class"),
        ("v7", "v7/darwin_v2.json", "class"),
        ("tsv", "toloka/assignments.tsv", "class"),
        ("scale", "scale/completed_textcollection.json", "class"),
        ("scale", "scale/callback_imageannotation.json", "boxes"),
        ("ground-truth", "ground_truth/output.manifest", "class"),
    ],
)
def test_nobody_in_the_vendors_own_examples_is_named(
    base: Campaign, tmp_path: Path, vendor: str, name: str, task: str
) -> None:
    text = (EXAMPLES / name).read_text()
    campaign = copied(base, tmp_path / "campaign", handoff__question__task=task)
    ids = sorted(set(re.findall(r"vl1-[0-9a-f]{24}", text)))
    assert ids
    hand_out(campaign, dict(zip(ids, IDS.values(), strict=False)), vendor=vendor)
    shutil.copy(EXAMPLES / name, tmp_path / Path(name).name)
    assert take_in(campaign, tmp_path / Path(name).name, vendor, accept_rest=True).votes
    people = set(re.findall(r"[\w.+-]+@[\w-]+\.[\w.-]+", text)) | set(re.findall(r"\bwrk\w+|\bworker-\w+", text))
    people |= set(re.findall(r'"(?:first_name|last_name|full_name|username)": ?"([^"]+)"', text))
    assert_unnamed(campaign.home.path, *people)


def test_more_error_rates_than_fit_are_one_line(
    base: Campaign, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vaal.consensus.dawid_skene.MAX_RATES", 7)
    campaign = copied(base, tmp_path / "campaign", labels__consensus="dawid_skene")
    hand_out(campaign, IDS)
    said = [(next(iter(IDS)), who, name) for who, name in (("ann", "cat"), ("bob", "dog"))]
    with pytest.raises(
        ConfigError,
        match=r"^labels.consensus=dawid_skene: 2 annotators and 2 classes have 8 error.*; the answers are in",
    ):
        answer(campaign, said)
    answer(with_settings(campaign, labels__consensus="one_coin"), said)
