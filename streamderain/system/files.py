"""What files are, by a look at their beginning."""

from __future__ import annotations

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
