"""Read clips as luma codes, and pass luma through H.264: all of the trainer that needs PyAV."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import av
import numpy as np

from streamderain.errors import OpenError
from trainer.data.pictures import Codes


def read_clip(path: Path, *, limit: int | None = None) -> Codes:
    """Decode a clip's luma as (frames, height, width) uint8 studio-range codes.

    Args:
        path: A video file of 8-bit planar YUV, limited range (the luma plane is taken as it is).
        limit: Most frames to read.

    Raises:
        OpenError: The file cannot be opened or holds no frame.
    """
    planes: list[Codes] = []
    try:
        with av.open(str(path)) as container:
            container.streams.video[0].thread_type = "AUTO"
            for frame in container.decode(video=0):
                planes.append(_luma_plane(frame))
                if limit is not None and len(planes) >= limit:
                    break
    except (av.error.FFmpegError, IndexError) as error:
        raise OpenError(f"{path} cannot be decoded ({error}); replace or remove it") from error
    if not planes:
        raise OpenError(f"{path} holds no video frame; replace or remove it")
    return np.stack(planes)


def _luma_plane(frame: av.VideoFrame) -> Codes:
    if not frame.format.name.startswith(("yuv4", "gray", "nv12")):
        frame = frame.reformat(format="yuv420p")
    plane = frame.planes[0]
    rows: Codes = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
    return np.array(rows[:, : plane.width])


def through_h264(frames: Codes, *, crf: int, preset: str = "veryfast") -> Codes:
    """Encode luma frames with x264 and decode them again: the codec's noise, as users' footage has it.

    Args:
        frames: (frames, height, width) uint8 luma; even height and width.
        crf: x264's quality, about 18 (fine) to 30 (coarse).
        preset: x264's speed.

    Returns:
        The decoded luma, same shape.
    """
    count, height, width = frames.shape
    target = BytesIO()
    with av.open(target, "w", format="matroska") as container:
        stream = container.add_stream("libx264", rate=30, options={"crf": str(crf), "preset": preset})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        chroma = np.full((height // 2, width), 128, np.uint8)
        for luma in frames:
            frame = av.VideoFrame.from_ndarray(np.concatenate([luma, chroma]), format="yuv420p")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    target.seek(0)
    with av.open(target, "r") as container:
        decoded = np.stack([_luma_plane(frame) for frame in container.decode(video=0)])
    assert decoded.shape == (count, height, width)
    return decoded
