"""CVAT's SDK checks the bodies of requests. The manifest's are the server's checks, in spirit."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cvat_sdk.api_client import Configuration, models
from cvat_sdk.api_client.model_utils import ModelNormal, validate_and_convert_types
from validate import require, require_images

LABEL_TYPES = set(models.LabelType.allowed_values[("value",)].values())


def check(folder: Path) -> None:
    task = _request(_json(folder / "task.json"), models.TaskWriteRequest)
    labels = _json(folder / "labels.json")
    require(labels, "no labels")
    for label in [*labels, *task.to_dict().get("labels", [])]:
        _request(label, models.PatchedLabelRequest)
        require(label.get("type") in LABEL_TYPES, f"not a type of label: {label.get('type')}")
    names = [label["name"] for label in labels]
    require(len(names) == len(set(names)), "a label twice")
    items = list(_manifest(folder))
    require_images(folder, (Path(name).name for name in items))
    if (folder / "data.json").exists():
        data = _request(_json(folder / "data.json"), models.DataRequest)
        require(data.to_dict().get("image_quality") is not None, "no image_quality")
        files = data.to_dict().get("server_files") or data.to_dict()["remote_files"]
        served = {Path(urlsplit(name).path).stem for name in files if name != "manifest.jsonl"}
        require(served == {Path(name).name for name in items}, "data.json and manifest.jsonl differ")


def _manifest(folder: Path) -> list[str]:
    """The names of the images, with their folder, without their suffix."""
    text = (folder / "manifest.jsonl").read_text(encoding="utf-8")
    require("\n\n" not in text, "an empty line in manifest.jsonl")
    version, kind, *images = (json.loads(line) for line in text.splitlines())
    require(version.get("version") in ("1.0", "1.1"), f"version: {version}")
    require(kind == {"type": "images"}, f"type: {kind}")
    for image in images:
        name, suffix = image["name"], image["extension"]
        require(isinstance(name, str) and isinstance(suffix, str), f"name and extension: {image}")
        require(suffix.startswith(".") and not name.endswith(suffix), f"name and extension: {image}")
        require(all(isinstance(image[side], int) and image[side] > 0 for side in ("width", "height")), f"size: {image}")
        if (folder / "images").exists():
            require((folder / f"{name}{suffix}").is_file(), f"no such file: {name}{suffix}")
    return [image["name"] for image in images]


def _json(file: Path) -> Any:
    return json.loads(file.read_bytes())


def _request(body: Any, model: type[ModelNormal]) -> Any:
    """The body as the SDK's own type; the SDK takes keys that the server does not know, and here they are refused."""
    read = validate_and_convert_types(body, (model,), [model.__name__], True, True, Configuration())
    unknown = body.keys() - set(model.attribute_map.values())
    require(not unknown, f"{model.__name__}: unknown keys: {unknown}")
    return read
