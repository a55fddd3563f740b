"""An image that gets a label while images are picked or before they are sent is not sent."""

from collections.abc import Callable
from typing import Any

import pytest

from engine.campaign import corrections
from engine.campaign.folder import Campaign
from engine.campaign.handed_out import batches
from engine.campaign.labels import Identity, append_labels, read_labels
from engine.campaign.manifests import write_manifest
from engine.campaign.opening import current_round
from engine.campaign.positions import packed_positions
from engine.campaign.settling import settle
from engine.campaign.stages import Run
from engine.errors import ConfigError, InputError
from engine.handoff import VENDORS
from engine.handoff.choice import Wish
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
    """As if another command labelled the item just before this function of a module of the selection is called, the
    first time."""
    left = [item]

    def hooked(*arguments: Any, **options: Any) -> Any:
        while left:
            append_labels(campaign.home, "set", [(*left.pop(), "1", None, "correction", None, None)])
        return original(*arguments, **options)

    monkeypatch.setattr(f"engine.selection.{place}", hooked)


@pytest.mark.parametrize("function", [read_labels, packed_positions, sources_of])
def test_while_images_are_picked(
    scored: Campaign,  # noqa: F811
    wanted: Identity,
    monkeypatch: pytest.MonkeyPatch,
    function: Callable[..., Any],
) -> None:
    labelled_at(monkeypatch, f"unpickable.{function.__name__}", function, scored, wanted)
    with pytest.raises(InputError, match="changed while images were picked; run: vaal select"):
        select(scored)
    select(scored)
    assert wanted not in picks(scored)


def test_after_the_last_look_of_a_selection(
    scored: Campaign,  # noqa: F811
    wanted: Identity,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    labelled_at(monkeypatch, "select.write_manifest", write_manifest, scored, wanted)
    select(scored)
    assert wanted in picks(scored)
    with pytest.raises(ConfigError, match=r"made before labels changed; run: vaal select"):
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
    # One that is out belongs to the round, which ends with the last of them.
    for item in picks(scored):
        assert current_round(scored.home) == 0
        corrections.set_label(scored, item, "1", print)
        settle(scored)
    assert current_round(scored.home) == 1


def test_while_they_are_read_for_the_vendor(scored: Campaign) -> None:  # noqa: F811
    select(scored)
    left = [min(picks(scored))]

    def label(_: float, __: str) -> None:
        while left:
            append_labels(scored.home, "set", [(*left.pop(), "1", None, "correction", None, None)])

    item = left[0]
    with pytest.raises(ConfigError, match="run: vaal select"):
        export(scored, Run(on_progress=label))
    assert not batches(scored.home, 0)
    select(scored)
    export(scored)
    assert item not in identities(batches(scored.home, 0)[-1].images())


def test_what_waits_can_go_to_another_vendor_whatever_is_labelled_since(
    scored: Campaign,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The advice to select again led nowhere: what is handed out stays picked."""
    for name in ("other", "third"):
        monkeypatch.setitem(VENDORS, name, VENDORS["generic"])
    select(scored)
    export(scored, wish=Wish(limit=15))
    table = (scored.stage("selection") / "selection.parquet").read_table()
    ordered = list(zip(table["shard"].to_pylist(), table["key"].to_pylist(), strict=True))
    waiting = ordered[15:]
    append_labels(scored.home, "set", [(*waiting[0], "1", None, "correction", None, None)])
    export(scored, vendor="other")
    one, other = batches(scored.home, 0)
    assert identities(one.images()) == set(ordered[:15])
    assert identities(other.images()) == set(waiting[1:])
    with pytest.raises(
        ConfigError,
        match=r"every pick that fits was sent already .* recall --batch generic-000 --batch other-001 --pick-again",
    ):
        export(scored, vendor="third")
