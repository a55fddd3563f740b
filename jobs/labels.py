"""`vaal labels`: correct labels, undo an ingest or a correction, list what is labelled."""

from typing import Annotated, Literal

import typer

from jobs.terminal import CampaignArgument, Outcome, Terminal

Names = Annotated[
    list[str], typer.Argument(metavar="[ITEM] [LABEL]", help="The item, as SHARD KEY or as ITEM_ID, and for set LABEL.")
]


def labels(
    screen: Terminal,
    campaign: CampaignArgument,
    action: Annotated[
        Literal["set", "retract", "undo", "list"],
        typer.Argument(help="set a label, retract one, undo the last ingest or a named file of labels/, or list all."),
    ],
    names: Names = [],
) -> Outcome:
    """Correct labels. Nothing is erased: the newest row of an item counts."""
    from engine.campaign import corrections
    from engine.campaign.heartbeat import alone
    from engine.campaign.labels import labelled_values
    from engine.campaign.opening import current_round, open_campaign
    from engine.errors import ConfigError

    most = {"set": (2, 3), "retract": (1, 2), "undo": (0, 1), "list": (0, 0)}
    usage = {"set": "SHARD KEY LABEL or ITEM_ID LABEL", "retract": "SHARD KEY or ITEM_ID", "undo": "[FILE]"}
    if not most[action][0] <= len(names) <= most[action][1]:
        raise ConfigError(f"labels {action}: {len(names)} arguments; give {usage.get(action, 'none')}")
    opened = open_campaign(campaign)
    if action == "list":
        found = corrections.list_labels(opened)
        facts = {f"{row['shard']} {row['key']}": row["label"] for row in found}
        return Outcome(f"{len(found)} labels", facts, {"labels": found})
    data: dict[str, str | int]
    with alone(opened.home, f"labels {action}"):
        if action == "undo":
            file, count = corrections.undo(opened, *names)
            data = {"file": file, "items": count}
        else:
            item = corrections.identity_of(opened, names[:-1] if action == "set" else names)
            data = {"shard": item[0], "key": item[1]}
            if action == "set":
                before = corrections.set_label(opened, item, names[-1], screen.log)
                data |= {"before": before, "label": labelled_values(opened.home)[item]}
            else:
                data |= {"before": corrections.retract(opened, item)}
        if note := corrections.note_on_training(opened):
            screen.log(note)
    title = f"Done: {action}; the campaign is in round {current_round(opened.home):03d}"
    return Outcome(title, data | {"next": f"vaal status {opened.home.quoted}"}, data)
