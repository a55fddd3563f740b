"""`vaal handoff`: the ledger of what was sent, and taking it back."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from engine.config.texts import plural
from engine.errors import ConfigError
from jobs.round import how_it_ends, not_sent
from jobs.terminal import CampaignArgument, Outcome, SetOption, Terminal, WhoOption, WhyOption

if TYPE_CHECKING:
    from engine.campaign.folder import Campaign
    from engine.campaign.ledger import Ledger

MOST_DISPUTED = 20
"""Disputed images that a person is shown."""
MOST_REASONS = 5
"""Reasons why images were skipped that a person is shown."""


def handoff(
    _: Terminal,
    campaign: CampaignArgument,
    action: Annotated[
        Literal["show", "recall", "expire"],
        typer.Argument(
            metavar="[recall|expire]", help="recall what is out, or expire what is out for handoff.expires_days."
        ),
    ] = "show",
    batch: Annotated[
        list[str],
        typer.Option(metavar="NAME", help="With recall: a batch, like generic-000, or several; else all are recalled."),
    ] = [],
    pick_again: Annotated[
        bool, typer.Option("--pick-again", help="What is taken back may be picked and sent again; else it never is.")
    ] = False,
    who: WhoOption = "",
    why: WhyOption = "",
    settings: SetOption = [],
) -> Outcome:
    """Show what is out at which vendor, what came back, and what it costs; or take back what is out."""
    from engine.campaign.advice import back_command
    from engine.campaign.decisions import Author
    from engine.campaign.heartbeat import alone
    from engine.campaign.ledger import read_ledger
    from engine.campaign.opening import current_round
    from engine.campaign.opening import opened as opened_with
    from engine.campaign.recalling import expire, recall
    from engine.campaign.settling import settle

    if action == "show" and (batch or pick_again or who or why):
        raise ConfigError("--batch, --pick-again, --who and --why: only with recall or expire")
    if action == "expire" and batch:
        raise ConfigError("--batch: only with recall; expire goes by handoff.expires_days")
    with opened_with(campaign, settings) as opened:
        if action == "show":
            return _shown(opened, read_ledger(opened))
        with alone(opened.home, f"handoff {action}"):
            author = Author(who, why)
            if action == "recall":
                back = recall(opened, batch, author, pick_again=pick_again)
            else:
                back = expire(opened, author, pick_again=pick_again)
            settled = settle(opened)
        number = current_round(opened.home)
        shown = _shown(replace(opened, round=number), settled.ledger)
        labels = len(settled.changes.now) - settled.changes.now.null_count
        done = {"recall": "taken back", "expire": "given up"}[action]
        facts: dict[str, Any] = {done: plural(back.images, "image")}
        if labels:
            facts["new labels"] = f"{labels:,}; no more answers are expected, so those that came decide"
        if pick_again:
            facts["may be sent again"] = f"{plural(back.released, 'image')} more; those with answers are not sent again"
        elif back.kept:
            command = back_command(replace(opened, round=number), back.kept, pick_again=True)
            facts["may be sent again"] = f"no; to let those without answers: {command}"
        title = f"{done.capitalize()}; the campaign is in round {number:03d}"
        data = {"action": action, "images": back.images, "labels": labels, "pick_again": pick_again}
        data |= {"may_pick_again": back.released, **shown.data}
        return Outcome(title, facts | shown.facts, data, above=shown.above)


def _shown(campaign: "Campaign", ledger: "Ledger") -> Outcome:
    """The ledger for a person and for a program."""
    from engine.campaign.advice import disputed_advice, send_command
    from engine.campaign.settling import progress_of
    from engine.handoff.choice import money_text

    batches = [_batch(ledger, number) for number in range(len(ledger.batches))]
    totals, disputed = _states(ledger), _disputed(ledger)
    progress = progress_of(campaign, ledger)
    facts: dict[str, Any] = {f"images {state}": count for state, count in totals.items() if count}
    if ledger.spend:
        facts["money"] = money_text(campaign, ledger)
    for row in disputed[:MOST_DISPUTED]:
        facts[f"disputed {row['item_id']}"] = ", ".join(f"{count} x {value}" for value, count in row["votes"].items())
    if len(disputed) > MOST_DISPUTED:
        facts["more disputed"] = f"{len(disputed) - MOST_DISPUTED:,}; all of them: --json"
    if reasons := ledger.skip_reasons:
        facts["skipped because"] = _reasons_text(reasons)
    if disputed:
        facts["ask more people"] = disputed_advice(campaign, ledger)
    if progress.waiting:
        facts["not sent yet"] = not_sent(progress.waiting, send_command(campaign, ledger))
    if progress.total:
        facts["round"] = how_it_ends(campaign, progress)
    data = {
        "batches": batches,
        "states": totals,
        "spend": float(ledger.spend),
        "money_limit": campaign.config.handoff.money_limit,
        "disputed": disputed,
        "skip_reasons": reasons,
        "round": {"round": campaign.round, **progress._asdict()},
    }
    count = f"{len(batches)} {'batch' if len(batches) == 1 else 'batches'}"
    title = f"{campaign.home}: {count}" if batches else f"{campaign.home}: nothing was sent yet"
    return Outcome(title, facts, data, above=_table(batches) if batches else None)


def _states(ledger: "Ledger") -> dict[str, int]:
    """How many images are in each state: each once, as of the batch that it was in last, and no gold ones."""
    import numpy as np

    from engine.campaign.ledger import STATES

    is_image_R = ~ledger.gold_R
    _, last = np.unique(ledger.item_R[is_image_R][::-1], return_index=True)
    counts = np.bincount(ledger.state_R[is_image_R][::-1][last], minlength=len(STATES)).tolist()
    return dict(zip(STATES, counts, strict=True))


def _batch(ledger: "Ledger", number: int) -> dict[str, Any]:
    from engine.campaign.advice import is_waited_for

    batch = ledger.batches[number]
    manifest, sending = batch.manifest, batch.manifest["sending"]
    states = ledger.counts(number)
    sent_at = datetime.fromisoformat(manifest["completed_at"])
    return {
        "batch": batch.folder.name,
        "round": manifest["round"],
        "vendor": sending["vendor"],
        "name": sending["name"],
        "images": manifest["counts"]["images"] - manifest["counts"].get("gold", 0),
        "gold": manifest["counts"].get("gold", 0),
        "annotators": sending["annotators"],
        "task": sending["question"]["task"],
        "disputed": sending["disputed"],
        "sent_at": manifest["completed_at"],
        "oldest_days": (datetime.now(UTC) - sent_at).total_seconds() / 86400 if is_waited_for(ledger, number) else None,
        "states": states,
        "price": sending["price"],
        "spent": float(ledger.spent(number)),
        "reserved": float(ledger.reserved(number)),
        "links_expire_at": batch.links_expire_at,
    }


def _disputed(ledger: "Ledger") -> list[dict[str, Any]]:
    """The disputed images, the least certain first, with their votes counted by value."""
    from collections import Counter

    import numpy as np

    outcomes = ledger.outcomes
    places = ledger.disputed
    votes: dict[int, Counter[str]] = {place: Counter() for place in places.tolist()}
    for place, value in zip(outcomes.item_V.tolist(), outcomes.votes["value"].to_pylist(), strict=True):
        if place in votes:
            votes[place][value if value is not None else "(skipped)"] += 1
    rows = ledger.items.rows(places, ["item_id", "shard", "key", "round"]).to_pylist()
    posteriors = outcomes.posteriors_at(places).tolist()
    return [
        {
            **row,
            "posterior": None if np.isnan(posterior) else posterior,
            "votes": dict(votes[place].most_common()),
        }
        for place, row, posterior in zip(places.tolist(), rows, posteriors, strict=True)
    ]


def _reasons_text(reasons: dict[str, int]) -> str:
    shown = [f"{count:,} x {reason}" for reason, count in reasons.items()]
    rest = sum(list(reasons.values())[MOST_REASONS:])
    return ", ".join([*shown[:MOST_REASONS], *([f"{rest:,} x other reasons"] if rest else [])])


def _table(batches: list[dict[str, Any]]) -> Table:
    # It fits into 80 columns; what is longer goes on in the next line, and nothing is cut.
    table = Table(title_justify="left", box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    # A name that is broken cannot be typed.
    table.add_column("batch", no_wrap=True)
    for name in ("sent", "state", "oldest", "money"):
        table.add_column(name, overflow="fold")
    for batch in batches:
        people = f"to {batch['annotators']:,} {'person' if batch['annotators'] == 1 else 'people'}"
        gold = [f"{batch['gold']:,} gold"] if batch["gold"] else []
        age = "-" if batch["oldest_days"] is None else plural(int(batch["oldest_days"]), "day")
        table.add_row(
            "\n".join([batch["batch"], f"round {batch['round']:03d}", *["disputed ones"] * batch["disputed"]]),
            "\n".join([plural(batch["images"], "image"), *gold, people]),
            "\n".join(f"{count:,} {state}" for state, count in batch["states"].items()) or "-",
            age,
            "\n".join(f"{batch[key]:,.2f} {key}" for key in ("spent", "reserved")) if batch["price"] else "-",
        )
    return table
