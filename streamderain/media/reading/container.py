"""Open files, pipes and addresses, with a clear error for each thing that can be wrong with them."""

from __future__ import annotations

import errno
import os
import stat
import sys
import threading
from pathlib import Path
from typing import Any, BinaryIO, cast

import av
from av.codec.hwaccel import HWAccel
from av.container import Flags, InputContainer

from streamderain.addresses import STANDARD_INPUT, display_name, is_address
from streamderain.errors import DecodeError, MediaError, OpenError, UnsupportedFormat
from streamderain.media.network import (
    fault_words,
    network_fault,
    network_options,
    scheme_of,
    timeouts_s,
)
from streamderain.media.reading.ffmpeg_program import SCHEMES, FfmpegProgram
from streamderain.media.reading.pipe import Pipe
from streamderain.options import ReadOptions

_STANDARD_INPUT_DESCRIPTOR = 0

_PROMPT = {"probesize": "100000", "analyzeduration": "500000", "fpsprobesize": "0"}
"""How FFmpeg opens what the program sends: it named its streams, and more is only delay."""

_PROGRAM_BUFFER = 4096

_TEXT_FORMATS = {"tty", "bin", "xbin", "idf", "adf"}
_MOV = {".mp4", ".mov", ".m4v", ".3gp", ".qt"}
_TEXT_SHARE = 0.97
_DEFAULTS = ReadOptions()


def is_pipe(path: str) -> bool:
    """Return whether a source can be read only once, from front to back."""
    return path == STANDARD_INPUT and not _standard_input_is_a_file()


def open_container(path: str, pipe: Pipe | None = None, options: ReadOptions = _DEFAULTS) -> InputContainer:
    """Open a file, `-` for standard input, or a URL.

    Args:
        path: What is opened.
        pipe: Reads standard input where that is no file.
        options: How it is read.

    Raises:
        OpenError: It is not there, cannot be read, or is nothing that could be decoded; or the hardware that
            shall decode it is not there.
        Unreachable: An address does not answer, and may do so later.
        UnsupportedFormat: The hardware does not decode it.
    """
    name, hwaccel = display_name(path), options.hwaccel
    network = is_address(path)
    if path != STANDARD_INPUT and not network:
        check_file(path)
    program = isinstance(pipe, FfmpegProgram)
    try:
        target: Any = _target(path) if pipe is None else pipe
        container: InputContainer = av.open(
            target,
            options=_PROMPT if program else network_options(path, options) if network else {},
            timeout=timeouts_s(path) if network and not program else None,
            buffer_size=_PROGRAM_BUFFER if program else 32768,
            metadata_errors="replace",
            hwaccel=_hardware(hwaccel),
        )
    except RuntimeError as error:  # PyAV's own, of a stream that the hardware does not decode
        raise UnsupportedFormat(
            f"{name} holds video that --hwaccel {hwaccel} does not decode; leave --hwaccel out"
        ) from error
    except av.error.PermissionError as error:
        if hwaccel == "none":
            raise _explained(path, name, error, options) from (None if network else error)
        raise OpenError(
            f"{name} cannot be decoded by --hwaccel {hwaccel}: no NVIDIA GPU with a decoder answers "
            "here; leave --hwaccel out"
        ) from None
    except (av.error.FFmpegError, OSError) as error:
        if isinstance(pipe, FfmpegProgram):
            raise pipe.fault(path) from None
        # FFmpeg's own error holds the address with its password: nothing of it may show in a traceback.
        raise _explained(path, name, error, options) from (None if network else error)
    if container.format.name == "avi":
        # AVI stores no display times, and those that FFmpeg makes up for H.264 with B-frames are out of
        # order; without them each frame carries the time at which the decoder gave it, which is right.
        container.flags &= ~cast(int, Flags.gen_pts.value)
    if container.format.name in _TEXT_FORMATS:
        container.close()
        raise OpenError(f"{name} is text, not a video or a picture")
    return container


def _hardware(hwaccel: str) -> HWAccel | None:
    return None if hwaccel == "none" else HWAccel(hwaccel, allow_software_fallback=False)


def pipe_of(path: str, stop: threading.Event) -> Pipe | None:
    """Return what reads a source that is a pipe, or that a program reads; None for others.

    See `Pipe` for `stop`.

    Raises:
        OpenError: The program is missing.
    """
    if scheme_of(path) in SCHEMES:
        return FfmpegProgram(path, stop)
    return Pipe(_STANDARD_INPUT_DESCRIPTOR, stop) if is_pipe(path) else None


def check_file(path: str) -> None:
    """Look at a path before FFmpeg does, which blocks on a FIFO and say little about the rest.

    Raises:
        OpenError: Nothing there, a folder, a device, a FIFO, empty, or not readable.
    """
    try:
        found = Path(path).stat()
    except PermissionError as error:
        raise OpenError(f"{path} is in a folder that may not be read; check its permissions") from error
    except OSError as error:
        if error.errno == errno.ENOENT and Path(path).is_symlink():
            raise OpenError(f"{path} is a link to {Path(path).readlink()}, which is not there") from error
        raise OpenError(f"{path} is not there; check the name (now in {Path.cwd()})") from error
    if stat.S_ISDIR(found.st_mode):
        raise OpenError(f"{path} is a folder; name a file, or give the folder as the source of a run")
    if stat.S_ISFIFO(found.st_mode):
        raise OpenError(f"{path} is a FIFO; pass it to standard input: streamderain run - < {path}")
    if not stat.S_ISREG(found.st_mode):
        raise OpenError(f"{path} is a device or socket, not a file")
    if found.st_size == 0:
        raise OpenError(f"{path} is empty (0 bytes); the recording or download never began")
    if not os.access(path, os.R_OK):
        raise OpenError(f"{path} may not be read by this user; check its permissions")


def nothing_decoded(path: str, container: InputContainer, *, encrypted: bool) -> MediaError:
    """Return the error for a source that opened but gave no picture."""
    name = display_name(path)
    if encrypted:
        return UnsupportedFormat(f"{name} is encrypted (DRM); streamderain needs an unprotected copy")
    if is_pipe(path) and "mp4" in container.format.name:
        return OpenError(_pipe_needs_index(name))
    if not any(stream.codec_context for stream in container.streams.video):
        return UnsupportedFormat(f"{name} holds video in a codec that FFmpeg has no decoder for")
    if container.format.name == "webp_pipe":
        return UnsupportedFormat(
            f"{name} cannot be decoded: it is damaged, or an animated WebP, which FFmpeg does not read. "
            "Convert an animation to GIF, APNG or a video first"
        )
    codecs = ", ".join(sorted({s.codec_context.name for s in container.streams.video if s.codec_context}))
    return DecodeError(
        f"{name} opened as {container.format.name}, but no picture of it can be decoded "
        f"({codecs or 'unknown codec'}). The file is damaged or ends before its first whole picture; "
        "copy it again from the recorder, or repair it"
    )


def no_video(path: str, container: InputContainer) -> OpenError:
    """Return the error for a source without a video stream."""
    name = display_name(path)
    if container.streams.video:
        return OpenError(f"{name} has sound and a cover picture, but no video")
    if container.streams.audio:
        return OpenError(f"{name} has sound but no video")
    if len(container.streams) == 0:
        return OpenError(f"{name} holds no streams at all; its recording never began")
    return OpenError(f"{name} has no video stream")


def _target(path: str) -> str:
    if path == STANDARD_INPUT:
        return "file:/dev/stdin"
    return path if is_address(path) else f"file:{path}"  # the prefix keeps "12:30.mp4" from being a protocol


def _standard_input_is_a_file() -> bool:
    """Return whether standard input was redirected from a file, which can then be sought in."""
    try:
        return stat.S_ISREG(os.fstat(sys.__stdin__.fileno()).st_mode) if sys.__stdin__ else False
    except (OSError, ValueError):
        return False


def _explained(path: str, name: str, error: Exception, options: ReadOptions) -> OpenError:
    """Return what is wrong with a source that FFmpeg did not open."""
    if is_address(path):
        return network_fault(path, error, fault_words(error), verified=options.tls_verify)
    if isinstance(error, PermissionError):
        return OpenError(f"{name} may not be read by this user; check its permissions")
    if is_pipe(path):
        return OpenError(
            f"{name} brings nothing that can be read as video ({fault_words(error)}). "
            f"{_pipe_needs_index(name)}"
        )
    target = Path("/dev/stdin" if path == STANDARD_INPUT else path)
    with target.open("rb") as file:
        head = file.read(4096)
        if _is_text(head):
            return OpenError(f"{name} is text, not a video or a picture")
        if _is_mov(head, target):
            return OpenError(_mov_trouble(name, file))
    return OpenError(
        f"{name} is not a video or picture of any known kind ({fault_words(error)}). "
        "Check that it was copied completely and is what its name says"
    )


def _pipe_needs_index(name: str) -> str:
    return (
        f"An mp4 or mov whose index lies at its end cannot be read from {name}: save it to a file first, "
        "or pipe Matroska, MPEG-TS or an mp4 made with -movflags +faststart"
    )


def _is_mov(head: bytes, path: Path) -> bool:
    return head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free") or (
        path.suffix.lower() in _MOV and head[4:8].isalpha()
    )


def _mov_trouble(name: str, file: BinaryIO) -> str:
    names, _ = mov_atoms(file)
    if b"moov" in names:
        return f"{name} is an mp4 or mov whose index (moov) is broken; repair it, or copy it again"
    return (
        f"{name} is an mp4 or mov without its index (moov): the recording was not finished, or the file was "
        "not copied to its end. Copy it again; a recovery tool such as untrunc can often rebuild the index"
    )


def mov_atoms(file: BinaryIO) -> tuple[list[bytes], bool]:
    """Return the names of the whole top-level atoms of an mp4, and whether the last one is cut off."""
    end = file.seek(0, os.SEEK_END)
    names: list[bytes] = []
    position = 0
    while position + 8 <= end and len(names) < 100_000:
        file.seek(position)
        header = file.read(16)
        size = int.from_bytes(header[:4], "big")
        if size == 1:
            size = int.from_bytes(header[8:16], "big")
        if size < 8 or position + size > end:  # a size of 0 means: to the end
            return names, size >= 8
        names.append(header[4:8])
        position += size
    return names, position < end


def _is_text(head: bytes) -> bool:
    printable = sum(byte >= 32 or byte in (9, 10, 13) for byte in head)
    return b"\0" not in head and printable >= _TEXT_SHARE * len(head)
