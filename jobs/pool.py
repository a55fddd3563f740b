"""`vaal pool`: shards join the pool, leave it, or are somewhere else now."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from engine.config.texts import plural
from engine.errors import ConfigError
from jobs.terminal import CampaignArgument, Outcome, Terminal

if TYPE_CHECKING:
    from engine.campaign.folder import Campaign
    from engine.campaign.growing import Grown
    from engine.pool.shard import Shard

MOST_SHOWN = 20
"""Shards that a person is shown."""


def pool(
    screen: Terminal,
    campaign: CampaignArgument,
    action: Annotated[
        Literal["list", "add", "refresh", "move", "forget"],
        typer.Argument(
            help="list the shards; add some; refresh: take new ones that match the pool's globs, and see which are "
            "gone; move: the same shards are below another root now; forget: pick nothing from some any more."
        ),
    ] = "list",
    shards: Annotated[
        list[str], typer.Argument(metavar="[SHARDS]", help="With add and forget: paths, URLs or globs.")
    ] = [],
    root: Annotated[str, typer.Option(metavar="URL", help="With move: the folder that the pool is in now.")] = "",
    check: Annotated[
        Literal["sample", "all"],
        typer.Option(help="With move: whether the bytes of a sample of the known images are compared, or of all."),
    ] = "sample",
) -> Outcome:
    """Show what is in the pool, and change it between rounds. A round that has begun keeps its pool."""
    from engine.campaign.growing import add, forget, take_new
    from engine.campaign.heartbeat import alone
    from engine.campaign.opening import open_campaign

    if (action in ("add", "forget")) != bool(shards):
        raise ConfigError(f"pool {action}: " + ("takes no shards" if shards else "give paths, URLs or globs of shards"))
    if (action == "move") != bool(root):
        raise ConfigError("--root: only with pool move" if root else "pool move: give --root URL")
    if check != "sample" and action != "move":
        raise ConfigError("--check: only with pool move")
    if action == "list":
        return _listed(open_campaign(campaign))
    home = open_campaign(campaign).home
    with alone(home, f"pool {action}"):
        # What another run did until now counts.
        opened = open_campaign(campaign)
        if action == "move":
            return _moved(screen, opened, root, check)
        if action == "forget":
            return _forgotten(opened, forget(opened, shards))
        return _grown(opened, add(opened, shards) if action == "add" else take_new(opened, screen.log))


def _row(shard: "Shard") -> dict[str, Any]:
    names = ("shard", "url", "size_bytes", "num_items", "joined", "left", "why_left")
    return {name: getattr(shard, name) for name in names}


def _listed(campaign: "Campaign") -> Outcome:
    from engine.campaign.matching import news_in_words, news_of, shards_now

    shards, news = shards_now(campaign), news_of(campaign)
    num_there = int((~shards.have_left).sum())
    facts: dict[str, Any] = {shard.shard: _in_words(campaign, shard) for shard in shards[:MOST_SHOWN]}
    if len(shards) > MOST_SHOWN:
        facts["more"] = f"{plural(len(shards) - MOST_SHOWN, 'shard')}; all of them: --json"
    if words := news_in_words(campaign, news):
        facts["new shards"] = words
    title = f"{campaign.home}: {plural(num_there, 'shard')} below {campaign.config.pool.root}"
    data = {"root": campaign.config.pool.root, "round": campaign.round, "shards": [_row(shard) for shard in shards]}
    data |= {"new": [place.url for place in news.new], "fault": news.fault or None}
    return Outcome(title, facts, data)


def _in_words(campaign: "Campaign", shard: "Shard") -> str:
    items = "items not counted yet" if shard.num_items is None else plural(shard.num_items, "item")
    words = f"{shard.size_bytes / 1e6:,.1f} MB, {items}"
    words += f", joins in round {shard.joined:03d}" if shard.joined > campaign.round else ""
    return words + (f", {shard.why_left}, not in the pool" if shard.left is not None else "")


def _grown(campaign: "Campaign", grown: "Grown") -> Outcome:
    from engine.campaign.growing import in_words

    title = "; ".join(in_words(grown)) or "Nothing changed: every shard is in the pool already"
    facts: dict[str, Any] = {}
    if grown.changes_anything:
        facts["counts from"] = f"round {grown.round:03d} on"
        if grown.round > campaign.round:
            facts["counts from"] += f"; round {campaign.round:03d} has begun, and keeps its pool"
    if grown.known and grown.changes_anything:
        facts["in the pool before"] = plural(len(grown.known), "shard")
    return Outcome(title, facts | {"next": f"vaal status {campaign.home.quoted}"}, _data(grown))


def _data(grown: "Grown") -> dict[str, Any]:
    kinds = {"joined": grown.joined, "back": grown.back, "left": grown.left}
    named = {kind: [shard.shard for shard in shards] for kind, shards in kinds.items()}
    return {**named, "known": len(grown.known), "round": grown.round}


def _forgotten(campaign: "Campaign", grown: "Grown") -> Outcome:
    from engine.campaign.growing import held_by

    held = held_by(campaign, {shard.shard for shard in grown.left})
    title = f"Forgotten: {plural(len(grown.left), 'shard')}" if grown.left else "Nothing changed: forgotten before"
    facts = {
        "labels in them": f"{held.labels:,}; they stay, and are trained on while their shards can be read",
        "out at a vendor": f"{plural(held.out, 'image')}; answers are taken in as before",
        "picks": "none of them any more; what is picked and not sent is picked again by vaal select",
        "next": f"vaal status {campaign.home.quoted}",
    }
    return Outcome(title, facts if grown.left else {}, {**_data(grown), "labels": held.labels, "out": held.out})


def _moved(screen: Terminal, campaign: "Campaign", root: str, check: str) -> Outcome:
    from engine.campaign.moving import move

    with screen.progress("move") as update:
        moved = move(campaign, root, update, screen.log, checks_all=check == "all")
    facts = {
        "root": moved.root,
        "compared": f"{plural(moved.images, 'image')} in {plural(moved.shards, 'shard')}, all the same bytes",
        **({"not compared": moved.words} if moved.words else {}),
        "next": f"vaal status {campaign.home.quoted}",
    }
    title = "Moved" if moved.changed else "Nothing changed: the pool is there already"
    return Outcome(title, facts, moved._asdict())
