"""What addresses want of FFmpeg, and what is wrong where one does not open."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
from pathlib import Path

import av

from streamderain.addresses import redact_address
from streamderain.errors import NotServed, OpenError, Unreachable
from streamderain.options import ReadOptions

LIVE_SCHEMES = frozenset(("rtsp", "rtsps", "rtmp", "rtmps", "udp", "rtp", "tcp", "srt"))
"""What is live by its scheme; over HTTP it is what has no length."""

FILE_TIMEOUTS_S = (10.0, 10.0)
LIVE_TIMEOUTS_S = (5.0, 3.0)
"""How long opening and reading may take. A read that stalls shows after twice its limit."""

_UDP_BYTES = 7 * 188
"""As many packets of a transport stream as fit into a frame of Ethernet."""

_ENCRYPTED = ("rtsps", "https", "rtmps", "hls")


def scheme_of(address: str) -> str:
    """Return an address's scheme, in small letters."""
    return address.partition("://")[0].lower()


def is_live_scheme(address: str) -> bool:
    """Return whether an address is live whatever it brings."""
    return scheme_of(address) in LIVE_SCHEMES


def network_options(address: str, options: ReadOptions) -> dict[str, str]:
    """Return the options that FFmpeg opens an address with."""
    scheme = scheme_of(address)
    found: dict[str, str] = {}
    if scheme in ("rtsp", "rtsps"):
        # Cameras tell what they send; looking for longer only delays the first picture.
        found |= {"rtsp_transport": options.rtsp_transport, "analyzeduration": "200000", "fpsprobesize": "0"}
    return found | _tls_options(scheme, options)


def timeouts_s(address: str) -> tuple[float, float]:
    """Return how long opening an address and reading from it may take."""
    return LIVE_TIMEOUTS_S if is_live_scheme(address) else FILE_TIMEOUTS_S


def target_options(address: str, options: ReadOptions) -> dict[str, str]:
    """Return the options that FFmpeg publishes to an address with."""
    scheme = scheme_of(address)
    found: dict[str, str] = {}
    if scheme in ("rtsp", "rtsps"):
        found["rtsp_transport"] = options.rtsp_transport
    if scheme == "udp":
        found["pkt_size"] = str(_UDP_BYTES)
    return found | _tls_options(scheme, options)


def fault_words(error: Exception) -> str:
    """Return FFmpeg's words without the number and the name that may hold a password."""
    return str(getattr(error, "strerror", None) or type(error).__name__).lower()


def network_fault(address: str, error: Exception, reason: str, *, publishing: bool = False) -> OpenError:
    """Return what is wrong with an address that did not open, or closed.

    Args:
        address: What was opened.
        error: What FFmpeg raised.
        reason: FFmpeg's words.
        publishing: Whether it is a target.
    """
    name = redact_address(address)
    if isinstance(error, av.error.HTTPUnauthorizedError):
        return OpenError(f"{name} refuses the user name and password, or wants some; check them")
    if isinstance(error, av.error.HTTPForbiddenError):
        return OpenError(f"{name} is forbidden to this user; check the user's rights on the server")
    if isinstance(error, av.error.HTTPNotFoundError):
        missing = "takes no stream under this name" if publishing else "knows no such stream"
        return NotServed(f"{name} is not there: the server {missing}. Check the path")
    if isinstance(error, av.error.ProtocolNotFoundError):
        return OpenError(f"{name}: this FFmpeg does not speak {scheme_of(name)}; use another address")
    if publishing:
        return Unreachable(f"{name} takes no stream: {reason}. Check the address and the server")
    return Unreachable(f"{name} cannot be opened: {reason}. Check the address and the network")


def send_at_once() -> None:
    """Have the connections of this process send small packets without waiting for the answer to earlier ones.

    FFmpeg sets this for some protocols only; waiting costs 40 ms: others delay their answers by so much.
    """
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            if not str(entry.readlink()).startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(entry.name))) as connection:
                if connection.type == socket.SOCK_STREAM and connection.family != socket.AF_UNIX:
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _tls_options(scheme: str, options: ReadOptions) -> dict[str, str]:
    if not options.tls_verify or scheme not in _ENCRYPTED:
        return {}
    authorities = ssl.get_default_verify_paths().cafile
    return {"tls_verify": "1", **({"ca_file": authorities} if authorities else {})}
