"""The command `streamderain serve`: run the cameras of a file, or check the file."""

from __future__ import annotations

import json
import logging
import sys
from datetime import datetime
from pathlib import Path

import click

from streamderain.addresses import redact, redact_address
from streamderain.errors import EngineUnavailable
from streamderain.system.installing import install_command


def serve_command(config: str, *, check: bool) -> None:
    """Run the command.

    Raises:
        ConfigError: The file says something that cannot be.
        StreamderainError: It wants what there is not here, such as a model; see `serve.config.check_site`.
        EngineUnavailable: The extra is not installed.
    """
    try:
        from streamderain.serve.config import check_site, read_site
        from streamderain.serve.server import serve
    except ImportError as error:
        needed = install_command("msgspec", "prometheus-client", "pyyaml", "starlette", "uvicorn")
        raise EngineUnavailable(f"serve wants {error.name}, which is not installed: {needed}") from error
    site = read_site(Path(config))
    check_site(site)
    if check:
        for name, camera in site.cameras.items():
            targets = ", ".join(map(redact_address, camera.targets)) or "the page alone"
            click.echo(f"{name}: {redact_address(camera.source)} -> {targets}")
        click.echo(f"{config} is right: {len(site.cameras)} cameras, listening on {site.listen}")
        return
    _log_as_json()
    serve(Path(config))


class _Json(logging.Formatter):
    """Writes a record as a line of JSON without secrets."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        at = datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds")
        told = {"time": at, "level": record.levelname.lower(), "logger": record.name}
        of_camera = {"camera": record.camera} if hasattr(record, "camera") else {}
        return json.dumps({**told, **of_camera, "message": redact(record.getMessage())})


def _log_as_json() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
