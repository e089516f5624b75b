"""Read the file that describes a site: its cameras, and how each is run.

Everything that `streamderain run` takes can be given for all cameras, at the top, or for one. Secrets come
from the environment: `${NAME}`.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import fields
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import msgspec
import yaml

from streamderain.addresses import redact, redact_address
from streamderain.errors import ConfigError, StreamderainError
from streamderain.media.writing.codecs import check_encoder_options
from streamderain.media.writing.target import check_targets
from streamderain.options import (
    EncodeOptions,
    EngineOptions,
    ReadOptions,
    RunOptions,
    parse_bitrate,
    parse_seconds,
)
from streamderain.runtime.registry import check_engine

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_UNKNOWN = re.compile(r"unknown field `([^`]+)`(?: - at `([^`]*)`)?")

_KINDS = (ReadOptions, EncodeOptions, EngineOptions)
_NOT_OF_CAMERAS = (
    "start_s",
    "duration_s",
    "stills",
    "recursive",
    "image_rate_fps",
    "live",
    "wait",
    "give_up_after_s",
)
"""Options that make no sense for cameras that are run for ever."""

_SPELLED = {"container": "format"}
_TIMES = ("max_latency_s", "split_s")


def _spelling(field_name: str) -> str:
    """Return the name of an option in the file: that of the command line, with underscores."""
    return _SPELLED.get(field_name, field_name.removesuffix("_s"))


_OPTIONS = {
    _spelling(field.name): (kind, field.name)
    for kind in _KINDS
    for field in fields(kind)
    if field.name not in (*_NOT_OF_CAMERAS, "skip_existing")
}
"""Which options dataclass and field an option of the file belongs to."""

_WORDS = frozenset(field.name for kind in _KINDS for field in fields(kind) if field.type == "str")
_FIELD = re.compile(r"^\w+Options\.(\w+)")
"""How messages of the options dataclasses name a field."""


class Camera(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A camera.

    Attributes:
        source: Its address or device.
        targets: Where the result goes, beside the page and `/cameras/NAME.ts`.
    """

    source: str
    targets: tuple[str, ...] = ()


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """A site.

    Attributes:
        listen: Address and port of the page.
        token: Wanted of everybody who asks for anything but `/healthz`; empty for none.
        cameras: By name.
        options: How each camera is run, by name.
    """

    listen: str
    token: str
    cameras: dict[str, Camera]
    options: dict[str, RunOptions]

    @property
    def host(self) -> str:
        """What it listens on."""
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self.listen.rpartition(":")[2])


def read_site(path: Path) -> Site:
    """Read the file of a site.

    Raises:
        ConfigError: It cannot be read, or says something that cannot be; names the place.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f", line {mark.line + 1}"
        raise ConfigError(f"{path}{where}: {getattr(error, 'problem', None) or 'no YAML'}") from None
    try:
        return _site(_with_variables(raw, "", os.environ))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def check_site(site: Site) -> None:
    """Check what a file says against this machine, before any camera is touched: targets, encoders, models.

    Raises:
        ConfigError: A target or an option of an encoder cannot be, or two cameras have the same target.
        OpenError: The folder of a target is missing or cannot be written to.
        EngineUnavailable: The engine is not installed.
        ModelError: The model is not there, or its card cannot be used.
    """
    taken: dict[str, str] = {}
    for name, camera in site.cameras.items():
        options = site.options[name]
        try:
            check_encoder_options(options.encode)
            if camera.targets:
                check_targets([], camera.targets, options.encode)
            check_engine(options.engine)
        except StreamderainError as error:
            raise type(error)(f"cameras.{name}: {error}") from error
        for target in camera.targets:
            if target in taken:
                raise ConfigError(
                    f"cameras.{name}: the target {redact_address(target)} is that of {taken[target]} too; "
                    "give each camera its own"
                )
            taken[target] = name


def readable_by_others(path: Path) -> bool:
    """Return whether others than the owner may read a file, and it holds secrets rather than variables."""
    holds = "://" in redact(text := path.read_text(encoding="utf-8")) and redact(text) != text
    return holds and bool(path.stat().st_mode & 0o044)


def _with_variables(value: Any, place: str, environment: Mapping[str, str]) -> Any:
    """Return a value with `${NAME}` replaced in all texts of it."""
    if isinstance(value, dict):
        return {key: _with_variables(one, f"{place}.{key}", environment) for key, one in value.items()}
    if isinstance(value, list):
        return [_with_variables(one, f"{place}[{n}]", environment) for n, one in enumerate(value)]
    if not isinstance(value, str):
        return value

    def replaced(match: re.Match[str]) -> str:
        if match[1] not in environment:
            raise ConfigError(
                f"{place.lstrip('.')}: the environment has no {match[1]}; set it, or check its name"
            )
        return environment[match[1]]

    return _VARIABLE.sub(replaced, value)


def _site(raw: Any) -> Site:
    if not isinstance(raw, dict):
        raise ConfigError("a site is a mapping with `cameras:`")
    shared, rest = _options_of(raw)
    known = {"listen", "token", "cameras"}
    for name in set(map(str, rest)) - known:
        raise _unknown(name, "", known | set(_OPTIONS))
    cameras, options = {}, {}
    listed = rest.get("cameras")
    if not isinstance(listed, dict) or not listed:
        raise ConfigError("cameras: name at least one, such as `front: {source: rtsp://camera/sub}`")
    for name, entry in listed.items():
        place = f"cameras.{name}"
        if not _NAME.fullmatch(str(name)):
            raise ConfigError(f"{place}: a name has letters, digits, - and _ only; it is part of an address")
        if not isinstance(entry, dict):
            raise ConfigError(f"{place}: a camera is a mapping with `source:`")
        own, described = _options_of(entry)
        cameras[str(name)] = _camera(described, place)
        options[str(name)] = _run_options({**shared, **own}, place)
    site = Site(
        listen=str(rest.get("listen", "127.0.0.1:8080")),
        token=str(rest.get("token", "")),
        cameras=cameras,
        options=options,
    )
    _check_listen(site)
    return site


def _options_of(entry: Mapping[Any, Any]) -> tuple[dict[str, Any], dict[Any, Any]]:
    """Part the options of a run, which may be spelled with hyphens, from everything else."""
    spelled = {key: str(key).replace("-", "_") for key in entry}
    options = {name: entry[key] for key, name in spelled.items() if name in _OPTIONS}
    return options, {key: entry[key] for key, name in spelled.items() if name not in _OPTIONS}


def _camera(described: Mapping[Any, Any], place: str) -> Camera:
    try:
        return msgspec.convert(described, Camera)
    except msgspec.ValidationError as error:
        unknown = _UNKNOWN.search(str(error))
        if unknown:
            raise _unknown(unknown[1], place, {"source", "targets", *_OPTIONS}) from None
        raise ConfigError(f"{place}: {str(error).replace('Object', 'the camera')}") from None


def _run_options(given: Mapping[str, Any], place: str) -> RunOptions:
    values: dict[type[Any], dict[str, Any]] = {kind: {} for kind in _KINDS}
    for name, value in given.items():
        kind, field_name = _OPTIONS[name]
        try:
            values[kind][field_name] = _converted(field_name, value)
        except ValueError as error:
            raise ConfigError(f"{place}.{name}: {error}") from None
    try:
        return RunOptions(
            read=ReadOptions(**values[ReadOptions], wait=True, live=True),
            encode=EncodeOptions(**values[EncodeOptions]),
            engine=EngineOptions(**values[EngineOptions]),
        )
    except ConfigError as error:
        words = _FIELD.sub(lambda match: _spelling(match[1]), str(error))
        raise ConfigError(f"{place}: {words}") from None


def _converted(field_name: str, value: Any) -> Any:
    if field_name in _WORDS and isinstance(value, bool):
        return "on" if value else "off"  # YAML takes these words for truth values
    if field_name in _TIMES:
        return parse_seconds(str(value))
    if field_name == "max_bitrate":
        return parse_bitrate(str(value))
    if field_name == "extra":
        if not isinstance(value, dict):
            raise ValueError("options of the encoder are a mapping: {tune: grain}")
        return {str(key): str(one) for key, one in value.items()}
    return value


def _unknown(name: str, place: str, known: set[str]) -> ConfigError:
    near = difflib.get_close_matches(name.replace("-", "_"), known, n=1)
    hint = f"; did you mean {near[0]}?" if near else f"; there is {', '.join(sorted(known))}"
    return ConfigError(f"{place + ': ' if place else ''}there is no option {name!r}{hint}")


def _check_listen(site: Site) -> None:
    """Refuse an address that cannot be listened on, or that everybody could ask without a token."""
    try:
        loopback = site.host == "localhost" or ip_address(site.host).is_loopback
        in_range = 0 <= site.port < 65_536
    except ValueError:
        loopback = in_range = False
        raise ConfigError(f"listen: {site.listen!r} is no address and port, such as 127.0.0.1:8080") from None
    if not in_range:
        raise ConfigError(f"listen: {site.port} is no port")
    if not loopback and len(site.token) < LEAST_TOKEN:
        raise ConfigError(
            f"listen: {site.listen} can be reached by others, so a token of {LEAST_TOKEN} characters or more "
            "is wanted; set `token: ${STREAMDERAIN_TOKEN}`, or listen on 127.0.0.1"
        )


LEAST_TOKEN = 16
"""Characters that a token has at least where others can ask."""
