"""Hand out the pieces of a file, hear what becomes of them, and keep what is finished."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from time import perf_counter, sleep

from streamderain.errors import EngineError, StreamderainError
from streamderain.events import Complete, Progress, StageSpeed
from streamderain.jobs.job import SPEED_WINDOW_S, TELL_EVERY_S, PieceOrder
from streamderain.jobs.manifest import Finished, Manifest
from streamderain.jobs.pool import TICK_S, News, Order, Pool
from streamderain.media.reading.piece import Piece
from streamderain.media.reading.sources import SourceSpec
from streamderain.media.track import CannotBeCut
from streamderain.options import RunOptions

CRASHES_AT_MOST = 3
"""A piece that ends its process so often is given up."""


class PieceFailed(EngineError):
    """The process that derains a piece crashed on it again and again."""


@dataclass
class PieceWork:
    """Makes the pieces that are missing.

    Args:
        manifest: Says which are, and keeps what is finished.
        spec: The source.
        options: Of the run.
        pool: Who works on them.

    Attributes:
        frames_made: Frames of pieces that this run finished.
        first_frame_s: When the first of them was there, in seconds after its piece was begun; None before.
    """

    manifest: Manifest
    spec: SourceSpec
    options: RunOptions
    pool: Pool
    frames_made: int = 0
    first_frame_s: float | None = None
    _under_way: dict[int, int] = field(default_factory=dict)
    _crashes: Counter[int] = field(default_factory=Counter)
    _stages: dict[str, tuple[float, float]] = field(default_factory=dict)
    _recent: deque[tuple[float, int]] = field(default_factory=deque)
    _told: float = 0.0
    _most: int = 0

    def step(self) -> bool:
        """Hand out pieces and hear what became of others; return whether anything is left to do."""
        self._hand_out()
        if not self._under_way:
            if not any(self.manifest.open_pieces):
                return False
            sleep(TICK_S)  # nobody is there to take one up: nodes of a cluster may come
        for news in self.pool.news():
            self._hear(news)
        return True

    def _hand_out(self) -> None:
        waiting = [piece for piece in self.manifest.open_pieces if piece.number not in self._under_way]
        for piece in waiting:
            passes = self._crashes[piece.number] >= CRASHES_AT_MOST
            if not self.pool.begin(Order(PieceOrder(piece, self.manifest.path(piece)), passes=passes)):
                return
            self._under_way[piece.number] = 0

    def _hear(self, news: News) -> None:
        piece = news.order.piece.piece
        if news.lost:
            self._under_way.pop(piece.number)
        elif news.crashed:
            self._note_crash(piece, news.crashed)
        elif news.error is not None:
            self._under_way.pop(piece.number)
            raise _explained(news.error, piece)
        elif news.complete is None:
            self._under_way[piece.number] = news.frames_out
        else:
            self._under_way.pop(piece.number)
            self._finish(piece, news.complete)

    def _note_crash(self, piece: Piece, how: str) -> None:
        self._under_way.pop(piece.number)
        self._crashes[piece.number] += 1
        # Once more after the last of them: then its frames pass, and no engine is asked.
        most = CRASHES_AT_MOST + self.options.work.pass_failed
        if self._crashes[piece.number] < most:
            return
        raise PieceFailed(
            f"{self.spec.name}, {_times(piece)}: the process that derains it ended by {how}, "
            f"{self._crashes[piece.number]} times. Other pieces are kept; `streamderain doctor` tries each "
            "engine, --pass-failed lets the frames of this piece through as they are"
        )

    def _finish(self, piece: Piece, complete: Complete) -> None:
        missing = sum(piece.frames) - complete.frames_out
        if missing and not complete.skipped:
            raise CannotBeCut(f"{_times(piece)} holds {complete.frames_out} frames, not {sum(piece.frames)}")
        self.frames_made += complete.frames_out
        if self.first_frame_s is None:
            self.first_frame_s = complete.first_frame_s
        for name, speed in complete.stages.items():
            busy_s, waiting_s = self._stages.get(name, (0.0, 0.0))
            self._stages[name] = (busy_s + speed.busy_s, waiting_s + speed.waiting_s)
        row = Finished(
            frames=complete.frames_out,
            bytes=0,
            skipped=complete.skipped,
            damage=complete.damage,
            warnings=_of_piece(complete, piece),
            passed=complete.passed,
        )
        self.manifest.finish(piece, row)

    def progress(self, began: float) -> Progress | None:
        """Return how far the run is, now and then."""
        now = perf_counter()
        if now - self._told < TELL_EVERY_S:
            return None
        self._told = now
        finished = sum(row.frames for row in self.manifest.finished.values())
        # A piece that crashed begins anew: what was told is not taken back.
        out = self._most = max(self._most, finished + sum(self._under_way.values()))
        total = sum(sum(piece.frames) for piece in self.manifest.pieces)
        self._recent.append((now, out))
        while len(self._recent) > 2 and now - self._recent[0][0] > SPEED_WINDOW_S:
            self._recent.popleft()
        since, before = self._recent[0]
        fps = (out - before) / (now - since) if now > since else 0.0
        return Progress(
            frames_in=out,
            frames_out=out,
            frames=total,
            elapsed_s=round(now - began, 3),
            fps=round(fps, 2),
            eta_s=round(max(0, total - out) / fps, 1) if fps > 0 else None,
            files_eta_s=None,
            limited_by=self.limited_by(),
        )

    def stages(self) -> dict[str, StageSpeed]:
        """Return how fast each stage would be by itself in one job, over the pieces of this run."""
        return {
            name: StageSpeed(
                round(busy_s, 3), round(waiting_s, 3), round(self.frames_made / busy_s, 2) if busy_s else None
            )
            for name, (busy_s, waiting_s) in self._stages.items()
        }

    def limited_by(self) -> str | None:
        """Return the stage that is busy most of the time; None before the first piece."""
        return max(self._stages, key=lambda name: self._stages[name][0], default=None)


def _of_piece(complete: Complete, piece: Piece) -> tuple[str, ...]:
    passed = f"{_times(piece)} was let through unprocessed: its process crashed again and again"
    return (*complete.warnings, *([passed] if complete.passed else []))


def _times(piece: Piece) -> str:
    start_s, end_s = piece.time_range.start_s, piece.time_range.end_s
    begin = "the beginning" if start_s is None else f"{float(start_s):.3f} s"
    return f"the piece from {begin} to {'the end' if end_s is None else f'{float(end_s):.3f} s'}"


def _explained(error: Exception, piece: Piece) -> Exception:
    if isinstance(error, StreamderainError):
        return type(error)(f"{error}. It happened in {_times(piece)}; finished pieces are kept")
    return error
