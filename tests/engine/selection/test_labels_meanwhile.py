"""An image that gets a label while images are picked or handed out is not paid for again."""

from typing import Any

import pytest

from engine.campaign.handed_out import batches
from engine.campaign.labels import append_labels
from engine.campaign.stages import Run
from engine.errors import ConfigError, InputError
from engine.handoff import VENDORS
from engine.handoff.export import export
from engine.selection import select as module
from engine.selection.select import select
from tests.engine.campaign.test_changes import handed_out, made, original, picks  # noqa: F401
from tests.rounds import Made

STEPS = ("sources_of", "count", "choose_batch", "sample_of_the_rest")
"""Of the selection. The label comes before one of them, after the selection, or while its images are read."""


def label(made: Made, pick: dict[str, Any]) -> None:  # noqa: F811
    row = (pick["shard"], pick["key"], "x", None, "correction", None, None)
    append_labels(made.campaign.home, "set", [row])


@pytest.mark.parametrize("moment", [*STEPS, "picked", "exporting"])
def test_an_image_that_is_labelled_meanwhile_is_not_handed_out(made: Made, moment: str) -> None:  # noqa: F811
    campaign, first, left = made.campaign, picks(made)[0], {moment}

    def label_at(now: str) -> None:
        if now in left:
            left.clear()
            label(made, first)

    def hooked(step: str, function: Any) -> Any:
        def run(*arguments: Any) -> Any:
            label_at(step)
            return function(*arguments)

        return run

    def pick_and_hand_out() -> None:
        select(campaign)
        label_at("picked")
        export(campaign, Run(on_progress=lambda *_: label_at("exporting")))

    (campaign.stage("selection") / "manifest.json").delete()
    with pytest.MonkeyPatch.context() as patch:
        for step in STEPS:
            patch.setattr(module, step, hooked(step, getattr(module, step)))
        with pytest.raises((InputError, ConfigError), match=r"changed.*; run: vaal select"):
            pick_and_hand_out()
    assert not left
    assert not batches(campaign.home, 0)
    # The advice.
    select(campaign)
    assert first["item_id"] not in handed_out(campaign)
    (batch,) = batches(campaign.home, 0)
    assert first["item_id"] not in batch.images()["item_id"].to_pylist()
    assert len(batch.images()) == campaign.config.select.budget


def test_what_is_handed_out_stays_picked_for_every_vendor(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setitem(VENDORS, "other", VENDORS["generic"])
    export(made.campaign)
    label(made, picks(made)[0])
    export(made.campaign, vendor="other")
    one, other = batches(made.campaign.home, 0)
    assert one.images()["item_id"].equals(other.images()["item_id"])
