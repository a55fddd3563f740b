"""Frames of videos that the test encodes itself: one a multiple of the interval, grouped by their video."""

import io
import re
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from engine.errors import InputError
from engine.packing import videos
from engine.pool.identity import Groups
from tests.packed import every_member, failures, members, packed

FPS = 10


def encode(file: Path, seconds: float, size: int = 32) -> None:
    """A clip whose frames grow brighter: 2 grey levels a frame."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(file), "w") as video:
        stream = video.add_stream("mpeg4", rate=FPS)
        stream.width = stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.bit_rate = 4_000_000
        stream.codec_context.gop_size = 12
        for number in range(round(seconds * FPS)):
            pixels = np.full((size, size, 3), 2 * number, np.uint8)
            video.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        video.mux(stream.encode())


def level(data: bytes) -> float:
    return float(np.asarray(Image.open(io.BytesIO(data))).mean())


@pytest.mark.parametrize("run_frames", [1000, 4])
def test_a_frame_of_each_interval_is_packed(run_frames: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a video is packed in runs, each of which begins at a key frame before it."""
    monkeypatch.setattr(videos, "RUN_FRAMES", run_frames)
    encode(tmp_path / "in/day 1/cam.a.mp4", 5.0)
    encode(tmp_path / "in/b7.mkv", 0.6)
    (tmp_path / "in/notes.txt").write_text("")
    found, _ = packed(tmp_path / "in", tmp_path / "pool", every=0.5, shard_images=5)
    assert found.skipped == {".txt": 1}
    frames = every_member(tmp_path / "pool")
    names = [f"b7-{n:08d}.jpg" for n in (0, 500)] + [f"day 1/cam_a-{500 * n:08d}.jpg" for n in range(10)]
    assert list(frames) == names
    assert found.images == len(names)
    # The codec loses a little.
    expected = [2.0 * FPS * 0.5 * n for n in (0, 1, *range(10))]
    assert np.abs(np.array([level(data) for data in frames.values()]) - expected).max() < 4
    assert len(members(tmp_path / "pool")) == (3 if run_frames == 1000 else 4)
    groups = Groups(videos.GROUP)
    assert {groups.of("", name.removesuffix(".jpg")) for name in frames} == {"b7-", "day 1/cam_a-"}
    encode(tmp_path / "in/c.mp4", 0.3)
    found, _ = packed(tmp_path / "in", tmp_path / "pool", every=0.5, shard_images=5)
    assert (found.images, len(found.shards)) == (1, 1)


def test_a_video_that_ends_in_an_error_is_a_failure(tmp_path: Path) -> None:
    encode(tmp_path / "in/good.mp4", 1.0)
    (tmp_path / "in/text.mp4").write_bytes(b"no video" * 100)
    found, contents = packed(tmp_path / "in", tmp_path / "pool", every=1.0)
    assert (found.images, failures(tmp_path / "pool")) == (1, {"text.mp4": "BadVideo"})
    assert re.search("after 0 frames", contents.examples["BadVideo"][0])


def test_one_video_is_a_source_and_a_folder_without_any_is_refused(tmp_path: Path) -> None:
    encode(tmp_path / "clip.mp4", 1.0)
    found, _ = packed(tmp_path / "clip.mp4", tmp_path / "pool", every=0.25)
    assert list(every_member(tmp_path / "pool")) == [f"clip-{n:08d}.jpg" for n in (0, 250, 500, 750)][: found.images]
    assert found.images >= 3
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.jpg").write_bytes(b"x")
    with pytest.raises(InputError, match=r"no videos in it, but 1 x \.jpg"):
        packed(tmp_path / "in", tmp_path / "second", every=1.0)
