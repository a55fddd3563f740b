"""What a task learner of masks asks for that is not there."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from engine.config.input_options import MEMBER
from engine.config.train_options import MASK_NETWORKS

if TYPE_CHECKING:
    from engine.config.options import CampaignConfig


def faults_of_masks(config: "CampaignConfig") -> Iterator[str]:
    """Why masks cannot be learned as a configuration asks, or by its network."""
    task, network, learns = config.train.task, config.train.task_network, config.task_kind == "segmentation"
    if network != "auto" and config.has_task and (network in MASK_NETWORKS) != learns:
        fix = "use auto, unet or lraspp" if learns else "it learns masks: use auto, small, resnet18 or vgg16_bn"
        yield f"train.task_network={network} is not for train.task={task}; {fix}"
    if not learns:
        return
    if config.sees_embeddings:
        yield "train.task=segmentation learns from pixels; --set train.input=pixels"
    if len(config.mask_classes) < 2:
        why = "train.task=segmentation needs the names of two classes or more, in the order of their ids in masks"
        yield f"""{why}: --set 'handoff.question={{task = "mask", classes = ["road", "sky"]}}'"""
    suffix = config.labels.masks.removeprefix(MEMBER).lower().removeprefix(".")
    if config.labels.masks.startswith(MEMBER) and suffix in map(str.lower, config.image.suffixes):
        yield f"labels.masks={config.labels.masks}: .{suffix} are the images (image.suffixes)"
