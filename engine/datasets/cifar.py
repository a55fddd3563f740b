"""CIFAR-10 and CIFAR-100: arrays in pickled files, which torchvision alone reads, after it compared their MD5."""

import io
from typing import Any

from PIL import Image

from engine.datasets.opened import TEST, TRAIN, Opened, folder_with
from engine.errors import ConfigError, InputError
from engine.packing.entries import Entry, Sample
from engine.storage.location import Location

SUPER_CLASSES = """
beaver dolphin otter seal whale
aquarium_fish flatfish ray shark trout
orchid poppy rose sunflower tulip
bottle bowl can cup plate
apple mushroom orange pear sweet_pepper
clock keyboard lamp telephone television
bed chair couch table wardrobe
bee beetle butterfly caterpillar cockroach
bear leopard lion tiger wolf
bridge castle house road skyscraper
cloud forest mountain plain sea
camel cattle chimpanzee elephant kangaroo
fox porcupine possum raccoon skunk
crab lobster snail spider worm
baby boy girl man woman
crocodile dinosaur lizard snake turtle
hamster mouse rabbit shrew squirrel
maple_tree oak_tree palm_tree pine_tree willow_tree
bicycle bus motorcycle pickup_truck train
lawn_mower rocket streetcar tank tractor
"""
"""Of CIFAR-100, one a line. torchvision reads the fine labels only."""


def cifar10(source: Location, _seed: int) -> Opened:
    """CIFAR-10, from the folder that holds cifar-10-batches-py. Raises InputError if the files are not the official
    ones."""
    from torchvision.datasets import CIFAR10

    return _opened(source, CIFAR10)


def cifar100(source: Location, _seed: int) -> Opened:
    """CIFAR-100, from the folder that holds cifar-100-python; its super-classes are the groups. Raises as `cifar10`."""
    from torchvision.datasets import CIFAR100

    groups = tuple(line.split() for line in SUPER_CLASSES.split("\n") if line)
    return _opened(source, CIFAR100)._replace(groups=groups)


def _fault_of(folder: Location, kind: Any) -> str:
    """Which file is missing or is not the official one, in this project's words."""
    from torchvision.datasets.utils import check_integrity

    for name, md5 in (*kind.train_list, *kind.test_list, (kind.meta["filename"], kind.meta["md5"])):
        if not (folder / name).exists():
            return f"has no file {name}"
        if not check_integrity((folder / name).path, md5):
            return f"{name} is not the official file by its MD5, or is cut off"
    return "its files cannot be read"


def _opened(source: Location, kind: Any) -> Opened:
    if source.name == kind.base_folder:
        source = Location(source.url.rpartition("/")[0])
    if not source.is_local:
        raise ConfigError(f"{source}: {kind.base_folder} is read from a disk only; copy it to one, some 200 MB")
    base = folder_with(source, kind.base_folder, f"{kind.base_folder}, to which {kind.filename} unpacks")
    try:
        sets = {TRAIN: kind(base.path, train=True), TEST: kind(base.path, train=False)}
    except (RuntimeError, OSError) as error:
        fix = f"unpack {kind.filename} again"
        raise InputError(f"{base / kind.base_folder}: {_fault_of(base / kind.base_folder, kind)}; {fix}") from error

    def read(entry: Entry) -> Sample:
        part, _, number = entry.source.rpartition("/")
        file = io.BytesIO()
        Image.fromarray(sets[part].data[int(number)]).save(file, "PNG")
        return Sample(entry.key, entry.source, file.getvalue(), entry.label)

    parts = {
        part: [Entry("", f"{part}/{n}", label=found.classes[target]) for n, target in enumerate(found.targets)]
        for part, found in sets.items()
    }
    return Opened(parts, list(sets[TRAIN].classes), read)
