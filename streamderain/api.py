"""The Python API: run a whole source, walk over its derained frames, or derain arrays.

Everything here takes the same options as the command line and raises the errors of
:mod:`streamderain.errors`.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamderain.errors import (
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_PARTIAL,
    ConfigError,
    EncodeError,
    OutputFull,
    StreamderainError,
)
from streamderain.events import Complete, Failed, Observer
from streamderain.job import Job
from streamderain.media.folder import IMAGE_SUFFIXES, VIDEO_SUFFIXES, SourceSpec, find_sources
from streamderain.media.targets import check_targets
from streamderain.models import load_model
from streamderain.options import RunOptions
from streamderain.runtime.registry import choose_engine, open_engine


@dataclass(frozen=True, slots=True)
class RunReport:
    """What a run did.

    Attributes:
        files: One :class:`Complete` or :class:`Failed` per file, in the order they were worked on.
        engine: Name of the engine.
        device: What it ran on.
        precision: Precision it ran at.
        model: Name of the model.
        model_sha256: Checksum of its weights.
        interrupted: True when the run was stopped before all files were done.
    """

    files: tuple[Complete | Failed, ...]
    engine: str
    device: str
    precision: str
    model: str
    model_sha256: str
    interrupted: bool = False

    @property
    def exit_code(self) -> int:
        """0, the first failure's code, 130 after an interrupt, or 7 where a source was damaged."""
        for file in self.files:
            if isinstance(file, Failed):
                return file.exit_code
        if self.interrupted:
            return EXIT_INTERRUPTED
        done = [file for file in self.files if isinstance(file, Complete)]
        return EXIT_PARTIAL if any(file.damage for file in done) else EXIT_OK

    def to_json(self) -> dict[str, Any]:
        """Returns the report as JSON-able values: totals first, then every file."""
        done = [file for file in self.files if isinstance(file, Complete)]
        frames_out = sum(file.frames_out for file in done)
        elapsed_s = sum(file.elapsed_s for file in done)
        head = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)[1:]}
        return {
            "exit_code": self.exit_code,
            "frames_in": sum(file.frames_in for file in done),
            "frames_out": frames_out,
            "skipped": sum(file.skipped for file in done),
            "elapsed_s": round(elapsed_s, 3),
            "fps": round(frames_out / elapsed_s, 2) if elapsed_s else 0.0,
            **head,
            "warnings": [warning for file in done for warning in file.warnings],
            "files": [
                {"result": type(file).__name__.lower(), **dataclasses.asdict(file)} for file in self.files
            ],
        }


def run(
    source: str | Path | Sequence[str | Path],
    *targets: str | Path,
    options: RunOptions | None = None,
    observer: Observer | None = None,
    stop: threading.Event | None = None,
) -> RunReport:
    """Takes the rain out of a source and writes the result to every target.

    Args:
        source: A file, a folder of videos or images, a glob, ``"-"`` for standard input, or several of these.
        targets: Files, or a folder where the source is one; ``"-"`` writes Matroska to standard output.
        options: All choices; the defaults suit most.
        observer: Receives events on the calling thread while the run goes on.
        stop: Set it, from any thread or a signal handler, to finish early with playable targets.

    Returns:
        What was done, file by file. In a folder, a file that fails is reported and the others go on.

    Raises:
        StreamderainError: The run could not start, or its only file failed.
    """
    options = options or RunOptions()
    stop = stop or threading.Event()
    tell = observer or (lambda event: None)
    sources = [str(source)] if isinstance(source, str | Path) else [str(one) for one in source]
    if not sources or "" in sources:
        raise ConfigError("a source is empty; was it an empty variable of the shell?")
    specs = find_sources(sources[0] if len(sources) == 1 else sources, options.read)
    plan = _plan(specs, [str(target) for target in targets], options, many=_many(sources, specs))
    name, reason = choose_engine(options.engine.engine)
    model = load_model(options.engine.model)
    files: list[Complete | Failed] = []
    with open_engine(name, model=model, options=options.engine) as engine:
        for spec, spec_targets in plan:
            if stop.is_set():
                break
            job = Job(spec, spec_targets, options=options, engine=engine, reason=reason)
            try:
                files.append(job.run(tell, stop))
            except StreamderainError as error:
                if stop.is_set() and isinstance(error, EncodeError):
                    break  # stopped before the first frame: there is nothing to keep
                if len(plan) == 1 or isinstance(error, OutputFull):
                    raise
                files.append(Failed(spec.name, type(error).__name__, str(error), error.exit_code))
                tell(files[-1])
        return RunReport(
            tuple(files),
            engine.name,
            engine.device,
            engine.precision,
            model.name,
            model.sha256,
            interrupted=stop.is_set(),
        )


def _many(sources: list[str], specs: list[SourceSpec]) -> bool:
    """Whether results go into a folder: for several files, and for a folder of files even if it holds one."""
    folder = Path(sources[0]).is_dir() and specs[0].kind != "sequence"
    return len(specs) > 1 or folder


def _plan(
    specs: list[SourceSpec], targets: list[str], options: RunOptions, *, many: bool
) -> list[tuple[SourceSpec, list[str]]]:
    """Pairs every file of a source with its targets and checks them before any work."""
    if not targets:
        raise ConfigError("no target was given; say where the result goes with -o TARGET")
    if not all(target.strip() for target in targets):
        raise ConfigError("a target is empty; was it an empty variable of the shell?")
    if many and "-" in targets:
        raise ConfigError(f"the source holds {len(specs)} files, which cannot all go to standard output")
    plan = [
        (spec, [str(Path(target) / spec.name) if many else target for target in targets]) for spec in specs
    ]
    if many:
        for target in targets:
            _make_folder(Path(target))
    for spec, spec_targets in plan:
        check_targets([path for path in spec.paths if str(path) != "-"], spec_targets, options.encode)
    return plan


def _make_folder(folder: Path) -> None:
    named_like_a_file = folder.suffix.lower() in VIDEO_SUFFIXES | IMAGE_SUFFIXES
    if not folder.is_dir() and (folder.exists() or named_like_a_file):
        raise ConfigError(
            f"the source holds several files, so the target must be a folder, not {folder}; "
            "give a folder's name, such as clean/"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"the target folder {folder} cannot be made: {error.strerror}") from error
