"""No credential of an address is ever shown."""

from __future__ import annotations

import logging
import string
from pathlib import Path

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from streamderain.addresses import display_name, is_address, redact, redact_address
from streamderain.errors import ConfigError, OpenError, StageFailed, StreamderainError
from streamderain.media.network import is_live_scheme
from streamderain.media.reading.sources import find_sources, open_source
from streamderain.media.writing.target import parse_target
from streamderain.options import ReadOptions
from tests.support.command import streamderain

UGLY = [
    ("rtsp://admin:p@ss@host/", "rtsp://***@host/"),
    ("rtsp://admin:secret@10.0.0.7:554/stream1", "rtsp://***@10.0.0.7:554/stream1"),
    ("rtsp://user:a/b@host/live", "rtsp://***@host/live"),
    ("rtsp://user:a:b@host", "rtsp://***@host"),
    ("rtsp://user@host/live", "rtsp://***@host/live"),
    ("RTSP://Admin:Secret@Host/Live", "RTSP://***@Host/Live"),
    ("rtsp://admin:a b@host/live", "rtsp://***@host/live"),
    ("rtsp://admin:a?b@host/live", "rtsp://***"),
    ("rtsp://admin:a#b@host/live", "rtsp://***"),
    ("rtsp://admin:x://y@host/live", "rtsp://***@host/live"),
    ("rtsp://host/live?user=admin&password=secret", "rtsp://host/live?***"),
    ("https://host/live.m3u8?token=abc&sig=def#x", "https://host/live.m3u8?***"),
    ("http://host/x?key=a@b", "http://***"),
    ("rtsp://host:554/user=admin_password=tlJ_channel=1.sdp?real", "rtsp://host:554/***"),
    ("rtsp://host/user=admin_password=a/b_channel=1", "rtsp://host/***"),
    ("srt://host:9000?passphrase=0123456789&mode=caller", "srt://host:9000?***"),
    ("rtsp://host/live#fragment", "rtsp://host/live#***"),
    ("rtsp://host/live", "rtsp://host/live"),
    ("https://host:8443/a/b.mp4", "https://host:8443/a/b.mp4"),
    ("a:b@c.mp4", "a:b@c.mp4"),
    ("no address at all", "no address at all"),
]

PASSWORDS = st.text(string.printable.strip() + " äß", min_size=1, max_size=20)


@pytest.mark.parametrize(("address", "shown"), UGLY)
def test_ugly_addresses(address: str, shown: str) -> None:
    assert redact_address(address) == display_name(address) == shown
    assert redact(address) == shown
    assert redact(redact(address)) == shown


def test_texts_with_addresses_keep_their_words() -> None:
    text = "rtsp://a:b@host/x and http://c@d/y"
    assert redact(text) == "rtsp://***@host/x and http://***@d/y"
    assert redact("cannot open 'rtsp://a:b@host/x': refused") == "cannot open 'rtsp://***@host/x': refused"
    assert redact("first\nrtsp://a:b@host/x\nlast") == "first\nrtsp://***@host/x\nlast"
    once = redact("rtsp://host/x?***: it does not answer. Check the address")
    assert once == "rtsp://host/x?***: it does not answer. Check the address"


@given(PASSWORDS)
@example("@")
@example("/")
@example("?")
@example("a b")
@example("://")
@example("x@y?z=1")
def test_a_password_before_the_host_never_shows(password: str) -> None:
    # What is shown is one of two texts, whatever the password.
    assert redact_address(f"rtsp://admin:{password}@host/live") in ("rtsp://***@host/live", "rtsp://***")
    twice = redact_address(f"rtsp://admin:{password}@host/live?token={password}")
    assert twice in ("rtsp://***@host/live?***", "rtsp://***")


@given(PASSWORDS, st.sampled_from(["password", "token", "key", "sig", "p", "auth"]))
def test_a_value_of_a_query_or_path_never_shows(password: str, key: str) -> None:
    shown = {"rtsp://host/live?***", "rtsp://***"}
    assert redact_address(f"rtsp://host/live?{key}={password}") in shown
    assert redact_address(f"rtsp://host/live?user=a&{key}={password}&mode=x") in shown
    in_path = redact_address(f"rtsp://host/user=admin_{key}={password}_channel=1")
    assert in_path in ("rtsp://host/***", "rtsp://***")


@given(PASSWORDS, PASSWORDS)
def test_redaction_of_texts_is_idempotent(before: str, password: str) -> None:
    text = redact(f"{before} rtsp://admin:{password}@host/live failed")
    assert redact(text) == text


@given(PASSWORDS)
def test_no_error_and_no_name_shows_a_password(password: str) -> None:
    assume("://" not in password)
    address = f"rtsp://admin:{password}@camera.invalid/live"
    allowed = {"rtsp://***@camera.invalid/live", "rtsp://***"}
    assert str(StreamderainError(address)) in allowed
    told = str(StageFailed("read", frame_index=1, pts=2, reason=f"OSError({address!r})"))
    assert f"admin:{password}" not in told
    (spec,) = find_sources(address, ReadOptions())
    assert spec.place in allowed
    assert spec.name in ("live.mkv", "stream.mkv")
    assert f"admin:{password}" not in repr(spec)
    target = parse_target(address)
    assert target.text in allowed
    assert f"admin:{password}" not in repr(target)
    with pytest.raises(ConfigError) as caught:
        parse_target(address.replace("rtsp://", "ftp://", 1))
    assert any(str(caught.value).startswith(f"ftp{name[4:]} cannot be published") for name in allowed)


@pytest.mark.slow
@pytest.mark.parametrize(
    "address",
    [
        "rtsp://admin:s3cr3t@127.0.0.1:1/live",
        "rtsp://127.0.0.1:1/live?user=admin&password=s3cr3t",
        "http://admin:s3cr3t@127.0.0.1:1/a.mp4",
        "rtsp://127.0.0.1:1/user=admin_password=s3cr3t_channel=1",
        "nosuchprotocol://admin:s3cr3t@host/x",
    ],
)
def test_nothing_that_a_run_says_shows_a_password(
    address: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (spec,) = find_sources(address, ReadOptions())
    with caplog.at_level(logging.DEBUG), pytest.raises(OpenError) as caught:
        open_source(spec, ReadOptions(live=False))
    error: BaseException | None = caught.value
    while error is not None:
        assert "s3cr3t" not in str(error)
        error = error.__cause__ if error.__suppress_context__ else error.__context__
    assert "s3cr3t" not in caplog.text
    report = tmp_path / "report.json"
    traceback = {"STREAMDERAIN_TRACEBACK": "1"}
    commands: list[tuple[str | Path, ...]] = [
        ("run", address, "-o", tmp_path / "o.mp4", f"--json={report}"),
        ("run", tmp_path / "missing.mp4", "-o", address),
        ("estimate", address, address),
        (address,),
    ]
    if not is_live_scheme(address):  # which each of these would seek for ten seconds, to say the same
        commands += [
            ("estimate", address),
            ("bench", address),
            ("compare", address, address, "-o", tmp_path / "c.html"),
        ]
    for arguments in commands:
        outcome = streamderain(*arguments, env=traceback)
        assert outcome.code in (2, 3)
        assert "s3cr3t" not in outcome.err
        assert b"s3cr3t" not in outcome.out
    assert "s3cr3t" not in report.read_text()
    assert is_address(address)
