"""`vaal demo`: one whole round on a laptop."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from jobs.round import complete_all
from jobs.terminal import AddressOption, Outcome, Terminal

if TYPE_CHECKING:
    from engine.campaign.folder import Campaign
    from engine.simulation.demo_pools import DemoPool


def demo(
    screen: Terminal,
    pool: Annotated[
        Literal["digits", "cifar10"], typer.Option(help="Handwritten digits (in the packages), or CIFAR-10.")
    ] = "digits",
    folder: Annotated[Path, typer.Option(help="Where to put shards and campaign.")] = Path("demo"),
    address: AddressOption = "local",
) -> Outcome:
    """Run one whole round on real images, with labels that lack some of the classes."""
    from engine.campaign.opening import create, open_campaign
    from engine.config.options import CampaignConfig
    from engine.config.texts import parse_settings
    from engine.config.toml import override
    from engine.simulation.demo_pools import POOLS

    home = folder.resolve() / pool
    made = POOLS[pool](home / "pool")
    url = str(home / "campaign")
    if not (home / "campaign/campaign.toml").exists():
        config = override(CampaignConfig(), parse_settings(made.settings), "demo")
        create(url, made.shards, str(made.labels), config, screen.log)
    campaign = open_campaign(url, round_number=0)
    complete_all(screen, campaign, address)
    return _outcome(campaign, made, home / "answers.csv")


def _outcome(campaign: "Campaign", made: "DemoPool", answers: Path) -> Outcome:
    """How many picks come from classes that the labels lack, compared with random picking; and what to try next."""
    from engine.campaign.labels import read_labels
    from engine.simulation.demo_pools import write_answers

    selection = campaign.stage("selection") / "selection.parquet"
    picks = selection.read_table().to_pylist()
    write_answers(picks, made.oracle, answers)
    hits = sum(made.oracle[pick["shard"], pick["key"]] in made.missing for pick in picks)
    num_unlabelled = len(made.oracle) - read_labels(campaign.home)["round"].null_count
    share = sum(label in made.missing for label in made.oracle.values()) / num_unlabelled
    report = campaign.stage("report") / "report.html"
    home = _shown(campaign.home.url)
    facts = {
        "classes without a label": ", ".join(sorted(made.missing)),
        "picks from them": f"{hits} of {len(picks)} ({hits / len(picks):.0%})",
        "random picking gets": f"{share:.0%}",
        "picked images": _shown(selection.url),
        "report": _shown(report.url),
        "next": f"vaal ingest {home} {_shown(str(answers))} && vaal round {home}",
    }
    data = {
        "missing_classes": sorted(made.missing),
        "picked": len(picks),
        "picked_from_missing": hits,
        "share": hits / len(picks),
        "random_share": share,
        "selection": str(selection),
        "report": str(report),
    }
    return Outcome("One round of active learning", facts, data)


def _shown(path: str) -> str:
    """A path as a person would type it in this folder."""
    here = Path.cwd()
    return str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else path
