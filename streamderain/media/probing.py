"""Probe FFmpeg's encoders and decoders, and count the packets of a file."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av

from streamderain.errors import ConfigError, EncodeError, OpenError
from streamderain.media.writing.codecs import EncoderSettings, pixel_formats
from streamderain.media.writing.roundtrip import SIDE_PX, SampleEncodes


def ffmpeg_version() -> str:
    """Return the version of the FFmpeg that PyAV brings."""
    return str(av.ffmpeg_version_info)


def encoder_fault(codec: str) -> str | None:
    """Encode a few small pictures.

    Args:
        codec: Name of an encoder, as FFmpeg calls it.

    Returns:
        Why it does not work; None where it does.
    """
    samples = SampleEncodes()
    try:
        formats = pixel_formats(codec)
        settings = EncoderSettings(
            codec,
            SIDE_PX,
            SIDE_PX,
            "yuv420p" if "yuv420p" in formats or not formats else formats[0],
            time_base=Fraction(1, 25),
            rate_fps=Fraction(25),
        )
        _, packets = samples.of(settings)
        return None if packets else "it gives no packets"
    except (ConfigError, EncodeError, av.error.FFmpegError, OSError, ValueError) as error:
        return str(error).partition(". ")[0]
    finally:
        samples.close()


def decoders(names: tuple[str, ...]) -> list[str]:
    """Return those of the named codecs that can be decoded."""
    return [name for name in names if _decodes(name)]


def _decodes(name: str) -> bool:
    try:
        av.Codec(name, "r")
    except ValueError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Packets:
    """What a file is made of.

    Attributes:
        key_bytes: Size of every key frame of the video streams.
        other_bytes: Size of every other video frame.
        copied_bytes: All packets of other streams.
        file_bytes: The whole file.
    """

    key_bytes: list[int]
    other_bytes: list[int]
    copied_bytes: int
    file_bytes: int


def packets_of(path: Path) -> Packets:
    """Count the packets of a file.

    Raises:
        OpenError: It cannot be read.
    """
    keys: list[int] = []
    others: list[int] = []
    copied = 0
    try:
        with av.open(str(path)) as container:
            for packet in container.demux():
                if packet.stream.type != "video":
                    copied += packet.size
                elif packet.size:
                    (keys if packet.is_keyframe else others).append(packet.size)
    except (av.error.FFmpegError, OSError) as error:
        raise OpenError(f"{path} cannot be read: {error}") from error
    return Packets(keys, others, copied, path.stat().st_size)
