"""Check the installation and name the command that fixes each fault.

Whatever may crash in native code is tried in a process of its own.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import psutil
from numpy.typing import NDArray

from streamderain import __version__
from streamderain.errors import EngineError, EngineUnavailable, ModelError, StreamderainError
from streamderain.frame import Geometry
from streamderain.measure.metrics import psnr
from streamderain.measure.rain import RainParameters, RainSequence
from streamderain.media.probing import decoders, encoder_fault, ffmpeg_version
from streamderain.models import FlowCells, ModelCard, list_models, load_model
from streamderain.options import EngineOptions
from streamderain.pipeline.inline import InlineSession
from streamderain.runtime.registry import AUTO_ORDER, ENGINES, open_engine
from streamderain.system.gpu import gpus
from streamderain.system.installing import install_command, reinstall_command
from streamderain.system.machine import processor, version
from streamderain.system.process import Crashed, isolated

Status = Literal["ok", "missing", "broken"]

_ENCODERS = {
    "libx264": "H.264, the default",
    "libx265": "H.265",
    "libsvtav1": "AV1",
    "libvpx-vp9": "VP9, for webm",
    "ffv1": "lossless",
    "h264_nvenc": "H.264 on an NVIDIA GPU",
    "hevc_nvenc": "H.265 on an NVIDIA GPU",
    "av1_nvenc": "AV1 on an NVIDIA GPU",
    "h264_qsv": "H.264 on an Intel GPU",
}
_NEEDED = ("libx264",)
_DECODERS = ("h264", "hevc", "av1", "vp9", "vp8", "mpeg2video", "mpeg4", "mjpeg", "prores", "dvvideo")

_LITTLE_BYTES = 2**30
_MODEL = "dcd-lite"
_TINY = Geometry(128, 96)
_USUAL_SIZE = (1920, 1080)
_USUAL_CAPABILITY = (8, 9)
_FRAMES = 5
_GAIN_DB = 3.0
"""Every model of ours gains far more on rain this plain; a broken engine gives noise or no change."""

Codes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: What it is.
        status: Missing things may be optional; broken ones are there and do not work.
        found: What was found.
        fix: The command that mends it, or what to do; empty where nothing is to be done.
        needed: Whether a plain run needs it.
    """

    name: str
    status: Status
    found: str
    fix: str = ""
    needed: bool = False


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All checks.

    Attributes:
        checks: In the order they were made.
    """

    checks: tuple[Check, ...]

    @property
    def failed(self) -> list[Check]:
        """What a plain run needs and does not find."""
        return [check for check in self.checks if check.needed and check.status != "ok"]


def diagnose() -> Iterator[Check]:
    """Check everything, one after the other; this takes some seconds."""
    memory = psutil.virtual_memory()
    yield Check(
        "streamderain", "ok", f"{__version__}, Python {platform.python_version()} at {sys.executable}"
    )
    cores = len(os.sched_getaffinity(0))
    yield Check(
        "machine",
        "ok",
        f"{processor()}, {cores} cores, {memory.available / 2**30:.1f} of "
        f"{memory.total / 2**30:.1f} GiB of memory free",
    )
    yield from _media()
    yield from _models()
    yield from _engines()
    yield _alignment()
    yield _driver()
    yield from _disks()
    yield _fonts()


def _media() -> Iterator[Check]:
    yield Check("FFmpeg", "ok", f"{ffmpeg_version()} inside PyAV {version('av')}")
    for codec, what in _ENCODERS.items():
        yield _encoder(codec, what)
    found = decoders(_DECODERS)
    lost = [name for name in _DECODERS if name not in found]
    status: Status = "missing" if lost else "ok"
    yield Check("decoders", status, ", ".join(found) + (f"; not {', '.join(lost)}" if lost else ""))


def _encoder(codec: str, what: str) -> Check:
    needed = codec in _NEEDED
    try:
        fault = isolated(_try_encoder, codec, doing=f"tried the encoder {codec}")
    except Crashed as crash:
        return Check(
            codec, "broken", f"{what}: crashed ({crash.how})", reinstall_command() if needed else "", needed
        )
    if fault is None:
        return Check(codec, "ok", f"{what}: encodes", needed=needed)
    return Check(codec, "missing", f"{what}: {fault}", reinstall_command() if needed else "", needed)


def _try_encoder(codec: str) -> Iterator[str | None]:
    yield encoder_fault(codec)


def _models() -> Iterator[Check]:
    for card in list_models():
        try:
            for name in card.files:
                card.file(name)
        except (ModelError, OSError) as error:
            yield Check(f"model {card.name}", "broken", str(error), reinstall_command(), card.name == _MODEL)
        else:
            files = ", ".join(sorted(card.files))
            yield Check(f"model {card.name}", "ok", f"{card.version}: {files}; checksums agree")


def _engines() -> Iterator[Check]:
    for name, entry in ENGINES.items():
        if not entry.needs:
            continue
        needed = name == AUTO_ORDER[0]
        if not entry.installed:
            yield Check(f"engine {name}", "missing", f"{entry.summary}: not installed", entry.install, needed)
            continue
        yield from _try_precisions(name, needed=needed)
        if name == "tensorrt":
            yield _plans()


def _try_precisions(name: str, *, needed: bool) -> Iterator[Check]:
    model = load_model(_MODEL)
    for precision in _precisions(name, model):
        label = f"engine {name}" + ("" if precision == "auto" else f", {precision}")
        must = needed and precision == "auto"
        fix = f"choose another --engine, or {ENGINES[name].install} --force-reinstall"
        try:
            found = isolated(try_engine, name, precision, doing=f"tried {name}")
        except Crashed as crash:
            yield Check(label, "broken", f"native code crashed ({crash.how})", fix, must)
        except EngineUnavailable as error:
            yield Check(label, "missing", str(error), needed=must)
            if precision == "auto":
                return  # nor has it others
        except (EngineError, StreamderainError) as error:
            yield Check(label, "broken", str(error), fix, must)
        else:
            yield Check(label, "ok", found, needed=must)


def _precisions(name: str, model: ModelCard) -> list[str]:
    known = ("f16", "f32") if name == "tensorrt" else ("f32", "bf16")
    default = model.default_precision.get(name, known[0])
    return ["auto", *(precision for precision in known if precision != default)]


def try_engine(name: str, precision: str) -> Iterator[str]:
    """Compile the default model for tiny frames and derain some.

    Args:
        name: The engine.
        precision: Its precision, or `"auto"`.

    Yields:
        Device, precision and times, for people.

    Raises:
        EngineError: It does not work, or what comes out is no picture.
    """
    started = time.perf_counter()
    options = EngineOptions(model=_MODEL, engine=name, precision=precision)
    dry, rainy = _tiny_clip()
    with (
        open_engine(options) as engine,
        InlineSession(engine, _TINY) as session,
    ):
        compiled_s = time.perf_counter() - started
        derained = []
        for frame in rainy:
            derained += [planes[0].copy() for _, planes in session.push((frame,), None)]
        derained += [planes[0].copy() for _, planes in session.drain()]
        _require_less_rain(dry, rainy, derained, engine=name)
        yield f"{engine.precision} on {engine.device}: compiled in {compiled_s:.1f} s and derained"


def _tiny_clip() -> tuple[list[Codes], list[Codes]]:
    """Return a smooth scene, dry and in known rain."""
    y, x = np.mgrid[0 : _TINY.height, 0 : _TINY.width]
    scene = np.rint(90 + 40 * np.sin(x / 17) * np.cos(y / 13)).astype(np.uint8)
    rain = RainSequence(RainParameters(), 1, _TINY.width, _TINY.height)
    return [scene] * _FRAMES, [rain.apply_to_codes(scene, index).astype(np.uint8) for index in range(_FRAMES)]


def _require_less_rain(dry: list[Codes], rainy: list[Codes], derained: list[Codes], *, engine: str) -> None:
    before = min(psnr(picture, clean) for picture, clean in zip(rainy[1:-1], dry[1:-1], strict=True))
    after = min(psnr(picture, clean) for picture, clean in zip(derained[1:-1], dry[1:-1], strict=True))
    if len(derained) != len(rainy) or after < before + _GAIN_DB:
        raise EngineError(
            f"the {engine} engine computes, but what comes out is wrong: known rain goes from {before:.1f} "
            f"to {after:.1f} dB; choose another --engine and report this"
        )


def _plans() -> Check:
    fix = f"{ENGINES['tensorrt'].install} --force-reinstall"
    try:
        return Check("TensorRT plans", "ok", isolated(try_plans, doing="tried to build a plan"))
    except Crashed as crash:
        return Check("TensorRT plans", "broken", f"native code crashed ({crash.how})", fix)
    except (EngineError, StreamderainError) as error:
        return Check("TensorRT plans", "broken", str(error), fix)


def try_plans() -> Iterator[str]:
    """Tell how much device memory each model needs: as its plan's building says, no GPU is needed for that.

    Yields:
        The library, what it builds for, and the memory, for people.

    Raises:
        EngineError: No plan can be built.
    """
    from streamderain.runtime import tensorrt_library as library
    from streamderain.runtime.cuda_session import session_bytes
    from streamderain.runtime.plan_cache import PlanCache
    from streamderain.runtime.plans import plan_maker

    head = f"{library.PACKAGE} {library.version()}"
    if not library.BUILDS_AHEAD:
        # It tries out kernels on the card for minutes; what is built already tells as much.
        known = "; ".join(
            f"{plan.key.model} at {plan.key.size[0]}x{plan.key.size[1]}: {_mb(plan.activation_bytes)}"
            for plan in PlanCache().plans()
        )
        yield f"{head}; device memory to compute in: {known or 'told once a plan is built'}"
        return
    found = [gpu.capability for gpu in gpus()]
    capability = "sm{}{}".format(*(found[0] if found else _USUAL_CAPABILITY))
    size = Geometry(*_USUAL_SIZE)
    needs = []
    with tempfile.TemporaryDirectory(prefix="streamderain-plans-") as folder:
        for model in list_models():
            maker = plan_maker(model, precision="auto", capability=capability, cache=PlanCache(Path(folder)))
            plan = maker.strips(size)[0].stored
            needed = plan.activation_bytes + plan.size_bytes + session_bytes(model, size)
            needs.append(f"{model.name} {_mb(needed)}")
    yield (
        f"{head} builds plans for {capability}; device memory at {size.width}x{size.height}: "
        + ", ".join(needs)
    )


def _mb(count: int) -> str:
    return f"{count / 1e6:.0f} MB"


def _alignment() -> Check:
    fix = f"{install_command('opencv-python-headless')} --force-reinstall"
    try:
        return Check("alignment", "ok", isolated(try_alignment, doing="tried alignment"), needed=True)
    except Crashed as crash:
        return Check("alignment", "broken", f"native code crashed ({crash.how})", fix, needed=True)
    except StreamderainError as error:
        return Check("alignment", "broken", str(error), fix, needed=True)


def try_alignment() -> Iterator[str]:
    """Undo the motion between frames of a moving camera, as sessions do.

    Yields:
        The version of OpenCV and the time for a frame with two neighbours, for people.

    Raises:
        EngineError: OpenCV is missing, or the motion is not found.
    """
    try:
        from streamderain import motion
    except ImportError as error:
        raise EngineError(f"OpenCV does not load: {error}") from error
    width, height, pan_px = 1280, 720, 6
    cell = FlowCells().edge_px(width, height)
    y, x = np.mgrid[0:height, 0 : width + 2 * pan_px].astype(np.float32)
    scene = np.rint(110 + 45 * np.sin(x / 19) * np.cos(y / 23) + 30 * np.sin(x / 7 + y / 11)).astype(np.uint8)
    window = np.stack([scene[:, left : left + width] for left in (0, pan_px, 2 * pan_px)])
    with motion.one_thread():
        motion.align(window, cell=cell)
        started = time.perf_counter()
        aligned = motion.align(window, cell=cell)
        took_ms = 1000 * (time.perf_counter() - started)
    inner = (slice(16, -16), slice(16, -16))
    off = max(float(np.abs(aligned[i][inner].astype(int) - window[1][inner]).mean()) for i in (0, 2))
    if off > 2.0:
        raise EngineError(
            f"OpenCV computes, but a pan of {pan_px} px is not undone (off by {off:.1f} codes); report this"
        )
    found = version("opencv-python-headless") or version("opencv-python")
    yield f"OpenCV {found}: undoes a pan, {took_ms:.0f} ms a 720p frame with two neighbours"


def _driver() -> Check:
    found = gpus()
    if found:
        text = "; ".join(
            f"{gpu.name}, {gpu.memory_gib:.0f} GiB, driver {gpu.driver}, TensorRT by streamderain"
            + ("[rtx]" if gpu.suits_rtx else "[tensorrt]")
            for gpu in found
        )
        return Check("NVIDIA GPU", "ok", text)
    return Check("NVIDIA GPU", "missing", "no driver found; the processor does the work")


def _disks() -> Iterator[Check]:
    for name, folder in (("this folder", Path.cwd()), ("temporary files", Path(tempfile.gettempdir()))):
        needed = name == "this folder"
        try:
            free = shutil.disk_usage(folder).free
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            yield Check(
                f"disk, {name}",
                "broken",
                f"{folder}: {error.strerror}",
                "choose another folder with -o",
                needed,
            )
            continue
        little = free < _LITTLE_BYTES
        yield Check(
            f"disk, {name}",
            "broken" if little else "ok",
            f"{folder}: {free / 2**30:.1f} GiB free, writable",
            "free some space, or choose another folder with -o" if little else "",
            needed,
        )


def _fonts() -> Check:
    """Say that no fonts are needed: pages name the browser's own, and no picture gets text."""
    return Check("fonts", "ok", "none needed: pages use the browser's, and nothing writes into pictures")
