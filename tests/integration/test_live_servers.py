"""Live runs with what others wrote: GStreamer, nginx-rtmp, the package `rtsp`, and FFmpeg as a reader."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import IO

import psutil
import pytest

from tests.support.command import Outcome, streamderain
from tests.support.live import free_port, peer, plays, transport_stream
from tests.support.media import decoded
from tests.support.reader import ffprobe, frame_count
from tests.support.requirements import require
from tests.support.runs import FAST, ended, holds, running, wait_until
from tests.support.servers import (
    H264,
    H265,
    MJPEG,
    gst_server,
    nginx,
    python_rtsp_server,
    self_signed,
    taken_to,
)

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with gst_server({"/h264": H264, "/h265": H265, "/mjpeg": MJPEG}) as address:
        yield address


def recorded(address: str, target: Path, *more: str, env: Mapping[str, str] | None = None) -> Outcome:
    """Record a second of a source."""
    words = ("run", address, "-o", target, "-t", "1", "--json", *FAST, *more)
    return streamderain(*words, env=env, timeout_s=60)


@pytest.mark.parametrize("kind", ["h264", "h265", "mjpeg"])
def test_a_camera_of_each_codec(server: str, tmp_path: Path, kind: str) -> None:
    done = recorded(f"rtsp://{server}/{kind}", tmp_path / "clean.mp4")
    assert done.code == 0, done.err
    stream = ffprobe(tmp_path / "clean.mp4", "-show_streams")["streams"][0]
    assert (stream["codec_name"], stream["has_b_frames"], stream["pix_fmt"]) == ("h264", 0, "yuv420p") or (
        kind == "mjpeg" and stream["pix_fmt"] == "yuvj420p"
    )
    assert 23 <= frame_count(tmp_path / "clean.mp4") <= 26


def test_a_camera_over_udp(server: str, tmp_path: Path) -> None:
    done = recorded(f"rtsp://{server}/h264", tmp_path / "clean.mkv", "--rtsp-transport", "udp")
    assert done.code in (0, 7), done.err
    assert len(decoded(tmp_path / "clean.mkv")) >= 20


def test_sound_comes_along(server: str, tmp_path: Path) -> None:
    done = recorded(f"rtsp://{server}/h264", tmp_path / "clean.mkv")
    assert done.code == 0, done.err
    packets = ffprobe(tmp_path / "clean.mkv", "-select_streams", "a", "-show_packets")["packets"]
    times = [float(packet["pts_time"]) for packet in packets]
    assert times == sorted(times)
    assert times[0] < 0.2
    assert 0.7 < times[-1] < 1.3


def test_what_recorders_like(server: str, tmp_path: Path) -> None:
    """A keyframe each second that carries its parameter sets, no B-frames, the rate of the source."""
    target = tmp_path / "clean.ts"
    address = f"rtsp://{server}/h264"
    done = streamderain("run", address, "-o", target, "-t", "4", "--preset", "ultrafast", timeout_s=60)
    assert done.code == 0, done.err
    packets = ffprobe(target, "-select_streams", "v", "-show_packets")["packets"]
    keys = [number for number, packet in enumerate(packets) if "K" in packet["flags"]]
    # The source's clock is not ours: the last frame of four seconds may be the first of the fifth.
    assert 75 < len(packets) <= 101
    assert keys == list(range(0, len(packets), 25))
    trace = subprocess.run(
        ["ffmpeg", "-v", "verbose", "-i", target, "-c", "copy", "-bsf:v", "trace_headers", "-f", "null", "-"],
        capture_output=True,
        text=True,
        check=True,
    ).stderr
    assert trace.count("Sequence Parameter Set") >= 4
    assert trace.count("Picture Parameter Set") >= 4
    stream = ffprobe(target, "-show_streams")["streams"][0]
    assert (stream["r_frame_rate"], stream["has_b_frames"]) == ("25/1", 0)


def test_a_cap_on_the_bit_rate(server: str, tmp_path: Path) -> None:
    sizes = {}
    for name, more in (("free", ()), ("capped", ("--max-bitrate", "60k"))):
        target = tmp_path / f"{name}.ts"
        done = recorded(f"rtsp://{server}/h264", target, "--crf", "1", "-t", "4", *more)
        assert done.code == 0, done.err
        packets = ffprobe(target, "-select_streams", "v", "-show_packets")["packets"]
        sizes[name] = sum(int(packet["size"]) for packet in packets)
    assert sizes["capped"] < 0.7 * sizes["free"]


def test_digest_is_answered_and_wrong_passwords_end_at_once(tmp_path: Path) -> None:
    with gst_server({"/h264": H264}, user="keeper", password="gate-code") as address:
        done = recorded(f"rtsp://keeper:gate-code@{address}/h264", tmp_path / "clean.mkv")
        assert done.code == 0, done.err
        assert "gate-code" not in done.err
        began = time.monotonic()
        wrong = recorded(f"rtsp://keeper:sesame-9@{address}/h264", tmp_path / "no.mkv")
        assert wrong.code == 3
        assert time.monotonic() - began < 8
        assert "refuses the user name and password" in wrong.err
        assert "sesame-9" not in wrong.err
        missing = recorded(f"rtsp://keeper:gate-code@{address}/other", tmp_path / "no.mkv")
        assert missing.code == 3
        assert not (tmp_path / "no.mkv").exists()


def test_encrypted_cameras_and_their_certificates(server: str, tmp_path: Path) -> None:
    certificate, taken = self_signed(tmp_path), tmp_path / "taken.mkv"
    mounts = {"/h264": H264, "/clean": taken_to(taken)}
    with gst_server(mounts, certificate=str(certificate)) as address:
        source, target = f"rtsps://{address}/h264", f"rtsps://{address}/clean"
        done = recorded(source, tmp_path / "clean.mkv", "-o", target)
        assert done.code == 0, done.err
        assert taken.stat().st_size > 4000
        began = time.monotonic()
        for refused in (
            recorded(source, tmp_path / "no.mkv", "--tls-verify"),
            recorded(f"rtsp://{server}/h264", tmp_path / "no.mkv", "-o", target, "--tls-verify"),
        ):
            assert refused.code == 3, refused.err
            assert "does not trust: self-signed certificate" in refused.err
            assert not (tmp_path / "no.mkv").exists()
        assert time.monotonic() - began < 8
        trusted = {"SSL_CERT_FILE": str(tmp_path / "certificate.pem")}
        done = recorded(source, tmp_path / "trusted.mkv", "--tls-verify", env=trusted)
        assert done.code == 0, done.err


def test_an_independent_server_takes_the_stream_and_another_comes_back(server: str, tmp_path: Path) -> None:
    taken, port = tmp_path / "taken.mkv", free_port()
    with running(
        "run", f"rtsp://{server}/h264", "-o", f"rtsp://127.0.0.1:{port}/clean", "--wait", *FAST
    ) as run:
        for number in range(2):
            with gst_server({"/clean": taken_to(taken)}, port=port):
                wait_until(
                    lambda: taken.exists() and taken.stat().st_size > 4000, what="a stream", limit_s=10
                )
                time.sleep(1)
            assert frame_count(taken, cut=True) > 10, number
            taken.unlink()
        run.terminate()
        code, said = ended(run)
    assert code == 130, said


def test_a_camera_that_changes_its_codec(tmp_path: Path) -> None:
    port = free_port()
    target = tmp_path / "clean.mkv"
    with running("run", f"rtsp://127.0.0.1:{port}/cam", "-o", target, "--wait", *FAST) as run:
        with gst_server({"/cam": H264}, port=port):
            wait_until(lambda: any(tmp_path.glob("clean.partial*")), what="a recording", limit_s=15)
            time.sleep(1.5)
        with gst_server({"/cam": H265}, port=port):
            wait_until(lambda: any(tmp_path.glob("clean-2.partial*")), what="another file", limit_s=15)
            time.sleep(1.5)
            run.terminate()
            code, said = ended(run)
    assert code == 130, said
    assert "brings other streams" in said
    assert len(decoded(target)) > 10
    assert len(decoded(tmp_path / "clean-2.mkv")) > 10


def test_rtmp_both_ways_and_its_playlist(server: str, tmp_path: Path) -> None:
    with (
        nginx(tmp_path) as (rtmp, http),
        running("run", f"rtsp://{server}/h264", "-o", f"{rtmp}/clean", "--preset", "ultrafast") as run,
    ):
        playlist = tmp_path / "www" / "clean.m3u8"
        wait_until(playlist.exists, what="a playlist", limit_s=20)
        back = recorded(f"{rtmp}/clean", tmp_path / "back.mkv")
        assert back.code == 0, back.err
        assert 20 <= len(decoded(tmp_path / "back.mkv")) <= 26
        # A playlist without an end is live by itself.
        shown = streamderain(
            "run", f"{http}/clean.m3u8", "-o", tmp_path / "shown.mkv", "-t", "3", "--json", *FAST
        )
        assert shown.code in (0, 7), shown.err
        assert len(decoded(tmp_path / "shown.mkv")) >= 60
        run.terminate()
        assert ended(run)[0] == 130


def test_a_file_and_a_finished_playlist_over_http_are_whole(tmp_path: Path) -> None:
    with nginx(tmp_path) as (_, http):
        transport_stream(tmp_path / "www" / "clip", frames=30)
        made = streamderain("run", tmp_path / "www" / "clip.ts", "-o", tmp_path / "www" / "done.m3u8", *FAST)
        assert made.code == 0, made.err
        for name in ("clip.ts", "done.m3u8"):
            target = tmp_path / f"{name}.mkv"
            done = streamderain("run", f"{http}/{name}", "-o", target, "--json", *FAST)
            assert done.code == 0, done.err
            assert len(decoded(target)) == 30


def test_a_server_in_python(tmp_path: Path) -> None:
    require(find_spec("rtsp"), "the package rtsp")
    with python_rtsp_server() as address:
        done = recorded(address, tmp_path / "clean.mkv", "--wait")
        assert done.code in (0, 7), done.err
        assert len(decoded(tmp_path / "clean.mkv")) >= 15


def test_transport_streams_over_udp_and_tcp(tmp_path: Path) -> None:
    stream = transport_stream(tmp_path / "a", frames=100)
    got = tmp_path / "got.ts"
    with (
        peer(plays(stream, seconds=4)) as camera,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening,
        got.open("wb") as file,
    ):
        listening.bind(("127.0.0.1", 0))
        listening.settimeout(4)
        collecting = threading.Thread(target=_collect, args=(listening, file))
        collecting.start()
        target = f"udp://127.0.0.1:{listening.getsockname()[1]}"
        done = streamderain("run", camera.address(), "-o", target, "-t", "3", "--json", *FAST)
        collecting.join()
    assert done.code == 0, done.err
    assert done.summary["dropped"] == 0
    assert len(decoded(got)) > 60


def _collect(listening: socket.socket, file: IO[bytes]) -> None:
    with contextlib.suppress(TimeoutError):
        while data := listening.recv(1 << 16):
            assert len(data) % 188 == 0
            file.write(data)


def test_a_recording_is_published_at_its_own_pace(tmp_path: Path) -> None:
    clip, taken = tmp_path / "clip", tmp_path / "taken.mkv"
    transport_stream(clip, frames=50)
    with gst_server({"/clean": taken_to(taken)}) as address:
        began = time.monotonic()
        done = streamderain("run", clip.with_suffix(".ts"), "-o", f"rtsp://{address}/clean", *FAST)
        assert done.code == 0, done.err
        assert time.monotonic() - began > 1.9
        time.sleep(0.5)
    assert frame_count(taken, cut=True) >= 48


def test_what_this_ffmpeg_does_not_speak_is_said(tmp_path: Path) -> None:
    transport_stream(tmp_path / "a", frames=10)
    target = streamderain("run", tmp_path / "a.ts", "-o", "srt://127.0.0.1:9")
    assert target.code == 2
    assert "srt-live-transmit" in target.err


def test_srt_is_read_by_the_program_ffmpeg(tmp_path: Path) -> None:
    require(shutil.which("ffmpeg"), "ffmpeg")
    clip, port, phrase = tmp_path / "clip", free_port(), "tr0ub4dor-and-3"
    transport_stream(clip, frames=50)
    address = f"srt://127.0.0.1:{port}?passphrase={phrase}"
    sending = [
        "ffmpeg",
        "-v",
        "quiet",
        "-re",
        "-stream_loop",
        "-1",
        "-i",
        clip.with_suffix(".ts"),
        "-c",
        "copy",
    ]
    with subprocess.Popen([*sending, "-f", "mpegts", f"{address}&mode=listener"]) as sender:
        try:
            with running("run", address, "-o", tmp_path / "clean.mkv", "--wait", *FAST) as run:
                wait_until(
                    lambda: holds(tmp_path / "clean.partial.mkv", 3000), what="a recording", limit_s=20
                )
                children = psutil.Process(run.pid).children()
                assert [child.name() for child in children] == ["ffmpeg"]
                assert phrase not in " ".join(children[0].cmdline())
                run.terminate()
                code, said = ended(run)
            assert code == 130, said
            assert phrase not in said
            assert not any(child.is_running() for child in children)
        finally:
            sender.kill()
    assert len(decoded(tmp_path / "clean.mkv")) > 10
    gone = recorded(address, tmp_path / "no.mkv")
    assert gone.code == 3
    assert "cannot be opened" in gone.err
    assert phrase not in gone.err


def test_a_camera_on_this_machine_is_read_by_the_program_ffmpeg(
    tmp_path: Path,
) -> None:
    """No machine of these tests has a camera: a stand-in looks how it is called, and plays a clip."""
    transport_stream(tmp_path / "clip", frames=50)
    stand_in = tmp_path / "bin" / "ffmpeg"
    stand_in.parent.mkdir()
    stand_in.write_text(
        f"""#!/bin/sh
        copied="-c copy -f nut -flush_packets 1 pipe:1"
        test "$*" = "-v error -f v4l2 -i /dev/video7 $copied" || exit 1
        exec {shutil.which("ffmpeg")} -v error -re -i {tmp_path}/clip.ts $copied
        """
    )
    stand_in.chmod(0o755)
    env = {"PATH": f"{stand_in.parent}:{os.environ['PATH']}"}
    done = recorded("v4l2:///dev/video7", tmp_path / "clean.mkv", env=env)
    assert done.code == 0, done.err
    assert len(decoded(tmp_path / "clean.mkv")) == 25
    empty = tmp_path / "empty"
    empty.mkdir()
    missing = recorded("v4l2:///dev/video7", tmp_path / "no.mkv", env={"PATH": str(empty)})
    assert missing.code == 3
    assert "ffmpeg, which is not installed" in missing.err
    real = recorded("v4l2:///dev/video7", tmp_path / "no.mkv")
    assert real.code == 3
    assert "no such file or directory" in real.err
