"""Make text printable on terminals and in files."""

from __future__ import annotations


def printable(text: str) -> str:
    """Return a text that can be encoded: a file name need not be text; its odd bytes are shown escaped."""
    return text.encode(errors="backslashreplace").decode()


def rate_text(fps: float) -> str:
    """Return frames per second with two digits that say something, however slow."""
    return f"{fps:.1f}" if fps >= 1 or fps <= 0 else f"{fps:.2g}"
