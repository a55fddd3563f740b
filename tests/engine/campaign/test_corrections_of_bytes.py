"""A label that is corrected or comes back is that of the bytes that it was given to."""

from engine.campaign import corrections, undoing
from engine.campaign.folder import Campaign
from engine.campaign.labels import labelled_values, read_snapshot
from engine.campaign.opening import current_round
from engine.campaign.settling import settle
from engine.handoff.export import export
from engine.selection.select import select
from tests.engine.campaign.test_changes import labelled_images, made, members, original, refreshed, remake  # noqa: F401
from tests.engine.selection.test_reselection import picks, scored  # noqa: F401
from tests.rounds import Made


def test_an_undone_label_comes_back_with_its_bytes_alone(made: Made) -> None:  # noqa: F811
    campaign, item = made.campaign, min(labelled_values(made.campaign.home))
    before, items = labelled_values(campaign.home)[item], members(made, item[0])
    other = next(data for key, data in items.items() if key != f"{item[1]}.png" and data.startswith(b"\x89PNG"))
    remake(made, item[0], items | {f"{item[1]}.png": other})
    refreshed(campaign)
    corrections.set_label(campaign, item, "another", print)
    assert labelled_images(campaign)[item] == other
    # The same label again, for the same bytes, changes nothing.
    corrections.set_label(campaign, item, "another", print)
    (file,) = (name for name in read_snapshot(campaign.home).tables if "-set-" in name)
    undoing.undo(campaign, file.removeprefix("labels/"))
    assert labelled_values(campaign.home)[item] == before
    refreshed(campaign)
    assert item not in labelled_images(campaign)
    remake(made, item[0], items)
    refreshed(campaign)
    assert labelled_images(campaign)[item] == made.images[item]


def test_a_label_for_other_bytes_is_written_although_it_is_the_same(made: Made) -> None:  # noqa: F811
    campaign, item = made.campaign, min(labelled_values(made.campaign.home))
    items, label = members(made, item[0]), labelled_values(campaign.home)[item]
    other = next(data for key, data in items.items() if key != f"{item[1]}.png" and data.startswith(b"\x89PNG"))
    remake(made, item[0], items | {f"{item[1]}.png": other})
    refreshed(campaign)
    assert item not in labelled_images(campaign)
    corrections.set_label(campaign, item, label, print)
    assert labelled_images(campaign)[item] == other
    # In another place the bytes are the same.
    remake(made, item[0], dict(reversed((items | {f"{item[1]}.png": other}).items())))
    refreshed(campaign)
    corrections.set_label(campaign, item, label, print)
    assert labelled_images(campaign)[item] == other
    assert len(read_snapshot(campaign.home).tables) == 2


def test_a_correction_does_not_end_a_round_whose_new_selection_is_not_out(scored: Campaign) -> None:  # noqa: F811
    select(scored)
    export(scored)
    out = min(picks(scored))
    select(scored, force=True)
    corrections.set_label(scored, out, "1", print)
    assert not settle(scored).is_closed
    select(scored)
    export(scored)
    for item in picks(scored):
        assert not settle(scored).is_closed
        corrections.set_label(scored, item, "1", print)
    assert settle(scored).is_closed
    assert current_round(scored.home) == 1
