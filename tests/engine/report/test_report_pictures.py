"""Thumbnails show what was scored, and the curves' reference lines are what the losses are when nothing is known."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from engine.config.input_options import ImageConfig
from engine.config.texts import score_text
from engine.report import charts
from engine.report.charts import (
    LIGHT,
    Bins,
    bins_of,
    histogram_chart,
    kl_chart,
    map_chart,
    reference_losses,
    score_name,
)
from engine.report.latent_map import LatentMap
from engine.report.thumbnails import THUMBNAIL_SIDE, contact_sheet, thumbnail, to_png
from engine.tables.histogram import HISTOGRAM_SCHEMA, Histogram
from engine.tables.selections import CONTROL, DUPLICATE, PASSED_OVER, PICKED
from vaal.losses import adversarial_loss, discriminator_loss
from vaal.proportions import wilson


def reduced(content: bytes) -> Image.Image:
    return thumbnail(content, ImageConfig())


RNG = np.random.default_rng(0)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


@pytest.mark.parametrize("shape", [(8, 8), (5, 90, 3), (128, 20, 4), (7, 9, 2)])
def test_a_small_image_keeps_its_pixels(shape: tuple[int, ...]) -> None:
    pixels = RNG.integers(0, 256, shape, np.uint8)
    again = Image.open(io.BytesIO(to_png(reduced(encoded(Image.fromarray(pixels))))))
    np.testing.assert_array_equal(np.asarray(again), pixels)


@pytest.mark.parametrize(
    ("size", "expected"), [((400, 200), (128, 64)), ((100, 1000), (13, 128)), ((129, 3), (128, 3))]
)
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_large_image_is_reduced_at_its_own_aspect_ratio(
    size: tuple[int, int], expected: tuple[int, int], kind: str
) -> None:
    assert reduced(encoded(Image.new("RGB", size, "teal"), kind)).size == expected


def test_a_photo_stands_upright_and_nothing_but_its_pixels_is_kept() -> None:
    photo = Image.new("RGB", (60, 30), "black")
    photo.paste("white", (0, 0, 20, 30))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the left side is up
    exif[0x010E] = "where it was taken"
    png = to_png(reduced(encoded(photo, "JPEG", exif=exif, icc_profile=bytes(5000))))
    upright = np.asarray(Image.open(io.BytesIO(png)).convert("L"))
    assert upright.shape == (60, 30)
    assert upright[:15].min() > 200
    assert upright[25:].max() < 50
    assert Image.open(io.BytesIO(png)).info == {}


def test_modes_that_browsers_cannot_show_are_converted() -> None:
    deep = (np.arange(64, dtype=np.uint16) * 1024).reshape(8, 8)
    np.testing.assert_array_equal(np.asarray(reduced(encoded(Image.fromarray(deep)))), deep >> 8)
    palette = Image.new("L", (4, 4)).convert("P")
    assert reduced(encoded(palette)).mode == "RGB"
    assert reduced(encoded(palette, transparency=0)).getpixel((0, 0))[3] == 0  # type: ignore[index]
    assert reduced(encoded(Image.new("CMYK", (4, 4)), "JPEG")).mode == "RGB"


def test_contact_sheet_holds_every_thumbnail_in_order() -> None:
    colours = [(20 * i, 255 - 20 * i, 7) for i in range(10)]
    sheet = contact_sheet([Image.new("RGB", (8, 4), colour) for colour in colours])
    pitch = THUMBNAIL_SIDE + 4
    assert sheet.size == (8 * pitch - 4, 2 * pitch - 4)
    middle = THUMBNAIL_SIDE // 2
    for number, colour in enumerate(colours):
        row, column = divmod(number, 8)
        for left in (0, middle, THUMBNAIL_SIDE - 1):
            assert sheet.getpixel((column * pitch + left, row * pitch + middle)) == (*colour, 255)
    assert sheet.getpixel((middle, 0)) == (0, 0, 0, 0)


@pytest.mark.parametrize("num_folds", [1, 2, 5])
def test_references_are_the_losses_of_a_discriminator_that_answers_zero(num_folds: int) -> None:
    logit = torch.zeros(20, num_folds)
    fold = torch.arange(20) % num_folds
    references = reference_losses(num_folds)
    assert references["adversarial"] == pytest.approx(adversarial_loss(logit, logit).item())
    assert references["discriminator"] == pytest.approx(discriminator_loss(logit, logit, fold, fold).trained.item())


def share_of(colour: str, png: bytes) -> float:
    """Share of a picture's pixels that have this colour."""
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
    return float((pixels == [int(colour[i : i + 2], 16) for i in (1, 3, 5)]).all(axis=2).mean())


GROUPS = ("labelled", "picked", "not_picked", "out")
BINS = Bins(np.arange(5.0), {group: np.array([0, 4, 4, 0] if group == "not_picked" else [0] * 4) for group in GROUPS})


def test_picks_are_a_group_of_the_histogram() -> None:
    histogram, picked = Histogram(), np.array([-1, -0.5, 2.25], np.float32)
    histogram.add("eligible", np.array([*picked, 0, 0, 3, 7.9], np.float32))
    histogram.add("labelled", np.array([1, 2], np.float32))
    bins = bins_of(histogram.to_table(), picked)
    assert {name: int(counts.sum()) for name, counts in bins.counts.items()} == {
        "labelled": 2, "picked": 3, "not_picked": 4, "out": 0,
    }  # fmt: skip
    for name, values in (("picked", picked), ("not_picked", [0, 0, 3, 7.9])):
        assert bins.counts[name].tolist() == np.histogram(np.array(values, np.float32), bins.edges)[0].tolist()


def test_a_histogram_of_nothing_is_drawn() -> None:
    bins = bins_of(HISTOGRAM_SCHEMA.empty_table(), np.empty(0, np.float32))
    assert {name: counts.tolist() for name, counts in bins.counts.items()} == {group: [0] for group in GROUPS}
    with np.errstate(all="raise"):
        assert share_of(LIGHT.card, histogram_chart(bins, None, None, "score", LIGHT)) > 0.5


def test_a_histogram_has_a_cut_where_the_logits_decided() -> None:
    without, with_cut = (
        share_of(LIGHT.picked, histogram_chart(BINS, *levels, "score", LIGHT)) for levels in ((None, None), (2.0, 2.0))
    )
    assert without == 0
    assert with_cut > 1e-3


def test_a_histogram_has_a_second_line_where_candidates_were_passed_over() -> None:
    one, two = (share_of(LIGHT.ink, histogram_chart(BINS, 2, highest, "score", LIGHT)) for highest in (2, 3.5))
    assert one < 0.7 * two


def test_a_histogram_of_nothing_that_can_be_picked_is_drawn() -> None:
    labelled = Bins(BINS.edges, {group: np.array([int(group == "labelled")] * 4) for group in GROUPS})
    with np.errstate(all="raise"):
        assert share_of(LIGHT.labelled, histogram_chart(labelled, None, None, "score", LIGHT)) > 0


def test_the_words_of_a_histogram_are_not_cut_off() -> None:
    # Wherever a level is, its words are inside the picture: its edges are blank.
    named = score_name("vaal")
    for cut, highest in ((0.0, 4.0), (4.0, 0.0), (1.9, 2.1), (2.1, 1.9), (2.0, None)):
        png = histogram_chart(BINS, cut, highest, named, LIGHT)
        pixels = np.asarray(Image.open(io.BytesIO(png)).convert("L"), np.int16)
        for edge in (pixels[:3], pixels[-3:], pixels[:, :3], pixels[:, -3:]):
            assert edge.min() == edge.max()


def map_of_fates(fates: list[str]) -> LatentMap:
    points_N2 = np.stack([np.arange(len(fates)), np.arange(len(fates)) % 3.0], axis=1)
    return LatentMap(points_N2, np.array(fates, object), np.array([0.5, 0.25]), len(fates))


def test_the_map_shows_what_was_passed_over() -> None:
    few, many = (map_chart(map_of_fates([PASSED_OVER] * size), LIGHT) for size in (10, 100))
    # The background is what the points leave of it.
    assert share_of(LIGHT.card, many) < share_of(LIGHT.card, few) - 0.005


def test_the_map_has_a_colour_for_what_became_of_the_candidates() -> None:
    def shares(fate: str) -> dict[str, float]:
        png = map_chart(map_of_fates([PASSED_OVER, PASSED_OVER, *[fate] * 8]), LIGHT)
        return {name: share_of(getattr(LIGHT, name), png) for name in ("picked", "duplicate")}

    assert shares(PASSED_OVER) == {"picked": 0, "duplicate": 0}
    for fate, colour, other in ((PICKED, "picked", "duplicate"), (DUPLICATE, "duplicate", "picked")):
        found = shares(fate)
        assert found[colour] > 1e-4
        assert found[other] == 0
    # Control picks are rings in the colour of the picked ones.
    assert 1e-4 < shares(CONTROL)["picked"] < shares(PICKED)["picked"]


def test_bars_show_the_kl_of_the_units_on_a_scale_that_noise_does_not_fill() -> None:
    full, half, collapsed = (
        share_of(LIGHT.muted, kl_chart(kl_Z, LIGHT)) for kl_Z in ([3.0] * 8, [3.0] * 4 + [0.0] * 4, [1e-4] * 8)
    )
    assert full > 0.4
    assert half == pytest.approx(full / 2, abs=0.02)
    assert collapsed < 0.03


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (40, 30)])
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF"])
def test_an_image_of_any_format_and_size_has_a_thumbnail_of_its_shape(
    kind: str, mode: str, size: tuple[int, int]
) -> None:
    content = io.BytesIO()
    Image.new(mode, size, 99 if mode == "L" else (90,) * len(mode)).convert(
        "RGB" if mode == "CMYK" and kind in ("PNG", "GIF", "BMP") else mode
    ).save(content, kind)
    found = thumbnail(content.getvalue(), ImageConfig(suffixes=["gif", "bmp", "tif"]))
    assert found.size == size
    to_png(contact_sheet([found]))


def axes_of(monkeypatch: pytest.MonkeyPatch, draw: Callable[[], bytes]) -> Any:
    """The axes of a chart, drawn."""
    found: list[Any] = []
    monkeypatch.setattr(charts, "_png", lambda axes: found.append(axes) or axes.figure.canvas.draw() or b"")
    draw()
    return found[0]


def ticks_of(axis: Any) -> list[str]:
    """The labels of the ticks that are seen."""
    low, high = sorted(axis.get_view_interval())
    pairs = zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=True)
    return [label.get_text() for place, label in pairs if low <= place <= high]


@pytest.mark.parametrize("hits", [0, 30, 60])
@pytest.mark.parametrize("learned", [[1], [6], [100], [100, 100], [12_345], [100, 200, 300]])
def test_the_axes_of_accuracy_hold_for_one_round_for_equal_ones_and_at_the_ends(
    monkeypatch: pytest.MonkeyPatch, learned: list[int], hits: int
) -> None:
    shares = {"not_picked": [wilson(hits, 60)] * len(learned), "picked": [wilson(hits, 60)] * len(learned)}
    axes = axes_of(monkeypatch, lambda: charts.right_chart(learned, shares, LIGHT))  # type: ignore[arg-type]
    shown = ticks_of(axes.xaxis)
    assert len(set(shown)) == len(shown) >= 2
    # The two values of one round stand beside each other, and not at opposite ends.
    width = float(np.ptp(axes.get_xlim()))
    first, second = (container.lines[0].get_xdata()[0] for container in axes.containers)
    assert 0 < second - first < 0.03 * width
    low, high = axes.get_ylim()
    assert 0 <= low <= 100 * wilson(hits, 60).low
    assert 100 * wilson(hits, 60).high <= high <= 100
    assert high - low >= 10


@pytest.mark.parametrize("share", [0.0, 1e-3, 1.0])
def test_shares_begin_at_0_and_end_at_100(monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    axes = axes_of(monkeypatch, lambda: charts.shares_chart(["a"], {"picked": [share]}, "label", LIGHT))
    assert axes.get_xlim()[0] == 0
    assert max(1, 100 * share) <= axes.get_xlim()[1] <= 100


@pytest.mark.parametrize("score", [0.0, 5.0, -1e-9, 1e6])
def test_a_histogram_of_equal_scores_is_a_bar_on_a_scale(monkeypatch: pytest.MonkeyPatch, score: float) -> None:
    histogram, picked = Histogram(), np.array([score], np.float32)
    histogram.add("eligible", np.repeat(picked, 3))
    bins = bins_of(histogram.to_table(), picked)
    axes = axes_of(monkeypatch, lambda: histogram_chart(bins, score, score, "score", LIGHT))
    assert np.ptp(axes.get_xlim()) > 10 * np.ptp(bins.edges)
    assert axes.xaxis.get_offset_text().get_text() == ""


@pytest.mark.parametrize(
    ("score", "text"),
    [(0.00123, "0.00123"), (-2.3456, "−2.35"), (0.0, "0.00"), (12.0, "12.0"), (100.0, "100"), (-1234.5, "−1,234")],
)
def test_a_score_has_three_significant_digits(score: float, text: str) -> None:
    assert score_text(score) == text
