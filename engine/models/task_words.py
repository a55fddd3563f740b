"""What a train manifest says of the task learner (T), for a person."""

from typing import Any

from engine.campaign.manifests import TrainManifest
from engine.config.texts import plural
from vaal.shares import wilson

MOST_CLASSES = 20
"""Classes that are named."""


def task_facts(manifest: TrainManifest) -> dict[str, Any]:
    """How good it is, by what, and what it is: values by a name in words. Empty without a task learner."""
    entry, config = manifest.get("task"), manifest["config"]
    if not entry:
        return {}
    facts: dict[str, Any] = {"task learner (T)": how_good(entry, config)}
    if classes := entry.get("classes"):
        names = ", ".join(classes[:MOST_CLASSES]) + (", …" if len(classes) > MOST_CLASSES else "")
        facts["its classes"] = f"{len(classes):,} ({names})"
    if steps := manifest["counts"].get("task_steps"):
        facts["its steps"] = steps
    if "temperature" in entry:
        by = "labels of control arms, held out" if entry["on_control_arm"] else "held-out labels"
        facts["its temperature"] = f"{entry['temperature']:.2f}, fitted to {entry['calibrated_on']:,} {by}"
    return facts


def task_in_short(entry: dict[str, Any]) -> str:
    """How good a task learner is, for a table. `entry` as in the manifest."""
    if "weights_sha256" in entry:
        return "your own model"
    if entry.get("held_out_miou") is not None:
        return f"T: mIoU {entry['held_out_miou']:.2f}"
    right = entry.get("held_out_accuracy")
    return "T: not judged" if right is None else f"T: {right:.0%} right"


def how_good(entry: dict[str, Any], config: Any) -> str:
    """How good a task learner is, with the interval of a share of images. `entry` and `config` as in the manifest."""
    if "weights_sha256" in entry:
        return f"your own, {config['task']['model']}; it was not judged here"
    right, count = entry.get("held_out_accuracy"), entry.get("held_out")
    if right is None:
        return "not judged, because no labelled image is held out"
    images = "held-out images" if count is None else f"{plural(count, 'held-out image')}"
    if entry.get("held_out_miou") is not None:
        return f"mIoU {entry['held_out_miou']:.2f} on {images}, right on {right:.0%} of their pixels"
    # Most labels of an image are easy: they say that a class is not there. Nor are they independent of each other.
    if config["train"]["task"] == "labels":
        return f"right on {right:.0%} of the labels of {images}"
    share = wilson(round(right * count), count).text if count else f"{right:.0%}"
    return f"right on {share} of {images}"
