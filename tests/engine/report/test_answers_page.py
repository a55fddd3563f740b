"""The page about answers: made where answers came, again when they change, and never otherwise; it trusts no text."""

import json
import re
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from engine.campaign.corrections import set_label
from engine.campaign.decisions import FORGOTTEN, USER, decide
from engine.campaign.folder import Campaign
from engine.campaign.labels import read_snapshot
from engine.campaign.ledger import read_ledger
from engine.campaign.opening import open_campaign
from engine.campaign.stages import Run
from engine.campaign.votes import annotator_hash
from engine.handoff.export import export
from engine.report.answers_page import PAGE, RECORD
from engine.report.arms import gains_of
from engine.report.report import report
from engine.report.thumbnails import BLANK, data_uri, to_png
from engine.storage.location import Location
from jobs.cli import app
from tests.rounds import SCRIPT, Identity, make_round
from tests.sendings import take_in

pytestmark = pytest.mark.heavy
EVIL = "<script>alert(2)</script>"
PEOPLE = ("ann@example.org", "Bob Jones", "cem")
SETTINGS = {
    "handoff.annotators": 3,
    "handoff.gold_fraction": 0.1,
    "handoff.price": 0.5,
    "handoff.question": {"task": "class", "classes": ["x", EVIL], "instructions": ""},
    "labels.consensus": "majority",
    "labels.min_posterior": 0.7,
}
GREY = data_uri(to_png(BLANK))
NUM_IMAGES = 66


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A campaign whose 60 picks and 6 gold images are out, with a report; and the item_ids, SCRIPT's first."""
    folder = tmp_path_factory.mktemp("made")
    campaign = make_round(folder).campaign
    (campaign.round_home / "overrides.json").write_json({key: value for key, value in SETTINGS.items()})
    campaign = open_campaign(campaign.home.url)
    export(campaign)
    report(campaign)
    items = read_ledger(campaign).items.table().to_pylist()
    assert len(items) == NUM_IMAGES
    return folder, [
        item["item_id"] for item in sorted(items, key=lambda item: (item["gold"], item["key"] != SCRIPT[1]))
    ]


@pytest.fixture
def out(made: tuple[Path, list[str]], tmp_path: Path) -> Campaign:
    folder, _ = made
    shutil.copytree(folder / "campaign", tmp_path / "campaign")
    return replace(open_campaign(str(folder / "campaign")), home=Location(str(tmp_path / "campaign")))


@pytest.fixture
def ids(made: tuple[Path, list[str]]) -> list[str]:
    return made[1]


def answer(campaign: Campaign, said: dict[str, list[str | None]]) -> None:
    """Ingest what PEOPLE said of images; None: skipped for a reason that is HTML."""
    lines = []
    for item, values in said.items():
        for who, value in zip(PEOPLE, values, strict=False):
            label = {"skipped": True, "reason": "<img src=x onerror=alert(3)>"} if value is None else {"label": value}
            lines.append(json.dumps({"item_id": item, "annotator": who, **label}) + "\n")
    file = Location(f"{campaign.home.path}-answers.jsonl")
    file.write_bytes("".join(lines).encode())
    take_in(campaign, file)


def files(campaign: Campaign) -> dict[str, tuple[bytes, int]]:
    there = Path(campaign.stage("report").path).iterdir()
    return {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in there}


def page(campaign: Campaign) -> str:
    """The page as `vaal report` leaves it, in one line."""
    report(campaign)
    return re.sub(r"\s+", " ", (campaign.stage("report") / PAGE).read_bytes().decode())


def thumbnails(text: str) -> dict[str, str]:
    """The thumbnail of each disputed image by its title."""
    return dict(re.findall(r'<li title="([^"]*)"> <img src="([^"]*)"', text))


def item_of(campaign: Campaign, item_id: str) -> Identity:
    (row,) = [row for row in read_ledger(campaign).items.table().to_pylist() if row["item_id"] == item_id]
    return row["shard"], row["key"]


def test_the_page_comes_with_answers_and_leaves_the_pictures_as_they_are(out: Campaign, ids: list[str]) -> None:
    before = files(out)
    report(out)
    assert files(out) == before
    answer(out, {ids[0]: ["x", EVIL], ids[1]: ["x", "x", "x"]})
    report(out)
    after = files(out)
    made_again = {name for name in before if after[name][0] != before[name][0]}
    assert made_again == {"manifest.json", "report.html"}
    assert after.keys() - before.keys() == {PAGE, RECORD}
    report(out)
    assert files(out) == after
    assert "60</dd>" in page(out)
    assert "5</dd>" in page(out)


def changed_by_answers(campaign: Campaign, ids: list[str]) -> None:
    answer(campaign, {ids[2]: ["x"]})


def changed_by_a_correction(campaign: Campaign, ids: list[str]) -> None:
    set_label(campaign, item_of(campaign, ids[1]), EVIL, lambda _: None)


def changed_by_a_decision(campaign: Campaign, ids: list[str]) -> None:
    decide(campaign.home, FORGOTTEN, [(ids[0], *item_of(campaign, ids[0]), None)], USER)


def changed_by_an_option(campaign: Campaign, ids: list[str]) -> None:
    (campaign.round_home / "overrides.json").write_json({**SETTINGS, "labels.min_posterior": 0.9})


def changed_by_damage(campaign: Campaign, ids: list[str]) -> None:
    (campaign.stage("report") / PAGE).write_bytes(b"something else")


def changed_by_a_damaged_record(campaign: Campaign, ids: list[str]) -> None:
    (campaign.stage("report") / RECORD).write_bytes(b"{")


@pytest.mark.parametrize(
    "change",
    [
        changed_by_answers, changed_by_a_correction, changed_by_a_decision, changed_by_an_option, changed_by_damage,
        changed_by_a_damaged_record,
    ],
)  # fmt: skip
def test_it_is_made_again_when_something_changed(
    out: Campaign, ids: list[str], change: Callable[[Campaign, list[str]], None]
) -> None:
    answer(out, {ids[0]: ["x", EVIL, "x"], ids[1]: ["x", "x", "x"]})
    report(out)
    before = files(out)
    change(out, ids)
    report(out)
    after = files(out)
    assert after[RECORD] != before[RECORD]
    assert b"<!DOCTYPE html>" in after[PAGE][0]
    report(out)
    assert files(out) == after


def test_what_is_undone_is_on_it_no_more(out: Campaign, ids: list[str]) -> None:
    answer(out, {ids[0]: ["x", EVIL, "x"]})
    assert len(thumbnails(page(out))) == 1
    assert CliRunner().invoke(app, ["labels", out.home.url, "undo"]).exit_code == 0
    text = page(out)
    assert thumbnails(text) == {}
    assert "<div><dt>images sent</dt><dd>60</dd></div> <div><dt>answers that came</dt><dd>0" in text


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_it_runs_and_loads_nothing_and_names_nobody(out: Campaign, ids: list[str]) -> None:
    answer(out, {ids[0]: ["x", EVIL], ids[1]: [None, None, EVIL], ids[2]: [EVIL] * 3, ids[3]: ["x", EVIL, None]})
    text = page(out)
    tags = Tags(text).found
    names = {tag for tag, _ in tags}
    assert not names & {"script", "link", "iframe", "object", "form"}
    assert not [attribute for _, attributes in tags for attribute in attributes if attribute.startswith("on")]
    assert all(str(attributes["src"]).startswith("data:image/png;") for tag, attributes in tags if tag == "img")
    assert [attributes["href"] for tag, attributes in tags if tag == "a"] == ["report.html"]
    assert any(attributes.get("http-equiv") == "Content-Security-Policy" for _, attributes in tags)
    assert "&lt;script&gt;alert(2)&lt;/script&gt;" in text
    assert "&lt;img src=x onerror" in text
    for who in PEOPLE:
        assert who not in text
        assert annotator_hash(out.config.salt, "generic", who)[:8] in text
        assert annotator_hash(out.config.salt, "generic", who)[:9] not in text
    assert out.config.salt not in text
    assert "prefers-color-scheme: dark" in text


def test_a_disputed_image_stands_beside_its_votes(out: Campaign, ids: list[str]) -> None:
    answer(out, {ids[0]: ["x", EVIL, "x"], ids[3]: ["x", EVIL, None]})
    text = page(out)
    shown = thumbnails(text)
    assert len(shown) == 2
    assert GREY not in shown.values()
    assert any("alert(1)" in title and title.startswith(ids[0]) for title in shown)
    assert re.search(r"2 × x</b> [0-9a-f]{8}, [0-9a-f]{8}</li> <li><b>1 × &lt;script", text)
    assert f"vaal export {out.home.quoted} --disputed --to generic" in text


def test_what_is_gone_is_grey_and_what_is_forgotten_is_left_out(
    out: Campaign, ids: list[str], made: Any, tmp_path: Path
) -> None:
    pool = tmp_path / "pool"
    shutil.copytree(made[0], pool, ignore=shutil.ignore_patterns("campaign", "*.csv"))
    answer(out, {name: ["x", EVIL, "x"] for name in ids[:4]})
    (out.round_home / "overrides.json").write_json({**SETTINGS, "pool.root": str(pool)})
    campaign = open_campaign(out.home.url)
    items = [item_of(campaign, name) for name in ids[:4]]
    assert GREY not in thumbnails(page(campaign)).values()
    shard, key = items[1]
    with tarfile.open(pool / shard) as old, tarfile.open(tmp_path / "new.tar", "w") as new:
        for member in old.getmembers():
            if not member.name.startswith(f"{key}."):
                new.addfile(member, old.extractfile(member))
    (tmp_path / "new.tar").replace(pool / shard)
    decide(campaign.home, FORGOTTEN, [(ids[2], *items[2], None)], USER)
    lines: list[str] = []
    report(campaign, Run(log=lines.append))
    before = files(campaign)
    text = page(campaign)
    assert files(campaign) == before
    shown = {title[:32]: uri == GREY for title, uri in thumbnails(text).items()}
    # Of what is forgotten not even the name is shown.
    assert shown == {ids[0]: False, ids[1]: True, ids[3]: False}
    assert ids[2] not in text
    assert items[2][1] not in text
    assert any("1 disputed image" in line for line in lines)


def test_a_shard_that_is_away_is_grey_until_it_is_back(
    out: Campaign, ids: list[str], made: Any, tmp_path: Path
) -> None:
    pool = tmp_path / "pool"
    shutil.copytree(made[0], pool, ignore=shutil.ignore_patterns("campaign", "*.csv"))
    (out.round_home / "overrides.json").write_json({**SETTINGS, "pool.root": str(pool)})
    campaign = open_campaign(out.home.url)
    answer(campaign, {ids[0]: ["x", EVIL, "x"]})
    shard = pool / item_of(campaign, ids[0])[0]
    shard.rename(tmp_path / "away.tar")
    assert list(thumbnails(page(campaign)).values()) == [GREY]
    (tmp_path / "away.tar").rename(shard)
    assert GREY not in thumbnails(page(campaign)).values()


def test_the_arms_are_those_that_the_next_report_shows(out: Campaign, ids: list[str]) -> None:
    answer(out, {name: ["x", "x", "x"] if place % 3 else [EVIL] * 3 for place, name in enumerate(ids[:60])})
    campaign = open_campaign(out.home.url)
    assert campaign.round == 1
    earlier = replace(out, round=0)
    text = page(earlier)
    (gain,) = gains_of(earlier, read_snapshot(campaign.home), [0])
    query, control = (gain.labels[arm].total() for arm in ("query", "control"))
    assert query + control == 60
    assert f'<th scope="row">000</th><td>{query}</td><td>{control}</td>' in text
    assert f'<th scope="row">at random (control)</th><td>{control}</td><td>{control}</td>' in text


def test_the_page_is_light(out: Campaign, ids: list[str]) -> None:
    answer(out, {name: ["x", EVIL, "x"] for name in ids[:60]})
    text = page(out)
    assert len(thumbnails(text)) == 48
    assert "48 of 60 images" in text
    assert len(text) < 400_000


def test_the_commands_name_it(out: Campaign, ids: list[str], tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("item_id,label,annotator\n" + "".join(f"{name},x,{who}\n" for name in ids[:60] for who in PEOPLE))
    found = CliRunner().invoke(app, ["ingest", out.home.url, str(file)])
    assert f"vaal report {out.home.quoted} --round 0" in re.sub(r"\s+", " ", found.output).replace(
        "python -m jobs", "vaal"
    )
    found = CliRunner().invoke(app, ["report", out.home.url, "--round", "0"])
    assert str(out.stage("report") / PAGE) in found.output.replace("\n", "")
