"""What each step of the driver takes at a million shards and ten million labels.

    python tests/bench/driver_steps.py small|large [FOLDER [make|STEP...]]

A campaign is made of metadata alone, in FOLDER, where an interrupted run goes on, else in a temporary one: 10^6 shards
(small: 10^4) as files of zeros, 10^7 labels (10^4) in one earlier round with their positions, and as many images that
were sent. Half of the shards of the newest round are scored: an empty file in scores/, and a record in the ledger.
Each step runs in a process of its own, which prints seconds and the highest resident memory; what it imports is what
its command imports. Numbers by the names `SHARDS`, `LABELS`, `SENT` and `ANSWERS` in the environment are others.

Targets: 60 s and 2 GiB for each step. The files of a FOLDER stay: delete it when all is measured.
"""

import json
import os
import pickle
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from measure import end_on_sigterm, is_small, machine, resident_bytes, result_of, start_fresh

from engine.campaign.folder import Campaign
from engine.campaign.opening import open_campaign

TARGET_SECONDS, TARGET_BYTES = 60, 2 << 30
Made = dict[str, int]


def sizes() -> Made:
    few = {"shards": 10_000, "labels": 10_000, "sent": 10_000, "answers": 1000}
    many = {"shards": 1_000_000, "labels": 10_000_000, "sent": 10_000_000, "answers": 1_000_000}
    found = few if is_small() else many
    given = {name: int(os.environ.get(name.upper(), number)) for name, number in found.items()}
    return {**given, "sent": int(os.environ.get("SENT", given["labels"]))}


def score_plan(campaign: Campaign, _: Made) -> dict[str, Any]:
    return {"todo": len(plan_of(campaign).todo)}


def plan_of(campaign: Campaign) -> Any:
    from engine.scoring.resume import make_plan
    from engine.scoring.score import inputs_of

    return make_plan(campaign, inputs_of(campaign), lambda _: None)


def last_commit(campaign: Campaign, made: Made) -> dict[str, Any]:
    """The manifest of all shards, the other half of which is taken to be committed now."""
    import pyarrow as pa
    from driver_campaign import record_of

    from engine.scoring.score import _complete, inputs_of
    from engine.tables.shard_records import table_of

    plan = plan_of(campaign)
    rest = table_of(record_of(shard, plan.key) for shard in plan.todo)
    manifest = _complete(campaign, pa.concat_tables([plan.committed, rest]), inputs_of(campaign), {"device": "cpu"})
    assert manifest["counts"]["shards"] == made["shards"]
    return {"manifest_bytes": (campaign.stage("scores") / "manifest.json").info().size}


def select_plan(campaign: Campaign, _: Made) -> dict[str, Any]:
    from engine.campaign.labels import POSITIONS_SCHEMA
    from engine.campaign.manifests import ScoresManifest, read_manifest
    from engine.selection.reduction import parts_of
    from engine.selection.select import _current_records
    from engine.selection.unpickable import find_unpickable

    scores = read_manifest(campaign, "scores", ScoresManifest)
    records = _current_records(campaign, scores, lambda _: None)
    unpickable = find_unpickable(campaign, records, campaign.round, lambda _: None)
    parts = parts_of(unpickable.sources)
    known = unpickable.known(POSITIONS_SCHEMA.empty_table())
    largest = max(len(pickle.dumps(part)) for part in parts)
    return {"parts": len(parts), "largest_part_bytes": largest, "known": len(known)}


def train_plan(campaign: Campaign, _: Made) -> dict[str, Any]:
    from engine.training.plan import plan_training

    plan, buffers = plan_training(campaign), list[pickle.PickleBuffer]()
    # What is not in buffers is copied into every worker; a node maps those once.
    content = pickle.dumps(plan, protocol=5, buffer_callback=buffers.append)
    once = sum(buffer.raw().nbytes for buffer in buffers)
    return {"bytes_each_worker": len(content), "bytes_each_node": once, "labels": len(plan.labels)}


def init(campaign: Campaign, _: Made) -> dict[str, Any]:
    from engine.campaign.opening import create
    from engine.pool.manifest import read_shards

    folder = Path(campaign.home.path).parent
    fresh = f"{folder}/fresh-{time.time_ns()}"
    other = create(fresh, [f"{folder}/pool/*/*.tar"], f"{folder}/labels.csv", campaign.config, lambda _: None)
    return {"shards": len(read_shards(other.home))}


def report_reads(campaign: Campaign, _: Made) -> dict[str, Any]:
    """What a report reads beside the pictures: the ledger of shards, faults, and the gains of earlier rounds."""
    from engine.campaign.labels import read_snapshot
    from engine.campaign.manifests import ScoresManifest, read_manifest
    from engine.campaign.scored_shards import damaged_in, shard_records
    from engine.report.arms import LABEL_COLUMNS, gains_of
    from engine.tables.error_classes import survey
    from engine.tables.shard_records import records_in

    snapshot = read_snapshot(campaign.home, LABEL_COLUMNS)
    damaged = damaged_in(shard_records(campaign, read_manifest(campaign, "scores", ScoresManifest)))
    gains = gains_of(campaign, snapshot, range(campaign.round))
    return {"gains": len(gains), "faults": len(survey(campaign.stage("quarantine"), list(records_in(damaged)), 0))}


def ingest_answers(campaign: Campaign, _: Made) -> dict[str, Any]:
    from tests.sendings import take_in

    return {"votes": take_in(campaign, f"{Path(campaign.home.path).parent}/answers.csv").votes}


def export_plan(campaign: Campaign, made: Made) -> dict[str, Any]:
    """What an export of 10^5 picks asks of the campaign before it reads an image: which of them wait and are nowhere
    else, the question, the money, and what was answered. The picks are made up here, and there are no images to write:
    whether the selection is the one of these scores and whether shards changed is not asked."""
    from driver_campaign import select_new

    from engine.config.toml import override
    from engine.handoff.choice import ALL, answers_of, candidates_of, chosen_of, require_sendable
    from engine.handoff.export import _not_asked
    from engine.handoff.question import question_of

    select_new(campaign, made)
    paid = {"handoff.price": 0.01, "handoff.money_limit": 1e9, "handoff.question.classes": ["0", "1"]}
    campaign = replace(campaign, config=override(campaign.config, paid, "bench"))
    chosen = chosen_of(campaign, ALL, candidates_of(campaign, ALL))
    others = _not_asked(campaign, question_of(campaign))
    require_sendable(campaign, "generic", ALL, chosen.images, 0)
    came = answers_of(campaign, chosen.images).to_numpy().sum()
    (campaign.stage("selection") / "manifest.json").delete()
    return {"picks": len(chosen.images), "answers": int(came), "classes_not_asked": len(others)}


def status_of(campaign: Campaign, _: Made) -> dict[str, Any]:
    from engine.campaign.status import status

    found = status(campaign)
    return {"labels": found["labels"]["total"], "round": found["round"]}


def refreshed(campaign: Campaign, _: Made) -> dict[str, Any]:
    from engine.campaign.changes import refresh

    return {"shards": len(refresh(campaign, lambda _: None))}


STEPS: dict[str, Callable[[Campaign, Made], Any]] = {
    "init": init,
    "status": status_of,
    "refresh": refreshed,
    "train plan": train_plan,
    "score plan": score_plan,
    "last commit": last_commit,
    "status, scored": status_of,
    "select plan": select_plan,
    "report reads": report_reads,
    "export plan": export_plan,
    "ingest": ingest_answers,
}
MAKING = ("pool", "labels", "sent", "scores")


def step_main(name: str, folder: str) -> None:
    """In a process of its own: prints what a step takes, as JSON."""
    if name in MAKING:
        from driver_campaign import MAKERS

        MAKERS[name](Path(folder), sizes())
        print("{}")
        return
    begin, cpu = time.perf_counter(), time.process_time()
    found = STEPS[name](open_campaign(f"{folder}/campaign"), sizes())
    facts = {"seconds": time.perf_counter() - begin, "cpu": time.process_time() - cpu}
    print(json.dumps({**facts, **found, "peak": resident_bytes(peak=True)}))


def main() -> None:
    end_on_sigterm()
    size, *given = sys.argv[1:]
    print(f"{machine()}; {sizes()}")
    with tempfile.TemporaryDirectory() as temporary:
        folder, *wanted = given or [temporary]
        Path(folder).mkdir(parents=True, exist_ok=True)
        for name in MAKING:
            done, begin = Path(f"{folder}/made-{name}"), time.perf_counter()
            if not done.exists():
                result_of(start_fresh(__file__, size, "--step", name, folder))
                done.touch()
                print(f"made {name} in {time.perf_counter() - begin:.0f} s", flush=True)
        print(f"{'step':<16}{'s':>8}{'CPU s':>8}{'MiB':>8}")
        for name in [name for name in wanted or STEPS if name != "make"]:
            found = result_of(start_fresh(__file__, size, "--step", name, folder))
            seconds, cpu, peak = (found.pop(fact) for fact in ("seconds", "cpu", "peak"))
            # Others may be at work on the machine: the processor's seconds are those of the step.
            missed = "" if cpu <= TARGET_SECONDS and peak <= TARGET_BYTES else "MISSED "
            print(f"{name:<16}{seconds:>8.1f}{cpu:>8.1f}{peak / 2**20:>8,.0f}  {missed}{found}", flush=True)


if __name__ == "__main__":
    if "--step" in sys.argv:
        step_main(*sys.argv[3:5])
    else:
        main()
