"""What a train manifest says of the task learner (T), for a person."""

from typing import Any

from engine.campaign.manifests import TrainManifest
from engine.config.texts import list_setting, plural
from vaal.proportions import wilson

MOST_CLASSES = 20
"""Classes that are named."""
LEAST_TO_JUDGE = 5
"""With so many labelled images, in as many groups, a task learner that trains here is judged: a fifth is held out."""
LEAST_ON_EMBEDDINGS = 3
"""As many as cross-validation has folds, for several labels an image; of classes it needs two images of each."""
CHECK = "T seems wrong: vaal train says why"
"""What a table says where `doubt_of` has more to say."""
TO_SET_IT = "to set these in this round, delete the manifest.json of its train folder first"
"""Options of task.model are too late once a round is trained."""


def task_facts(manifest: TrainManifest) -> dict[str, Any]:
    """How good it is, by what, and what it is: values by a name in words. Empty without a task learner."""
    entry = manifest.get("task")
    if not entry:
        return {}
    good = how_good(entry, manifest["config"], manifest["counts"].get("labelled"))
    facts: dict[str, Any] = {"task learner (T)": good}
    if doubt := doubt_of(entry):
        facts["check T"] = doubt
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
        return _own_in_short(entry)
    if entry.get("held_out_miou") is not None:
        return f"T: mIoU {entry['held_out_miou']:.2f}"
    right = entry.get("held_out_accuracy")
    return "T: not judged" if right is None else f"T: {right:.0%} right"


def doubt_of(entry: dict[str, Any]) -> str:
    """Why the user's own task learner may not be used as it was trained, with the likely causes; empty without doubt.
    `entry` as in the manifest."""
    right, most = entry.get("labelled_accuracy"), entry.get("most_frequent")
    # Of labels of one class no other answer can be told.
    if right is None or not most or most["share"] == 1:
        return ""
    if order := entry.get("other_order"):
        return f"its classes seem to be in another order: {list_setting('task.classes', order)}; {TO_SET_IT}"
    always = f"always answering {most['class']!r} ({most['share']:.0%})"
    if right <= most["share"]:
        causes = "task.classes in another order, another task.mean, task.std, task.size or task.order, or weights of"
        return f"T is no better than {always} on the labelled images; likely causes: {causes} another task; {TO_SET_IT}"
    if entry["labelled_interval"][0] <= most["share"]:
        return f"the labelled images are too few to show that T is better than {always}"
    return ""


def _own_in_short(entry: dict[str, Any]) -> str:
    right = entry.get("labelled_accuracy")
    if right is None:
        return "your own model"
    miou = f", mIoU {entry['labelled_miou']:.2f}" if "labelled_miou" in entry else ""
    found = f"your own model: {right:.0%} right{miou}"
    return f"{found}\n{CHECK}" if right <= entry["most_frequent"]["share"] < 1 or "other_order" in entry else found


def _own(entry: dict[str, Any], config: Any) -> str:
    """How good the user's own task learner is, on labels that it did not see here, by which measure."""
    named, right = f"your own, {config['task']['model']}", entry.get("labelled_accuracy")
    if right is None:
        why = entry.get("not_judged")
        return f"{named}; it was not judged here" + (f": {why}" if why else "")
    low, high = entry["labelled_interval"]
    images, share = plural(entry["labelled"], "labelled image"), f"{right:.0%} ({low:.0%} to {high:.0%})"
    if entry.get("labelled_miou") is not None:
        return f"{named}; mIoU {entry['labelled_miou']:.2f} on {images}, right on {share} of their pixels"
    if config["train"]["task"] == "labels":
        return f"{named}; its likeliest class is one of the image's in {share} of {images}"
    return f"{named}; right on {share} of {images}"


def _not_judged(config: Any, count: int | None, *, on_embeddings: bool) -> str:
    """Why a task learner that trains here was not judged, and how many labelled images that needs."""
    of = "" if count is None else f" of {plural(count, 'labelled image')}"
    if not on_embeddings:
        least = f"{LEAST_TO_JUDGE} or more are needed, in as many groups (pool.group)"
        return f"not judged, because none{of} is held out: {least}"
    if config["train"]["task"] == "labels":
        return f"not judged: cross-validation needs {LEAST_ON_EMBEDDINGS} labelled images or more"
    return "not judged: cross-validation needs two labelled images or more of each class"


def how_good(entry: dict[str, Any], config: Any, num_labelled: int | None) -> str:
    """How good a task learner is, with the interval of a share of images. `entry` and `config` as in the manifest."""
    if "weights_sha256" in entry:
        return _own(entry, config)
    right, count = entry.get("held_out_accuracy"), entry.get("held_out")
    if right is None:
        return _not_judged(config, num_labelled, on_embeddings=count is None)
    images = "held-out images" if count is None else f"{plural(count, 'held-out image')}"
    if entry.get("held_out_miou") is not None:
        return f"mIoU {entry['held_out_miou']:.2f} on {images}, right on {right:.0%} of their pixels"
    # Most labels of an image are easy: they say that a class is not there. Nor are they independent of each other.
    if config["train"]["task"] == "labels":
        return f"right on {right:.0%} of the labels of {images}"
    share = wilson(round(right * count), count).text if count else f"{right:.0%}"
    return f"right on {share} of {images}"
