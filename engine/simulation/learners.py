"""The task models whose accuracy is measured: one row each.

To add one, add a function, or a network of `pixel_learners`, and a row.
"""

from typing import NamedTuple

NEEDS = {
    "vectors": "pool.embeddings: it sees embeddings",
    "pixels": "pool.shards: it sees pixels",
    "masks": "masks of pool.shards: train.task = segmentation and labels.masks = member:SUFFIX in [campaign]",
}
"""What an experiment must have for a task model, by what it sees."""
STRONG = "strong"


class Learner(NamedTuple):
    """A task model.

    Args:
        function: "module:name". One of vectors is called with train (N, D), its classes (N,), test (M, D), the number
            of classes and a seed, and returns classes (M,). One of pixels or masks is made as a network by image size,
            channels and number of classes.
        sees: vectors, pixels, or masks: pixels, with a class for each.
        words: its name for a reader.
        recipe: a row of `recipes.RECIPES`, how the network is trained; it may be trained as STRONG instead.
    """

    function: str
    sees: str
    words: str
    recipe: str = ""


LEARNERS = {
    "linear": Learner("engine.simulation.vector_learners:linear", "vectors", "linear head"),
    "mlp": Learner("engine.simulation.vector_learners:mlp", "vectors", "small network"),
    "knn": Learner("engine.simulation.vector_learners:knn", "vectors", "5 nearest neighbours"),
    "small": Learner("engine.simulation.learner_networks:small", "pixels", "network on pixels", "small"),
    "resnet18": Learner("engine.simulation.learner_networks:resnet18", "pixels", "ResNet-18", "paper"),
    "vgg16_bn": Learner("engine.simulation.learner_networks:vgg16_bn", "pixels", "VGG16 with BatchNorm", "paper"),
    "unet": Learner("engine.simulation.learner_networks:unet", "masks", "small U-Net", "masks"),
    "dilated_resnet": Learner(
        "engine.simulation.learner_networks:dilated_resnet", "masks", "dilated ResNet-50", "paper_masks"
    ),
}


def learner_of(task: str) -> Learner:
    """The row of a task model, with +strong behind its name or without."""
    name, _, recipe = task.partition("+")
    row = LEARNERS[name]
    return row._replace(recipe=recipe, words=f"{row.words}, strong recipe") if recipe else row


def fault_of(task: str) -> str:
    """Why this is no task model; empty for one."""
    name, _, recipe = task.partition("+")
    if name not in LEARNERS:
        return f"{task!r} is none of {', '.join(LEARNERS)}"
    if task != name and (recipe != STRONG or not LEARNERS[name].recipe):
        return f"{task!r}: behind + there is only {STRONG}, for networks on pixels; give {name}"
    return ""
