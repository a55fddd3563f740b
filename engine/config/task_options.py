"""Options of a task learner that the user brings."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from engine.config.section import Section
from engine.config.texts import fault_of_network


class TaskConfig(Section):
    """A trained network of your own that solves the task, in place of one that is trained here. Scores of uncertainty,
    such as margin, are by it. On pixels alone."""

    model: str = ""
    """package.module:factory, which returns a torch module with features(images) and head(features). There are
    engine.models.adapters:torchvision_classifier, torchvision_segmentation and timm_classifier. Empty: none."""
    arguments: dict[str, str | int | float | bool] = Field(default={})
    """What the factory is called with, for example {name = "resnet50", num_classes = 10}."""
    weights: str | list[str] = ""
    """Path or URL of its weights, a safetensors file; or a list of them, of networks that were trained apart: a
    committee, whose first member gives all other scores. Empty: those that the factory gives."""
    classes: list[str] = Field(default=[])
    """The names of the classes in the order of its outputs. Empty: those of the labels, sorted."""
    size: Literal[0] | Annotated[int, Field(ge=4, le=1024)] = 0
    """Side of the square that it gets of every image, in pixels; 0 is image.size."""
    mean: list[float] = Field(default=[0.5], min_length=1, max_length=4)
    """Subtracted from pixels between 0 and 1: a number for each channel, or one for all."""
    std: list[Annotated[float, Field(gt=0)]] = Field(default=[0.5], min_length=1, max_length=4)
    """Pixels are then divided by it: as many numbers as mean has."""
    order: Literal["rgb", "bgr"] = "rgb"
    """Order of the channels that the network, its mean and its std expect."""

    @property
    def files(self) -> list[str]:
        """The files of weights, of T first; empty where the factory gives them."""
        return [file for file in ([self.weights] if isinstance(self.weights, str) else self.weights) if file]

    @model_validator(mode="after")
    def _fits_together(self) -> "TaskConfig":
        if len(self.mean) != len(self.std):
            raise ValueError(f"task.std has {len(self.std)} numbers, task.mean {len(self.mean)}; give as many")
        if fault := fault_of_network("task", self.model, self.files):
            raise ValueError(fault)
        if twice := [name for name in self.classes if self.classes.count(name) > 1]:
            raise ValueError(f"task.classes names {twice[0]} twice; name each output once, in their order")
        return self

    def fault_with(self, num_channels: int) -> str:
        """Why the network cannot see images of so many channels; empty where it can."""
        if not self.model:
            return ""
        if len(self.mean) not in (1, num_channels):
            numbers = f"task.mean has {len(self.mean)} numbers, image.channels={num_channels}"
            return f"{numbers}; give one for each channel, or one for all"
        if self.order == "bgr" and num_channels != 3:
            return f"task.order=bgr is for 3 channels, image.channels={num_channels}"
        return ""
