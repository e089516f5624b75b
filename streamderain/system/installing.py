"""Build pip commands that install what is missing, from a checkout as well as from a wheel."""

from __future__ import annotations

import json
import re
import shlex
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import unquote, urlsplit

_NAME = re.compile(r"[A-Za-z0-9._-]+")


def install_command(*packages: str) -> str:
    """Return the command that installs packages in the versions streamderain asks for.

    The packages are named one by one: an extra of streamderain could be asked for only where pip finds
    streamderain itself, which a checkout or a wheel in some folder is not.

    Args:
        packages: Names as pip knows them.
    """
    wanted = _requirements()
    return "pip install " + " ".join(shlex.quote(wanted.get(name.lower(), name)) for name in packages)


def reinstall_command() -> str:
    """Return the command that installs streamderain again from where it came."""
    return f"pip install --force-reinstall {shlex.quote(_origin())}"


def _requirements() -> dict[str, str]:
    """Return what streamderain's own metadata asks for, by name: `openvino>=2025.0`."""
    try:
        lines = distribution("streamderain").requires or []
    except PackageNotFoundError:
        return {}
    found = {}
    for line in lines:
        match = _NAME.match(line)
        if match is not None:
            found[match[0].lower()] = line.partition(";")[0].strip()
    return found


def _origin() -> str:
    """Return the checkout or wheel that streamderain came from where it is still there, else its name."""
    try:
        told = distribution("streamderain").read_text("direct_url.json")
    except PackageNotFoundError:
        return "streamderain"
    url = urlsplit(json.loads(told)["url"]) if told else None
    path = Path(unquote(url.path)) if url is not None and url.scheme == "file" else None
    return str(path) if path is not None and path.exists() else "streamderain"
