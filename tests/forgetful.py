"""A campaign with a batch out, and what is forgotten of it."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from engine.campaign.decisions import Author
from engine.campaign.folder import Campaign
from engine.campaign.handed_out import batches
from engine.handoff.export import export
from engine.handoff.forgetting import Forgotten, forget
from engine.selection.select import select
from engine.storage.location import Location
from tests.conftest import pretend_trained
from tests.fabricate import fabricate_scores

Identity = tuple[str, str]


class Sent(NamedTuple):
    """A campaign with a batch out: an image of it to be forgotten, by item_id, a gold image by its alias, and a third
    that stays."""

    campaign: Campaign
    item_id: str
    item: Identity
    alias: str
    gold: Identity
    other_id: str


def forget_all(campaign: Campaign, text: str) -> Forgotten:
    file = Path(campaign.home.path).parent / "forget.csv"
    file.write_text(text)
    return forget(campaign, Location.of(str(file)), Author("ann", "asked to"), lambda _: None)


def send(campaign: Campaign) -> Sent:
    pretend_trained(campaign)
    fabricate_scores(campaign, lambda _, keys: np.arange(len(keys), dtype=np.float32))
    select(campaign)
    export(campaign)
    rows = batches(campaign.home, campaign.round)[0].rows().to_pylist()
    own = [row for row in rows if not row["gold"]]
    gold = next(row for row in rows if row["gold"])
    return Sent(
        campaign, own[0]["item_id"], (own[0]["shard"], own[0]["key"]), gold["item_id"], (gold["shard"], gold["key"]),
        own[1]["item_id"],
    )  # fmt: skip


def table_of(sent: Sent) -> str:
    return f"item_id\n{sent.item_id}\n{sent.alias}\n"


def images(campaign: Campaign) -> set[str]:
    folder = Path(campaign.stage("handoff/generic/images").path)
    return {path.name.lstrip(".").partition(".")[0] for path in folder.iterdir()}


def content_of(campaign: Campaign) -> dict[str, bytes]:
    home = Path(campaign.home.path)
    return {str(path.relative_to(home)): path.read_bytes() for path in sorted(home.rglob("*")) if path.is_file()}
