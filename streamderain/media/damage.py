"""What was found broken in a source while it was read."""

from __future__ import annotations

from dataclasses import dataclass, field

TEXTS_AT_MOST = 20
"""A report names this many gaps and counts the rest."""


@dataclass(frozen=True, slots=True)
class Gap:
    """A stretch of one video stream that could not be decoded, or not well.

    Attributes:
        stream: Position of the video stream.
        from_s: Time of the last good frame before it in seconds; None where there was none.
        to_s: Time of the first frame after it in seconds; None at the end of the stream.
        reason: What happened, in words.
    """

    stream: int
    from_s: float | None
    to_s: float | None
    reason: str

    def __str__(self) -> str:
        start = "the beginning" if self.from_s is None else f"{self.from_s:.3f} s"
        end = "the end" if self.to_s is None else f"{self.to_s:.3f} s"
        return f"video {self.stream}, from {start} to {end}: {self.reason}"


@dataclass(slots=True)
class Damage:
    """Everything lost or broken in a source; true when there was anything.

    Attributes:
        skipped_frames: Frames that the source holds but the decoder could not give.
        concealed_frames: Frames that were decoded from broken data, and are part of the result.
        gaps: Where that was.
        truncated: Whether the source ends before its own header says.
        ending: How it ends early, in words; empty unless truncated.
    """

    skipped_frames: int = 0
    concealed_frames: int = 0
    gaps: list[Gap] = field(default_factory=list)
    truncated: bool = False
    ending: str = ""

    def __bool__(self) -> bool:
        return bool(self.gaps) or self.truncated

    def texts(self) -> list[str]:
        """Returns one line per gap, and one for an early end."""
        lines = [str(gap) for gap in self.gaps[:TEXTS_AT_MOST]]
        if len(self.gaps) > TEXTS_AT_MOST:
            lines.append(f"and {len(self.gaps) - TEXTS_AT_MOST} more places like these")
        return [*lines, self.ending] if self.truncated else lines

    def lost(self, gap: Gap, frames: int) -> None:
        """Counts frames that are missing from the result."""
        self.skipped_frames += frames
        self._add(gap)

    def concealed(self, gap: Gap) -> None:
        """Counts one frame that was decoded from broken data."""
        self.concealed_frames += 1
        self._add(gap)

    def cut_short(self, ending: str) -> None:
        """Records that the source ends too early."""
        self.truncated = True
        self.ending = self.ending or ending

    def _add(self, gap: Gap) -> None:
        """Joins gaps that touch, so that a long broken stretch stays one line and memory stays flat."""
        last = self.gaps[-1] if self.gaps else None
        touching = last and last.stream == gap.stream and last.to_s is not None and last.to_s == gap.from_s
        if last and touching and last.reason == gap.reason:
            self.gaps[-1] = Gap(gap.stream, last.from_s, gap.to_s, gap.reason)
        else:
            self.gaps.append(gap)
