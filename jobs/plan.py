"""`vaal plan`: what the next round reads, computes, stores and costs, and what it lacks, before anything starts."""

import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.table import Column, Table

from engine.config.texts import plural
from engine.errors import VaalError
from jobs.terminal import AddressOption, CampaignArgument, Outcome, Terminal

if TYPE_CHECKING:
    from engine.campaign.folder import Campaign
    from engine.cluster.reach import Node
    from engine.planning.next_round import RoundPlan

LEAST_SCRATCH_BYTES = 4 << 30
"""What Ray should have for its files on every node: what does not fit in memory waits on the disk."""
LACKING_STATUS = 4
TRIAL_SECONDS = 120.0
"""A node that has not tried after so long is busy with other work."""


class Machines(NamedTuple):
    """What the round would run on: the device, its workers in scoring, and the nodes of a cluster."""

    device: str
    workers: int
    nodes: "list[Node]"


def plan(screen: Terminal, campaign: CampaignArgument, address: AddressOption = "local") -> Outcome:
    """Show what the next round will read, compute, store and cost, and what is missing. Nothing is changed."""
    from engine.campaign.opening import open_campaign
    from engine.cluster.ray_session import LOCAL, ray_session
    from engine.planning.next_round import plan_round

    opened = open_campaign(campaign, with_labels=True)
    with ray_session(address) if address != LOCAL else nullcontext():
        machines = _machines(opened, address)
        with screen.progress("plan") as update:
            update(0.0, "a trial of a few images, where no round has measured")
            planned = plan_round(opened, machines.device, lambda shard: _try(opened, shard, machines))
    missing = [*_missing(opened, planned), *_missing_on(opened, machines, address)]
    facts = _facts(opened, planned, machines, missing)
    title = f"Round {planned.round:03d} of {opened.home}: " + (
        f"lacks {plural(len(missing), 'thing')}" if missing else "can start"
    )
    return Outcome(
        title, facts, _data(opened, planned, machines, missing), LACKING_STATUS * bool(missing), _table(planned)
    )


def _machines(campaign: "Campaign", address: str) -> Machines:
    config, train = campaign.config, campaign.config.train
    if address == "local":
        from engine.cluster.ray_session import usable_cpus

        num_gpus, num_cpus, nodes = _own_gpus(), usable_cpus(), []
    else:
        from engine.campaign.workers import need_of
        from engine.cluster.reach import ask_nodes

        nodes = ask_nodes(need_of(campaign))
        num_gpus, num_cpus = (int(sum(values)) for values in zip(*((n.gpus, n.cpus) for n in nodes), strict=True))
    device = config.device if config.device != "auto" else ("cuda" if num_gpus >= train.workers else "cpu")
    room = num_gpus / config.score.gpus_per_worker if device == "cuda" else num_cpus
    workers = max(1, int(room)) if config.score.workers == "auto" else config.score.workers
    return Machines(device, workers, nodes)


def _own_gpus() -> int:
    import torch

    return int(torch.cuda.device_count())


def _try(campaign: "Campaign", shard: Any, machines: Machines) -> Any:
    """A trial on a node that would do the work and lacks nothing; on this machine where there is none, or none is free
    soon."""
    from engine.planning.trial import run_trial

    is_gpu = machines.device == "cuda"
    good = [node for node in machines.nodes if not node.faults and node.answer and (node.gpus if is_gpu else node.cpus)]
    if good:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        there = NodeAffinitySchedulingStrategy(good[0].id, soft=False)
        remote: Any = ray.remote(num_cpus=0, num_gpus=int(is_gpu), max_retries=0)(run_trial)
        asked = remote.options(scheduling_strategy=there).remote(campaign.config, shard, machines.device)
        if ray.wait([asked], timeout=TRIAL_SECONDS)[0]:
            return ray.get(asked)
        ray.cancel(asked, force=True)
    return run_trial(campaign.config, shard, "cuda" if is_gpu and _own_gpus() else "cpu")


def _missing(campaign: "Campaign", planned: "RoundPlan") -> Iterator[str]:
    """What the campaign's storage, its pool or its money lack."""
    from dataclasses import replace

    from engine.campaign.ledger import read_ledger
    from engine.campaign.opening import check_budget
    from engine.pool.manifest import look_up, read_shards

    shards = read_shards(campaign.home).in_round(planned.round).at_root(campaign.config.pool.root)
    try:
        gone = shards.where(~look_up(shards).are_there)
        if gone:
            yield f"{gone[0].url}: gone, and with it {plural(len(gone), 'shard')} of the pool; restore them"
        check_budget(replace(campaign, round=planned.round))
    except VaalError as error:
        yield str(error)
    left, budget = max(0, planned.pool_items - planned.num_labels), campaign.config.select.budget
    if not planned.is_counted and budget > left:
        yield (
            f"select.budget={budget} is more than the pool's images without a label, about {left:,} by the size of its "
            "shards; lower it: --set select.budget=N"
        )
    needed = sum(stage.write_bytes for stage in planned.stages)
    if campaign.home.is_local and (free := shutil.disk_usage(campaign.home.url).free) < needed:
        yield f"{campaign.home}: {size_text(free)} free, and the round writes about {size_text(needed)}; free some"
    limit, spend = campaign.config.handoff.money_limit, read_ledger(campaign).spend
    if limit != "none" and planned.cost and spend + planned.cost > Decimal(str(limit)):
        fix = f"--set handoff.money_limit={spend + planned.cost:f}, or send fewer: vaal export --limit N"
        yield f"handoff.money_limit={limit:g}: {spend:,.2f} used, and the round costs {planned.cost:,.2f}; {fix}"


def _missing_on(campaign: "Campaign", machines: Machines, address: str) -> Iterator[str]:
    """What the nodes of a cluster lack."""
    if address == "local":
        return
    from engine.cluster.waiting import Need, in_nodes

    for node in machines.nodes:
        yield from node.faults
        if node.answer and node.answer.free_bytes < LEAST_SCRATCH_BYTES:
            free, least = size_text(node.answer.free_bytes), size_text(LEAST_SCRATCH_BYTES)
            yield f"node {node.address}: {free} free for Ray's files; {least} are safe: free some, or set RAY_TMPDIR"
    config, is_gpu = campaign.config, machines.device == "cuda"
    resources = [{"CPU": node.cpus, **({"GPU": node.gpus} if node.gpus else {})} for node in machines.nodes]
    for need in (
        Need("train", config.train.min_workers or config.train.workers, float(is_gpu), 0),
        Need("score", 1, config.score.gpus_per_worker * is_gpu, 0),
    ):
        if (there := in_nodes(resources, need)) < need.num:
            yield f"--address {address}: {need.section} needs {need.words}, and the cluster has room for {there} now"


def _facts(campaign: "Campaign", planned: "RoundPlan", machines: Machines, missing: list[str]) -> dict[str, Any]:
    handoff, name = campaign.config.handoff, "GPU" if machines.device == "cuda" else "CPU"
    hours = "not known" if planned.hours is None else f"{_hours(planned.hours)} in all"
    basis = {stage.stage: stage.basis for stage in planned.stages if stage.basis}
    about = "" if planned.is_counted else "about "
    facts: dict[str, Any] = {
        "pool": f"{about}{planned.pool_items:,} items, {size_text(planned.pool_bytes)}",
        f"{name} hours": hours + "".join(f"; {stage} by {how}" for stage, how in basis.items()),
        "takes about": _wall_time(campaign, planned, machines),
    }
    if planned.cost:
        facts["answers cost"] = (
            f"{planned.cost:,.2f}: handoff.price={handoff.price:g}, {plural(handoff.annotators, 'answer')} an image"
        )
    if missing:
        facts["missing"] = missing
    facts["next"] = f"vaal round {campaign.home.quoted}"
    return facts


def _wall_time(campaign: "Campaign", planned: "RoundPlan", machines: Machines) -> str:
    """How long training and scoring take with the workers that there are."""
    workers = {"train": campaign.config.train.workers, "score": machines.workers}
    if planned.hours is None:
        return "not known"
    hours = sum((stage.hours or 0) / workers.get(stage.stage, 1) for stage in planned.stages)
    each = ", ".join(f"{stage} with {plural(number, 'worker')}" for stage, number in workers.items())
    return f"{timedelta(seconds=round(hours * 3600))}; {each}"


def _table(planned: "RoundPlan") -> Table:
    names = ("stage", "items", "reads", "steps", "requests", "writes", "hours")
    table = Table(*(Column(name, justify="left" if name == "stage" else "right") for name in names))
    for stage in planned.stages:
        if stage.complete:
            table.add_row(stage.stage, "complete")
            continue
        hours = "?" if stage.hours is None else _hours(stage.hours) if stage.hours else ""
        counts = (f"{count:,}" if count else "" for count in (stage.steps, stage.requests))
        sizes = [size_text(size) if size else "" for size in (stage.read_bytes, stage.write_bytes)]
        table.add_row(stage.stage, f"{stage.items:,}", sizes[0], *counts, sizes[1], hours)
    return table


def _data(campaign: "Campaign", planned: "RoundPlan", machines: Machines, missing: list[str]) -> dict[str, Any]:
    nodes = [
        {"address": node.address, "cpus": node.cpus, "gpus": node.gpus, "faults": list(node.faults)}
        for node in machines.nodes
    ]
    return {
        "campaign": str(campaign.home),
        "round": planned.round,
        "device": machines.device,
        "workers": machines.workers,
        "pool": {"items": planned.pool_items, "is_counted": planned.is_counted, "bytes": planned.pool_bytes},
        "stages": {stage.stage: stage._asdict() for stage in planned.stages},
        "hours": planned.hours,
        "cost": float(planned.cost),
        "missing": missing,
        "nodes": nodes,
    }


def size_text(size: float) -> str:
    """A size for a person."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:,.0f} {unit}" if unit == "bytes" else f"{size:,.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"


def _hours(hours: float) -> str:
    return f"{hours:,.1f}" if hours >= 1 else f"{hours:.2g}"
