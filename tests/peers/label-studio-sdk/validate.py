"""Label Studio's SDK parses the labelling configuration and validates tasks and predictions."""

import json
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from label_studio_sdk.label_interface import LabelInterface
from validate import require, require_images

TASK_KEYS = {"data", "predictions"}
LOCAL = "/data/local-files/"


def check(folder: Path) -> None:
    config = LabelInterface((folder / "labeling_config.xml").read_text(encoding="utf-8"))
    config.validate()
    require(config.controls, "the configuration asks nothing")
    tasks = [task for file in sorted(folder.glob("tasks*.json")) for task in json.loads(file.read_bytes())]
    for task in tasks:
        require(task.keys() <= TASK_KEYS, f"unknown keys: {task.keys() - TASK_KEYS}")
        # The SDK's check of a whole task fails on any that has predictions.
        require(config.validate_task({"data": task["data"]}), f"not all that the configuration shows: {task['data']}")
        for prediction in task.get("predictions", []):
            errors = config.validate_prediction(prediction, return_errors=True)
            require(not errors, f"prediction: {errors}")
        link = urlsplit(task["data"]["image"])
        if link.path == LOCAL:
            (path,) = parse_qs(link.query)["d"]
            require((folder / path).is_file(), f"no such file: {path}")
        else:
            require(link.scheme in ("http", "https", "s3", "gs"), f"no link: {task['data']['image']}")
    require_images(folder, (task["data"]["item_id"] for task in tasks))
