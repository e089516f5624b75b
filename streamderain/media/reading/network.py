"""What addresses want of FFmpeg, and what is wrong where one does not open."""

from __future__ import annotations

import ssl

import av

from streamderain.errors import OpenError, Unreachable
from streamderain.options import ReadOptions

LIVE_SCHEMES = frozenset(("rtsp", "rtsps", "rtmp", "rtmps", "udp", "rtp", "tcp", "srt"))
"""What is live by its scheme; over HTTP it is what has no length."""

FILE_TIMEOUTS_S = (10.0, 10.0)
LIVE_TIMEOUTS_S = (5.0, 3.0)
"""How long opening and reading may take. A read that stalls shows after twice its limit."""

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
    if options.tls_verify and scheme in _ENCRYPTED:
        found["tls_verify"] = "1"
        authorities = ssl.get_default_verify_paths().cafile
        if authorities:
            found["ca_file"] = authorities
    return found


def timeouts_s(address: str) -> tuple[float, float]:
    """Return how long opening an address and reading from it may take."""
    return LIVE_TIMEOUTS_S if is_live_scheme(address) else FILE_TIMEOUTS_S


def network_fault(name: str, error: Exception, reason: str) -> OpenError:
    """Return what is wrong with an address that did not open.

    Args:
        name: Of the address, without credentials.
        error: What FFmpeg raised.
        reason: FFmpeg's words.
    """
    if isinstance(error, av.error.HTTPUnauthorizedError):
        return OpenError(f"{name} refuses the user name and password, or wants some; check them")
    if isinstance(error, av.error.HTTPForbiddenError):
        return OpenError(f"{name} is forbidden to this user; check the user's rights on the server")
    if isinstance(error, av.error.HTTPNotFoundError):
        return OpenError(f"{name} is not there: the server knows no such stream. Check the path")
    if isinstance(error, av.error.ProtocolNotFoundError):
        return OpenError(f"{name}: this FFmpeg does not speak {scheme_of(name)}; use another address")
    return Unreachable(f"{name} cannot be opened: {reason}. Check the address and the network")
