"""pycocotools loads a COCO file; it validates nothing, so what its users rely on is checked here."""

from pathlib import Path

from pycocotools.coco import COCO
from validate import require, require_images


def check(folder: Path) -> None:
    coco = COCO(str(folder / "instances.json"))
    images, categories = coco.dataset["images"], coco.dataset["categories"]
    for kind, rows, found in (("image", images, coco.imgs), ("category", categories, coco.cats)):
        require(rows, f"no {kind}")
        require(all(type(row["id"]) is int for row in rows), f"{kind}: an id that is not an integer")
        require(len(found) == len(rows), f"{kind}: an id twice")
    names = [category["name"] for category in categories]
    require(len(set(names)) == len(names), "a name of a category twice")
    require(coco.getCatIds(catNms=names) == [category["id"] for category in categories], "categories by name")
    require(coco.dataset["annotations"] == [], "annotations, and nobody has labelled yet")
    for image in images:
        require(all(type(image[side]) is int and image[side] > 0 for side in ("width", "height")), f"size: {image}")
        if (folder / "images").exists():
            require((folder / image["file_name"]).is_file(), f"no such file: {image['file_name']}")
    require_images(folder, (Path(image["file_name"]).stem for image in images))
