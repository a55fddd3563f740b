"""Pools of real digits made so that it is known what training has to find in them.

    no_difference    the labelled images are a random draw of the pool: there is nothing to find
    missing_mode     most of the unlabelled images are of a kind that no labelled image is

`authors_reductions` are the settings with which the objective is the one of the authors' code.
"""

import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from engine.campaign.folder import Campaign
from engine.campaign.opening import create
from engine.config.options import CampaignConfig
from engine.config.texts import parse_settings
from engine.config.toml import override
from engine.simulation.demo_pools import write_shards
from vaal.losses import PIXEL_VARIANCE

NUM_LABELLED = 200
MISSING_SHARE = 0.88
"""Of the unlabelled digits, those of the missing mode. What is left cannot be told apart: no AUC is above 0.94."""
SETTINGS = ("image.size=8", "image.channels=1", "train.epochs=100", "select.budget=100")


class Constructed(NamedTuple):
    """A campaign, and the unlabelled items that should be picked."""

    campaign: Campaign
    wanted: frozenset[tuple[str, str]]

    def is_wanted(self, shard: str, key: str) -> bool:
        return (shard, key) in self.wanted


def no_difference(folder: Path, seed: int, *settings: str, num_labelled: int = NUM_LABELLED) -> Constructed:
    """Labels, 200 by default, drawn at random from all 1,797 digits."""
    pixels = _digits(seed)
    kinds = np.full(len(pixels), "unlabelled")
    kinds[:num_labelled] = "labelled"
    return _make(folder, seed, pixels, kinds, settings)


def missing_mode(folder: Path, seed: int, *settings: str, num_images: int = 1797) -> Constructed:
    """200 labels of dark digits on white; of the other 1,597, 88 % are grey digits on black and without a label."""
    pixels = _digits(seed)[:num_images]
    num_missing = round(MISSING_SHARE * (len(pixels) - NUM_LABELLED))
    kinds = np.full(len(pixels), "unlabelled")
    kinds[:NUM_LABELLED], kinds[-num_missing:] = "labelled", "wanted"
    is_present = (kinds != "wanted")[:, None, None]
    # Ink is bright in the data. The labelled mode is its negative, the missing one the same digits, dimmed.
    return _make(folder, seed, np.where(is_present, 255 - pixels, pixels // 2 + 32), kinds, settings)


def authors_reductions(num_pixels: int, batch_size: int) -> tuple[str, str]:
    """Settings with which a pool's part of Eq. 1 is the mean squared error plus the KL summed over batch and units.

    That is how the authors' code reduces them, and their sum is lambda1 (reconstruction + beta KL), but for a constant.
    `num_pixels` counts those of all channels.
    """
    weight, beta = 2 * PIXEL_VARIANCE / num_pixels, batch_size * num_pixels / (2 * PIXEL_VARIANCE)
    return f"train.transductive_weight={weight!r}", f"train.beta={beta!r}"


def _digits(seed: int) -> NDArray[np.uint8]:
    """All of them in a random order: theirs is by writer, and writers are told apart with an AUC of 0.74."""
    pixels = (load_digits().images * (255 / 16)).round().astype(np.uint8)
    return np.random.default_rng((seed, 1)).permutation(pixels)


def _make(
    folder: Path, seed: int, pixels: NDArray[np.uint8], kinds: NDArray[np.str_], settings: tuple[str, ...]
) -> Constructed:
    """A campaign on these images in a random order; those of the kind "labelled" have a label."""
    order = np.random.default_rng(seed).permutation(len(pixels))
    images = ((pixels[i], str(kinds[i])) for i in order)
    kind_of = write_shards(folder / "pool", "digits", images, items_per_shard=225)
    labels = folder / "labels.csv"
    with labels.open("w", newline="") as file:
        rows = [(*item, "digit") for item, kind in sorted(kind_of.items()) if kind == "labelled"]
        csv.writer(file).writerows([("shard", "key", "label"), *rows])
    config = override(CampaignConfig(), parse_settings([*SETTINGS, f"train.seed={seed}", *settings]), "test")
    campaign = create(str(folder / "campaign"), [f"{folder}/pool/*.tar"], str(labels), config, lambda _: None)
    return Constructed(campaign, frozenset(item for item, kind in kind_of.items() if kind == "wanted"))
