"""Killed at every single write, and run again: nothing is sent twice, nothing is lost, and the records are those of a
run that nobody disturbed."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from engine.campaign.decisions import Author
from engine.campaign.folder import Campaign
from engine.campaign.handed_out import batches
from engine.campaign.positions import all_positions
from engine.campaign.recalling import expire, recall
from engine.campaign.settling import settle
from engine.campaign.undoing import undo
from engine.errors import InputError
from engine.handoff.choice import Wish
from engine.handoff.export import export
from engine.storage.location import Location
from tests.sendings import take_in
from tests.small import copied, make_small, with_settings

Step = Callable[[Campaign], object]
TIMES = ("completed_at", "at", "labelled_at")
AUTHOR = Author("t", "")


class Killed(BaseException):
    """As SIGKILL: nothing catches it."""


@contextmanager
def killed_after(num_writes: int) -> Iterator[list[str]]:
    """Every write and deletion after so many is the end. Yields what was written."""
    done: list[str] = []

    def guarded(original: Callable[..., Any]) -> Callable[..., Any]:
        def write(self: Location, *given: Any) -> Any:
            if len(done) >= num_writes:
                raise Killed(self.url)
            found = original(self, *given)
            done.append(self.url)
            return found

        return write

    with pytest.MonkeyPatch.context() as patch:
        for name in ("write_file", "delete", "clear"):
            patch.setattr(Location, name, guarded(getattr(Location, name)))
        yield done


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    return make_small(tmp_path_factory.mktemp("killed"), handoff__gold_fraction=0.3, handoff__annotators=2)


def records(home: Path) -> dict[str, Any]:
    """All that is in the campaign, by its file, without times."""
    found: dict[str, Any] = {}
    for file in sorted(file for file in home.rglob("*") if file.is_file() and not file.name.startswith(".")):
        name, content = str(file.relative_to(home)), file.read_bytes()
        if name.startswith("pool/items/"):
            # A position that is written twice is the same position.
            found["positions"] = all_positions(Location(str(home))).to_pylist()
        elif file.suffix == ".parquet" and not name.startswith("pool/"):
            rows = pq.read_table(file).to_pylist()
            found[name] = [{key: row[key] for key in row if key not in TIMES} for row in rows]
        elif file.suffix == ".json":
            tree = json.loads(content)
            tree = {key: tree[key] for key in tree if key not in TIMES} if isinstance(tree, dict) else tree
            # The hash of a table with times in it.
            found[name] = json.dumps(tree) if "labels/" not in str(tree) else sorted(tree)
        else:
            found[name] = content
    return found


def assert_kills_leave_no_trace(campaign: Campaign, folder: Path, script: list[Step], least: int) -> None:
    """Run the script. Each step is also killed at each of its writes, and then run again."""
    num_kills = 0
    for place, step in enumerate(script):
        after = copied(campaign, folder / f"after-{place}/campaign")
        with killed_after(10**9) as writes:
            step(after)
        expected = records(Path(after.home.path))
        for number in range(len(writes)):
            killed = copied(campaign, folder / f"killed-{place}-{number}/campaign")
            with killed_after(number), pytest.raises(Killed):
                step(killed)
            step(killed)
            found = records(Path(killed.home.path))
            different = [name for name in expected.keys() | found.keys() if found.get(name) != expected.get(name)]
            assert not different, (place, number, *((name, found.get(name), expected.get(name)) for name in different))
        num_kills += len(writes)
        campaign = after
    assert num_kills >= least


def sending(vendor: str = "generic", **wish: Any) -> Step:
    return lambda campaign: export(campaign, vendor=vendor, wish=Wish(**wish))


def answering(folder: Path, *answers: tuple[int, str, str]) -> Step:
    """Answers (place in the selection, annotator, label) of a file of their own."""
    file = folder / f"answers-{next(_numbers)}.csv"

    def step(campaign: Campaign) -> None:
        picks = (campaign.stage("selection") / "selection.parquet").read_table()["item_id"].to_pylist()
        rows = [f"{picks[place]},{label},{who},{who}-{place}" for place, who, label in answers]
        file.write_text("\n".join(["item_id,label,annotator,answer_id", *rows]) + "\n")
        take_in(campaign, file)

    return step


_numbers = count()


def taking_back(batch: str, *, pick_again: bool) -> Step:
    def step(campaign: Campaign) -> None:
        recall(campaign, [batch] if batch else [], AUTHOR, pick_again=pick_again)
        settle(campaign)

    return step


def giving_up(*, pick_again: bool) -> Step:
    def step(campaign: Campaign) -> None:
        expire(with_settings(campaign, handoff__expires_days=1e-12), AUTHOR, pick_again=pick_again)
        settle(campaign)

    return step


@pytest.mark.heavy
def test_an_export_that_is_killed_anywhere_sends_each_image_once(base: Campaign, tmp_path: Path) -> None:
    script = [sending(limit=3), sending("label-studio", share=0.4), sending("imagefolder")]
    assert_kills_leave_no_trace(base, tmp_path, script, least=40)


def test_a_wave_of_which_nobody_was_told_is_shown_by_the_next_run_and_no_more_is_sent(
    base: Campaign, tmp_path: Path
) -> None:
    campaign = copied(base, tmp_path / "campaign")
    with killed_after(10**9) as writes:
        first = export(copied(base, tmp_path / "other"), wish=Wish(limit=2))
    with killed_after(len(writes) - 1), pytest.raises(Killed, match=r"generic-000\.json"):
        export(campaign, wish=Wish(limit=2))
    for _ in range(2):
        shown = export(campaign, wish=Wish(limit=2))
        assert [batch.folder.name for batch in batches(campaign.home, 0)] == ["generic-000"]
        assert shown["files"] == first["files"]
        if _ == 0:
            campaign.stage("handed_out/generic-000.json").delete()
    export(campaign, wish=Wish(limit=2))
    assert [len(batch.images()) for batch in batches(campaign.home, 0)] == [2, 2]


@pytest.mark.heavy
def test_an_ingest_that_is_killed_anywhere_loses_no_answer(base: Campaign, tmp_path: Path) -> None:
    everything = [(place, who, "cat") for place in range(9) for who in "cd"]
    script = [
        sending(limit=4),
        answering(tmp_path, (0, "a", "cat"), (1, "a", "dog"), (0, "b", "cat")),
        answering(tmp_path, (1, "b", "cat"), (2, "a", "bird")),
        sending(),
        answering(tmp_path, (2, "b", "bird"), (3, "a", "dog"), (3, "b", "dog"), (5, "a", "cat")),
        answering(tmp_path, (5, "b", "cat"), (6, "a", "cat"), (6, "b", "cat")),
        answering(tmp_path, *everything),
        answering(tmp_path, (0, "e", "dog"), (4, "e", "cat"), (8, "e", "dog")),
    ]
    exported = copied(base, tmp_path / "exported/campaign")
    for step in (script.pop(0), script.pop(2)):
        step(exported)
    assert_kills_leave_no_trace(exported, tmp_path, script, least=20)


@pytest.mark.heavy
def test_a_recall_and_an_expiry_that_are_killed_anywhere_take_back_once(base: Campaign, tmp_path: Path) -> None:
    exported = copied(base, tmp_path / "exported/campaign", handoff__gold_fraction=0)
    for step in (
        *(sending(vendor, limit=1) for vendor in ("generic", "tsv", "coco", "v7", "cvat", "encord")),
        sending(),
        answering(tmp_path, (0, "a", "cat"), (7, "a", "cat")),
    ):
        step(exported)
    script = [
        taking_back("generic-000", pick_again=False),
        taking_back("tsv-001", pick_again=True),
        taking_back("coco-002", pick_again=False),
        taking_back("coco-002", pick_again=True),
        sending("scale", limit=1),
        giving_up(pick_again=False),
        giving_up(pick_again=True),
        sending("labelbox"),
        taking_back("", pick_again=True),
    ]
    assert_kills_leave_no_trace(exported, tmp_path, script, least=20)


@pytest.mark.heavy
def test_an_undo_that_is_killed_anywhere_is_done_once(base: Campaign, tmp_path: Path) -> None:
    campaign = copied(base, tmp_path / "exported/campaign", handoff__annotators=1)
    for step in (
        sending(),
        answering(tmp_path, (0, "a", "cat"), (1, "a", "dog")),
        answering(tmp_path, (2, "a", "cat"), (0, "b", "dog")),
    ):
        step(campaign)

    def undoing(campaign: Campaign) -> None:
        # Where it was interrupted after its commit, it is done already, and undoes no earlier ingest.
        with suppress(InputError):
            undo(campaign)
        settle(campaign)

    assert_kills_leave_no_trace(campaign, tmp_path, [undoing], least=2)
