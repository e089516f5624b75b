"""The tree of errors that a user can meet, each with its exit code.

    StreamderainError
    ├── ConfigError (ValueError)     2   an option or argument that cannot be used as given
    ├── MediaError                   3   a file, stream or device that cannot be read or written
    │   ├── OpenError                    not there, not readable, not a video, nothing to decode
    │   │   └── Unreachable                  an address that does not answer, and may do so later
    │   │       └── NotServed                    a server that knows no such stream, or none any more
    │   ├── DecodeError                  opened, but no frame of it can be decoded
    │   ├── EncodeError                  the encoder does not open or refuses a frame
    │   ├── UnsupportedFormat            readable, but of a kind that is not handled
    │   ├── BrokenPiece                  a finished piece is not what was written (media.writing.piece_file)
    │   └── OutputFull                   the disk (or quota, or size limit) is full
    ├── ModelError                   4   a model that cannot be used
    │   ├── ModelNotFound
    │   └── ChecksumMismatch
    ├── EngineError                  5   a runtime or device that cannot be used
    │   ├── EngineUnavailable            not installed: names the extra to install
    │   ├── PlanBuildError               the model does not compile for the device
    │   ├── PlanCacheError               compiled plans cannot be kept on disk
    │   ├── InferenceError               a frame failed on the device
    │   ├── DeviceMemoryError            the frame does not fit into the device's memory
    │   ├── Crashed                      a child process ended without a word (system.process)
    │   └── PieceFailed                  one ended so on the same piece again and again (jobs.segmented)
    ├── PipelineError                6   only what no other class describes
    │   └── StageFailed                  names the stage, the frame index and its pts
    ├── TrainingDiverged             1   the loss of a training is no longer finite (trainer.run.loop)
    ├── Harmed                       1   what was fitted to footage is worse than before (trainer.run.adapt)
    └── WorkerLost                   1   a process that makes batches was killed (trainer.data.loader)

Two more ends are no errors: a damaged input that was derained as far as it goes (7), and an interrupt
after which the container was finalised (130).

A message says what failed, where, and what to do next. Errors of other libraries are translated where
they arise, with the cause chained.
"""

from __future__ import annotations

from typing import Any

from streamderain.addresses import redact

EXIT_OK = 0
EXIT_PARTIAL = 7
EXIT_INTERRUPTED = 130


class StreamderainError(Exception):
    """Root of the tree. `exit_code` is what the command line ends with.

    Args:
        message: What failed, where, and what to do next. Credentials of addresses in it are left out.

    Attributes:
        kept: Paths of partial results that were kept.
        report: A run's `api.RunReport` up to the error; None where no run had begun.
    """

    exit_code: int = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(redact(message))
        self.kept: tuple[str, ...] = ()
        self.report: Any = None

    def __str__(self) -> str:
        if not self.kept:
            return super().__str__()
        return f"{super().__str__()}. What was done until then is kept, and plays: {', '.join(self.kept)}"


class ConfigError(StreamderainError, ValueError):
    """An option, argument or configuration value cannot be used as given."""

    exit_code = 2


class MediaError(StreamderainError):
    """A media file, stream or device cannot be read or written."""

    exit_code = 3


class OpenError(MediaError):
    """The source or target cannot be opened, or holds nothing that can be derained."""


class Unreachable(OpenError):
    """An address does not answer, or not as it should; it may do so later."""


class NotServed(Unreachable):
    """A server does not know a stream; where it did before, the stream may come back."""


class DecodeError(MediaError):
    """The source opened but its video cannot be decoded."""


class EncodeError(MediaError):
    """The encoder does not open with these settings, or refused a frame."""


class UnsupportedFormat(MediaError):
    """The media is readable but of a kind that is not handled."""


class OutputFull(MediaError):
    """The output device is full, over quota, or at its file-size limit."""


class ModelError(StreamderainError):
    """A model cannot be used."""

    exit_code = 4


class ModelNotFound(ModelError):
    """No model card of that name or path."""


class ChecksumMismatch(ModelError):
    """A model file differs from the sha256 in its card."""


class EngineError(StreamderainError):
    """A runtime or its device cannot be used."""

    exit_code = 5


class EngineUnavailable(EngineError):
    """The runtime is not installed or has no device; the message names the extra to install."""


class PlanBuildError(EngineError):
    """The model does not compile for this device."""


class PlanCacheError(EngineError):
    """The folder of compiled plans cannot be used."""


class InferenceError(EngineError):
    """The device failed on a frame."""


class DeviceMemoryError(EngineError):
    """The frame does not fit into the device's memory."""


class PipelineError(StreamderainError):
    """The pipeline failed in a way that no other class describes."""

    exit_code = 6


class StageFailed(PipelineError):
    """A pipeline stage failed with an error that has no class of its own.

    Args:
        stage: `"read"`, `"engine"` or `"write"`.
        frame_index: Number of the frame in its stream, from 0; None where no frame was in hand.
        pts: Its presentation timestamp in units of the stream's time base, where it has one.
        reason: What the stage said.
    """

    def __init__(self, stage: str, *, frame_index: int | None, pts: int | None, reason: str) -> None:
        self.stage = stage
        self.frame_index = frame_index
        self.pts = pts
        where = "before the first frame" if frame_index is None else f"at frame {frame_index} (pts {pts})"
        super().__init__(
            f"the {stage} stage failed {where}: {reason}. "
            "This is a fault of streamderain: please report it with this message and the kind of file."
        )
