"""Options of sending images and of what comes back, and where the change of each shows."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

from engine.campaign.decisions import USER
from engine.campaign.folder import Campaign, is_closed
from engine.campaign.recalling import expire
from engine.config.options import CampaignConfig
from engine.errors import ConfigError
from engine.handoff.export import export
from engine.handoff.links import links_for
from engine.storage.location import _remote_filesystem
from tests.effects import Bench, Look
from tests.sendings import take_in
from tests.signatures import NOW
from tests.small import copied, make_small

LINKED = {"handoff.images": "s3://bucket/images"}


def _with_comment(number: int) -> bytes:
    content, info = io.BytesIO(), PngImagePlugin.PngInfo()
    info.add_text("Comment", "a comment")
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (8, 8), np.uint8)).save(content, "PNG", pnginfo=info)
    return content.getvalue()


def _campaign(bench: Bench, config: CampaignConfig) -> Campaign:
    """A copy of a small campaign with a selection, whose options of the handoff and of labels are those."""
    home = bench.folder / "small"
    if not home.exists():
        pool = {(f"s-{n // 20}.tar", f"{n:03d}"): _with_comment(n) for n in range(40)}
        bench.__dict__["small"] = make_small(home, pool)
    made = copied(bench.__dict__["small"], bench.folder / f"sent-{next(bench._numbers)}")
    sections = {"handoff": config.handoff, "labels": config.labels}
    return replace(made, config=made.config.model_copy(update=sections))


def sent(bench: Bench, config: CampaignConfig) -> Any:
    """What lies in the vendor's folder, and the price of an answer; or that nothing is sent."""
    campaign = _campaign(bench, config)
    try:
        manifest = export(campaign)
    except ConfigError:
        return "refused"
    folder = Path(campaign.stage("handoff/generic").path)
    files = {file.name: file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}
    return manifest["sending"]["price"], files


def links_end(bench: Bench, config: CampaignConfig) -> Any:
    """Until when signed links work."""
    _remote_filesystem.cache_clear()
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_ENDPOINT_URL": "http://store:9000"}
    for name, value in keys.items():
        bench.patch.setenv(name, value)
    return links_for(config.handoff.images, config.handoff.link_days, NOW).expire_at


def given_up(bench: Bench, config: CampaignConfig) -> Any:
    """How many images are given up right after they were sent."""
    campaign = _campaign(bench, config)
    export(campaign)
    return expire(campaign, USER, pick_again=False).images


def answered(bench: Bench, config: CampaignConfig) -> Any:
    """What two of three annotators who agree come to, and whether the round ends with it."""
    campaign = _campaign(bench, config)
    export(campaign)
    item_id = (campaign.stage("selection") / "selection.parquet").read_table()["item_id"][0].as_py()
    file = Path(f"{campaign.home.path}.csv")
    file.write_text("item_id,label,annotator\n" + "".join(f"{item_id},{x},{x}{n}\n" for n, x in enumerate("ccd")))
    found = take_in(campaign, file)
    names = list((campaign.home / "consensus").children())
    outcome = (campaign.home / f"consensus/{names[-1]}").read_table(["state", "label", "posterior"]).to_pylist()
    return found, outcome, is_closed(campaign.home, 0)


HANDOFF_EFFECTS: dict[str, tuple[Any, Look]] = {
    "labels.consensus": ("majority", answered),
    "labels.min_posterior": (1.0, answered),
    "labels.close_when": (0.1, answered),
    "handoff.question": ({"handoff.question": {"classes": ["a", "b"]}}, sent),
    "handoff.annotators": (3, sent),
    "handoff.gold_fraction": (0.5, sent),
    "handoff.prelabels": (True, sent),
    "handoff.images": ("https://images.example/round", sent),
    "handoff.link_days": ({**LINKED, "handoff.link_days": 2.0}, links_end),
    "handoff.strip_metadata": (False, sent),
    "handoff.price": (0.5, sent),
    "handoff.money_limit": ({"handoff.money_limit": 1.0, "handoff.price": 0.5}, sent),
    "handoff.expires_days": (1e-9, given_up),
}
