"""Small tars for the tests of the reader."""

import io
import tarfile

from engine.config.input_options import ImageConfig
from engine.pool.items import read_items
from engine.pool.samples import Item
from engine.pool.tar import Archive

IMAGE = ImageConfig()
END = bytes(1024)
"""The two blocks of zeros after the last member."""
FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
VARIABLE = [(f"{i:03d}.{suffix}", bytes([i + 1]) * (100 + 300 * i)) for i in range(6) for suffix in ("jpg", "json")]
FIXED = [(f"{i}.png", bytes([i + 1]) * 512) for i in range(8)]
LONG_NAMES = [(f"{'folder/' * 30}{i}ü.JPG", b"x" * i) for i in range(3)]


def archive(members: list[tuple[str, bytes]], tar_format: int = tarfile.USTAR_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tar_format) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def header(name: str | bytes, size: int | bytes, kind: bytes = b"0") -> bytes:
    """A header whose checksum is right, whatever else is in it."""
    raw = bytearray(tarfile.TarInfo("x").tobuf(tarfile.USTAR_FORMAT))
    name = name.encode() if isinstance(name, str) else name
    raw[:100] = name.ljust(100, b"\0")
    raw[124:136] = b"%011o\0" % size if isinstance(size, int) else size.ljust(12, b"\0")
    raw[156:157] = kind
    return sealed(raw)


def sealed(raw: bytearray) -> bytes:
    """The header with the checksum that its other bytes have."""
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw)
    return bytes(raw)


def pax(records: bytes, kind: bytes = b"x") -> bytes:
    """An extended header with these records."""
    return header("PaxHeader", len(records), kind) + records + bytes(-len(records) % 512)


def record(key: str, value: str) -> bytes:
    """A PAX record, which begins with its own length."""
    rest = f" {key}={value}\n".encode()
    length = len(rest) + 1
    while len(str(length)) + len(rest) != length:
        length += 1
    return str(length).encode() + rest


def read(content: bytes, image: ImageConfig = IMAGE) -> list[Item]:
    """The items of a shard with this content."""
    return list(read_items(Archive(iter([content]), "shard.tar", len(content)), image))
