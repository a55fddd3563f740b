"""Law 6 on random walks: whatever is exported, taken back, answered and selected again in whatever order, no image is
sent twice. The judge reads the records alone."""

import json
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pyarrow.parquet as pq
import pytest

from engine.campaign.decisions import Author
from engine.campaign.folder import Campaign
from engine.campaign.ledger import DISPUTED, IN_PART, OUT, read_ledger
from engine.campaign.opening import current_round
from engine.campaign.recalling import expire, recall
from engine.campaign.settling import close, progress_of, settle
from engine.errors import ConfigError, InputError
from engine.handoff.choice import Wish
from engine.handoff.export import export
from engine.selection.select import select
from jobs.round import _end_round
from tests.sendings import take_in
from tests.small import copied, make_small, picked, with_settings

VENDORS = ("generic", "label-studio", "imagefolder")
STEPS = 25


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    return make_small(tmp_path_factory.mktemp("walk"))


class PoolUsedUpError(Exception):
    """Nothing is left to pick: the end of a walk."""


class Judge:
    """What is out, by the records: looks at each new batch and decision once."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._seen: set[Path] = set()
        self.out: dict[tuple[str, str], str] = {}
        """The content hash of what is out, by the record and the item_id."""
        self._disputed: set[str] = set()
        self.num_disputed = self.num_again = 0

    def look(self) -> list[list[dict[str, Any]]]:
        """The images of each new batch."""
        for file in self._new("decisions/*.parquet"):
            for row in pq.read_table(file).to_pylist():
                if row["kind"] == "pick again" and row["batch"] not in self._disputed:
                    del self.out[row["batch"], row["item_id"]]
        return [self._batch(file.parent) for file in self._new("rounds/*/handed_out/*/manifest.json")]

    def _new(self, pattern: str) -> Iterator[Path]:
        for file in sorted(self.home.glob(pattern)):
            if file not in self._seen:
                self._seen.add(file)
                yield file

    def _batch(self, folder: Path) -> list[dict[str, Any]]:
        rows = [row for row in pq.read_table(folder / "images.parquet").to_pylist() if not row["gold"]]
        record = str(folder.relative_to(self.home))
        manifest = json.loads((folder / "manifest.json").read_text())
        if manifest["sending"]["disputed"]:
            assert {row["item_id"] for row in rows} <= {item_id for _, item_id in self.out}
            self._disputed.add(record)
            self.num_disputed += len(rows)
            return []
        out_ids, out_hashes = {item_id for _, item_id in self.out}, set(self.out.values())
        assert not [row for row in rows if row["item_id"] in out_ids]
        assert not [row for row in rows if row["content_hash"] in out_hashes]
        assert max(Counter(row["content_hash"] for row in rows).values(), default=1) == 1
        assert [row["rank"] for row in rows] == sorted(row["rank"] for row in rows)
        self.out |= {(record, row["item_id"]): row["content_hash"] for row in rows}
        return rows


class Walk:
    """A campaign on which random things are done."""

    def __init__(self, campaign: Campaign, seed: int) -> None:
        self.campaign, self.rng = campaign, random.Random(seed)
        self.judge = Judge(Path(campaign.home.path))
        self.done: Counter[str] = Counter()

    def step(self) -> None:
        actions = {
            self.send: 6, self.send_disputed: 2, self.take_back: 2, self.give_up: 1, self.answer: 6,
            self.select_again: 1, self.end: 1,
        }  # fmt: skip
        (action,) = self.rng.choices(list(actions), list(actions.values()))
        try:
            action()
            self.done[action.__name__] += 1
        except (ConfigError, InputError):
            self.done[f"{action.__name__} refused"] += 1
        self.judge.look()
        settle(self.campaign)
        if (number := current_round(self.campaign.home)) > self.campaign.round:
            try:
                self.campaign = picked(replace(self.campaign, round=number))
            except ConfigError as error:
                raise PoolUsedUpError if "select.budget" in str(error) else error from error
            self.done["round"] += 1

    def waiting(self) -> list[str]:
        """The picks that may be sent, by the records."""
        home = Path(self.campaign.home.path)
        picks = pq.read_table(home / f"rounds/{self.campaign.round:03d}/selection/selection.parquet").sort_by("rank")
        labels: dict[Any, Any] = {}
        for file in sorted((home / "labels").glob("*.parquet"), key=lambda file: ("initial" not in file.name, file)):
            labels |= {(row["shard"], row["key"]): row["label"] for row in pq.read_table(file).to_pylist()}
        out = {item_id for _, item_id in self.judge.out}
        return [
            row["item_id"]
            for row in picks.to_pylist()
            if row["item_id"] not in out and labels.get((row["shard"], row["key"])) is None
        ]

    def send(self) -> None:
        limit, share = self.rng.choice([None, 1, 3]), self.rng.choice([1.0, 1.0, 0.4])
        before, vendor = self.waiting(), self.rng.choice(VENDORS)
        export(self.campaign, vendor=vendor, wish=Wish(limit, share))
        sent = [row["item_id"] for batch in self.judge.look() for row in batch]
        assert set(sent) <= set(before)
        assert len(sent) == min([len(before), *([limit] if limit else []), *([4] if share < 1 else [])])
        if share == 1:
            # The most valuable first; and at last all of them.
            assert sent == before[:limit]
        assert self.waiting() == [item_id for item_id in before if item_id not in sent]
        progress = progress_of(self.campaign, read_ledger(self.campaign))
        assert progress.waiting == len(self.waiting())

    def send_disputed(self) -> None:
        disputed = int(self._number_in(DISPUTED))
        export(self.campaign, vendor=self.rng.choice(VENDORS), wish=Wish(is_disputed=True))
        if disputed:
            assert not self._number_in(DISPUTED)

    def _number_in(self, state: int) -> int:
        ledger = read_ledger(self.campaign)
        return int(((ledger.state_U == state) & ~ledger.items.are_gold).sum())

    def take_back(self) -> None:
        records = sorted({record for record, _ in self.judge.out})
        names = self.rng.choice([[], *([record] for record in records), records])
        pick_again = self.rng.random() < 0.6
        recall(self.campaign, names, Author("t", ""), pick_again=pick_again)
        before = len(list(Path(self.campaign.home.path, "decisions").glob("*")))
        assert recall(self.campaign, names, Author("t", ""), pick_again=pick_again).images == 0
        assert len(list(Path(self.campaign.home.path, "decisions").glob("*"))) == before

    def give_up(self) -> None:
        expire(
            with_settings(self.campaign, handoff__expires_days=1e-12),
            Author("t", ""),
            pick_again=self.rng.random() < 0.5,
        )

    def answer(self) -> None:
        ledger = read_ledger(self.campaign)
        items = ledger.items.rows(np.flatnonzero((ledger.state_U == OUT) | (ledger.state_U == IN_PART)))
        ids = items["item_id"].to_pylist()
        chosen = self.rng.sample(ids, min(len(ids), self.rng.choice([1, 2, 8])))
        lines = ["item_id,label,annotator,answer_id,skipped"]
        for item_id in chosen:
            who, label = f"a{self.rng.randrange(3)}", self.rng.choice(["cat", "cat", "dog", ""])
            lines.append(f"{item_id},{label},{who},{item_id[:8]}-{who},{'' if label else 'true'}")
        file = Path(self.campaign.home.path).with_suffix(f".{self.rng.random()}.csv")
        file.write_text("\n".join(lines) + "\n")
        take_in(self.campaign, file)

    def select_again(self) -> None:
        changed = with_settings(self.campaign, select__seed=self.rng.randrange(5))
        select(changed, force=True)
        self.campaign = changed

    def end(self) -> None:
        ledger = read_ledger(self.campaign)
        progress = progress_of(self.campaign, ledger)
        if progress.total:
            close(self.campaign, progress, "test")


@pytest.mark.heavy
@pytest.mark.parametrize("seed", range(6))
def test_no_image_is_sent_twice_on_a_walk(base: Campaign, tmp_path: Path, seed: int) -> None:
    settings = {"handoff__annotators": 1 + seed % 3, "handoff__gold_fraction": [0.0, 0.3][seed % 2]}
    walk = Walk(copied(base, tmp_path / "campaign", **settings), seed)
    walk.send()
    for _ in range(STEPS):
        try:
            walk.step()
        except PoolUsedUpError:
            break


def test_an_image_that_was_released_may_be_sent_again(base: Campaign, tmp_path: Path) -> None:
    walk = Walk(copied(base, tmp_path / "campaign"), 0)
    first = walk.waiting()
    export(walk.campaign, wish=Wish(limit=5))
    walk.judge.look()
    recall(walk.campaign, ["generic-000"], Author("t", ""), pick_again=False)
    walk.judge.look()
    assert walk.waiting() == first[5:]
    # Its own words are followed: then it may go to another vendor, in the same round.
    recall(walk.campaign, ["generic-000"], Author("t", ""), pick_again=True)
    settle(walk.campaign)
    walk.judge.look()
    assert walk.waiting() == first
    export(walk.campaign, vendor="tsv")
    assert [row["item_id"] for batch in walk.judge.look() for row in batch] == first
    assert current_round(walk.campaign.home) == 0


def test_a_round_of_which_all_waits_to_be_sent_again_can_be_ended_by_hand(base: Campaign, tmp_path: Path) -> None:
    campaign = copied(base, tmp_path / "campaign")
    export(campaign)
    screen = SimpleNamespace(log=lambda _: None)
    with pytest.raises(ConfigError, match="no answer came for its 9 images; if none will come: vaal handoff"):
        _end_round(cast("Any", screen), campaign.home.url, [], close=True)
    recall(campaign, (), Author("t", ""), pick_again=True)
    settle(campaign)
    assert current_round(campaign.home) == 0
    _end_round(cast("Any", screen), campaign.home.url, [], close=True)
    assert current_round(campaign.home) == 1
