"""`vaal demo`: one whole round on a laptop."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.stages import complete_all
from jobs.terminal import AddressOption, DebugOption, JsonOption, Outcome, Terminal, terminal

if TYPE_CHECKING:
    from engine.campaign.folder import Campaign
    from engine.simulation.demo_pools import DemoPool


class PoolName(StrEnum):
    """Pools the demo knows."""

    DIGITS = "digits"
    CIFAR10 = "cifar10"


def demo(
    pool: Annotated[
        PoolName, typer.Option(help="Handwritten digits (in the packages), or CIFAR-10.")
    ] = PoolName.DIGITS,
    folder: Annotated[Path, typer.Option(help="Where to put shards and campaign.")] = Path("demo"),
    address: AddressOption = "local",
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Run one whole round on real images, with labels that lack some of the classes."""
    with terminal(json=json, debug=debug) as screen:
        from engine.campaign.opening import open_campaign
        from engine.simulation import demo_pools as pools
        from engine.storage.location import Location

        home = folder.resolve() / pool
        made = pools.POOLS[pool](home / "pool")
        campaign = home / "campaign"
        if not (Location.of(str(campaign)) / "campaign.toml").exists():
            _init(screen, campaign, made)
        opened = open_campaign(str(campaign), [], 0)
        complete_all(screen, opened, address)
        screen.result(_outcome(opened, made, home / "answers.csv"))


def _init(screen: Terminal, campaign: Path, made: "DemoPool") -> None:
    from engine.campaign.opening import create
    from engine.config.options import CampaignConfig
    from engine.config.texts import parse_settings
    from engine.config.toml import override

    config = override(CampaignConfig(), parse_settings(made.settings), "demo")
    create(str(campaign), made.shards, str(made.labels), config, screen.log)


def _outcome(campaign: "Campaign", made: "DemoPool", answers: Path) -> Outcome:
    """How many picks come from classes that the labels lack, beside random picking; and what to try next."""
    from engine.campaign.labels import read_labels
    from engine.simulation.demo_pools import write_answers

    selection = campaign.stage("selection") / "selection.parquet"
    picks = selection.read_table().to_pylist()
    write_answers(picks, made.oracle, answers)
    hits = sum(made.oracle[pick["shard"], pick["key"]] in made.missing for pick in picks)
    num_unlabelled = len(made.oracle) - read_labels(campaign.home)["round"].null_count
    share = sum(label in made.missing for label in made.oracle.values()) / num_unlabelled
    home, vaal = _shown(campaign.home.url), _shown(sys.argv[0])
    data: dict[str, Any] = {
        "missing_classes": sorted(made.missing),
        "picked": len(picks),
        "picked_from_missing": hits,
        "share": hits / len(picks),
        "random_share": share,
        "selection": str(selection),
        "report": str(campaign.stage("report") / "report.html"),
    }
    facts = {
        "classes without a label": ", ".join(data["missing_classes"]),
        "picks from them": f"{hits} of {len(picks)} ({hits / len(picks):.0%})",
        "random picking gets": f"{share:.0%}",
        "picked images": data["selection"],
        "report": data["report"],
        "next": f"{vaal} ingest {home} {_shown(str(answers))} && {vaal} round {home}",
    }
    return Outcome("One round of active learning", facts, data)


def _shown(path: str) -> str:
    """A path as one would type it from here."""
    here = Path.cwd()
    return str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else path
