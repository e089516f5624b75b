"""Child processes end with their parent, however it ends, and may have children of their own."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from streamderain.system.process import Isolated

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]


def sleep_on() -> None:
    time.sleep(60)


def with_a_child() -> Iterator[list[int]]:
    """Yields its own process number and that of a child of its own."""
    child = multiprocessing.get_context("spawn").Process(target=sleep_on, daemon=True)
    child.start()
    yield [os.getpid(), child.pid or 0]
    child.kill()


def own_pid() -> Iterator[int]:
    while True:
        yield os.getpid()


def busy() -> Iterator[int]:
    """Yields its process number, and then works for a long time."""
    yield os.getpid()
    time.sleep(60)
    yield 0


def test_a_child_may_have_children() -> None:
    with Isolated(with_a_child, doing="looked") as process:
        pid, child = next(process)
        assert psutil.Process(child).ppid() == pid


def test_a_child_outlives_the_thread_that_asked_for_it() -> None:
    made: list[Isolated[int]] = []
    thread = threading.Thread(target=lambda: made.append(Isolated(own_pid, doing="looked")))
    thread.start()
    thread.join()
    with made[0] as process:
        first = next(process)
        time.sleep(0.5)  # a signal of the thread's end would have come by now
        assert next(process) == first


PARENTS = {
    "measuring": """
        import time
        from streamderain.system.process import Isolated
        from tests.unit.system.test_process_lifetime import busy
        if __name__ == "__main__":
            child = Isolated(busy, doing="looked")
            print(next(child), flush=True)
            next(child)
    """,
    "training": """
        import os, sys, time
        from trainer.data.loader import feed

        class Maker:
            counts = {}
            def batch(self, step, *, part=0, parts=1):
                time.sleep(60 if step else 0)
                return os.getpid()

        if __name__ == "__main__":
            ahead = feed(Maker(), 0, 100_000, workers=1)
            print(next(ahead)[0], flush=True)
            time.sleep(60)
    """,
}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("kind", sorted(PARENTS))
def test_a_child_dies_with_its_parent(tmp_path: Path, kind: str, number: signal.Signals) -> None:
    script = tmp_path / "parent.py"
    script.write_text(textwrap.dedent(PARENTS[kind]))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=environment
    ) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        assert child.pid != parent.pid
        parent.send_signal(number)
        parent.wait(30)
        gone, alive = psutil.wait_procs([child], timeout=10)
    assert not alive
    assert gone
