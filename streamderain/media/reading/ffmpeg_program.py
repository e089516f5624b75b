"""Sources that PyAV's FFmpeg cannot open, read by the system's `ffmpeg`: cameras on this machine, and SRT.

The program copies packets as they are into NUT on a pipe. It ends with this process.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from functools import partial

from streamderain.addresses import redact
from streamderain.errors import OpenError, Unreachable
from streamderain.media.network import scheme_of
from streamderain.media.reading.pipe import Pipe
from streamderain.system.process import die_with_parent, start_child

SCHEMES = ("v4l2", "srt")
"""`v4l2:///dev/video0` is a camera by its device."""

SILENT_S = 10.0
"""A source that brings nothing for so long is given up."""

_END_S = 3.0
_TOLD_BYTES = 2000

_COPIED = ("-c", "copy", "-f", "nut", "-flush_packets", "1", "pipe:1")
_PROTOCOLS = ("-protocol_whitelist", "pipe,srt,udp")


class FfmpegProgram(Pipe):
    """The program, and the pipe that it writes to.

    Args:
        address: What it reads.
        stop: Once it is set, the stream ends.

    Raises:
        OpenError: The program is not installed.
    """

    def __init__(self, address: str, stop: threading.Event) -> None:
        if shutil.which("ffmpeg") is None:
            raise OpenError(
                f"{redact(address)} is read by the program ffmpeg, which is not installed; install it "
                "(on Debian: apt install ffmpeg)"
            )
        source, given = _source(address)
        command = ["ffmpeg", "-v", "error", *source, *_COPIED]
        self._process = start_child(
            lambda: subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                preexec_fn=partial(die_with_parent, os.getpid()),
            )
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        super().__init__(self._process.stdout.fileno(), stop, silent_s=SILENT_S)
        self._told = b""
        self._listener = threading.Thread(target=self._listen, name="ffmpeg-listener", daemon=True)
        self._listener.start()
        with self._process.stdin as orders:
            orders.write(given)

    def fault(self, address: str) -> OpenError:
        """End the program and return why it brought nothing, in its own words."""
        self.close()
        lines = redact(self._told.decode(errors="replace")).strip().splitlines()
        reason = lines[-1].rpartition(": ")[2].lower() if lines else "it brings nothing"
        return Unreachable(f"{redact(address)} cannot be opened: {reason}. Check the address and the device")

    def close(self) -> None:
        """End the program. Idempotent."""
        self.end()
        self._process.kill()
        self._process.wait(_END_S)
        self._listener.join(_END_S)
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _listen(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as lines:
            for line in lines:
                self._told = (self._told + line)[-_TOLD_BYTES:]


def _source(address: str) -> tuple[list[str], bytes]:
    """Return how the program is told what it reads: arguments, and what it finds on its standard input."""
    if scheme_of(address) == "v4l2":
        return ["-f", "v4l2", "-i", address.partition("://")[2]], b""
    # Not as an argument: everybody can read those, and the address may hold a passphrase.
    quoted = address.replace("'", r"'\''")
    return [*_PROTOCOLS, "-f", "concat", "-safe", "0", "-i", "pipe:0"], f"file '{quoted}'\n".encode()
