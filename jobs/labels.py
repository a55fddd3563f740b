"""`vaal labels`: correct and add labels, undo an ingest or a correction, list labels, write training data."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from engine.config.texts import plural
from engine.errors import ConfigError, InputError
from jobs.terminal import CampaignArgument, Outcome, Terminal, WhoOption, WhyOption

if TYPE_CHECKING:
    from engine.campaign.decisions import Author
    from engine.campaign.folder import Campaign

Names = Annotated[
    list[str], typer.Argument(metavar="[ITEM] [LABEL]", help="The item, as SHARD KEY or as ITEM_ID, and for set LABEL.")
]
USAGE = {
    "set": (2, 3, "SHARD KEY LABEL or ITEM_ID LABEL"),
    "add": (1, 1, "FILE, a table of shard, key and label"),
    "retract": (1, 2, "SHARD KEY or ITEM_ID"),
    "undo": (0, 1, "[FILE]"),
    "list": (0, 0, "none"),
    "forget": (0, 0, "none, and --items FILE"),
    "export": (0, 0, "none, and --out FOLDER"),
}
"""The least and most arguments of an action, and what they are."""
DONE = {"set": "Label set", "retract": "Retracted", "undo": "Undone"}
MOST_LEFT = 20
"""Lines on what forgetting leaves, for a person."""


def labels(
    screen: Terminal,
    campaign: CampaignArgument,
    action: Annotated[
        Literal["set", "add", "retract", "undo", "list", "forget", "export"],
        typer.Argument(
            help="set a label; add those of a FILE to images that never had one; retract one; undo the last ingest, or "
            "a named file of labels/, votes/ or decisions/; list all labels; forget images for privacy; export the "
            "labelled images as shards."
        ),
    ],
    names: Names = [],
    never_pick: Annotated[
        bool, typer.Option("--never-pick", help="With retract: the image is never picked, now or later.")
    ] = False,
    items: Annotated[
        str, typer.Option(metavar="FILE", help="With forget: a table of item_id, or of shard and key.")
    ] = "",
    out: Annotated[str, typer.Option(metavar="FOLDER", help="With export: where the shards are written.")] = "",
    split: Annotated[
        str, typer.Option(metavar="NAME=SHARE,...", help="With export: the parts that the images are dealt into.")
    ] = "train=0.9,val=0.1",
    seed: Annotated[int, typer.Option(min=0, help="With export: of the dealing.")] = 0,
    who: WhoOption = "",
    why: WhyOption = "",
) -> Outcome:
    """Correct labels. Nothing is erased: the newest row of an item counts."""
    from engine.campaign.decisions import Author
    from engine.campaign.opening import open_campaign

    least, most, usage = USAGE[action]
    if not least <= len(names) <= most:
        raise ConfigError(f"labels {action}: {plural(len(names), 'argument')}; give {usage}")
    for option, given, command in (
        ("--never-pick", never_pick, "retract"), ("--items", items, "forget"), ("--out", out, "export"),
    ):  # fmt: skip
        if given and action != command:
            raise ConfigError(f"{option}: only with labels {command}")
    opened = open_campaign(campaign)
    if action == "list":
        return _listed(opened)
    if action == "export":
        return _exported(opened, screen, out, split, seed)
    if action == "add":
        return _added(opened, screen, names[0], Author(who, why))
    if action == "forget":
        return _forgotten(opened, screen, items, Author(who, why))
    return _corrected(opened, screen, action, names, Author(who, why), never_pick=never_pick)


def _listed(campaign: "Campaign") -> Outcome:
    from engine.campaign.corrections import list_labels

    found = list_labels(campaign)
    facts = {f"{row['item_id']} {row['shard']} {row['key']}": row["label"] for row in found}
    return Outcome(plural(len(found), "label"), facts, {"labels": found})


def _corrected(
    campaign: "Campaign", screen: Terminal, action: str, names: list[str], author: "Author", *, never_pick: bool
) -> Outcome:
    from engine.campaign import corrections, undoing
    from engine.campaign.heartbeat import alone
    from engine.campaign.labels import labelled_values
    from engine.campaign.opening import current_round
    from engine.campaign.settling import settle

    data: dict[str, Any]
    with alone(campaign.home, f"labels {action}"):
        if action == "undo":
            try:
                file, count = undoing.undo(campaign, "".join(names), author)
            except InputError:
                # Where it is undone already, its command may have been killed before labels followed.
                settle(campaign)
                raise
            data = {"file": file, "items": count}
        else:
            item = corrections.identity_of(campaign, names[:-1] if action == "set" else names, USAGE[action][2])
            data = {"shard": item[0], "key": item[1]}
            if action == "set":
                before = corrections.set_label(campaign, item, names[-1], screen.log, author)
                data |= {"before": before, "label": labelled_values(campaign.home)[item]}
            else:
                data |= {"before": corrections.retract(campaign, item, author, never_pick=never_pick)}
                data |= {"may be picked": "never"} if never_pick else {}
        settle(campaign)
        if note := corrections.note_on_training(campaign):
            screen.log(note)
    title = f"{DONE[action]}; the campaign is in round {current_round(campaign.home):03d}"
    facts = {name: "none" if value == "" else value for name, value in data.items()}
    return Outcome(title, facts | {"next": f"vaal status {campaign.home.quoted}"}, data)


def _added(campaign: "Campaign", screen: Terminal, file: str, author: "Author") -> Outcome:
    from engine.campaign.corrections import note_on_training
    from engine.campaign.heartbeat import alone
    from engine.campaign.later_labels import add_labels
    from engine.campaign.settling import settle
    from engine.storage.location import Location

    with alone(campaign.home, "labels add"):
        found = add_labels(campaign, Location.of(file), screen.log, author)
        settle(campaign)
        if found.added and (note := note_on_training(campaign)):
            screen.log(note)
    facts: dict[str, Any] = {"labels added": found.added, "had the same label": found.same}
    facts["keep what they have"] = found.kept
    if found.out:
        facts["at a vendor"] = f"{found.out:,}: their answers are paid for, and count; vaal labels set overrides one"
    return Outcome(f"Labels of {file}", facts | {"next": f"vaal status {campaign.home.quoted}"}, found._asdict())


def _forgotten(campaign: "Campaign", screen: Terminal, items: str, author: "Author") -> Outcome:
    from engine.campaign.heartbeat import alone
    from engine.handoff.forgetting import forget
    from engine.storage.location import Location

    if not items:
        raise ConfigError("labels forget: give --items FILE, a table of item_id, or of shard and key")
    with alone(campaign.home, "labels forget"):
        found = forget(campaign, Location.of(items), author, screen.log)
    facts: dict[str, Any] = {"images": found.images, "labels retracted": found.labels}
    facts["files deleted"] = _deleted(campaign, found.deleted)
    # First what always is, then what there is for each image, which may be much.
    more = len(found.left) - MOST_LEFT
    facts["left to people"] = found.left[:MOST_LEFT] + ([f"{more:,} more: see them with --json"] if more > 0 else [])
    return Outcome(f"Forgotten: {plural(found.images, 'image')}", facts, found._asdict())


def _deleted(campaign: "Campaign", urls: list[str]) -> str:
    """The deleted files as a number, and the commands that make reports again."""
    rounds = sorted({int(url.split("/rounds/")[1][:3]) for url in urls if "/report/" in url and "/rounds/" in url})
    again = [f"vaal report {campaign.home.quoted} --round {number}" for number in rounds]
    return f"{len(urls):,}" + (f"; reports are made again, without the images, by: {'; '.join(again)}" if again else "")


def _exported(campaign: "Campaign", screen: Terminal, out: str, split: str, seed: int) -> Outcome:
    from engine.campaign.heartbeat import alone
    from engine.handoff.training_data import export_labels
    from engine.storage.location import Location

    if not out:
        raise ConfigError("labels export: give --out FOLDER, where the shards are written")
    with screen.progress("export") as update, alone(campaign.home, "labels export"):
        made = export_labels(campaign, Location.of(out), split, seed, update, screen.log)
    facts = {**{name: plural(count, "image") for name, count in made.images.items()}, "classes": len(made.classes)}
    return Outcome(f"Exported: {out}", facts | {"shards": out}, made._asdict())
