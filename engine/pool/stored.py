"""The size of an image as it is stored in its file, and which way up it is shown."""

from typing import Any, NamedTuple

import simplejpeg
from PIL.ExifTags import Base

from engine.config.input_options import ImageConfig
from engine.errors import one_line
from engine.pool.images import DecodeError, jpeg_orientation, jpeg_segments, opened_header
from engine.pool.orientation import swaps_sides


class Stored(NamedTuple):
    """Sides in pixels, and the EXIF orientation, which may be anything."""

    height: int
    width: int
    orientation: Any

    @property
    def shown(self) -> tuple[int, int]:
        """Height and width as the image is shown, upright."""
        return (self.width, self.height) if swaps_sides(self.orientation) else (self.height, self.width)


def stored_as(data: bytes, image: ImageConfig) -> Stored:
    """The size and orientation of an image that `engine.pool.images.decode` can read. Raises DecodeError for others."""
    try:
        segments = jpeg_segments(data) if data.startswith(b"\xff\xd8\xff") else []
        if segments:
            height, width, *_ = simplejpeg.decode_jpeg_header(data, strict=False)
            return Stored(height, width, jpeg_orientation(data, segments))
        header = opened_header(data, image)
        # Pillow turns TIFF files itself, while it reads them.
        header.load()
        return Stored(header.height, header.width, header.getexif().get(Base.Orientation))
    except (DecodeError, MemoryError):
        raise
    except Exception as error:
        # libjpeg and Pillow raise many.
        raise DecodeError(one_line(error) or type(error).__name__) from error
