"""Options of what goes in: the pool, and how its images are read."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from engine.config.section import SPEED, Section
from engine.config.texts import fault_of_group, fault_of_network

MEMBER = "member:"
"""pool.embeddings begins with it where it is the suffix of a file of each sample."""


class PoolConfig(Section):
    """The pool. Fixed at init, but for `root`, `follow`, `shared_ledger` and `embeddings`."""

    shards: list[str] = Field(default=[])
    """WebDataset tar shards: paths or URLs, with globs (*.tar) or brace ranges (train-{00000..00049}.tar)."""
    root: str = Field(default="", json_schema_extra=SPEED)
    """Path or URL of the folder that shard names are relative to. Empty at init: the deepest folder common to all
    shards, which is then written here. Can be set when the pool has moved: the shards are looked for there, and their
    hashes show that they are the same."""
    follow: bool = Field(default=False, json_schema_extra=SPEED)
    """Whether new shards that match the globs of the pool join it when a round begins. Without it they wait for
    vaal pool CAMPAIGN refresh, and vaal status says how many there are."""
    shared_ledger: str = Field(default="", json_schema_extra=SPEED)
    """Path or URL of a folder that several campaigns share. What one of them has out at a vendor, or has a label of, no
    other one picks or sends. Empty: none."""
    metadata: str = ""
    """CSV, JSON-lines or Parquet file with a row for every shard: a column `shard`, and columns to stratify or group
    by."""
    group: str = ""
    """Images that belong together, as frames of a clip do: a regular expression on the key, whose first group or else
    whole match names the clip; or column:NAME of pool.metadata. Images of one clip are judged by none that saw it."""
    embeddings: str = ""
    """Vectors of the images, made before: member:SUFFIX, a file of each sample (member:npy is KEY.npy beside KEY.jpg);
    or Parquet files with columns shard, key and embedding, as a path or URL with globs or brace ranges. Can be set
    until the networks are trained."""

    @model_validator(mode="after")
    def _embeddings_have_a_suffix(self) -> "PoolConfig":
        if self.embeddings.startswith(MEMBER) and not self.embeddings.removeprefix(MEMBER).strip("."):
            raise ValueError(f"pool.embeddings={self.embeddings} needs the suffix of the files, for example member:npy")
        return self

    @model_validator(mode="after")
    def _group_can_be_read(self) -> "PoolConfig":
        if fault := fault_of_group(self.group, self.metadata):
            raise ValueError(f"pool.group={self.group}{fault}")
        return self


class ImageConfig(Section):
    """How images are read, and what the networks see of them."""

    size: int = Field(default=32, ge=4, le=1024)
    """Side of the square that every image is resized to, in pixels; the aspect ratio is not kept."""
    channels: int = Field(default=3, ge=1, le=4)
    """1 greyscale, 2 greyscale and alpha, 3 RGB, 4 RGB and alpha."""
    max_pixels: int = Field(default=100_000_000, ge=1)
    """An image with more pixels is quarantined before it is decoded."""
    max_bytes: int = Field(default=64 << 20, ge=1)
    """A larger image file is quarantined without being read into memory."""
    suffixes: list[str] = Field(default=["jpg", "jpeg", "png", "webp"], min_length=1)
    """Suffixes of the image among a sample's files; case does not matter."""


class EncoderConfig(Section):
    """A frozen network that makes embeddings of the images while they are read, in place of pool.embeddings."""

    model: str = ""
    """package.module:factory, which returns a torch module from images to embeddings (batch, components). There are
    engine.models.adapters:torchvision_encoder and timm_encoder. Empty: none."""
    arguments: dict[str, str | int | float | bool] = Field(default={})
    """What the factory is called with, for example {name = "resnet50"}."""
    weights: str = ""
    """Path or URL of its weights, a safetensors file. Empty: those that the factory gives."""
    size: int = Field(default=224, ge=4, le=1024)
    """Side of the square that the encoder gets of every image, in pixels; in place of image.size."""
    mean: list[float] = Field(default=[0.485, 0.456, 0.406], min_length=1, max_length=4)
    """Subtracted from pixels between 0 and 1, a number for each channel; as many as image.channels."""
    std: list[Annotated[float, Field(gt=0)]] = Field(default=[0.229, 0.224, 0.225], min_length=1, max_length=4)
    """Pixels are then divided by it, a number for each channel."""
    order: Literal["rgb", "bgr"] = "rgb"
    """Order of the channels that the encoder, its mean and its std expect."""

    @model_validator(mode="after")
    def _fits_together(self) -> "EncoderConfig":
        if len(self.mean) != len(self.std):
            raise ValueError(f"encoder.std has {len(self.std)} numbers, encoder.mean {len(self.mean)}; give as many")
        if self.order == "bgr" and len(self.mean) != 3:
            raise ValueError(f"encoder.order=bgr is for 3 channels, encoder.mean has {len(self.mean)} numbers")
        if fault := fault_of_network("encoder", self.model, [self.weights]):
            raise ValueError(fault)
        return self
