"""Random sequences of commands and disturbances on a tiny campaign; the laws are checked after every step."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from engine.handoff import VENDORS
from tests.machine import corrections, laws, sending
from tests.machine.corrections import Deed
from tests.machine.customer import Customer
from tests.machine.faults import BrokenLawError, known_fault
from tests.machine.product import Done, Product
from tests.machine.tiny_pool import NUM_SHARDS

COMMANDS = [
    ("round",),
    ("round", "--close"),
    ("train",),
    ("score",),
    ("select",),
    ("select", "--force"),
    ("export",),
    ("export", "--limit", "2"),
    ("export", "--disputed"),
    ("handoff", "recall"),
    ("handoff", "recall", "--pick-again"),
    ("handoff", "expire", "--set", "handoff.expires_days=0.000001"),
    ("report",),
    ("status",),
]
SETTINGS = [
    "select.budget=3", "select.budget=4", "select.budget=5", "select.diversity=none", "select.diversity=k_center",
    "select.duplicates=off", "select.duplicates=near", "select.control_fraction=0", "select.control_fraction=0.5",
    "select.seed=1", "train.folds=2", "train.seed=3", "score.max_bad_fraction=1", "image.size=8", "image.size=9",
    "select.budget=1000", "select.nothing=1", "pool.root=/",
]  # fmt: skip
commands = st.sampled_from(COMMANDS)
shards = st.integers(0, NUM_SHARDS - 1).map("{}.tar".format)
numbers = st.integers(0, 1000)


class Machine(Customer, RuleBasedStateMachine):
    """The customer, the vendor, and everything that happens to them."""

    steps: ClassVar[int] = 0
    survey: ClassVar[dict[str, int] | None] = None
    """Where it is a dictionary, new faults are counted in it, by their text, and do not end the run."""

    def __init__(self) -> None:
        super().__init__()
        self.product = Product()
        self.product.on_trained = lambda seen: laws.check_trained(self.truth, seen)
        self._stand_ins = self.product.in_place()
        self._stand_ins.__enter__()
        self.scratch = Path(tempfile.mkdtemp(prefix="vaal-machine-"))
        self.begin()

    def teardown(self) -> None:
        self._stand_ins.__exit__(None, None, None)
        shutil.rmtree(self.scratch)

    def lawful(self, step: Callable[[], None]) -> None:
        """Take a step. Where it shows a known fault, the campaign ends and a new one begins."""
        Machine.steps += 1
        try:
            step()
        except BrokenLawError as broken:
            name = known_fault(str(broken))
            if name is None and self.survey is None:
                raise
            found, key = (Machine.met, name) if name or self.survey is None else (self.survey, str(broken))
            found[key] = found.get(key, 0) + 1
            self.begin()

    # The rules.

    @rule(command=commands)
    def run_a_command(self, command: tuple[str, ...]) -> None:
        self.lawful(lambda: self.vaal(*command))

    @rule(command=commands, setting=st.sampled_from(SETTINGS))
    def change_an_option(self, command: tuple[str, ...], setting: str) -> None:
        if command[0] not in ("status", "handoff"):
            self.lawful(lambda: self.vaal(*command, "--set", setting))

    @rule(vendor=st.sampled_from(list(VENDORS)), wish=st.sampled_from([(), ("--limit", "1"), ("--share", "0.5")]))
    def export_to_a_vendor(self, vendor: str, wish: tuple[str, ...]) -> None:
        self.lawful(lambda: self.vaal("export", "--to", vendor, *wish))

    @rule(share=st.sampled_from([0.5, 1.0]), seed=numbers)
    def labels_come_back(self, share: float, seed: int) -> None:
        self.lawful(lambda: self.ingest(share, seed))

    @rule(wrong=st.sampled_from(["unknown item", "other label", "no column"]))
    def wrong_answers_come_back(self, wrong: str) -> None:
        self.lawful(lambda: self.ingest_wrong(wrong))

    @rule(kind=st.sampled_from(corrections.KINDS), seed=numbers)
    def labels_are_changed(self, kind: str, seed: int) -> None:
        def step() -> None:
            if deed := self.deed(kind, seed):
                self.do(deed)

        self.lawful(step)

    @rule(number=numbers)
    def labels_are_changed_wrongly(self, number: int) -> None:
        wrong = corrections.wrong_deeds(self.truth)
        self.lawful(lambda: self.refused(*wrong[number % len(wrong)]))

    @rule(kind=st.sampled_from(corrections.KINDS), seed=numbers, at=st.integers(0, 12))
    def killed_while_labels_are_changed(self, kind: str, seed: int, at: int) -> None:
        def step() -> None:
            if deed := self.deed(kind, seed):
                self.truth.after.append(f"kill {kind} at {at}")
                self.do_killed(at, deed)

        self.lawful(step)

    @rule(kind=st.sampled_from(corrections.KINDS), seed=numbers, command=commands, at=st.integers(0, 30))
    def labels_are_changed_while_a_command_runs(self, kind: str, seed: int, command: tuple[str, ...], at: int) -> None:
        def step() -> None:
            deed = self.deed(kind, seed)
            if not deed:
                return
            self.truth.after.append(f"{kind} within {command[0]}")
            first, inner = (command[0], str(self.truth.home), *command[1:]), list[Done]()

            def change() -> None:
                inner.append(self.product.run(*deed.arguments))
                if not inner[0].status:
                    corrections.done(self.truth, deed)

            done = self.product.run_during(at, change, *first)
            for arguments, ended in (*((deed.arguments, found) for found in inner), (first, done)):
                self.check(arguments, ended)
            self.check_readers()

        self.lawful(step)

    @rule(kinds=st.tuples(*[st.sampled_from(corrections.KINDS)] * 2), seed=numbers, at=st.integers(0, 8))
    def labels_are_changed_twice_at_once(self, kinds: tuple[str, str], seed: int, at: int) -> None:
        def step() -> None:
            first, second = self.deed(kinds[0], seed), self.deed(kinds[1], seed + 1)
            if not first or not second or first.arguments[0] == second.arguments[0] == "ingest":
                # The answers are in one file.
                return
            self.truth.after.append(f"{kinds[1]} within {kinds[0]}")
            inner: list[Done] = []
            left = [first]

            def change() -> None:
                # At its last write a command may have done what it does.
                if left and corrections.new_files(self.truth):
                    corrections.done(self.truth, left.pop())
                inner.append(self.product.run(*second.arguments))
                if not inner[0].status:
                    corrections.done(self.truth, second)

            done = self.product.run_during(at, change, *first.arguments)
            if not done.status and left:
                corrections.done(self.truth, first)
            for arguments, ended in (*((second.arguments, found) for found in inner), (first.arguments, done)):
                self.check(arguments, ended)
            self.check_readers()

        self.lawful(step)

    def deed(self, kind: str, seed: int) -> Deed | None:
        self.truth.after.append(kind)
        return corrections.deed_of(self.truth, kind, seed)

    @rule()
    def advice_is_followed(self) -> None:
        self.lawful(self.follow_advice)

    @rule(seed=numbers)
    def a_round_passes(self, seed: int) -> None:
        def step() -> None:
            self.follow_advice()
            self.ingest(1.0, seed)

        self.lawful(step)

    @rule(command=commands, at=st.integers(0, 40))
    def killed_at_a_write(self, command: tuple[str, ...], at: int) -> None:
        def step() -> None:
            self.truth.after.append(f"kill {command[0]} at {at}")
            arguments = (command[0], str(self.truth.home), *command[1:])
            done = self.product.run_killed(at, *arguments)
            if done:
                self.check(arguments, done)
            else:
                sending.look(self.truth)
                laws.check_files(self.truth, self.damaged)

        self.lawful(step)

    @rule(command=commands, other=commands, at=st.integers(0, 30))
    def two_commands_at_once(self, command: tuple[str, ...], other: tuple[str, ...], at: int) -> None:
        def step() -> None:
            home = str(self.truth.home)
            self.truth.after.append(f"{other[0]} within {command[0]}")
            first, second = (command[0], home, *command[1:]), (other[0], home, *other[1:])
            inner: list[Done] = []
            done = self.product.run_during(at, lambda: inner.append(self.product.run(*second)), *first)
            for arguments, ended in (*((second, found) for found in inner), (first, done)):
                laws.check_done(self.truth, arguments, ended)
            for arguments, ended in (*((second, found) for found in inner), (first, done)):
                self.check(arguments, ended)

        self.lawful(step)

    @rule(
        shard=shards,
        how=st.sampled_from(["touch", "reorder", "replace", "replace unseen", "cut", "fix"]),
        seed=numbers,
    )
    def a_shard_changes(self, shard: str, how: str, seed: int) -> None:
        pool, key = self.truth.pool, f"{seed % 12:02d}"
        self.truth.after.append(f"{how} a shard")
        if how == "touch":
            pool.touch(shard)
        elif how == "reorder":
            pool.reorder(shard, seed)
        elif how.startswith("replace"):
            pool.replace(shard, key, is_later=how == "replace")
        elif how == "cut":
            pool.cut(shard, seed % 100 / 100)
        else:
            pool.write(shard)

    @rule(place=numbers, how=st.sampled_from(["delete", "halve", "flip"]))
    def a_file_is_damaged(self, place: int, how: str) -> None:
        """Not of the labels and the record of what is out: nothing else knows what they hold."""
        kept = ("campaign.toml", "labels", "votes", "decisions", "handed_out", "closed.json", "pool")
        files = [f for f in sorted(self.truth.home.rglob("*")) if f.is_file() and not set(f.parts) & set(kept)]
        files = [f for f in files if f.relative_to(self.truth.home).parts[0] not in kept]
        if not files:
            return
        file = files[place % len(files)]
        self.truth.after.append(f"{how} {file.parent.name}/{file.suffix}")
        content = file.read_bytes()
        self.damaged.setdefault(file, content)
        if how == "delete":
            file.unlink()
        elif how == "halve":
            file.write_bytes(content[: len(content) // 2])
        elif content:
            at = place % len(content)
            file.write_bytes(content[:at] + bytes([content[at] ^ 0x55]) + content[at + 1 :])

    @rule(stage=st.sampled_from(["train", "scores", "selection", "handoff", "report"]))
    def a_stage_is_deleted(self, stage: str) -> None:
        for folder in self.truth.rounds()[-1:]:
            if (folder / stage).exists():
                self.truth.after.append(f"delete {stage}")
                shutil.rmtree(folder / stage)
