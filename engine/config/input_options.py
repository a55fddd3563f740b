"""Options of what goes in: the pool, and how its images are read."""

from typing import Literal

from pydantic import Field, model_validator

from engine.config.section import SPEED, Section
from engine.config.texts import fault_of_group

MEMBER = "member:"
"""What begins `pool.embeddings` where they are files of the samples."""


class PoolConfig(Section):
    """The pool. Fixed at init, but for `root`."""

    shards: list[str] = Field(default=[])
    """WebDataset tar shards: paths or URLs, with globs (*.tar) or brace ranges (train-{00000..00049}.tar)."""
    root: str = Field(default="", json_schema_extra=SPEED)
    """Path or URL of the folder that shard names are relative to. Empty: the deepest folder common to all shards. Can
    be set when the pool has moved: the shards are looked for there, and their hashes show that they are the same."""
    metadata: str = ""
    """CSV, JSON-lines or Parquet file with a row for every shard: a column `shard`, and columns to stratify or group
    by."""
    group: str = ""
    """Images that belong together, as frames of a clip do: a regular expression on the key, whose first group or else
    whole match names the clip; or column:NAME of pool.metadata. Images of one clip are judged by none that saw it."""

    embeddings: str = ""
    """Embeddings that the networks see instead of pixels: member:npy (a NumPy file of each sample, by its suffix), or a
    path, URL or glob of Parquet files with the columns shard, key and embedding. Can also be set later."""

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
    """A frozen network that computes embeddings while the pool streams by."""

    model: str = ""
    """package.module:factory of the encoder, for example vaal.encoders:torchvision_encoder. Empty: none."""
    arguments: dict[str, str | int | float | bool] = Field(default={})
    """Keyword arguments of the factory."""
    weights: str = ""
    """Path or URL of the encoder's weights, a safetensors file. Empty: as the factory makes them."""
    size: int = Field(default=224, ge=4, le=1024)
    """Side of the square that every image is resized to for the encoder, in pixels."""
    mean: list[float] = Field(default=[0.485, 0.456, 0.406])
    """Of each channel, of pixels from 0 to 1; it is subtracted. The default is ImageNet's."""
    std: list[float] = Field(default=[0.229, 0.224, 0.225])
    """Of each channel, of pixels from 0 to 1; it divides. The default is ImageNet's."""
    channel_order: Literal["rgb", "bgr"] = "rgb"
    """Order of the channels that the encoder expects."""
