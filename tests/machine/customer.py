"""The customer: a tiny campaign, the commands that are run on it, the answers that come back, the advice followed."""

import csv
import json
import re
from pathlib import Path
from typing import ClassVar

from engine.campaign.opening import open_campaign
from engine.campaign.settling import settle
from tests.machine import corrections, laws, sending
from tests.machine.corrections import Deed, write_rows
from tests.machine.faults import known_fault
from tests.machine.laws import label_of
from tests.machine.product import Done, Product
from tests.machine.tiny_pool import NUM_ITEMS, NUM_SHARDS, SIDE, TinyPool
from tests.machine.truth import SALT, Truth, Word

BUDGET, MOST_IN_A_BATCH = 4, 5
MOST_ADVICE = 12
"""Commands that may be needed to complete a round by following advice."""


class Customer:
    """Runs commands, and checks all laws after each one."""

    met: ClassVar[dict[str, int]] = {}
    """How often each known fault was met."""
    product: Product
    scratch: Path
    num_begun = 0

    def begin(self) -> None:
        """A new campaign: two labels in each shard."""
        self.num_begun += 1
        folder = self.scratch / str(self.num_begun)
        pool = TinyPool(folder / "pool")
        self.truth = Truth(folder / "campaign", pool)
        self.damaged: dict[Path, bytes] = {}
        chosen = [item for item in pool.items() if item[1] in ("00", "05")]
        rows = {item: (label_of(pool.content(item)), pool.content(item)) for item in chosen}
        self.truth.words = [Word("initial.parquet", item, row, 0, 0) for item, row in rows.items()]
        with (folder / "labels.csv").open("w") as file:
            csv.writer(file).writerows([("shard", "key", "label"), *((*i, v[0]) for i, v in rows.items())])
        settings = [f"image.size={SIDE}", f"select.budget={BUDGET}", f"salt={SALT}", "labels.consensus=majority"]
        # Every second campaign asks two people, and mixes labelled images in.
        settings += ["handoff.annotators=2", "handoff.gold_fraction=0.5"] if self.num_begun % 2 == 0 else []
        extra = [word for setting in settings for word in ("--set", setting)]
        labels, shards = str(folder / "labels.csv"), str(folder / "pool/*.tar")
        done = self.product.run("init", str(self.truth.home), "--pool", shards, "--labels", labels, *extra)
        assert done.status == 0, (done.err, done.exception)

    def vaal(self, command: str, *rest: str) -> Done:
        """Run a command on the campaign, and check all laws after it."""
        arguments = (command, str(self.truth.home), *rest)
        done = self.product.run(*arguments)
        self.check(arguments, done)
        return done

    def check(self, arguments: tuple[str, ...], done: Done) -> None:
        truth, command = self.truth, arguments[0]
        laws.check_done(truth, arguments, done)
        sending.look(truth)
        laws.check_files(truth, self.damaged)
        settles = command in ("ingest", "handoff", "labels") and arguments[2] != "list"
        sending.check_rounds(truth, is_settled=not done.status and settles and not self.damaged)
        if done.status or command in ("ingest", "status", "labels", "handoff"):
            return
        folder = truth.rounds()[-1]
        is_first = not any((folder / later / "manifest.json").exists() for later in ("selection",))
        if command == "score" and is_first and not self.damaged and not truth.pool.cut_shards:
            laws.check_scores(truth, folder)
        if command == "select" and not list(folder.glob("handed_out/*/manifest.json")):
            laws.check_fresh_selection(truth, folder)
            if not self.damaged and not truth.pool.cut_shards:
                laws.check_nothing_lost(truth, folder)
        if command == "export":
            vendor = arguments[arguments.index("--to") + 1] if "--to" in arguments else "generic"
            sending.check_folder(truth, folder, vendor)

    def note(self, law: str, what: str) -> None:
        """Report a broken law that need not end the campaign."""
        broken = self.truth.broken(law, what)
        name = known_fault(str(broken))
        if name is None:
            raise broken
        Customer.met[name] = Customer.met.get(name, 0) + 1

    def ingest(self, share: float, seed: int) -> None:
        """The vendor's labels come back, all or half of them."""
        deed = corrections.deed_of(self.truth, "ingest" if share == 1 else "ingest half", seed)
        if not deed:
            return
        done = self.do(deed)
        if done.status and not self.damaged:
            raise self.truth.broken("labels are taken", done.err)
        if not done.status:
            self.ingest_again(deed.arguments[2])

    def do(self, deed: Deed) -> Done:
        """Change labels, and check that every reader sees it."""
        before = self.overrides()
        done = self.product.run(*deed.arguments)
        if not done.status:
            corrections.done(self.truth, deed)
        self.check(deed.arguments, done)
        if done.status and self.overrides() != before:
            raise self.truth.broken("what is refused is not kept", f"{deed.arguments}: {done.err}")
        self.check_readers()
        return done

    def do_killed(self, at: int, deed: Deed) -> None:
        """Change labels; the command dies at a write. The change is there whole, or not at all, once a command that
        settles has run."""
        done = self.product.run_killed(at, *deed.arguments)
        if not done and deed.answers is not None:
            # What came is completed by taking it in again.
            done = self.product.run(*deed.arguments)
            if done.status and corrections.new_files(self.truth) and not self.damaged:
                raise self.truth.broken("what was interrupted can be completed", done.err)
        if done:
            laws.check_done(self.truth, deed.arguments, done)
        if (done and not done.status) or corrections.new_files(self.truth):
            corrections.done(self.truth, deed)
        if not done:
            settle(open_campaign(str(self.truth.home)))
        sending.look(self.truth)
        laws.check_files(self.truth, self.damaged)

    def label_files(self) -> dict[Path, bytes]:
        """Those of votes too."""
        folders = ((self.truth.home / name).glob("[!.]*") for name in ("labels", "votes"))
        return {path: path.read_bytes() for folder in folders for path in folder}

    def overrides(self) -> list[bytes]:
        return [file.read_bytes() for file in sorted(self.truth.home.glob("rounds/*/overrides.json"))]

    def check_readers(self) -> None:
        """What labels/ says is what the product lists and counts."""
        listed = self.product.run("labels", str(self.truth.home), "list", "--json")
        laws.check_done(self.truth, ("labels", "list"), listed)
        if not listed.status:
            laws.check_list(self.truth, json.loads(listed.out)["labels"])
        shown = self.product.run("handoff", str(self.truth.home), "--json")
        laws.check_done(self.truth, ("handoff",), shown)
        if not shown.status:
            sending.check_ledger(self.truth, json.loads(shown.out))

    def refused(self, *arguments: str) -> None:
        """A command that is refused: it changes neither labels nor settings."""
        files, before = self.label_files(), self.overrides()
        done = self.product.run(*arguments)
        self.check(arguments, done)
        if not done.status or self.label_files() != files or self.overrides() != before:
            raise self.truth.broken("what is wrong is refused, and not kept", " ".join(arguments))

    def ingest_again(self, file: str) -> None:
        files = self.label_files()
        again = json.loads(self.vaal("ingest", file, "--json").out)
        if again["new"] or again["votes"] or files != self.label_files():
            raise self.truth.broken("ingested twice is once", str(again))

    def ingest_wrong(self, wrong: str) -> None:
        known = [i for batch in self.truth.sent for i in batch.images if self.truth.versions((i, ""))]
        known = [i for i in known if self.truth.item_of(i) in self.truth.labels]
        if wrong == "other label" and not known:
            return
        rows: dict[str, list[tuple[str, ...]]] = {
            "unknown item": [("item_id", "label"), ("0" * 32, "class 1")],
            "other label": [("item_id", "label"), ((known or [""])[0], "another")],
            "no column": [("item", "label"), ("0" * 32, "x")],
        }
        self.refused("ingest", str(self.truth.home), write_rows(self.truth.home.parent, rows[wrong]))

    def follow_advice(self) -> None:
        """Do what status says next, and what errors say, until the round is complete."""
        taken = {*self.truth.labels, *(self.truth.item_of(i) for batch in self.truth.sent for i in batch.images)}
        if len(taken) + MOST_IN_A_BATCH > NUM_SHARDS * NUM_ITEMS:
            # A pool in which nothing is left has no further rounds.
            self.begin()
        extra: list[str] = []
        words = ["status"]
        history = []
        for _ in range(MOST_ADVICE):
            done = self.vaal(words[0], *words[1:], *extra)
            history.append(f"{' '.join([*words, *extra])} -> {done.err.splitlines()[-1:] if done.status else 'done'}")
            if done.status == 0:
                advice = self.next_of(done)
                if advice == ["ingest"]:
                    return
                words, extra = advice, []
            elif "use a larger pool" in done.err:
                # Nothing is left of this one.
                self.begin()
                return
            else:
                words, extra = self.fix(done.err.splitlines()[-1], words, extra)
                if not words:
                    break
        raise self.truth.broken("advice leads on", "; ".join(history[-4:]))

    def next_of(self, done: Done) -> list[str]:
        """The command after "next"; without one, what status says."""
        found = re.search(r"^\s*next\s+vaal (\w+) (.*)$", done.out, re.MULTILINE)
        if not found:
            return ["status"]
        home = str(self.truth.home)
        rest = found[2].split()
        if not rest or rest[0] != home:
            raise self.truth.broken("advice is whole", found[0])
        return [found[1]] if found[1] == "ingest" else [found[1], *rest[1:]]

    def fix(self, error: str, words: list[str], extra: list[str]) -> tuple[list[str], list[str]]:
        """The next command by the advice in an error, after doing by hand what it says; none without advice."""
        if to_delete := re.search(r"delete (it|/\S+)(?: and (/\S+))?", error):
            first = str(self.named(error)) if to_delete[1] == "it" else to_delete[1]
            for path in (first, to_delete[2] or first):
                Path(path.rstrip(",;")).unlink(missing_ok=True)
        if command := re.search(r"vaal (\w+)((?: --?\w+)*)( /\S+)?", error):
            if not command[3]:
                self.note("advice is whole", error)
            return [command[1], *command[2].split()], []
        if setting := re.search(r"--set (\S+=\w+)", error):
            return words, ["--set", setting[1]]
        is_fixed = ("restore" in error and self.restore(error)) or to_delete or "run again" in error
        return (words, extra) if is_fixed else ([], [])

    def named(self, error: str) -> Path:
        """The file or folder that an error begins with."""
        return Path(error.removeprefix("error:").split()[0].rstrip(":"))

    def restore(self, error: str) -> bool:
        """Put back from a copy what the error names: a file of the campaign, or a shard."""
        path = self.named(error)
        if path in self.damaged:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.damaged.pop(path))
            return True
        moment = re.search(r"mtime:(\d+)", error)
        return path.parent == self.truth.pool.folder and bool(moment) and self.truth.pool.restore(path.name, moment[1])
