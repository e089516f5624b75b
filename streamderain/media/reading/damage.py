"""Record the damaged stretches of a source while it is read.

FFmpeg tells of broken pictures only with some codecs: its H.264, MPEG-2, MPEG-4, MJPEG, ProRes, FFV1 and PNG
decoders do, its HEVC, VP9 and AV1 decoders hide most of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

GAPS_AT_MOST = 1000
"""So many gaps are remembered, and the rest is counted: a camera may run for years."""

TEXTS_AT_MOST = 20
"""A report names this many gaps and counts the rest."""


@dataclass(frozen=True, slots=True)
class Gap:
    """A stretch of one video stream that could not be decoded, or not well.

    Attributes:
        stream: Position of the video stream.
        from_s: Time of the last frame before it in seconds; None where there was none.
        to_s: Time of the frame that ends it in seconds; None at the end of the stream.
        frames: How many frames are lost or broken.
        kept: Whether they are part of the result, decoded from broken data.
        never_came: Whether they were not received: the connection was lost, and how many is a guess.
    """

    stream: int
    from_s: float | None
    to_s: float | None
    frames: int
    kept: bool = False
    never_came: bool = False

    @property
    def reason(self) -> str:
        """What happened, in words."""
        count = "1 frame" if self.frames == 1 else f"{self.frames} frames"
        if self.kept:
            return f"{count} decoded from broken data and kept"
        if self.never_came:
            return f"the connection was lost, and about {count} with it"
        return f"{count} could not be decoded"

    def __str__(self) -> str:
        start = "the beginning" if self.from_s is None else f"{self.from_s:.3f} s"
        end = "the end" if self.to_s is None else f"{self.to_s:.3f} s"
        return f"video {self.stream}, from {start} to {end}: {self.reason}"


@dataclass(slots=True)
class Damage:
    """Everything lost or broken in a source; true when there was anything.

    Attributes:
        gaps: The broken stretches, those that touch joined into one.
        truncated: Whether the source ends before its own header says.
        ending: How it ends early, in words; empty unless truncated.
        more_gaps: Gaps that are only counted.
        more_frames: Frames that were lost in those.
    """

    gaps: list[Gap] = field(default_factory=list)
    truncated: bool = False
    ending: str = ""
    more_gaps: int = 0
    more_frames: int = 0

    def __bool__(self) -> bool:
        return bool(self.gaps) or self.truncated

    @property
    def skipped_frames(self) -> int:
        """Frames that the source holds but the decoder could not give."""
        return sum(gap.frames for gap in self.gaps if not gap.kept) + self.more_frames

    def texts(self) -> list[str]:
        """Return one line per gap, and one for an early end."""
        lines = [str(gap) for gap in self.gaps[:TEXTS_AT_MOST]]
        more = len(self.gaps) - len(lines) + self.more_gaps
        if more:
            lines.append(f"and {more} more places like these")
        return [*lines, self.ending] if self.truncated else lines

    def add(self, gap: Gap) -> None:
        """Record a gap; one that touches the last is joined to it, so that memory stays flat."""
        last = self.gaps[-1] if self.gaps else None
        if last and (last.stream, last.to_s, last.kept) == (gap.stream, gap.from_s, gap.kept) and last.to_s:
            self.gaps[-1] = replace(last, to_s=gap.to_s, frames=last.frames + gap.frames)
        elif len(self.gaps) < GAPS_AT_MOST:
            self.gaps.append(gap)
        else:
            self.more_gaps += 1
            self.more_frames += 0 if gap.kept else gap.frames

    def forget_before(self, start_s: float) -> None:
        """Drop what lies before a cut: it is no part of the result."""
        self.gaps = [gap for gap in self.gaps if gap.to_s is None or gap.to_s >= start_s]

    def cut_short(self, ending: str) -> None:
        """Record that the source ends too early."""
        self.truncated = True
        self.ending = self.ending or ending
