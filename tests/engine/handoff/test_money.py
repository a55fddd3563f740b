"""Nothing goes out that costs more than the limit, the advice fits exactly, and an answer is paid for once."""

import hashlib
import re
from decimal import Decimal
from pathlib import Path

import pytest

from engine.campaign.decisions import USER
from engine.campaign.folder import Campaign
from engine.campaign.handed_out import batches
from engine.campaign.ledger import read_ledger
from engine.campaign.recalling import expire, recall
from engine.campaign.settling import settle
from engine.campaign.undoing import undo
from engine.errors import ConfigError
from engine.handoff.answer_files import answer_files
from engine.handoff.choice import Wish
from engine.handoff.export import describe, export
from engine.handoff.ingest import ingest
from tests.sendings import take_in
from tests.small import copied, make_small, with_settings


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    return make_small(tmp_path_factory.mktemp("money"))


def contents(campaign: Campaign) -> dict[str, str]:
    home = Path(campaign.home.path)
    files = (file for file in home.rglob("*") if file.is_file())
    return {str(file.relative_to(home)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def advised(campaign: Campaign, limit: int | None = None) -> int:
    """How many images the refusal says that may be sent. Nothing was written."""
    before = contents(campaign)
    with pytest.raises(ConfigError) as refusal:
        export(campaign, wish=Wish(limit=limit))
    assert contents(campaign) == before
    found = re.search(r"--limit (\d+)", str(refusal.value))
    return int(found[1]) if found else 0


@pytest.mark.parametrize("gold", [0.0, 0.1, 0.34, 0.5, 1.0])
@pytest.mark.parametrize(("price", "annotators", "limit"), [(0.1, 3, 2.1), (0.07, 1, 0.5), (1.0, 2, 13.99)])
def test_the_advice_fits_exactly(
    base: Campaign, tmp_path: Path, gold: float, price: float, annotators: int, limit: float
) -> None:
    options = {"price": price, "annotators": annotators, "money_limit": limit, "gold_fraction": gold}
    campaign = copied(base, tmp_path / "campaign", **{f"handoff__{name}": value for name, value in options.items()})
    most = advised(campaign)
    assert most < 9
    assert advised(campaign, most + 1) == most
    manifest = export(campaign, wish=Wish(limit=most))
    sent = manifest["counts"]["images"]
    assert sent - manifest["counts"]["gold"] == most
    cost = Decimal(str(price)) * annotators * sent
    assert cost <= Decimal(str(limit)) < cost + Decimal(str(price)) * annotators * 2
    assert (
        Decimal(describe(campaign, manifest)["price"].rpartition("= ")[2].replace(",", ""))
        == cost
        == read_ledger(campaign).spend
    )
    # For the rest there is no money; gold images may have left some for one image without.
    assert advised(campaign) <= 1


def test_what_costs_nothing_goes_out_whatever_was_spent(base: Campaign, tmp_path: Path) -> None:
    campaign = copied(base, tmp_path / "campaign", handoff__price=1.0)
    export(campaign, wish=Wish(limit=3))
    poor = with_settings(campaign, handoff__money_limit=1.0)
    assert advised(poor) == 0
    export(with_settings(poor, handoff__price=0.0))
    assert read_ledger(campaign).spend == 3


class Answers:
    """Answers to a campaign, and its money after each step."""

    def __init__(self, campaign: Campaign) -> None:
        self.campaign = campaign
        picks = (campaign.stage("selection") / "selection.parquet").read_table().sort_by("rank")
        self.ids = picks["item_id"].to_pylist()

    def come(self, place: int, who: str, label: str) -> None:
        file = Path(f"{self.campaign.home.path}-{place}-{who}.csv")
        file.write_text(f"item_id,label,annotator\n{self.ids[place]},{label},{who}\n")
        take_in(self.campaign, file)

    def job_of_cvat(self, number: int, who: str, label: str) -> Path:
        """A job's export, with the first image."""
        file = Path(f"{self.campaign.home.path}-{number}.xml")
        meta = f"<job><id>{number}</id><assignee>{who and f'<username>{who}</username>'}</assignee></job>"
        image = f'<image id="0" name="images/{self.ids[0]}.png"><tag label="{label}"/></image>'
        file.write_text(f"<annotations><meta>{meta}</meta>{image}</annotations>")
        return file

    def final(self, place: int, label: str) -> None:
        file = Path(f"{self.campaign.home.path}-{place}.csv")
        file.write_text(f"item_id,label\n{self.ids[place]},{label}\n")
        take_in(self.campaign, file)

    @property
    def money(self) -> list[tuple[float, float]]:
        """Spent and reserved, by batch."""
        ledger = read_ledger(self.campaign)
        return [(float(ledger.spent(n)), float(ledger.reserved(n))) for n in range(len(ledger.batches))]


@pytest.fixture
def answers(base: Campaign, tmp_path: Path) -> Answers:
    """A wave of two images went to two people each, at 0.5 an answer."""
    campaign = copied(base, tmp_path / "campaign", handoff__price=0.5, handoff__annotators=2)
    export(campaign, wish=Wish(limit=2))
    return Answers(campaign)


def test_what_came_is_spent_and_what_may_come_is_reserved(answers: Answers) -> None:
    assert answers.money == [(0, 2)]
    answers.come(0, "a", "cat")
    assert answers.money == [(0.5, 1.5)]
    # Known answers and newer versions are not paid again.
    answers.come(0, "a", "cat")
    assert answers.money == [(0.5, 1.5)]
    answers.come(0, "b", "cat")
    assert answers.money == [(1, 1)]
    # More than was asked for is not paid.
    answers.come(0, "c", "cat")
    assert answers.money == [(1, 1)]
    answers.final(1, "dog")
    assert answers.money == [(2, 0)]


def test_what_is_taken_back_is_not_reserved_and_late_answers_are_spent(answers: Answers) -> None:
    answers.come(0, "a", "cat")
    recall(answers.campaign, ["generic-000"], USER, pick_again=False)
    settle(answers.campaign)
    assert answers.money == [(0.5, 0)]
    answers.come(0, "b", "cat")
    answers.come(1, "b", "cat")
    assert answers.money == [(1.5, 0)]


def test_what_is_given_up_is_not_reserved(answers: Answers) -> None:
    assert expire(answers.campaign, USER, pick_again=False).images == 0
    assert answers.money == [(0, 2)]
    assert expire(with_settings(answers.campaign, handoff__expires_days=1e-12), USER, pick_again=False).images == 2
    assert answers.money == [(0, 0)]


def test_an_answer_is_paid_by_the_batch_of_its_vendor(answers: Answers) -> None:
    campaign = answers.campaign
    for vendor in "cvat", "labelbox":
        recall(campaign, (), USER, pick_again=True)
        export(campaign, vendor=vendor, wish=Wish(limit=2))
    recall(campaign, (), USER, pick_again=True)
    assert answers.money == [(0, 0), (0, 0), (0, 0)]
    take_in(campaign, answers.job_of_cvat(1, "ann", "cat"), "cvat")
    assert answers.money == [(0, 0), (0.5, 0), (0, 0)]
    answers.come(0, "a", "cat")
    answers.final(1, "dog")
    assert answers.money == [(1.5, 0), (0.5, 0), (0, 0)]


def test_an_answer_of_a_vendor_that_was_sent_nothing_is_paid_by_the_newest_batch(
    base: Campaign, tmp_path: Path
) -> None:
    answers = Answers(copied(base, tmp_path / "campaign", handoff__price=0.5, handoff__annotators=2))
    export(answers.campaign, vendor="cvat", wish=Wish(limit=2))
    recall(answers.campaign, (), USER, pick_again=True)
    export(answers.campaign, vendor="tsv", wish=Wish(limit=2))
    answers.come(0, "a", "cat")
    assert answers.money == [(0, 0), (0.5, 1.5)]
    answers.final(1, "cat")
    assert answers.money == [(0, 0), (1.5, 0.5)]


def test_a_final_answer_pays_once_and_its_newer_version_what_was_asked_since(answers: Answers) -> None:
    campaign = answers.campaign
    recall(campaign, (), USER, pick_again=True)
    export(campaign, wish=Wish(limit=2))
    answers.final(0, "cat")
    # The batch before was taken back unanswered.
    assert answers.money == [(0, 0), (1, 1)]
    answers.come(0, "a", "dog")
    export(campaign, wish=Wish(is_disputed=True))
    assert answers.money == [(0, 0), (1, 1), (0, 1)]
    file = Path(f"{campaign.home.path}-new.csv")
    file.write_text(f"item_id,label\n{answers.ids[0]},dog\n")
    take_in(campaign, file, replace=True)
    assert answers.money == [(0, 0), (1, 1), (1, 0)]


def test_more_people_are_asked_and_paid_once_about_a_disputed_image(answers: Answers) -> None:
    campaign = answers.campaign
    for who, label in ("a", "cat"), ("b", "dog"), ("c", "bird"):
        answers.come(0, who, label)
    assert answers.money == [(1, 1)]
    manifest = export(campaign, wish=Wish(is_disputed=True))
    assert (manifest["counts"]["images"], manifest["sending"]["disputed"]) == (1, True)
    # The one answer that nobody asked for does not count as one of the two.
    assert answers.money == [(1, 1), (0, 1)]
    assert export(campaign, wish=Wish(is_disputed=True)) == manifest
    with pytest.raises(ConfigError, match="nothing is disputed"):
        export(campaign, vendor="tsv", wish=Wish(is_disputed=True))
    answers.come(0, "d", "cat")
    assert answers.money == [(1, 1), (0.5, 0.5)]
    answers.come(0, "e", "cat")
    answers.come(0, "f", "cat")
    assert answers.money == [(1, 1), (1, 0)]
    assert len(batches(campaign.home, 0)) == 2


def test_a_final_answer_pays_the_batch_that_it_is_of(answers: Answers) -> None:
    answers.final(0, "cat")
    answers.come(0, "a", "dog")
    assert answers.money == [(1, 1)]
    export(answers.campaign, vendor="tsv", wish=Wish(is_disputed=True))
    assert answers.money == [(1, 1), (0, 1)]
    with pytest.raises(ConfigError, match="nothing is disputed"):
        export(answers.campaign, vendor="coco", wish=Wish(is_disputed=True))


def test_replicas_of_cvat_are_as_many_answers(base: Campaign, tmp_path: Path) -> None:
    campaign = copied(base, tmp_path / "campaign", handoff__price=0.5, handoff__annotators=3)
    export(campaign, vendor="cvat", wish=Wish(limit=1))
    answers = Answers(campaign)
    people = enumerate([("ann", "cat"), ("", "dog"), ("", "cat")], 1)
    files = [answers.job_of_cvat(number, who, label) for number, (who, label) in people]
    take_in(campaign, files[0], "cvat")
    assert answers.money == [(0.5, 1)]
    done = ingest(campaign, answer_files(list(map(str, files)), "cvat"), "cvat")
    assert (done.repeated, done.votes) == (1, 2)
    assert answers.money == [(1.5, 0)]


def test_what_was_answered_before_an_undo_is_paid_by_the_batch_that_it_was_for(
    answers: Answers, tmp_path: Path
) -> None:
    """Else the batch that asks more people would be taken for paid, and the limit would let more out."""
    campaign = answers.campaign
    for who, label in ("a", "cat"), ("b", "dog"):
        answers.come(0, who, label)
    export(campaign, wish=Wish(is_disputed=True))
    assert answers.money == [(1, 1), (0, 1)]
    undo(campaign)
    answers.come(0, "b", "dog")
    assert answers.money == [(1, 1), (0, 1)]
    answers.come(0, "c", "cat")
    answers.come(0, "d", "cat")
    assert answers.money == [(1, 1), (1, 0)]
