"""Measure DCD-GAN's training step in pictures per second, beside bare convolutions on the same device.

Nothing here needs PyAV or OpenVINO: it runs wherever the trainer runs.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.results_file import json_option, report
from streamderain.measure.tables import spread
from trainer.config import TrainConfig, load_config
from trainer.data.loader import feed
from trainer.methods.registry import Method, new_method, open_maker
from trainer.run.devices import open_fabric

_WARM_UP = 3


@click.command()
@click.option("--config", "name", default="paper", show_default=True, help="An unpaired configuration.")
@click.option("--batch", type=int, help="Pictures of each domain per step [the configuration's].")
@click.option("--steps", default=10, show_default=True, help="Steps that are timed, per repeat.")
@click.option("--repeats", default=5, show_default=True)
@click.option("--precision", help="32-true or bf16-mixed [the configuration's].")
@click.option("--accelerator", default="auto", show_default=True, help="cpu, cuda or auto.")
@click.option("--workers", type=int, help="Processes that make batches [the configuration's].")
@json_option
def training(
    name: str,
    batch: int | None,
    steps: int,
    repeats: int,
    precision: str | None,
    accelerator: str,
    workers: int | None,
    path: str | None,
) -> None:
    """Measure the training step of an unpaired configuration, on pictures that are made on the spot."""
    given = {"batch": batch, "precision": precision, "workers": workers}
    config = load_config(name, overrides={k: v for k, v in given.items() if v is not None})
    fabric = open_fabric(config, accelerator=accelerator)
    torch.set_num_threads(config.threads)
    with tempfile.TemporaryDirectory() as folder:
        _make_pictures(Path(folder), config)
        maker = open_maker(config, Path(folder), Path(folder) / "cache")
        method = new_method(config, fabric)
        with FlopCounterMode(display=False) as counter:
            method.step([maker.batch(0)])
        flop = counter.get_total_flops()
        rows: dict[str, list[float]] = {
            "images_per_s": [],
            "seconds_per_step": [],
            "data_wait_share": [],
            "convolution_tflops": [],
            "step_tflops": [],
            "share_of_convolution_rate": [],
        }
        for _ in range(repeats):
            rate = _convolution_rate(fabric.device, config.precision)
            whole_s, waited_s = _timed(method, maker, config, steps)
            per_step = whole_s / steps
            rows["images_per_s"].append(config.batch / per_step)
            rows["seconds_per_step"].append(per_step)
            rows["data_wait_share"].append(waited_s / whole_s)
            rows["convolution_tflops"].append(rate / 1e12)
            rows["step_tflops"].append(flop / per_step / 1e12)
            rows["share_of_convolution_rate"].append(flop / per_step / rate)
    report(
        {
            "benchmark": "training",
            "config": config.name,
            "device": _device_name(fabric.device),
            "precision": config.precision,
            "batch": config.batch,
            "crop_px": config.unpaired.crop_px,
            "workers": config.workers,
            "steps": steps,
            "repeats": repeats,
            "gflop_per_step": round(flop / 1e9, 1),
            **{key: asdict(spread(values, digits=4)) for key, values in rows.items()},
        },
        path,
    )


def _timed(method: Method, maker: Any, config: TrainConfig, steps: int) -> tuple[float, float]:
    """Return the seconds of some steps as a run takes them, and those spent waiting for batches."""
    batches = feed(maker, 1, 1 + _WARM_UP + steps, accumulate=config.accumulate, workers=config.workers)
    began = waited_s = 0.0
    asked = time.perf_counter()
    for number, parts in enumerate(batches):
        if number == _WARM_UP:
            began, waited_s = time.perf_counter(), 0.0
        else:
            waited_s += time.perf_counter() - asked
        method.step(parts)  # returns floats: the device is done
        asked = time.perf_counter()
    return asked - began, waited_s


def _convolution_rate(device: torch.device, precision: str) -> float:
    """Return operations per second of the generator's most frequent convolution, at a size that fills."""
    kind = torch.bfloat16 if precision.startswith("bf16") else torch.float32
    count = 64 if device.type == "cuda" else 4
    picture = torch.randn(count, 256, 64, 64, device=device, dtype=kind).to(memory_format=torch.channels_last)
    weight = torch.randn(256, 256, 3, 3, device=device, dtype=kind).to(memory_format=torch.channels_last)
    repeats = 20 if device.type == "cuda" else 4
    with torch.no_grad():
        for _ in range(3):
            functional.conv2d(picture, weight, padding=1)
        _wait(device)
        began = time.perf_counter()
        for _ in range(repeats):
            functional.conv2d(picture, weight, padding=1)
        _wait(device)
    return repeats * 2.0 * picture.numel() * weight[0].numel() / (time.perf_counter() - began)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def _make_pictures(folder: Path, config: TrainConfig) -> None:
    """Write textured pictures of BSDS500's size in every folder that the configuration names."""
    rng = np.random.default_rng(0)
    domains = config.unpaired
    for name in {*domains.rainy, *domains.rained, *domains.clean, *domains.layers}:
        (folder / name).mkdir()
        for index in range(8):
            fine, coarse = (
                ndimage.gaussian_filter(rng.standard_normal((321, 481, 3)), (size, size, 0)) * size
                for size in (1, 4)
            )
            picture = np.clip(120 + 60 * (fine + coarse), 0, 255).astype(np.uint8)
            Image.fromarray(picture).save(folder / name / f"{index}.jpg", quality=95)
