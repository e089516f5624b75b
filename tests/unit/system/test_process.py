"""Work in a process of its own: values, errors and crashes come back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from streamderain.errors import ConfigError, PipelineError, StageFailed
from streamderain.system.process import Crashed, Isolated, isolated


def counting(first: int) -> Iterator[int]:
    while True:
        yield first
        first += 1


def own_process() -> Iterator[int]:
    yield os.getpid()


def three() -> Iterator[int]:
    yield from (1, 2, 3)


def crashing() -> Iterator[int]:
    yield 1
    os.kill(os.getpid(), signal.SIGSEGV)


def leaving() -> Iterator[int]:
    os._exit(3)
    yield 1


def refusing() -> Iterator[int]:
    raise ConfigError("not like this")
    yield 1


def failing_stage() -> Iterator[int]:
    raise StageFailed("read", frame_index=3, pts=7, reason="no more")
    yield 1


def stumbling() -> Iterator[int]:
    yield 1 // 0


def test_values_come_one_by_one_from_another_process() -> None:
    with Isolated(counting, 5, doing="counted") as numbers:
        assert [next(numbers) for _ in range(3)] == [5, 6, 7]
    assert isolated(own_process, doing="looked") != os.getpid()


def test_the_end_is_the_end() -> None:
    with Isolated(three, doing="counted") as numbers:
        assert list(numbers) == [1, 2, 3]


def test_a_crash_is_reported_with_its_signal() -> None:
    with Isolated(crashing, doing="tried openvino") as values:
        assert next(values) == 1
        with pytest.raises(Crashed, match=r"tried openvino ended by SIGSEGV.*doctor") as caught:
            next(values)
    assert caught.value.how == "SIGSEGV"


def test_an_exit_is_reported_with_its_code() -> None:
    with pytest.raises(Crashed, match="exit code 3"):
        isolated(leaving, doing="left")


def test_errors_keep_their_class() -> None:
    with pytest.raises(ConfigError, match="not like this"):
        isolated(refusing, doing="refused")


def test_errors_that_cannot_travel_become_their_parents() -> None:
    with pytest.raises(PipelineError, match="at frame 3"):
        isolated(failing_stage, doing="failed")


def test_faults_of_the_program_become_an_error() -> None:
    with pytest.raises(PipelineError, match="ZeroDivisionError"):
        isolated(stumbling, doing="stumbled")


def test_close_ends_the_process() -> None:
    values = Isolated(counting, 1, doing="counted")
    next(values)
    values.close()
    assert not values._process.is_alive()
    values.close()


@pytest.mark.parametrize(
    ("argument", "shown", "dumpable"),
    [
        ("rtsp://admin:s3cr3t@camera/live", "rtsp://***@camera/live", 0),
        ("rtsp://camera/live", "rtsp://camera/live", 1),
    ],
)
def test_secrets_leave_the_command_line_and_no_core_file(argument: str, shown: str, dumpable: int) -> None:
    program = (
        "import ctypes, sys\n"
        "from pathlib import Path\n"
        "from streamderain.system.process import hide_secrets\n"
        "ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)\n"  # whatever this machine's tests run as
        "hide_secrets(['streamderain', 'run', sys.argv[1]])\n"
        "print(Path('/proc/self/cmdline').read_bytes().replace(b'\\0', b' ').decode())\n"
        "print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, argument], capture_output=True, text=True, check=True, timeout=60
    )
    line, *_, told = done.stdout.strip().splitlines()
    assert shown in done.stdout
    assert "s3cr3t" not in done.stdout
    assert int(told) == dumpable, line
