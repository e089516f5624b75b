"""Recognise addresses (URLs) of sources and targets, and redact their secrets, in one place for all texts.

A camera's address holds a password in many places: before the host (`rtsp://user:secret@host`), in the
query (`?user=..&password=..`) and in the path (`/user=admin_password=secret_channel=1`). People write
passwords unescaped, with `@`, `/`, `?` and blanks in them. Where an address can be read in two ways,
both are hidden: a host too few in a message costs less than a password too many.
"""

from __future__ import annotations

import re
from itertools import pairwise

STANDARD_INPUT = "-"

HIDDEN = "***"
"""What stands for everything that is not shown."""

_SCHEME = r"[a-zA-Z][a-zA-Z0-9+.-]*://"
_ADDRESS = re.compile(rf"^{_SCHEME}")
_ANYWHERE = re.compile(rf"(?<![a-zA-Z0-9+.-]){_SCHEME}")
_APART = re.compile(rf"(?<![^\s'\"(<|]){_SCHEME}")
_SECRET = re.compile(rf"[?#](?!{re.escape(HIDDEN)}(?![^\s'\")>,;:.]))|/[^/?#]*=")
"""Where in what follows the host a secret may begin: a query or fragment that is not hidden already, or a
part of the path that holds `key=value`."""


def is_address(source: str) -> bool:
    """Return whether a source is a URL rather than a path."""
    return _ADDRESS.match(source) is not None


def redact_address(address: str) -> str:
    """Return an address fit to be shown: scheme, host and path, and nothing that may be a secret.

    Args:
        address: A whole URL, as the user wrote it.

    Returns:
        The same for every password; a text that is no URL comes back as it is.
    """
    scheme, separator, rest = address.partition("://")
    if not separator or not is_address(address):
        return address
    credentials, at, shown = rest.rpartition("@")
    if at and _SECRET.search(credentials):
        return f"{scheme}://{HIDDEN}"  # a query with an @, or a password with a question mark: nobody knows
    return f"{scheme}://{HIDDEN + at if at else ''}{_without_secrets(shown)}"


def redact(text: str) -> str:
    """Return a text with the secrets of all URLs in it left out. Idempotent.

    Args:
        text: Any message; each line is looked at by itself. From a query on, the rest of the line is hidden,
            up to the next URL: a password may hold blanks.
    """
    if "://" not in text:
        return text
    return "\n".join(map(_redact_line, text.split("\n")))


def display_name(source: str) -> str:
    """Return the name of a source for messages and reports: never a password."""
    return "standard input" if source == STANDARD_INPUT else redact_address(source)


def _redact_line(line: str) -> str:
    begins = [match.start() for match in _APART.finditer(line)]
    if not begins:
        begins = [match.start() for match in _ANYWHERE.finditer(line)][:1]
    ends = [*begins, len(line)]
    parts = [redact_address(line[begin:end]) for begin, end in pairwise(ends)]
    return line[: ends[0]] + "".join(parts)


def _without_secrets(shown: str) -> str:
    """Return the host and path up to the first place at which a secret may begin."""
    match = _SECRET.search(shown)
    if match is None:
        return shown
    mark = shown[match.start()]
    return f"{shown[: match.start()]}{mark}{HIDDEN}"
