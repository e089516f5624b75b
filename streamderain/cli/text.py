"""Make text printable on terminals and in files."""

from __future__ import annotations


def printable(text: str) -> str:
    """Return a text that can be encoded: a file name need not be text; its odd bytes are shown escaped."""
    return text.encode(errors="backslashreplace").decode()
