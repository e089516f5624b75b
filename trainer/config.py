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
from trainer.losses import LOSSES, SIDED_TERMS, TERMS
from trainer.losses.adversarial import KINDS

CONFIGS = Path(__file__).parent / "configs"
T = TypeVar("T")


PAIRS, TRANSLATION = "pairs", "translation"
"""Methods: supervised on known pairs, and DCD-GAN between unpaired domains."""

FAMILIES = ("fast", "deep", "generator", "residual-generator")

MAY_CHANGE = frozenset(
    {"steps", "threads", "workers", "precision", "validate_every", "sample_every", "save_every", "keep_every"}
)
"""What may differ when a run is resumed: the length and the machine's side, not what is learned from what."""


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """The network that is trained to take rain away.

    Attributes:
        family: "fast" (`streamderain.nets.fast.FastNet`, on luma), "deep" (the same with many more layers:
            `streamderain.nets.deep.DeepNet`), "generator" (the paper's, on RGB:
            `streamderain.nets.generator.Generator`), or "residual-generator" (the same layers, whose answer
            is added to the picture: `streamderain.nets.generator.ResidualGenerator`).
        width: Channels of the first layer.
        middle_width: Channels at 1/8 size; fast family only.
        middle_layers: 3x3 convolutions at 1/8 size; fast family only.
        blocks: Residual blocks; not the fast family.
    """

    family: str = "fast"
    width: int = 32
    middle_width: int = 64
    middle_layers: int = 4
    blocks: int = 9


@dataclass(frozen=True, kw_only=True)
class TranslationConfig:
    """How DCD-GAN's two branches are set up; the weights of its terms are in the phases.

    Attributes:
        adversarial: "hinge" or "lsgan".
        contrasts: Pairs that are contrasted: 2 as in the authors' code, (R, N_R) and (N, R_N), or 4 as in the
            paper, (N_R, R*) and (R_N, N*) too.
        feature_layers: Layers of the generator whose outputs are contrasted, by number.
        patches: Places per layer and picture; all but one are negatives.
        temperature: Of the contrastive loss.
        head_width: Channels of the projection heads.
        discriminator_width: Channels of the discriminators' first layer.
        discriminator_detail_px: Where above 0, discriminators see pictures less their mean over this many px,
            an odd number; see `trainer.networks.discriminator.detail`.
        discriminator_norm: "instance" or "spectral"; see `trainer.networks.discriminator.Discriminator`.
        discriminator_rate: The discriminators' learning rate as a multiple of the generators' (Heusel et al.,
            "GANs trained by a two time-scale update rule", NeurIPS 2017).
        initial_std: Standard deviation of the fresh weights of generators, heads and discriminators; 0 leaves
            each network its own way to begin.
    """

    adversarial: str = "hinge"
    contrasts: int = 4
    feature_layers: tuple[int, ...] = (4, 8, 12, 16)
    patches: int = 256
    temperature: float = 0.07
    head_width: int = 256
    discriminator_width: int = 64
    discriminator_detail_px: int = 0
    discriminator_norm: str = "instance"
    discriminator_rate: float = 1.0
    initial_std: float = 0.02


@dataclass(frozen=True, kw_only=True)
class UnpairedConfig:
    """The two domains of unpaired training, as folders of pictures relative to the data folder.

    Attributes:
        rainy: Folders of rainy pictures.
        rained: Folders of rain-free pictures on which rain is drawn for the rainy domain.
        clean: Folders of rain-free pictures, the clean domain. The pictures of a folder that is in `rained`
            too are dealt out in turn, so that no picture is in both domains.
        layers: Folders of gray streak layers for the drawn rain.
        share_rained: Share of the rainy domain that is drawn.
        faintest: Least opacity of drawn rain's brightest streaks, in 0..1.
        heavy: Chance of heavy rain of several directions, where rain is drawn.
        crop_px: Edge of the square training crops, px, a multiple of 8.
        turned_layers: Given layers turned and scaled into the cache.
        drawn_layers: Procedural streak layers rendered into the cache.
    """

    rainy: tuple[str, ...] = ("real_rain_unpaired",)
    rained: tuple[str, ...] = ()
    clean: tuple[str, ...] = ("clean_bsds", "clean_camvid_train", "clean_imagenet")
    layers: tuple[str, ...] = ("streaks_garg",)
    share_rained: float = 0.5
    faintest: float = 0.1
    heavy: float = 0.12
    crop_px: int = 256
    turned_layers: int = 120
    drawn_layers: int = 120


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where the pictures come from, and how often each kind is drawn.

    Folder names are relative to the data folder given on the command line. The shares need not sum to 1.

    Attributes:
        clips: Folders of rain-free video files.
        stills: Folders of rain-free pictures.
        pairs: Folders holding `input/` and `target/` pictures of the same names.
        layers: Folders of gray streak layers.
        real: Folders of rainy video files without clean versions; see `trainer.data.real_rain`.
        share_real: Windows of these, whose target is what the frames around agree on.
        real_streaks: Chance that drawn rain is that of those whose camera stands still, frame after frame.
        share_clip: Windows of clips, rain drawn on the spot.
        share_coded: Windows of clips whose rain went through H.264.
        share_moving_still: Stills panned and zoomed into three frames, rain drawn on the spot.
        share_still: Single stills, neighbours missing, rain drawn on the spot.
        share_pair: Pairs, neighbours missing.
        share_pseudo: Pairs whose rain a trained generator made, neighbours missing.
        share_dry: Rain-free windows and stills, whose target is the input itself.
        share_flat: Rain-free flat areas and gradients of any level.
        drop_neighbour: Chance that a neighbour is dropped, for each sample that has neighbours.
        strides: Distances of the frames of a window of a clip, each as likely as any other.
        parallax: Share of panned stills with a nearer layer that moves on its own.
        cells_px: Edges of the flow's cells, each as likely as any other.
        margin_px: What the flow sees beyond the crop on each side, px, a multiple of 4.
        moving_lights: Share of moving clean windows with bright bars and lamps drawn in, which are no rain.
        strange_neighbour: Chance that a neighbour shows another scene, as after a cut that was missed.
        heavy: Chance of heavy rain of several directions.
        quarter_turn: Chance of a quarter turn (portrait video has sideways rain in its coded pixels).
        crop_px: Edge of the square training crops, px, a multiple of 8.
        coded_segments: Compressed rainy segments rendered per clip.
        coded_frames: Frames per such segment.
        drawn_layers: Procedural streak layers rendered into the cache.
        turned_layers: Given layers turned and scaled into the cache.
        remixed_layers: Layers of all these kinds made to look different; see `trainer.data.rain_mix`.
    """

    clips: tuple[str, ...] = ("clean_video",)
    stills: tuple[str, ...] = ("clean_bsds", "clean_camvid_train", "clean_imagenet")
    pairs: tuple[str, ...] = ("paired_rain13k", "paired_rain100H_style")
    layers: tuple[str, ...] = ("streaks_garg",)
    real: tuple[str, ...] = ()
    share_real: float = 0.0
    real_streaks: float = 0.25
    share_clip: float = 0.30
    share_coded: float = 0.22
    share_moving_still: float = 0.11
    share_still: float = 0.12
    share_pair: float = 0.05
    share_pseudo: float = 0.0
    share_dry: float = 0.20
    share_flat: float = 0.02
    strides: tuple[int, ...] = (1, 1, 2, 3)
    parallax: float = 0.5
    cells_px: tuple[int, ...] = (2, 2, 3, 4, 5)
    margin_px: int = 32
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
    remixed_layers: int = 0


@dataclass(frozen=True, kw_only=True)
class PhaseConfig:
    """One stretch of the training.

    Attributes:
        until: Where it ends, as a share of all steps, in 0..1.
        losses: Weight of each loss by name: `trainer.losses.LOSSES` for pairs, `trainer.losses.TERMS` or
            `SIDED_TERMS` for translation.
        residual_slope: Slope of the residual below zero; see `FastNet`.
        int8: Whether the network computes as its int8 graph will; see `trainer.networks.quantisation_aware`.
    """

    until: float
    losses: Mapping[str, float]
    residual_slope: float = 0.0
    int8: bool = False


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that decides a run, together with the data and the code.

    Attributes:
        name: Name of the configuration.
        method: "pairs" or "translation".
        seed: Seed of the weights and of every batch.
        steps: Optimiser steps in all; the learning rate's schedule ends there.
        batch: Crops per step, over all devices.
        accumulate: Parts a step's crops are worked through in, one after another.
        rate: Peak learning rate.
        last_rate: Learning rate at the last step.
        schedule: "cosine", or "linear": constant for half the steps, then a straight line, as in the paper.
        warmup_steps: Steps over which the rate rises linearly from 0.
        betas: Adam's decay of its two moments.
        weight_decay: AdamW's decoupled weight decay.
        clip_norm: Largest gradient norm; 0 switches clipping off.
        ema: Decay of the averaged weights, per step.
        teacher: Model whose output the loss "distillation" compares with: a run, a checkpoint, weights or a
            model folder.
        pseudo: Folder that `python -m trainer pseudo` made: more pairs, and more streak layers.
        validate_every: Steps between validations.
        sample_every: Steps between sheets of training samples.
        save_every: Steps between checkpoints.
        keep_every: Steps between checkpoints that are kept for good.
        threads: torch threads.
        workers: Processes that make batches ahead; 0 makes them between the steps.
        precision: "32-true", or "bf16-mixed" for devices that compute faster in bfloat16.
    """

    name: str
    method: str = PAIRS
    seed: int = 1
    steps: int = 20_000
    batch: int = 16
    accumulate: int = 1
    rate: float = 1e-3
    last_rate: float = 1e-6
    schedule: str = "cosine"
    warmup_steps: int = 300
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0
    clip_norm: float = 0.0
    ema: float = 0.999
    teacher: str = ""
    pseudo: str = ""
    validate_every: int = 500
    sample_every: int = 500
    save_every: int = 250
    keep_every: int = 5_000
    threads: int = 2
    workers: int = 1
    precision: str = "32-true"
    network: NetworkConfig = field(default_factory=NetworkConfig)
    data: DataConfig = field(default_factory=DataConfig)
    unpaired: UnpairedConfig = field(default_factory=UnpairedConfig)
    translation: TranslationConfig = field(default_factory=TranslationConfig)
    phases: tuple[PhaseConfig, ...] = ()

    def phase(self, step: int) -> PhaseConfig:
        """Return the phase that a step (from 0) belongs to."""
        return next((p for p in self.phases if step < p.until * self.steps), self.phases[-1])

    def uses(self, *losses: str) -> bool:
        """Return whether any phase gives any of some losses a weight other than 0."""
        return any(phase.losses.get(name, 0.0) != 0.0 for phase in self.phases for name in losses)

    def as_dict(self) -> dict[str, Any]:
        """Return the configuration as plain values, as TOML and JSON know them."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return plain


def load_config(name_or_path: str, *, overrides: Mapping[str, Any] | None = None) -> TrainConfig:
    """Read a configuration by name (`paired`) or by path.

    Args:
        name_or_path: Name of a file in trainer/configs without its ending, or a path to a TOML file.
        overrides: Top-level values that replace the file's, such as `{"steps": 100}`.

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


_TABLES: Mapping[str, type] = {
    "network": NetworkConfig,
    "data": DataConfig,
    "unpaired": UnpairedConfig,
    "translation": TranslationConfig,
}


def parse_config(values: Mapping[str, Any], *, where: str) -> TrainConfig:
    """Build a configuration from plain values, as `TrainConfig.as_dict` gives them."""
    values = dict(values)
    for key, kind in _TABLES.items():
        values[key] = _build(kind, values.get(key, {}), where=f"{where} [{key}]")
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
    known = known_losses(config.method)
    used = {name for phase in config.phases for name in phase.losses}
    unknown = sorted(used - set(known))
    crops = (config.data.crop_px, config.unpaired.crop_px)
    checks = {
        f"unknown method {config.method!r}; known are {PAIRS}, {TRANSLATION}": bool(known),
        f"unknown losses {', '.join(unknown)}; known are {', '.join(known)}": not unknown,
        "phases must not be empty": bool(config.phases),
        "the last phase must end at 1.0": bool(config.phases) and config.phases[-1].until == 1.0,
        "crop_px must be a multiple of 8, at least 32": all(c % 8 == 0 and c >= 32 for c in crops),
        "steps, batch and accumulate must be at least 1": min(config.steps, config.batch, config.accumulate)
        >= 1,
        "batch must be a multiple of accumulate": config.batch % max(1, config.accumulate) == 0,
        "rate must be above 0": config.rate > 0,
        "schedule must be cosine or linear": config.schedule in ("cosine", "linear"),
        "ema must lie in 0..1": 0.0 <= config.ema < 1.0,
        f"network.family must be one of {', '.join(FAMILIES)}": config.network.family in FAMILIES,
        "data.clips must be empty where a network of RGB learns from pairs": config.method == TRANSLATION
        or not config.data.clips
        or config.network.family in ("fast", "deep"),
        "int8 phases need network.family fast": config.network.family == "fast"
        or not any(p.int8 for p in config.phases),
        "translation.contrasts must be 2 or 4": config.translation.contrasts in (2, 4),
        f"translation.adversarial must be one of {', '.join(KINDS)}": config.translation.adversarial in KINDS,
        "translation.discriminator_detail_px must be 0 or odd": config.translation.discriminator_detail_px
        == 0
        or config.translation.discriminator_detail_px % 2 == 1,
        "translation.discriminator_norm must be instance or spectral": config.translation.discriminator_norm
        in ("instance", "spectral"),
        "translation.discriminator_rate must be above 0": config.translation.discriminator_rate > 0,
        "unpaired.faintest must lie in 0..0.9": 0.0 < config.unpaired.faintest <= 0.9,
        "int8 phases need method pairs": config.method == PAIRS or not any(p.int8 for p in config.phases),
    }
    for complaint, holds in checks.items():
        if not holds:
            raise ConfigError(f"{where}: {complaint}; correct the configuration")


def known_losses(method: str) -> tuple[str, ...]:
    """Return the losses a method knows by name; none for an unknown method."""
    return {PAIRS: tuple(LOSSES), TRANSLATION: (*TERMS, *SIDED_TERMS)}.get(method, ())


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
