"""Writes a source to targets as the pipeline does, in one thread, with a known change to every picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from streamderain.frame import Frame, Planes
from streamderain.media.reading.sources import find_sources, open_source
from streamderain.media.writing.outputs import MediaOutput, open_outputs
from streamderain.media.writing.target import check_targets
from streamderain.options import EncodeOptions, ReadOptions

Change = Callable[[Frame], Planes | None]


def untouched(frame: Frame) -> Planes | None:
    """Passes the frame through."""
    return None


def luma_inverted(frame: Frame) -> Planes | None:
    """Gives the luma plane upside down in value: 255 - y at 8 bits."""
    luma = frame.planes[0]
    return (np.ascontiguousarray(luma.max() - luma + luma.min()),)


def same_luma(frame: Frame) -> Planes | None:
    """Gives the luma plane as it is, through the path that writes planes."""
    return (np.ascontiguousarray(frame.planes[0]),)


def write_through(
    source: Path,
    *targets: Path | str,
    change: Change = same_luma,
    read: ReadOptions | None = None,
    **options: Any,
) -> list[str]:
    """Copies a source to targets through encoders and outlets.

    Returns:
        The warnings said before work.
    """
    encode = EncodeOptions(**options)
    names = [str(target) for target in targets]
    spec = find_sources(str(source), read or ReadOptions())[0]
    check_targets([str(path) for path in spec.paths], names, encode)
    opened = open_source(spec, read or ReadOptions())
    try:
        outputs, warnings = open_outputs(opened, names, encode)
        drive(opened, outputs, change)
    finally:
        opened.close()
    return warnings


def drive(source: Any, outputs: Sequence[MediaOutput], change: Change = same_luma) -> None:
    """Runs an open source through open outputs; on an error the outputs are aborted."""
    outlets = [outlet for output in outputs for outlet in output.outlets]

    def copy(packet: Any) -> None:
        for outlet in outlets:
            outlet.copy(packet)

    try:
        for frame in source.frames(copy):
            if not frame.emit:
                continue
            planes = change(frame)
            for output in outputs:
                packets = output.encoders[frame.stream].encode(frame, planes)
                for outlet in output.outlets:
                    outlet.mux(packets)
        for output in outputs:
            for encoder in output.encoders:
                packets = encoder.flush()
                for outlet in output.outlets:
                    outlet.mux(packets)
            for outlet in output.outlets:
                outlet.finish()
    except BaseException:
        for outlet in outlets:
            outlet.abort()
        raise
    finally:
        for output in outputs:
            for encoder in output.encoders:
                encoder.close()
