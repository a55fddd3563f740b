"""From a data set's ids in masks to those that are learned: classes from 0, and 255 for void."""

import io
from collections.abc import Mapping

import numpy as np
from PIL import Image

from engine.config.input_options import ImageConfig
from engine.config.texts import plural
from engine.errors import InputError
from engine.pool.mask_files import MOST_LISTED, MaskError, read_ids, require_size
from engine.storage.location import Location
from vaal.task.kinds import VOID

STREET_CLASSES = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation", "terrain",
    "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
)  # fmt: skip
"""Of Cityscapes and BDD100K, in the order of their train ids."""
_LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
STREET_IDS = {**dict.fromkeys(range(34), VOID), **{id_: number for number, id_ in enumerate(_LABEL_IDS)}}
"""Train ids by the label ids of Cityscapes, 0 to 33."""
TRAIN_IDS = {**{number: number for number in range(len(STREET_CLASSES))}, VOID: VOID}
"""Of BDD100K."""
CAMVID_CLASSES = (
    "sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist",
)  # fmt: skip
SEGNET_IDS = {**{number: number for number in range(len(CAMVID_CLASSES))}, len(CAMVID_CLASSES): VOID}
CAMVID_CODES = {
    "sky": "Sky", "building": "Archway Bridge Building Tunnel Wall", "pole": "Column_Pole TrafficCone",
    "road": "Road LaneMkgsDriv LaneMkgsNonDriv", "pavement": "Sidewalk ParkingBlock RoadShoulder",
    "tree": "Tree VegetationMisc", "sign": "SignSymbol Misc_Text TrafficLight", "fence": "Fence",
    "car": "Car SUVPickupTruck Truck_Bus Train OtherMoving",
    "pedestrian": "Pedestrian Child CartLuggagePram Animal", "bicyclist": "Bicyclist MotorcycleScooter",
}  # fmt: skip
"""The 32 classes of CamVid, but for Void, by the 11 that are usual since SegNet."""


def ids_of_codes(base: Location, codes: list[str]) -> dict[int, int]:
    """Train ids by the numbers of the classes in codes.txt of CamVid. Raises InputError for a name that is none."""
    known = {code: CAMVID_CLASSES.index(name) for name, text in CAMVID_CODES.items() for code in text.split()}
    known["Void"] = VOID
    if strangers := [code for code in codes if code not in known]:
        why = f"{strangers[0]!r} is none of the {len(known)} classes of CamVid"
        raise InputError(f"{base / 'codes.txt'}: {why}; unpack the data set again")
    return {number: known[code] for number, code in enumerate(codes)}


def train_ids_of(content: bytes, sides: tuple[int, int], ids: Mapping[int, int]) -> bytes:
    """A mask as a PNG of train ids, one of 8 bits a pixel; the same bytes where its ids are those already.

    Args:
        content: a PNG of the ids of the data set.
        sides: height and width of its image, in pixels.
        ids: the train ids by them.

    Raises MaskError for another file, size or id.
    """
    found_HW = read_ids(content, ImageConfig().max_pixels)
    require_size(found_HW.shape, *sides)
    there, counts = np.unique(found_HW, return_counts=True)
    if unknown := [place for place, id_ in enumerate(there.tolist()) if id_ not in ids]:
        shares = [f"{there[n]} ({plural(int(counts[n]), 'pixel')})" for n in unknown[:MOST_LISTED]]
        why = f"has ids {', '.join(shares)}, and those of the data set are {min(ids)} to {max(ids.keys() - {VOID})}"
        raise MaskError(f"{why}; give the masks of the layout in docs/datasets.md")
    if all(ids[id_] == id_ for id_ in there.tolist()):
        return content
    table = np.zeros(int(there[-1]) + 1, np.uint8)
    table[there] = [ids[id_] for id_ in there.tolist()]
    file = io.BytesIO()
    Image.fromarray(table[found_HW]).save(file, "PNG")
    return file.getvalue()
