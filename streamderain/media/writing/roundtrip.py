"""Write a small sample in memory and read it back, to learn which tags and times a container keeps.

No table says it as surely: which tags survive depends on the container, on the codec and on both together.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.container import InputContainer, OutputContainer
from av.sidedata.sidedata import Type as SideType
from av.video.reformatter import ColorRange

from streamderain.errors import EncodeError
from streamderain.media.pixels import UNSPECIFIED
from streamderain.media.side_data import side_data
from streamderain.media.writing.codecs import Colour, EncoderSettings, open_encoder
from streamderain.media.writing.stream_copy import CopiedStream
from streamderain.media.writing.timestamps import times_restored

SIDE_PX = 256
"""Width and height of the rehearsed pictures; nothing looked at depends on them, hardware wants so many."""


@dataclass(frozen=True)
class Lost:
    """What does not come back.

    Attributes:
        display_matrix: Rotation or mirroring.
        aspect: Sample aspect ratio.
        colour: Colour tags.
        full_range: The tag that says full range, without which players stretch the picture.
        late_s: Seconds by which times move (B-frames need room where times cannot be negative).
        metadata: Names of global tags.
        chapters: Chapters.
    """

    display_matrix: bool = False
    aspect: bool = False
    colour: bool = False
    full_range: bool = False
    late_s: Fraction = Fraction(0)
    metadata: tuple[str, ...] = ()
    chapters: bool = False

    def words(self) -> list[str]:
        """Return warnings, one for each loss."""
        said = []
        if self.display_matrix:
            said.append("the rotation of the picture is lost")
        if self.aspect:
            said.append("the sample aspect ratio is lost")
        if self.colour:
            said.append("colour tags (matrix, range, primaries or transfer) are lost")
        if self.metadata:
            said.append(f"these tags of the file are lost: {', '.join(self.metadata)}")
        if self.chapters:
            said.append("chapters are lost")
        return said


class SampleEncodes:
    """A few small encoded pictures for each encoder settings, made once; close it after use."""

    def __init__(self) -> None:
        self._made: dict[EncoderSettings, tuple[av.VideoStream, list[av.Packet[Any]]]] = {}

    def of(self, settings: EncoderSettings) -> tuple[av.VideoStream, list[av.Packet[Any]]]:
        """Return the stream of an encoder opened with these settings at a small size, and its packets.

        Raises:
            ConfigError: An option of the user's is refused.
            EncodeError: The encoder does not open.
        """
        small = replace(settings, width=SIDE_PX, height=SIDE_PX)
        if small not in self._made:
            host = open_encoder(small)
            try:
                self._made[small] = host, _sample_packets(host, small)
            except BaseException:
                host.container.close()
                raise
        return self._made[small]

    def close(self) -> None:
        """Close the encoders. Idempotent."""
        while self._made:
            _, (host, packets) = self._made.popitem()
            packets.clear()
            host.container.close()


def round_trip(
    settings: EncoderSettings,
    muxer: str,
    *,
    samples: SampleEncodes,
    options: Mapping[str, str],
    matrix: Sequence[int] | None,
    metadata: Mapping[str, str],
    chapters: bool,
    sounds: Sequence[tuple[CopiedStream, av.Packet[Any]]] = (),
) -> Lost:
    """Write a few small pictures with these settings and tags, and read them back.

    Args:
        settings: Of the encoder.
        muxer: FFmpeg's name of the container format.
        samples: Makes the pictures.
        options: Muxer options.
        matrix: Display matrix, nine numbers; None for none.
        metadata: Global tags.
        chapters: Whether the source has chapters.
        sounds: Copied audio streams with the first packet of each, which may lie before zero.

    Returns:
        What is lost. Nothing where the rehearsal itself fails: the real start tells why.
    """
    small = replace(settings, width=SIDE_PX, height=SIDE_PX)
    data = io.BytesIO()
    container = av.open(data, "w", format=muxer, container_options=dict(options))
    try:
        container.metadata.update(metadata)
        if chapters:
            container.set_chapters([_chapter()])
        _write(container, samples.of(small), small.time_base, matrix=matrix, sounds=sounds)
        container.close()
        data.seek(0)
        return _compared(data, small, matrix=matrix, metadata=metadata, chapters=chapters)
    except (av.error.FFmpegError, OSError, ValueError, IndexError, StopIteration, EncodeError):
        return Lost()
    finally:
        data.close()  # Whatever happened, no trailer is written now.
        container.close()


def is_found_again(
    copied_stream: CopiedStream,
    muxer: str,
    settings: EncoderSettings,
    *,
    packet: av.Packet[Any] | None,
    samples: SampleEncodes,
    options: Mapping[str, str],
) -> bool:
    """Return whether a reader finds a copied stream again: some muxers take what nobody can read of them.

    Args:
        copied_stream: The stream, as the target would hold it.
        muxer: FFmpeg's name of the container format.
        settings: Of an encoder whose pictures are written beside it.
        packet: Its first packet, for formats that tell of a stream by its packets alone; None for none.
        samples: Makes the pictures.
        options: Muxer options.
    """
    data = io.BytesIO()
    container = av.open(data, "w", format=muxer, container_options=dict(options))
    try:
        _write(
            container, samples.of(settings), settings.time_base, matrix=None, sounds=[(copied_stream, packet)]
        )
        container.close()
        data.seek(0)
        with av.open(data) as written:
            return any(stream.type == copied_stream.source.type for stream in written.streams)
    except (av.error.FFmpegError, OSError, ValueError, EncodeError):
        return True  # the trial failed, not the stream: the real start tells why
    finally:
        data.close()
        container.close()


def _write(
    container: OutputContainer,
    sample: tuple[av.VideoStream, list[av.Packet[Any]]],
    time_base: Fraction,
    *,
    matrix: Sequence[int] | None,
    sounds: Sequence[tuple[CopiedStream, av.Packet[Any] | None]] = (),
) -> None:
    host, packets = sample
    stream = container.add_stream_from_template(host, opaque=True)
    stream.time_base = time_base
    if matrix is not None:
        stream.set_display_matrix(matrix)
    boarding = [(copied_stream, copied_stream.add_to(container), packet) for copied_stream, packet in sounds]
    container.start_encoding()
    boarded = [
        (place, written)
        for copied_stream, place, packet in boarding
        for written in (copied_stream.packets(packet) if packet is not None else ())
    ]
    for place, packet in [*boarded, *((stream, packet) for packet in packets)]:
        # What a filter made belongs to no stream yet, and is used once.
        with times_restored(packet) if packet.stream is not None else contextlib.nullcontext():
            packet.stream = place
            container.mux(packet)


def _chapter() -> Any:
    return {"id": 1, "start": 0, "end": 40, "time_base": Fraction(1, 1000), "metadata": {"title": "one"}}


def _sample_packets(host: av.VideoStream, settings: EncoderSettings) -> list[av.Packet[Any]]:
    """Return three small pictures of noise through an open encoder."""
    packets: list[av.Packet[Any]] = []
    step = max(1, round(1 / settings.rate_fps / settings.time_base))
    for number in range(3):
        picture = _noise(settings.pix_fmt, number)
        picture.colorspace, picture.color_range = settings.colour.matrix, settings.colour.range
        picture.color_primaries, picture.color_trc = settings.colour.primaries, settings.colour.transfer
        picture.time_base = settings.time_base
        picture.pts = number * step
        packets += host.codec_context.encode(picture)
    packets += host.codec_context.encode(None)
    for packet in packets:
        packet.stream = host
    return packets


def _noise(pix_fmt: str, seed: int) -> av.VideoFrame:
    """Return a picture of noise: blank ones compress to so little that MPEG-TS is not recognised again."""
    picture = av.VideoFrame(SIDE_PX, SIDE_PX, pix_fmt)
    bits = max(component.bits for component in picture.format.components)
    dtype = np.uint8 if bits <= 8 else np.uint16
    random = np.random.default_rng(seed)
    for plane in picture.planes:
        count = plane.buffer_size // np.dtype(dtype).itemsize
        plane.update(random.integers(0, 1 << min(bits, 16), count, dtype=dtype).tobytes())
    return picture


def _compared(
    data: io.BytesIO,
    settings: EncoderSettings,
    *,
    matrix: Sequence[int] | None,
    metadata: Mapping[str, str],
    chapters: bool,
) -> Lost:
    container = av.open(data)
    assert isinstance(container, InputContainer)
    with container:
        stream = container.streams.video[0]
        kept = {name.lower() for name in container.metadata}
        aspect = stream.sample_aspect_ratio
        frame = next(container.decode(stream))
        start = (frame.pts or 0) * (stream.time_base or Fraction(0))
        turned = SideType.DISPLAYMATRIX in side_data(frame)
        chaptered = len(container.chapters())
        context = stream.codec_context
        got = Colour(context.colorspace, context.color_range, context.color_primaries, context.color_trc)
    return Lost(
        display_matrix=matrix is not None and not turned,
        aspect=settings.aspect not in (None, 1) and aspect != settings.aspect,
        colour=_differs(settings.colour, got),
        full_range=settings.colour.range == ColorRange.JPEG and got.range != ColorRange.JPEG,
        late_s=start,
        metadata=tuple(name for name in metadata if name.lower() not in kept),
        chapters=chapters and not chaptered,
    )


def _differs(wanted: Colour, got: Colour) -> bool:
    """Return whether a tag that says something came back as another or not at all."""
    pairs = ((wanted.matrix, got.matrix), (wanted.primaries, got.primaries), (wanted.transfer, got.transfer))
    tagged = any(want != have for want, have in pairs if want != UNSPECIFIED)
    return tagged or (wanted.range == ColorRange.JPEG and got.range != ColorRange.JPEG)
