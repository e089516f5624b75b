"""Events of a run, as frozen dataclasses that can be written as JSON.

Progress bars, logs and reports all read these; nothing else looks into a running pipeline.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

_INCIDENTS_AT_MOST = 1000


@dataclass(frozen=True, slots=True)
class StageSpeed:
    """How fast one stage would be by itself.

    Attributes:
        busy_s: Seconds the stage spent working, waiting for others left out.
        waiting_s: Seconds it waited for its neighbours.
        fps: Frames per second of its busy time; None before the first frame.
    """

    busy_s: float
    waiting_s: float
    fps: float | None


@dataclass(frozen=True, slots=True)
class TargetResult:
    """What became of one target.

    Attributes:
        target: Its name, as the user wrote it.
        path: Where it lies, in full; empty for standard output.
        state: `"whole"`: complete, under its name. `"partial"`: cut by an interrupt. `"pieces"`: interrupted,
            and its finished pieces are kept, from which the same run goes on. `"failed"`: see `error`.
        kept: Path of what was done so far where that has another name; None where nothing is kept.
        error: What went wrong; empty unless it failed.
        exit_code: Of that error, else 0.
        lost_packets: Of a live source's target: left out while it was away, stuck, or too slow.
    """

    target: str
    path: str
    state: Literal["writing", "whole", "partial", "pieces", "failed"]
    kept: str | None = None
    error: str = ""
    exit_code: int = 0
    lost_packets: int = 0


@dataclass(frozen=True, slots=True)
class Started:
    """A source was opened and its targets were prepared; nothing is derained yet.

    Attributes:
        source: What is read, as the user named it, without credentials.
        path: Its full path, or its address without credentials.
        number: Which file of the run it is, from 1.
        files: How many files the run has.
        targets: What is written.
        width: Of the first video stream, in pixels.
        height: Of the first video stream, in pixels.
        streams: Number of video streams that are derained.
        frames: Expected number of frames over all streams; None when unknown.
        engine: Name of the engine.
        engine_reason: Why this engine was chosen.
        device: What it runs on.
        precision: Precision it runs at.
        model: Name of the model.
        model_sha256: Checksum of its weights.
        warnings: What the user should know before the work starts.
        parting: Into how many pieces the file is parted and how these are worked on, for people; empty where
            it is derained in one go.
    """

    source: str
    path: str
    number: int
    files: int
    targets: tuple[str, ...]
    width: int
    height: int
    streams: int
    frames: int | None
    engine: str
    engine_reason: str
    device: str
    precision: str
    model: str
    model_sha256: str
    warnings: tuple[str, ...]
    parting: str = ""


@dataclass(frozen=True, slots=True)
class Building:
    """An engine compiles a model for frames of one size; the result is kept for the next time.

    Attributes:
        model: Name of the model.
        engine: What compiles.
        device: What for.
        width: Of the frames, px.
        height: Of the frames, px.
        phase: What it is at; empty at the start.
        done: How much of that is done, 0..1.
        elapsed_s: Seconds since it began.
    """

    model: str
    engine: str
    device: str
    width: int
    height: int
    phase: str
    done: float
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the run is. Sent a few times a second.

    Attributes:
        frames_in: Frames decoded so far.
        frames_out: Frames encoded so far.
        frames: Expected number of frames; None when unknown.
        elapsed_s: Seconds since the start.
        fps: Frames written per second over the last few seconds.
        eta_s: Seconds left at that speed; None when unknown.
        files_eta_s: Seconds left for all files of the run, by their sizes; None for a single one or when
            unknown.
        limited_by: The stage that limits: `"read"`, `"engine"` or `"write"`; None while unknown.
        dropped: Frames of a live source that came too late so far.
        passed: Frames of a live source that passed unprocessed so far.
        lag_s: How late the last frame of a live source was when it was decoded.
        latency_s: How long the last frame took from there to its packet.
    """

    frames_in: int
    frames_out: int
    frames: int | None
    elapsed_s: float
    fps: float
    eta_s: float | None
    files_eta_s: float | None
    limited_by: str | None
    dropped: int = 0
    passed: int = 0
    lag_s: float = 0.0
    latency_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Complete:
    """A source was worked through, or interrupted with what was done so far kept.

    Attributes:
        source: What was read.
        path: Its full path, or its address without credentials.
        results: What became of each target.
        targets: What was written.
        frames_in: Frames decoded.
        frames_out: Frames encoded.
        skipped: Frames that were damaged or lost in the source.
        dropped: Frames of a live source that came too late to be computed.
        passed: Frames of a live source that passed unprocessed, while the engine was opened or had failed.
        damage: What was damaged and where, in words.
        elapsed_s: Seconds from opening the source to the finished targets.
        first_frame_s: Seconds until the first frame was written; None when there was none.
        fps: Frames written per second of the whole run.
        stages: Speed of `"read"`, `"engine"` and `"write"`.
        limited_by: The stage that limited.
        interrupted: True when the user stopped it.
        warnings: All warnings, those from before the start included.
    """

    source: str
    path: str
    targets: tuple[str, ...]
    results: tuple[TargetResult, ...]
    frames_in: int
    frames_out: int
    skipped: int
    damage: tuple[str, ...]
    elapsed_s: float
    first_frame_s: float | None
    fps: float
    stages: dict[str, StageSpeed] = field(default_factory=dict)
    limited_by: str | None = None
    interrupted: bool = False
    warnings: tuple[str, ...] = ()
    dropped: int = 0
    passed: int = 0


@dataclass(frozen=True, slots=True)
class Failed:
    """One of several sources could not be worked through; the others go on.

    A run's only source raises its error instead.

    Attributes:
        source: What was read.
        path: Its full path, or its address without credentials.
        number: Which file of the run it is, from 1.
        files: How many files the run has.
        error: Name of the error's class.
        message: What failed, where, and what to do.
        exit_code: What the command ends with.
        kept: Paths of partial results that were kept.
    """

    source: str
    path: str
    number: int
    files: int
    error: str
    message: str
    exit_code: int
    kept: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Skipped:
    """A source was left out: its targets are there already, or another process works on it.

    Attributes:
        source: What would have been read.
        path: Its full path.
        number: Which file of the run it is, from 1.
        files: How many files the run has.
        targets: What is there.
        why: Why it was left out, where that is not because its targets are there.
    """

    source: str
    path: str
    number: int
    files: int
    targets: tuple[str, ...]
    why: str = ""


IncidentKind = Literal[
    "source lost",
    "source missing",
    "source back",
    "source changed",
    "source jumped",
    "target lost",
    "target back",
    "engine lost",
    "engine back",
    "frames dropped",
]


@dataclass(frozen=True, slots=True)
class Incident:
    """Something happened that a live run goes on after.

    Attributes:
        kind: What happened.
        subject: Name of the source, target or engine that it befell, without credentials.
        message: What happened and what is done, for people.
    """

    kind: IncidentKind
    subject: str
    message: str


class Incidents:
    """Gathers incidents from all threads of a run, for the one that tells its observer."""

    def __init__(self) -> None:
        self._waiting: deque[Incident] = deque(maxlen=_INCIDENTS_AT_MOST)

    def tell(self, incident: Incident) -> None:
        """Note an incident; may be called from any thread."""
        self._waiting.append(incident)

    def drain(self) -> Iterator[Incident]:
        """Yield what was noted since the last time."""
        while self._waiting:
            yield self._waiting.popleft()


Event = Building | Started | Progress | Incident | Complete | Failed | Skipped
Observer = Callable[[Event], None]
