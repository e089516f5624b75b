"""What a run did, file by file."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from streamderain.errors import EXIT_INTERRUPTED, EXIT_OK, EXIT_PARTIAL
from streamderain.events import Complete, Failed, Skipped

FileResult = Complete | Failed | Skipped


@dataclass(frozen=True, slots=True)
class RunReport:
    """What a run did.

    Attributes:
        files: One `Complete`, `Failed` or `Skipped` per file, in the order they were
            worked on.
        engine: Name of the engine.
        device: What it ran on.
        precision: Precision it ran at.
        model: Name of the model.
        model_sha256: Checksum of its weights.
        not_reached: Full paths of the files that the run did not come to.
    """

    files: tuple[FileResult, ...]
    engine: str
    device: str
    precision: str
    model: str
    model_sha256: str
    not_reached: tuple[str, ...] = ()

    @property
    def interrupted(self) -> bool:
        """Whether the run was stopped before all files were done."""
        return any(file.interrupted for file in self._done) or bool(self.not_reached and not self._failed)

    @property
    def exit_code(self) -> int:
        """0, the first failure's code, 130 after an interrupt, or 7 where a source was damaged."""
        codes = [file.exit_code for file in self._failed]
        codes += [result.exit_code for file in self._done for result in file.results if result.exit_code]
        if codes:
            return codes[0]
        if self.interrupted:
            return EXIT_INTERRUPTED
        return EXIT_PARTIAL if any(file.damage for file in self._done) else EXIT_OK

    @property
    def _done(self) -> list[Complete]:
        return [file for file in self.files if isinstance(file, Complete)]

    @property
    def _failed(self) -> list[Failed]:
        return [file for file in self.files if isinstance(file, Failed)]

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON-able values: totals first, then every file."""
        done = self._done
        frames_out = sum(file.frames_out for file in done)
        elapsed_s = sum(file.elapsed_s for file in done)
        head = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)[1:]}
        return {
            "exit_code": self.exit_code,
            "interrupted": self.interrupted,
            "frames_in": sum(file.frames_in for file in done),
            "frames_out": frames_out,
            "skipped": sum(file.skipped for file in done),
            "dropped": sum(file.dropped for file in done),
            "passed": sum(file.passed for file in done),
            "elapsed_s": round(elapsed_s, 3),
            "fps": round(frames_out / elapsed_s, 2) if elapsed_s else 0.0,
            **head,
            "warnings": [warning for file in done for warning in file.warnings],
            "files": [
                {"result": type(file).__name__.lower(), **dataclasses.asdict(file)} for file in self.files
            ],
        }


def merged(reports: Sequence[RunReport]) -> RunReport:
    """Return one report of processes that shared an archive."""
    files: dict[str, FileResult] = {}
    for report in reports:
        for file in report.files:
            if not isinstance(file, Skipped) or file.path not in files:
                files[file.path] = file
    not_reached = set.intersection(*(set(report.not_reached) for report in reports)) - set(files)
    return replace(reports[0], files=tuple(files.values()), not_reached=tuple(sorted(not_reached)))
