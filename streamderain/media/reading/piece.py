"""What is read of a file for one piece of it: from which picture on, and what of that is written."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from streamderain.media.reading.trim import TimeRange


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a source that is derained by itself, exactly as it would be in the whole.

    Attributes:
        number: Which one it is, from 0.
        time_range: What is written of it, on the source's own clock: the beginning belongs to it, the end
            does not.
        offset_s: What is taken off all times, the same for all pieces.
        keys: For each video stream, the presentation time of the picture that decoding begins with; None for
            the first one of the file.
        frames: For each video stream, how many frames are written.
    """

    number: int
    time_range: TimeRange
    offset_s: Fraction
    keys: tuple[int | None, ...]
    frames: tuple[int, ...]

    @property
    def begins_file(self) -> bool:
        """Whether decoding begins with the file."""
        return all(key is None for key in self.keys)
