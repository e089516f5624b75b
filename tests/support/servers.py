"""Real media servers on loopback, as programs of their own."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.support.live import free_port
from tests.support.requirements import require
from tests.support.runs import wait_until

_DEBIANS_PYTHON = "/usr/bin/python3"
_GST_SERVER = Path(__file__).with_name("gst_rtsp_server.py")
_NGINX_MODULE = Path("/usr/lib/nginx/modules/ngx_rtmp_module.so")

_VIDEO = "videotestsrc is-live=true pattern=ball ! video/x-raw,width=96,height=64,framerate=25/1,format=I420"
_SOUND = (
    "audiotestsrc is-live=true ! audio/x-raw,rate=48000,channels=1 ! avenc_aac ! rtpmp4gpay name=pay1 pt=97"
)

H264 = (
    f"( {_VIDEO} ! x264enc tune=zerolatency key-int-max=25 speed-preset=ultrafast "
    f"! h264parse config-interval=-1 ! rtph264pay config-interval=0 name=pay0 pt=96 {_SOUND} )"
)
H265 = (
    f"( {_VIDEO} ! x265enc tune=zerolatency key-int-max=25 speed-preset=ultrafast ! h265parse "
    f"! rtph265pay config-interval=1 name=pay0 pt=96 )"
)
MJPEG = f"( {_VIDEO} ! jpegenc ! rtpjpegpay name=pay0 pt=26 )"


def taken_to(path: Path) -> str:
    """The pipeline that writes a published stream, H.264 and AAC, to a Matroska file."""
    file = f"matroskamux name=m streamable=true ! filesink location={path}"
    return f"( rtph264depay name=depay0 ! h264parse ! {file} rtpmp4gdepay name=depay1 ! aacparse ! m. )"


@contextmanager
def gst_server(
    mounts: Mapping[str, str], *, port: int = 0, user: str = "", password: str = "", certificate: str = ""
) -> Iterator[str]:
    """Run GStreamer's RTSP server; yields `127.0.0.1:PORT`.

    Args:
        mounts: Pipeline by path; those with a `depay0` are published to.
        port: 0 for any.
        user: Wanted of all by digest; empty for none.
        password: Of the user.
        certificate: File with certificate and key; empty for plain RTSP.
    """
    has = subprocess.run(
        [_DEBIANS_PYTHON, "-c", "import gi; gi.require_version('GstRtspServer', '1.0')"], capture_output=True
    )
    require(has.returncode == 0, "GStreamer's RTSP server (Debian's python3-gi, gir1.2-gst-rtsp-server-1.0)")
    order = {
        "mounts": {path: {"launch": launch, "record": "depay0" in launch} for path, launch in mounts.items()},
        "port": port,
        "user": user,
        "password": password,
        "certificate": certificate,
    }
    command = [_DEBIANS_PYTHON, str(_GST_SERVER), json.dumps(order)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
        try:
            assert server.stdout is not None
            yield f"127.0.0.1:{int(server.stdout.readline())}"
        finally:
            server.kill()


@contextmanager
def nginx(folder: Path) -> Iterator[tuple[str, str]]:
    """Run nginx with its RTMP module; yields the addresses of its application and of its files.

    What is published as `rtmp://.../live/NAME` comes out as `http://.../NAME.m3u8` too.
    """
    require(shutil.which("nginx") and _NGINX_MODULE.exists(), "nginx-light and libnginx-mod-rtmp")
    rtmp, http = free_port(), free_port()
    (folder / "www").mkdir()
    (folder / "nginx.conf").write_text(
        f"""
        load_module {_NGINX_MODULE};
        daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log;
        events {{ worker_connections 64; }}
        rtmp {{ server {{ listen 127.0.0.1:{rtmp}; application live {{
            live on; hls on; hls_path {folder}/www; hls_fragment 1s; hls_playlist_length 4s;
        }} }} }}
        http {{
            access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
            fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
            server {{ listen 127.0.0.1:{http}; location / {{ root {folder}/www; }} }}
        }}
        """
    )
    with subprocess.Popen(
        ["nginx", "-c", str(folder / "nginx.conf"), "-p", str(folder), "-e", str(folder / "error.log")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as server:
        try:
            wait_until(lambda: _listens(rtmp) and _listens(http), what="nginx", limit_s=10)
            yield f"rtmp://127.0.0.1:{rtmp}/live", f"http://127.0.0.1:{http}"
        finally:
            server.kill()


@contextmanager
def python_rtsp_server() -> Iterator[str]:
    """Run the server of the package `rtsp`, an implementation of its own; yields its address."""
    port = free_port()
    program = (
        "import sys, time, rtsp\n"
        "from PIL import Image\n"
        f"with rtsp.Source('rtsp://127.0.0.1:{port}/cam', fps=25) as source:\n"
        "    for n in range(10**6):\n"
        "        source.put(Image.new('RGB', (96, 64), (n % 256, 90, 40)))\n"
        "        time.sleep(0.04)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as server:
        try:
            wait_until(lambda: _listens(port), what="the package's server", limit_s=20)
            yield f"rtsp://127.0.0.1:{port}/cam"
        finally:
            server.kill()


def self_signed(folder: Path) -> Path:
    """Make a certificate for 127.0.0.1 that nobody vouches for; returns the file, with its key."""
    key, certificate, both = folder / "key.pem", folder / "certificate.pem", folder / "both.pem"
    require(shutil.which("openssl"), "openssl")
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2", "-nodes"]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-keyout", key, "-out", certificate, *subject],
        check=True,
        capture_output=True,
    )
    both.write_bytes(certificate.read_bytes() + key.read_bytes())
    return both


def _listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False
