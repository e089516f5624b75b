"""Training configurations: TOML files in trainer/configs, validated once into frozen dataclasses."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from streamderain.errors import ConfigError
from trainer.losses import LOSSES

CONFIGS = Path(__file__).parent / "configs"
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """Sizes of the fast network; see `streamderain.nets.fast.FastNet`."""

    width: int = 32
    middle_width: int = 64
    middle_layers: int = 4


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where the pictures come from, and how often each kind is drawn.

    Folder names are relative to the data folder given on the command line. The shares need not sum to 1.

    Attributes:
        clips: Folders of rain-free video files.
        stills: Folders of rain-free pictures.
        pairs: Folders holding ``input/`` and ``target/`` pictures of the same names.
        layers: Folders of gray streak layers.
        share_clip: Windows of clips, rain drawn on the spot.
        share_coded: Windows of clips whose rain went through H.264.
        share_moving_still: Stills panned and zoomed into three frames, rain drawn on the spot.
        share_still: Single stills, neighbours missing, rain drawn on the spot.
        share_pair: Pairs, neighbours missing.
        share_dry: Rain-free windows and stills, whose target is the input itself.
        drop_neighbour: Chance that a neighbour is dropped, for each sample that has neighbours.
        moving_lights: Share of moving clean windows with bright bars and lamps drawn in, which are no rain.
        strange_neighbour: Chance that a neighbour shows another scene, as after a cut that was missed.
        heavy: Chance of heavy rain of several directions.
        quarter_turn: Chance of a quarter turn (portrait video has sideways rain in its coded pixels).
        crop_px: Edge of the square training crops, px, a multiple of 8.
        coded_segments: Compressed rainy segments rendered per clip.
        coded_frames: Frames per such segment.
        drawn_layers: Procedural streak layers rendered into the cache.
        turned_layers: Given layers turned and scaled into the cache.
    """

    clips: tuple[str, ...] = ("clean_video",)
    stills: tuple[str, ...] = ("clean_bsds", "clean_camvid_train", "clean_imagenet")
    pairs: tuple[str, ...] = ("paired_rain13k", "paired_rain100H_style")
    layers: tuple[str, ...] = ("streaks_garg",)
    share_clip: float = 0.30
    share_coded: float = 0.22
    share_moving_still: float = 0.11
    share_still: float = 0.12
    share_pair: float = 0.05
    share_dry: float = 0.20
    drop_neighbour: float = 0.2
    moving_lights: float = 0.25
    strange_neighbour: float = 0.04
    heavy: float = 0.12
    quarter_turn: float = 0.15
    crop_px: int = 128
    coded_segments: int = 8
    coded_frames: int = 60
    drawn_layers: int = 240
    turned_layers: int = 240


@dataclass(frozen=True, kw_only=True)
class PhaseConfig:
    """One stretch of the training.

    Attributes:
        until: Where it ends, as a share of all steps, in 0..1.
        losses: Weight of each loss by name; see `trainer.losses.LOSSES`.
        residual_slope: Slope of the residual below zero; see `FastNet`.
    """

    until: float
    losses: Mapping[str, float]
    residual_slope: float = 0.0


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that decides a run, together with the data and the code.

    Attributes:
        name: Name of the configuration.
        seed: Seed of the weights and of every batch.
        steps: Optimiser steps in all; the learning rate's cosine ends there.
        batch: Crops per step.
        rate: Peak learning rate.
        last_rate: Learning rate at the last step.
        warmup_steps: Steps over which the rate rises linearly from 0.
        weight_decay: AdamW's decoupled weight decay.
        clip_norm: Largest gradient norm; 0 switches clipping off.
        ema: Decay of the averaged weights, per step.
        validate_every: Steps between validations.
        save_every: Steps between checkpoints.
        keep_every: Steps between checkpoints that are kept for good.
        threads: torch threads.
    """

    name: str
    seed: int = 1
    steps: int = 20_000
    batch: int = 16
    rate: float = 1e-3
    last_rate: float = 1e-6
    warmup_steps: int = 300
    weight_decay: float = 0.0
    clip_norm: float = 0.0
    ema: float = 0.999
    validate_every: int = 500
    save_every: int = 250
    keep_every: int = 5_000
    threads: int = 2
    network: NetworkConfig = field(default_factory=NetworkConfig)
    data: DataConfig = field(default_factory=DataConfig)
    phases: tuple[PhaseConfig, ...] = ()

    def phase(self, step: int) -> PhaseConfig:
        """The phase that a step (from 0) belongs to."""
        return next((p for p in self.phases if step < p.until * self.steps), self.phases[-1])

    def as_dict(self) -> dict[str, Any]:
        """The configuration as plain values, as TOML and JSON know them."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return plain


def load_config(name_or_path: str, *, overrides: Mapping[str, Any] | None = None) -> TrainConfig:
    """Read a configuration by name (``paired``) or by path.

    Args:
        name_or_path: Name of a file in trainer/configs without its ending, or a path to a TOML file.
        overrides: Top-level values that replace the file's, such as ``{"steps": 100}``.

    Raises:
        ConfigError: No such file, unknown keys, or values out of range.
    """
    path = Path(name_or_path) if name_or_path.endswith(".toml") else CONFIGS / f"{name_or_path}.toml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in CONFIGS.glob("*.toml")))
        raise ConfigError(f"no training configuration {str(path)!r}; give a .toml file or one of: {known}")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML ({error}); correct the file") from error
    return parse_config({"name": path.stem, **values, **(overrides or {})}, where=str(path))


def parse_config(values: Mapping[str, Any], *, where: str) -> TrainConfig:
    """Build a configuration from plain values, as `TrainConfig.as_dict` gives them."""
    values = dict(values)
    values["network"] = _build(NetworkConfig, values.get("network", {}), where=f"{where} [network]")
    values["data"] = _build(DataConfig, values.get("data", {}), where=f"{where} [data]")
    phases = [_build(PhaseConfig, phase, where=f"{where} [[phases]]") for phase in values.get("phases", [])]
    values["phases"] = tuple(phases)
    config = _build(TrainConfig, values, where=where)
    _validate(config, where)
    return config


def _build(kind: type[T], values: Mapping[str, Any], *, where: str) -> T:
    fields = {f.name for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - fields)
    if unknown:
        raise ConfigError(f"{where}: unknown {', '.join(unknown)}; known are {', '.join(sorted(fields))}")
    frozen = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    try:
        return kind(**frozen)
    except TypeError as error:
        raise ConfigError(f"{where}: {error}; add what is missing") from error


def _validate(config: TrainConfig, where: str) -> None:
    unknown = sorted({name for phase in config.phases for name in phase.losses} - set(LOSSES))
    checks = {
        f"unknown losses {', '.join(unknown)}; known are {', '.join(LOSSES)}": not unknown,
        "phases must not be empty": bool(config.phases),
        "the last phase must end at 1.0": bool(config.phases) and config.phases[-1].until == 1.0,
        "crop_px must be a multiple of 8, at least 32": config.data.crop_px % 8 == 0
        and config.data.crop_px >= 32,
        "steps and batch must be at least 1": config.steps >= 1 and config.batch >= 1,
        "rate must be above 0": config.rate > 0,
        "ema must lie in 0..1": 0.0 <= config.ema < 1.0,
    }
    for complaint, holds in checks.items():
        if not holds:
            raise ConfigError(f"{where}: {complaint}; correct the configuration")


def dump_toml(values: Mapping[str, Any]) -> str:
    """Write plain nested values (tables, lists of tables, scalars, lists) as TOML."""
    return "".join(_dump_table(values, ()))


def _dump_table(values: Mapping[str, Any], path: tuple[str, ...]) -> list[str]:
    lines = []
    nested = []
    for key, value in values.items():
        if isinstance(value, Mapping) or _is_tables(value):
            nested.append((key, value))
        else:
            # JSON's strings, numbers, booleans and arrays are TOML's.
            lines.append(f"{key} = {json.dumps(value, ensure_ascii=False)}\n")
    for key, value in nested:
        name = ".".join((*path, key))
        for table in value if isinstance(value, list) else [value]:
            lines.append(f"\n[[{name}]]\n" if isinstance(value, list) else f"\n[{name}]\n")
            lines.extend(_dump_table(table, (*path, key)))
    return lines


def _is_tables(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, Mapping) for item in value)
