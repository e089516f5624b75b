"""Tell text files from others, and write files whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LOOKED_AT_BYTES = 1 << 20


def is_text(path: Path) -> bool:
    """Return whether a file holds text, or nothing; False where it cannot be read."""
    try:
        with path.open("rb") as file:
            data = file.read(_LOOKED_AT_BYTES)
    except OSError:
        return False
    # A character of several bytes may be cut in two at the end of what was read.
    return b"\0" not in data and "\ufffd" not in data.decode(errors="replace")[:-1]


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a path to write to, whose file takes the name of another once it is whole and on the disk.

    Args:
        path: The name; a file that has it stays until then, and stays for good where the block raises.

    Yields:
        A path beside it.

    Raises:
        OSError: The file cannot be brought to the disk or named.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
