"""What a vendor gets says nothing of the pool, of the scores or of gold images, and is all that it needs."""

import io
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image, PngImagePlugin

from engine.campaign.folder import Campaign
from engine.campaign.handed_out import batches
from engine.handoff import VENDORS
from engine.handoff.choice import Wish
from engine.handoff.export import export
from engine.handoff.gold import mixed
from tests.small import copied, make_small

SECRETS = ("PlantedArtist", "PlantedComment", "PlantedXmp", "PlantedCamera")
WORDS = ("gold", "control", "query", "arm", "rank", "score", "logit", "selection", "handed_out", "posterior", "cluster")
CLASSES = ["zebrafinch", "axolotl", "tardigrade"]
_IMAGE = re.compile(r"images(?:/|%2F)([0-9a-f]{32}\.(?:png|jpg|webp))")


def image_with_secrets(number: int) -> bytes:
    """A JPEG, PNG or WebP with a planted artist, camera, place, comment and XMP packet."""
    pixels = np.random.default_rng(number).integers(0, 256, (12, 12, 3), np.uint8)
    image, content = Image.fromarray(pixels), io.BytesIO()
    exif = Image.Exif()
    exif[0x013B], exif[0x0110] = "PlantedArtist", "PlantedCamera"
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 51.0, 30.0), 29: "1999:12:31"})
    xmp = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>PlantedXmp</x:xmpmeta>"
    form = ("JPEG", "PNG", "WEBP")[number % 3]
    if form == "JPEG":
        image.save(content, form, exif=exif, xmp=xmp, comment=b"PlantedComment")
    elif form == "PNG":
        info = PngImagePlugin.PngInfo()
        info.add_text("Comment", "PlantedComment")
        info.add_itxt("XML:com.adobe.xmp", xmp.decode())
        image.save(content, form, exif=exif, pnginfo=info)
    else:
        image.save(content, form, exif=exif, xmp=xmp)
    return content.getvalue()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    pool = {(f"wolverine-{n // 15}.tar", f"patientjones{n:03d}"): image_with_secrets(n) for n in range(45)}
    assert all(b"Planted" in content and b"1999:12:31" in content for content in pool.values())
    return make_small(tmp_path_factory.mktemp("kestrelfolder"), pool, (CLASSES[0], CLASSES[1]))


@pytest.fixture
def campaign(base: Campaign, tmp_path: Path) -> Campaign:
    """Labels are two of three classes."""
    return copied(base, tmp_path / "kestrelcopy", handoff__gold_fraction=0.5, handoff__question__classes=CLASSES)


class Sent(NamedTuple):
    """What lies in a vendor's folder: its text files, its images by name, and which item_ids are gold."""

    texts: dict[str, str]
    images: dict[str, bytes]
    gold: list[bool]
    ids: list[str]


def sent(campaign: Campaign, vendor: str, **wish: Any) -> Sent:
    export(campaign, vendor=vendor, wish=Wish(**wish))
    folder = Path(campaign.stage(f"handoff/{vendor}").path)
    files = {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    rows = batches(campaign.home, campaign.round)[-1].rows()
    images = {name.removeprefix("images/"): content for name, content in files.items() if name.startswith("images/")}
    texts = {name: content.decode() for name, content in files.items() if not name.startswith("images/")}
    return Sent(texts, images, rows["gold"].to_pylist(), rows["item_id"].to_pylist())


@pytest.mark.parametrize("vendor", VENDORS)
def test_every_vendor_works_without_options_and_names_the_files_that_are_there(
    base: Campaign, vendor: str, tmp_path: Path
) -> None:
    found = sent(copied(base, tmp_path / "campaign"), vendor)
    named = {name for text in found.texts.values() for name in _IMAGE.findall(text)}
    assert named == found.images.keys()
    assert {name.partition(".")[0] for name in named} == set(found.ids)
    assert len(named) == 9


@pytest.mark.parametrize("vendor", VENDORS)
def test_no_byte_of_a_vendors_folder_says_what_is_internal(campaign: Campaign, vendor: str) -> None:
    found = sent(campaign, vendor)
    assert sum(found.gold) == 4
    picks = pq.read_table(f"{campaign.home.path}/rounds/000/selection/selection.parquet").to_pylist()
    assert {pick["arm"] for pick in picks} == {"query", "control"}
    logits = {f"{abs(pick['logit']):.{digits}f}" for pick in picks for digits in (3, 4, 6)}
    places = [campaign.home.path, campaign.config.pool.root, campaign.config.salt, "kestrel", "wolverine", "jones"]
    for name, text in found.texts.items():
        for part in (name, text):
            assert not [secret for secret in (*places, *SECRETS, *logits, "1999") if secret in part], name
            assert not [word for word in WORDS if re.search(rf"(?<![a-z]){word}(?![a-z])", part.lower())], name
    for content in found.images.values():
        assert not [word for word in (*SECRETS, "1999:12:31", *places[3:], "Planted") if word.encode() in content]
    # What an image is labelled with is said as often as what no image is.
    for text in found.texts.values():
        assert len({text.count(name) for name in CLASSES}) == 1


@pytest.mark.parametrize("vendor", VENDORS)
def test_gold_images_look_as_the_others_do(campaign: Campaign, vendor: str) -> None:
    found = sent(campaign, vendor)
    forms: dict[bool, set[tuple[str, str]]] = {True: set(), False: set()}
    for name, text in found.texts.items():
        for line in text.splitlines():
            if ids := [item_id for item_id in found.ids if item_id in line]:
                is_gold = {found.gold[found.ids.index(item_id)] for item_id in ids}
                form = re.sub(
                    r"\d+", "0", re.sub(r"[0-9a-f]{32,}", "H", re.sub(r"\b(png|jpe?g|webp)\b", "S", line.rstrip(",")))
                )
                for kind in is_gold if len(ids) == 1 else ():
                    forms[kind].add((name, form))
    assert forms[True] <= forms[False]
    folder = Path(campaign.stage(f"handoff/{vendor}/images").path)
    assert len({file.stat().st_mode for file in folder.iterdir()}) == 1
    # The order of the times of writing is by shard and place alone, with gold among the others.
    assert len(found.images) == len(found.ids) == 13


def test_the_places_of_gold_images_are_random_and_repeatable(campaign: Campaign, tmp_path: Path) -> None:
    same = copied(campaign, tmp_path / "same", handoff__gold_fraction=0.5)
    first, other = sent(campaign, "generic", limit=4), sent(same, "generic", limit=4)
    assert (first.ids, first.gold, first.texts) == (other.ids, other.gold, other.texts)
    second = sent(campaign, "generic", limit=4)
    assert not {*first.ids} & {*second.ids}
    places = [tuple(np.flatnonzero(found.gold)) for found in (first, second)]
    # By their record: who found those of one batch knows nothing of another.
    assert places[0] != places[1]
    drawn = np.array([np.argsort(mixed(6, 4, seed))[6:] for seed in range(500)])
    shares = np.bincount(drawn.ravel(), minlength=10) / 500
    assert (abs(shares - 0.4) < 0.09).all()
    rows = [line.split(",") for line in first.texts["tasks.csv"].splitlines()]
    assert [row[rows[0].index("priority")] for row in rows[1:]] == [str(n) for n in range(6)]


def test_gold_images_are_those_of_before_with_other_names_and_their_answers_are_no_labels(campaign: Campaign) -> None:
    export(campaign, wish=Wish(limit=4))
    export(campaign, wish=Wish(limit=4))
    first, second = (batch.rows().to_pylist() for batch in batches(campaign.home, 0))
    gold = [[row for row in rows if row["gold"]] for rows in (first, second)]
    assert {row["rank"] for rows in gold for row in rows} == {-1}
    # All that were not gold yet come first.
    assert not {row["content_hash"] for row in gold[0]} & {row["content_hash"] for row in gold[1]}
