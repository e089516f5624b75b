"""What addresses want of FFmpeg, and what is wrong where one does not open."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
from pathlib import Path
from urllib.parse import urlsplit

import av

from streamderain.addresses import redact_address
from streamderain.errors import NotServed, OpenError, Unreachable
from streamderain.options import ReadOptions

LIVE_SCHEMES = frozenset(("rtsp", "rtsps", "rtmp", "rtmps", "udp", "rtp", "tcp", "srt", "v4l2"))
"""What is live by its scheme; over HTTP it is what has no length."""

FILE_TIMEOUTS_S = (10.0, 10.0)
LIVE_TIMEOUTS_S = (5.0, 3.0)
"""How long opening and reading may take. A read that stalls shows after twice its limit."""

_UDP_BYTES = 7 * 188
"""As many packets of a transport stream as fit into a frame of Ethernet."""

_ENCRYPTED_PORTS = {"rtsps": 322, "https": 443, "rtmps": 443}
_ENCRYPTED = (*_ENCRYPTED_PORTS, "hls")


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
    return found | _tls_options(scheme, options)


def target_address(address: str) -> str:
    """Return an address as it is published to: over UDP with whole packets of the transport stream."""
    if scheme_of(address) != "udp" or "pkt_size=" in address:
        return address
    return f"{address}{'&' if '?' in address else '?'}pkt_size={_UDP_BYTES}"


def fault_words(error: Exception) -> str:
    """Return FFmpeg's words without the number and the name that may hold a password."""
    return str(getattr(error, "strerror", None) or type(error).__name__).lower()


def network_fault(
    address: str, error: Exception, reason: str, *, publishing: bool = False, verified: bool = False
) -> OpenError:
    """Return what is wrong with an address that did not open, or closed.

    Args:
        address: What was opened.
        error: What FFmpeg raised.
        reason: FFmpeg's words.
        publishing: Whether it is a target.
        verified: Whether its certificate has to be valid.
    """
    name = redact_address(address)
    if verified and scheme_of(address) in _ENCRYPTED and (untrusted := _certificate_fault(address)):
        return OpenError(
            f"{name} has a certificate that this machine does not trust: {untrusted}. Add its authority to "
            "the system's, or leave --tls-verify out"
        )
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


def _certificate_fault(address: str) -> str:
    """Return why a server's certificate is not trusted; empty where it is, or nobody answers.

    FFmpeg tells a refused certificate by the same words as a broken connection.
    """
    parts = urlsplit(address)
    port = parts.port or _ENCRYPTED_PORTS.get(parts.scheme.lower(), 443)
    try:
        with (
            socket.create_connection((parts.hostname or "", port), timeout=LIVE_TIMEOUTS_S[1]) as plain,
            ssl.create_default_context().wrap_socket(plain, server_hostname=parts.hostname),
        ):
            return ""
    except ssl.SSLCertVerificationError as error:
        return error.verify_message
    except (OSError, ValueError):
        return ""


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
