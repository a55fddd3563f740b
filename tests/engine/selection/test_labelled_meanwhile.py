"""An image that gets a label while images are picked or before they are sent is not sent."""

from typing import Any

import pytest

from engine.campaign import corrections
from engine.campaign.folder import Campaign
from engine.campaign.handed_out import batches
from engine.campaign.labels import Identity, append_labels
from engine.campaign.manifests import write_manifest
from engine.campaign.opening import current_round
from engine.errors import ConfigError, InputError
from engine.handoff.export import export
from engine.selection.select import select
from engine.selection.sources import sources_of
from tests.engine.selection.test_reselection import identities, picks, scored  # noqa: F401


@pytest.fixture
def wanted(scored: Campaign) -> Identity:  # noqa: F811
    """An item that is picked where nothing disturbs it."""
    select(scored)
    item = min(picks(scored))
    (scored.stage("selection") / "manifest.json").delete()
    return item


def labelled_at(monkeypatch: pytest.MonkeyPatch, place: str, original: Any, campaign: Campaign, item: Identity) -> None:
    """As if another command labelled the item just before this function is called, the first time."""
    left = [item]

    def hooked(*arguments: Any, **options: Any) -> Any:
        while left:
            append_labels(campaign.home, "set", [(*left.pop(), "1", None, "correction", None, None)])
        return original(*arguments, **options)

    monkeypatch.setattr(f"engine.selection.select.{place}", hooked)


def test_while_images_are_picked(
    scored: Campaign,  # noqa: F811
    wanted: Identity,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    labelled_at(monkeypatch, "sources_of", sources_of, scored, wanted)
    with pytest.raises(InputError, match="changed while images were picked; run: vaal select"):
        select(scored)
    select(scored)
    assert wanted not in picks(scored)


def test_after_the_last_look_of_a_selection(
    scored: Campaign,  # noqa: F811
    wanted: Identity,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    labelled_at(monkeypatch, "write_manifest", write_manifest, scored, wanted)
    select(scored)
    assert wanted in picks(scored)
    with pytest.raises(ConfigError, match=r"made before labels/000001-set.* changed; run: vaal select"):
        export(scored)
    select(scored)
    export(scored)
    assert wanted not in identities(batches(scored.home, 0)[-1].images())


def test_before_they_are_sent(scored: Campaign) -> None:  # noqa: F811
    select(scored)
    item = min(picks(scored))
    corrections.set_label(scored, item, "1", print)
    # It was never handed out, so its label ends no round.
    assert current_round(scored.home) == 0
    with pytest.raises(ConfigError, match="run: vaal select"):
        export(scored)
    select(scored)
    export(scored)
    assert item not in identities(batches(scored.home, 0)[-1].images())
    assert len(picks(scored)) == 40
    # One that is out belongs to the round.
    corrections.set_label(scored, min(picks(scored)), "1", print)
    assert current_round(scored.home) == 1
