"""A Ray cluster on this machine: nodes that join, are lost, or lack something; the same result."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from tests.support import media
from tests.support.command import streamderain
from tests.support.kills import contents
from tests.support.requirements import require

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
WORDS = ("--engine", "identity", "--codec", "ffv1", "--segment-length", "1")

BEGIN = """
import json, logging, sys, time
import ray
from ray.cluster_utils import Cluster
from streamderain import run, EncodeOptions, EngineOptions, RunOptions, WorkOptions
from streamderain.errors import StreamderainError
from streamderain.events import Progress, Started

source, target = sys.argv[1:3]
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": HEAD_CPUS, "include_dashboard": False})

def options(**work):
    return RunOptions(
        encode=EncodeOptions(codec="ffv1", overwrite=True),
        engine=EngineOptions(engine="identity"),
        work=WorkOptions(segment_length_s=1.0, cluster=cluster.address_for_us, **work),
    )

cluster.address_for_us = "auto"
import os
os.environ["RAY_ADDRESS"] = cluster.address
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require(importlib.util.find_spec("ray"), "ray (pip install -e .[cluster])")
    path = tmp_path_factory.mktemp("cluster") / "source.mp4"
    video = media.Video(frames=400, width=320, height=240, gop=25, b_frames=2)
    return media.write(path, video, audio=[media.Sound(seconds=16)])


@pytest.fixture(scope="module")
def whole(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("whole") / "whole.mkv"
    assert streamderain("run", source, "-o", target, *WORDS[:-2]).code == 0
    return target


def script(text: str, *arguments: Path, head_cpus: int = 1) -> dict[str, Any]:
    """Run a script against a cluster of its own; return what it prints last, as JSON."""
    program = BEGIN.replace("HEAD_CPUS", str(head_cpus)) + textwrap.dedent(text)
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def test_two_nodes_of_which_one_is_lost_and_another_joins(source: Path, whole: Path, tmp_path: Path) -> None:
    target = tmp_path / "clean.mkv"
    told = script(
        """
        second = cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        seen = []

        def watch(event):
            if isinstance(event, Started):
                seen.append(event.parting)
            if isinstance(event, Progress) and event.frames_out > 60 and len(seen) == 1:
                cluster.remove_node(second, allow_graceful=False)
                cluster.add_node(num_cpus=1)
                seen.append("lost and joined")

        report = run(source, target, options=options(), observer=watch)
        print(json.dumps({"seen": seen, "frames": report.to_json()["frames_out"], "code": report.exit_code}))
        """,
        source,
        target,
    )
    assert told["code"] == 0
    assert told["frames"] == 400
    assert "by the Ray cluster auto" in told["seen"][0]
    assert told["seen"][1] == "lost and joined"
    assert contents(target) == contents(whole)
    assert not target.with_name("clean.mkv.pieces").exists()


def test_a_cluster_run_is_finished_without_one_and_the_other_way_round(
    source: Path, whole: Path, tmp_path: Path
) -> None:
    target = tmp_path / "clean.mkv"
    told = script(
        """
        import threading
        stop = threading.Event()

        def watch(event):
            if isinstance(event, Progress) and event.frames_out > 60:
                stop.set()

        report = run(source, target, options=options(), observer=watch, stop=stop)
        print(json.dumps({"interrupted": report.interrupted, "frames": report.to_json()["frames_out"]}))
        """,
        source,
        target,
    )
    assert told["interrupted"]
    assert 0 < told["frames"] < 400
    alone = streamderain("run", source, "-o", target, *WORDS)
    assert alone.code == 0, alone.err
    assert "are finished already" in alone.err
    assert contents(target) == contents(whole)


@pytest.mark.parametrize("victim", ["driver", "actor"])
def test_a_process_of_the_cluster_is_killed(source: Path, whole: Path, tmp_path: Path, victim: str) -> None:
    target = tmp_path / "clean.mkv"
    told = script(
        """
        import psutil, subprocess
        words = [sys.executable, "-m", "streamderain", "run", source, "-o", target, "--engine", "identity",
                 "--codec", "ffv1", "--segment-length", "1", "--cluster", "auto"]

        def finished():
            try:
                return len(json.load(open(f"{target}.pieces/manifest.json"))["finished"])
            except FileNotFoundError:
                return 0

        def actors():
            # Ray names the processes of its workers by what they do.
            return [p for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"][:1]
                    and p.info["cmdline"][0].startswith("ray::_PieceActor")]

        driver = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
        limit = time.monotonic() + 90
        while finished() < 3 and time.monotonic() < limit:
            time.sleep(0.02)
        if VICTIM == "driver":
            driver.kill()
        else:
            actors()[0].kill()
        said = driver.communicate(timeout=120)[1]
        before = finished()
        again = subprocess.run(words, stderr=subprocess.PIPE, text=True, timeout=120)
        told = {"code": driver.returncode, "said": said, "before": before}
        print(json.dumps(told | {"again": again.returncode, "said again": again.stderr}))
        """.replace("VICTIM", repr(victim)),
        source,
        target,
        head_cpus=2,
    )
    if victim == "driver":
        assert told["code"] == -9
        assert told["before"] >= 3
        assert told["again"] == 0, told
        assert "are finished already" in told["said again"]
    else:
        assert told["code"] == 0, told["said"]
        assert told["again"] == 2, "its target is there"
    assert contents(target) == contents(whole)
    assert not target.with_name("clean.mkv.pieces").exists()


def test_what_is_missing_on_a_node_is_named(source: Path, tmp_path: Path) -> None:
    told = script(
        """
        from streamderain.jobs import cluster as room
        seen = {"version": "0.0.9", "source": None, "folder": None, "model": "no such model"}
        room._look = ray.remote(num_cpus=0)(lambda *asked: seen)
        try:
            run(source, target, options=options())
        except StreamderainError as error:
            print(json.dumps({"error": str(error), "code": error.exit_code}))
        """,
        source,
        tmp_path / "clean.mkv",
    )
    assert told["code"] == 2
    for words in ("does not see the source", "it does not see", "it has streamderain 0.0.9", "no such model"):
        assert words in told["error"]
    assert "shared file system" in told["error"]


def test_a_node_that_joins_with_a_fault_is_left_out(source: Path, whole: Path, tmp_path: Path) -> None:
    target = tmp_path / "clean.mkv"
    told = script(
        """
        from streamderain.jobs import cluster as room
        room._LOOK_EVERY_S = 0.0
        seen = {"version": "0.0.9", "source": None, "folder": None, "model": "no such model"}
        joined = []

        def watch(event):
            if isinstance(event, Progress) and event.frames_out > 60 and not joined:
                room._look = ray.remote(num_cpus=0)(lambda *asked: seen)
                joined.append(cluster.add_node(num_cpus=1))

        report = run(source, target, options=options(), observer=watch)
        print(json.dumps({"warnings": report.to_json()["warnings"], "joined": len(joined)}))
        """,
        source,
        target,
    )
    assert told["joined"] == 1
    (words,) = [words for words in told["warnings"] if "a node that joined was left out" in words]
    assert "it has streamderain 0.0.9" in words
    assert contents(target) == contents(whole)


def test_a_cluster_that_does_not_answer(source: Path, tmp_path: Path) -> None:
    for address in ("auto", "ray://127.0.0.1:1"):
        outcome = streamderain(
            "run",
            source,
            "-o",
            tmp_path / "clean.mkv",
            *WORDS,
            "--cluster",
            address,
            env={"RAY_ADDRESS": "127.0.0.1:1"},
        )
        assert outcome.code == 2
        assert f"no Ray cluster answers at {address}" in outcome.err
    outcome = streamderain("run", source, "-o", tmp_path / "clean.mkv", *WORDS, "--cluster", "somewhere")
    assert outcome.code == 2
    assert "auto or ray://HOST:PORT" in outcome.err
