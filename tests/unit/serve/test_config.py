"""The file that describes a site."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamderain.cli.main import cli
from streamderain.errors import ConfigError, ModelNotFound, OpenError, StreamderainError
from streamderain.serve.config import check_site, read_site, readable_by_others


def written(folder: Path, text: str) -> Path:
    path = folder / "cameras.yaml"
    path.write_text(text)
    return path


def test_a_small_file_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAM_PASSWORD", "gate-code")
    site = read_site(
        written(
            tmp_path,
            """
            max-latency: 1s
            crf: 23
            cameras:
              front:
                source: rtsp://keeper:${CAM_PASSWORD}@192.0.2.10/sub
              back:
                source: rtsp://192.0.2.11/sub
                targets: ["rtsp://relay:8554/back", "/recordings/back-%Y%m%d-%H%M%S.ts"]
                crf: 20
                split: "5:00"
                max_bitrate: 2M
                extra: {tune: grain}
                alignment: off
            """,
        )
    )
    assert (site.host, site.port, site.token) == ("127.0.0.1", 8080, "")
    assert site.cameras["front"].source == "rtsp://keeper:gate-code@192.0.2.10/sub"
    assert len(site.cameras["back"].targets) == 2
    front, back = site.options["front"], site.options["back"]
    assert (front.read.max_latency_s, front.read.wait, front.read.live) == (1.0, True, True)
    assert (front.encode.crf, back.encode.crf, back.encode.split_s) == (23, 20, 300.0)
    assert back.encode.max_bitrate == 2_000_000
    assert back.engine.alignment == "off"
    assert dict(back.encode.extra) == {"tune": "grain"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("cameras: {a: {source: x, strenght: 0.5}}", r"cameras\.a: .*'strenght'; did you mean strength"),
        ("cameras: {a: {source: x}}\nlisten_on: 1", "no option 'listen_on'; did you mean listen"),
        ("cameras: {a: {sources: x}}", "did you mean source"),
        ("cameras: {a: {targets: []}}", "missing required field `source`"),
        ("cameras: {a: {source: 5}}", "Expected `str`, got `int`"),
        ("cameras: {a: {source: x, strength: 3}}", r"cameras\.a: strength must lie in 0\.\.1"),
        ("cameras: {a: {source: x, model: 5}}", r"cameras\.a: model must be str, not 5"),
        ("cameras: {a: {source: x, split: soon}}", r"cameras\.a\.split: 'soon' is no time"),
        ("cameras: {a: {source: x, max-bitrate: fast}}", r"cameras\.a\.max_bitrate: 'fast' is no bit rate"),
        ("cameras: {a: {source: x, wait: true}}", "no option 'wait'"),
        ("cameras: {a b: {source: x}}", r"cameras\.a b: a name has letters"),
        ("cameras: {}", "name at least one"),
        ("cameras: {a: x}", "a camera is a mapping"),
        ("[1]", "a site is a mapping"),
        ("cameras: {a: {source: '${NO_SUCH}'}}", r"cameras\.a\.source: the environment has no NO_SUCH"),
        ("cameras:\n  a: {source: x\nb: 1", "cameras.yaml, line 3: "),
        ("listen: 0.0.0.0:80\ncameras: {a: {source: x}}", "a token of 16 characters or more is wanted"),
        ("listen: 0.0.0.0:80\ntoken: short\ncameras: {a: {source: x}}", "a token of 16 characters"),
        ("listen: everywhere\ncameras: {a: {source: x}}", "is no address and port"),
        ("listen: 127.0.0.1:99999\ncameras: {a: {source: x}}", "99999 is no port"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_named_with_its_place(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        read_site(written(tmp_path, text))
    assert "cameras.yaml" in str(caught.value)


@pytest.mark.parametrize(
    ("more", "kind", "says"),
    [
        ("model: no-such", ModelNotFound, r"cameras\.a: there is no model named 'no-such'"),
        ("engine: cuda9", ConfigError, r"cameras\.a: there is no engine 'cuda9'"),
        ("codec: nosuch", ConfigError, r"cameras\.a: there is no video encoder 'nosuch'"),
        ("targets: [/nosuch/a.ts]", OpenError, r"cameras\.a: /nosuch/a\.ts: the folder /nosuch"),
    ],
)  # fmt: skip
def test_what_this_machine_has_not_is_named_before_a_camera_is_touched(
    tmp_path: Path, more: str, kind: type[StreamderainError], says: str
) -> None:
    site = read_site(written(tmp_path, f"cameras: {{a: {{source: 'rtsp://h/x', {more}}}}}"))
    with pytest.raises(kind, match=says):
        check_site(site)


def test_two_cameras_have_no_target_in_common(tmp_path: Path) -> None:
    target = "targets: ['rtsp://u:gate-code@h/clean']"
    text = f"cameras: {{a: {{source: 'rtsp://h/x', {target}}}, b: {{source: 'rtsp://h/y', {target}}}}}"
    with pytest.raises(ConfigError, match=r"cameras\.b: the target rtsp://\S+ is that of a too") as caught:
        check_site(read_site(written(tmp_path, text)))
    assert "gate-code" not in str(caught.value)


def test_every_option_of_run_can_be_given(tmp_path: Path) -> None:
    """All but those that make no sense for cameras; spelled as on the command line."""
    senseless = {"duration", "start", "image-rate", "stills", "live", "wait", "give-up-after"}
    of_files = {"recursive", "jobs", "segment-length", "max-memory", "restart", "pass-failed"}
    senseless |= of_files | {"shard", "retry-failed", "cluster"}
    of_one_run = {"output", "json", "quiet", "skip-existing", "encoder-option", "help"}
    given = {
        option.lstrip("-")
        for parameter in cli.commands["run"].params
        for option in parameter.opts
        if option.startswith("--")
    }
    for name in given - senseless - of_one_run:
        with pytest.raises(ConfigError) as caught:
            read_site(written(tmp_path, f"{name}: {{nonsense: [1]}}\ncameras: {{a: {{source: x}}}}"))
        assert "there is no option" not in str(caught.value), name
    for name in senseless:
        with pytest.raises(ConfigError, match="there is no option"):
            read_site(written(tmp_path, f"{name}: 1\ncameras: {{a: {{source: x}}}}"))


def test_no_message_holds_a_secret(tmp_path: Path) -> None:
    text = "cameras: {a: {source: 'rtsp://u:gate-code@h/x', split: 'rtsp://u:gate-code@h/x'}}"
    with pytest.raises(ConfigError) as caught:
        read_site(written(tmp_path, text))
    assert "gate-code" not in str(caught.value)


def test_a_file_with_secrets_that_others_may_read_is_seen(tmp_path: Path) -> None:
    path = written(tmp_path, "cameras: {a: {source: 'rtsp://u:gate-code@h/x'}}")
    path.chmod(0o644)
    assert readable_by_others(path)
    path.chmod(0o600)
    assert not readable_by_others(path)
    variables = written(tmp_path, "cameras: {a: {source: 'rtsp://h/x'}}")
    variables.chmod(0o644)
    assert not readable_by_others(variables)


def test_other_addresses_want_a_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMDERAIN_TOKEN", "a-token-long-enough")
    text = "listen: 0.0.0.0:8080\ntoken: ${STREAMDERAIN_TOKEN}\ncameras: {a: {source: x}}"
    assert read_site(written(tmp_path, text)).token == "a-token-long-enough"
