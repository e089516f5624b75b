"""Render procedural rain whose streaks are known, and composite it with pictures.

The one home of synthetic rain: training, tests, the demo clip and the bench all draw it here. numpy only.

A drop of diameter D (mm) falls at its terminal speed (Atlas, Srivastava and Sekhon 1973, eq. 3)

    v(D) = 9.65 - 10.3 exp(-0.6 D)   m/s

and smears, over an exposure of T seconds at distance Z metres and focal length f px, into a streak with

    length = f v T / Z px,   width = f D / (1000 Z) px,   opacity ~ D / (v T)

(Garg and Nayar 2007, section 5): a pixel sees the drop only for the part D / v of the exposure. Diameters
follow Marshall and Palmer (1948), N(D) ~ exp(-4.1 R^-0.21 D), R in mm/h. Drops too far to be told apart
become a veil

    I exp(-b Z) + L (1 - exp(-b Z)),   b = 0.312 R^0.67 per km, L the light of the sky,

(Narasimhan and Nayar 2002, eq. 3; b from Ulbrich and Atlas 1985). `RainParameters` holds what a *picture*
of rain shows (lengths, widths, peaks in px and in code values), because that is what can be measured in
footage; `from_physics` derives those from the weather and the camera.

All brightness is display-referred (gamma-coded), as fractions between the black and white of the picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamderain.errors import ConfigError

FloatArray = NDArray[np.float32]

_KNOWN_HEIGHT_PX = 720
_KNOWN_SEED = 1

_SUBPIXEL_WIDTH_PX = 0.7
"""Narrowest drawn width (Gaussian full width at half maximum): thinner streaks dim instead of aliasing."""


def terminal_speed_m_s(diameter_mm: float) -> float:
    """Return the speed of a falling drop, m/s, from its diameter in mm (never below 0)."""
    return max(0.0, 9.65 - 10.3 * math.exp(-0.6 * diameter_mm))


def veil_fraction(rain_mm_h: float, distance_m: float) -> float:
    """Return the share 1 - exp(-b Z) of light replaced by the rain's veil, in 0..1.

    Args:
        rain_mm_h: Rain rate R, mm/h.
        distance_m: Distance Z to the scene, m.
    """
    extinction_per_km = 0.312 * rain_mm_h**0.67
    return 1.0 - math.exp(-extinction_per_km * distance_m / 1000.0)


@dataclass(frozen=True, kw_only=True)
class RainParameters:
    """How the rain of one sequence looks.

    Attributes:
        density_per_mpx: Mean number of procedural streaks per million px of picture.
        length_px: Median streak length, px.
        length_spread: Standard deviation of the logarithm of the length.
        width_px: Median streak width (full width at half maximum), px; grows with the square root of a
            streak's relative length, since near drops are longer and wider alike.
        peak: Median peak opacity of a streak, in 0..1.
        peak_spread: Standard deviation of the logarithm of the peak.
        angle_deg: Mean direction, degrees from vertical; positive leans the fall to the right.
        angle_spread_deg: Standard deviation between streaks of one frame, degrees.
        angle_drift_deg: Amplitude of the wind's slow swing about the mean, degrees.
        drift_period_frames: Period of that swing, frames.
        light: Brightness of a streak, as a fraction of white, in 0..1.
        screen: How streaks mix: 0 adds light and clips (Rain100's way), 1 is alpha compositing, where a
            bright background hides rain; between is between.
        veil: Share of the picture's light replaced by `light`, in 0..1; see `veil_fraction`.
        near_density_per_mpx: Mean number of defocused near streaks per million px.
        near_width_px: Median width of those, px; they are four times as long as the others and an eighth as
            opaque.
        layer_gain: Opacity at the brightest value of a streak layer given as an array.
        layers_per_frame: How many of the given layers each frame draws.
        noise: Standard deviation of the sensor's noise, as a fraction of white.

    Raises:
        ConfigError: A value is out of range.
    """

    density_per_mpx: float = 1500.0
    length_px: float = 17.0
    length_spread: float = 0.5
    width_px: float = 2.0
    peak: float = 0.16
    peak_spread: float = 0.45
    angle_deg: float = 0.0
    angle_spread_deg: float = 2.0
    angle_drift_deg: float = 4.0
    drift_period_frames: float = 90.0
    light: float = 0.9
    screen: float = 0.5
    veil: float = 0.0
    near_density_per_mpx: float = 8.0
    near_width_px: float = 7.0
    layer_gain: float = 0.5
    layers_per_frame: int = 1
    noise: float = 0.0

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        for name in ("peak", "light", "screen", "veil", "layer_gain"):
            _check(name, getattr(self, name), 0.0, 1.0)
        for name in ("density_per_mpx", "near_density_per_mpx"):
            _check(name, getattr(self, name), 0.0, 1e6)
        for name in ("length_px", "width_px", "near_width_px", "drift_period_frames"):
            _check(name, getattr(self, name), 0.1, 1e5)
        for name in ("length_spread", "peak_spread", "noise"):
            _check(name, getattr(self, name), 0.0, 3.0)
        for name in ("angle_deg", "angle_spread_deg", "angle_drift_deg"):
            _check(name, getattr(self, name), -90.0, 90.0)
        _check("layers_per_frame", self.layers_per_frame, 0, 16)

    @classmethod
    def from_physics(
        cls,
        rain_mm_h: float,
        exposure_s: float,
        *,
        focal_px: float = 700.0,
        near_m: float = 0.7,
        far_m: float = 3.0,
        smallest_mm: float = 1.5,
        scene_m: float = 40.0,
        blur_px: float = 1.2,
        wind_m_s: float = 0.0,
    ) -> RainParameters:
        """Derive a sequence's look from the weather and the camera (equations in the module's docstring).

        Args:
            rain_mm_h: Rain rate R, mm/h; 2.5 is light, 10 moderate, 50 violent.
            exposure_s: Exposure time T, s.
            focal_px: Focal length f, px (about the picture's width for a 53 degree view).
            near_m: Distance to the nearest drops that are in focus, m.
            far_m: Distance beyond which drops merge into the veil, m.
            smallest_mm: Diameter of the smallest drops that show, mm; the many smaller ones are too faint.
            scene_m: Distance Z of the scene seen through the veil, m.
            blur_px: Width of the lens's, sensor's and codec's own blur, px.
            wind_m_s: Horizontal wind across the picture, m/s.

        Raises:
            ConfigError: The result is out of range, as with a rain rate of 0.
        """
        _check("rain_mm_h", rain_mm_h, 0.01, 500.0)
        _check("exposure_s", exposure_s, 1e-5, 1.0)
        slope_per_mm = 4.1 * rain_mm_h**-0.21
        # The mean diameter of Marshall and Palmer's drops above the smallest.
        diameter_mm = smallest_mm + 1.0 / slope_per_mm
        speed_m_s = terminal_speed_m_s(diameter_mm)
        # The number in view grows with Z^2, so the typical visible drop is far along the cone.
        distance_m = ((near_m**3 + far_m**3) / 2) ** (1 / 3)
        sharp_px = focal_px * diameter_mm / 1000.0 / distance_m
        width_px = math.hypot(sharp_px, blur_px)
        streak_m = speed_m_s * exposure_s
        drop_m = diameter_mm / 1000.0
        # N0 = 8000 drops per m^3 and mm of diameter.
        per_m3 = 8000.0 / slope_per_mm * math.exp(-smallest_mm * slope_per_mm)
        volume_m3_per_mpx = 1e6 / focal_px**2 * (far_m**3 - near_m**3) / 3
        return cls(
            density_per_mpx=per_m3 * volume_m3_per_mpx,
            length_px=max(1.0, focal_px * streak_m / distance_m),
            width_px=width_px,
            # A drop gathers light from a wide field: it stands out about ten times as much as its share of
            # the exposure alone would tell; blur spreads that over the drawn width.
            peak=min(0.9, 10.0 * drop_m / (drop_m + streak_m) * sharp_px / width_px),
            angle_deg=math.degrees(math.atan2(wind_m_s, max(speed_m_s, 0.1))),
            veil=veil_fraction(rain_mm_h, scene_m),
        )

    def scaled(self, factor: float) -> RainParameters:
        """Return the same rain for pictures `factor` times as large: streaks grow and thin out."""
        _check("factor", factor, 0.05, 20.0)
        return replace(
            self,
            length_px=self.length_px * factor,
            width_px=self.width_px * factor,
            near_width_px=self.near_width_px * factor,
            density_per_mpx=self.density_per_mpx / factor**2,
            near_density_per_mpx=self.near_density_per_mpx / factor**2,
        )


def _check(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ConfigError(
            f"rain: {name} is {value}, but must lie in {low}..{high}; change it in the parameters"
        )


class RainSequence:
    """Rain for the frames of one clip: independent streaks per frame, one slowly drifting wind.

    The same parameters, seed, size and frame index always give the same rain, on every machine with the same
    numpy generator (PCG64), in any order of frames.

    Args:
        parameters: How the rain looks.
        seed: Any integer from 0.
        width: Picture width, px.
        height: Picture height, px.
        layers: Streak layers to mix in, each (h, w), uint8 or float in 0..1, of any size; every frame takes
            `layers_per_frame` fresh crops. The caller picks layers of one direction, or turns them.
    """

    def __init__(
        self,
        parameters: RainParameters,
        seed: int,
        width: int,
        height: int,
        *,
        layers: Sequence[NDArray[Any]] = (),
    ) -> None:
        if seed < 0 or width < 1 or height < 1:
            raise ConfigError(
                f"rain: seed {seed} and size {width}x{height} must not be negative; sizes start at 1"
            )
        self.parameters = parameters
        self.seed = seed
        self.width = width
        self.height = height
        self._layers = [_as_unit_float(layer) for layer in layers]
        self._phase = float(np.random.default_rng([seed, 0x77696E64]).uniform(0.0, 2.0 * math.pi))

    def angle_deg(self, frame_index: int) -> float:
        """Return the wind's direction in a frame, degrees from vertical: a slow swing about the mean."""
        parameters = self.parameters
        turn = 2.0 * math.pi * frame_index / parameters.drift_period_frames + self._phase
        # Two periods with no common multiple: the swing does not repeat within a clip.
        swing = 0.7 * math.sin(turn) + 0.3 * math.sin(2.7 * turn + 1.0)
        return parameters.angle_deg + parameters.angle_drift_deg * swing

    def opacity(self, frame_index: int) -> FloatArray:
        """Return the opacity of the streaks of one frame.

        Args:
            frame_index: Index of the frame in the clip, from 0.

        Returns:
            (height, width) float32 in 0..1.
        """
        rng = self._rng(frame_index)
        parameters = self.parameters
        angle_deg = self.angle_deg(frame_index)
        alpha = _draw_streaks(rng, parameters, angle_deg, self.width, self.height)
        if parameters.near_density_per_mpx > 0:
            near = replace(
                parameters,
                density_per_mpx=parameters.near_density_per_mpx,
                length_px=4.0 * parameters.length_px,
                width_px=parameters.near_width_px,
                peak=parameters.peak / 8.0,
            )
            alpha += _draw_streaks(rng, near, angle_deg, self.width, self.height)
        if self._layers:
            for _ in range(parameters.layers_per_frame):
                layer = self._layers[int(rng.integers(len(self._layers)))]
                alpha += parameters.layer_gain * _random_crop(rng, layer, self.width, self.height)
        return np.minimum(alpha, 1.0, out=alpha)

    def background(self, picture: FloatArray, *, black: float = 0.0, white: float = 1.0) -> FloatArray:
        """Return the veiled picture, without streaks or noise; arguments as in `apply`."""
        picture = self._checked(picture)
        light = black + self.parameters.light * (white - black)
        return (picture + np.float32(self.parameters.veil) * (np.float32(light) - picture)).astype(np.float32)

    def apply(
        self, picture: FloatArray, frame_index: int, *, black: float = 0.0, white: float = 1.0
    ) -> FloatArray:
        """Rain on one picture.

        Args:
            picture: (height, width) luma or (height, width, 3) RGB, float, gamma-coded, in 0..1.
            frame_index: Index of the frame in the clip, from 0.
            black: Value of black, 0..1: 16 / 255 for studio-range luma codes over 255.
            white: Value of white, 0..1: 235 / 255 for studio-range luma.

        Returns:
            A new float32 array of the same shape, in 0..1.

        Raises:
            ConfigError: The picture is not of this sequence's size.
        """
        behind = self.background(picture, black=black, white=white)
        alpha = self.opacity(frame_index)
        if behind.ndim == 3:
            alpha = alpha[:, :, None]
        parameters = self.parameters
        rainy = composite(
            behind, alpha, light=parameters.light, screen=parameters.screen, black=black, white=white
        )
        if parameters.noise > 0:
            noise = self._rng(frame_index, stream=1).standard_normal(behind.shape, dtype=np.float32)
            rainy = np.clip(rainy + np.float32(parameters.noise * (white - black)) * noise, 0.0, 1.0)
        return rainy.astype(np.float32)

    def apply_to_codes(
        self,
        picture: NDArray[np.unsignedinteger[Any]],
        frame_index: int,
        *,
        bits: int = 8,
        full_range: bool = False,
    ) -> NDArray[np.unsignedinteger[Any]]:
        """Rain on integer codes, rounded to integers of the same type.

        Args:
            picture: (height, width) luma or (height, width, 3) RGB codes, uint8 or uint16.
            frame_index: Index of the frame in the clip, from 0.
            bits: Bits per sample, 8 to 16; codes lie in 0..2**bits - 1.
            full_range: Black is 0 and white the largest code; False is studio range (16..235 times 2**(bits
                - 8)).
        """
        top = float(2**bits - 1)
        step = float(2 ** (bits - 8))
        black, white = (0.0, 1.0) if full_range else (16.0 * step / top, 235.0 * step / top)
        rainy = self.apply(
            picture.astype(np.float32) / np.float32(top), frame_index, black=black, white=white
        )
        codes: NDArray[np.unsignedinteger[Any]] = np.rint(rainy * top).astype(picture.dtype)
        return codes

    def _rng(self, frame_index: int, *, stream: int = 0) -> np.random.Generator:
        return np.random.default_rng([self.seed, frame_index, stream])

    def _checked(self, picture: FloatArray) -> FloatArray:
        if picture.shape[:2] != (self.height, self.width) or picture.shape[2:] not in ((), (3,)):
            raise ConfigError(
                f"rain: the picture has shape {picture.shape}, but this sequence was made for width "
                f"{self.width} and height {self.height}; make a RainSequence for each size"
            )
        return picture


def known_rain(width: int, height: int) -> RainSequence:
    """Return the rain of benches: that of the default parameters in pictures of 720 rows, to scale in others.

    Args:
        width: Picture width, px.
        height: Picture height, px.
    """
    scale = min(max(height / _KNOWN_HEIGHT_PX, 0.05), 20.0)
    return RainSequence(RainParameters().scaled(scale), _KNOWN_SEED, width, height)


def composite(
    picture: FloatArray,
    alpha: FloatArray,
    *,
    light: float,
    screen: float,
    black: float = 0.0,
    white: float = 1.0,
) -> FloatArray:
    """Mix streaks into a picture: picture + alpha max(0, light - screen (picture - black)), clipped at white.

    Args:
        picture: Float, gamma-coded, any shape, in 0..1.
        alpha: Opacity of the streaks, broadcastable to picture, in 0..1.
        light: Brightness of a streak as a fraction of white, in 0..1.
        screen: 0 adds light whatever is behind, 1 is alpha compositing.
        black: Value of black in the picture.
        white: Value of white in the picture.

    Returns:
        float32, in 0..1. Rain never darkens: values above white (super-white codes) stay as they are.
    """
    reach = np.float32(light * (white - black)) - np.float32(screen) * (picture - np.float32(black))
    rainy = picture + alpha * np.maximum(reach, np.float32(0.0))
    mixed: FloatArray = np.maximum(np.minimum(rainy, np.float32(white)), picture).astype(np.float32)
    return mixed


def _draw_streaks(
    rng: np.random.Generator, parameters: RainParameters, angle_deg: float, width: int, height: int
) -> FloatArray:
    """Draw straight streaks: Gaussian across, softly ended along. Returns (height, width) float32 opacity."""
    # Streaks begin outside the picture too, or its borders would stay dry.
    margin = 2.0 * parameters.length_px
    area_mpx = (width + 2 * margin) * (height + 2 * margin) / 1e6
    count = int(rng.poisson(parameters.density_per_mpx * area_mpx))
    if count == 0:
        return np.zeros((height, width), np.float32)
    x = rng.uniform(-margin, width + margin, count)
    y = rng.uniform(-margin, height + margin, count)
    relative = np.exp(np.clip(rng.normal(0.0, parameters.length_spread, count), -2.0, 2.0))
    half_length = 0.5 * parameters.length_px * relative
    wanted_px = parameters.width_px * np.sqrt(relative) * rng.uniform(0.8, 1.25, count)
    drawn_px = np.maximum(wanted_px, _SUBPIXEL_WIDTH_PX)
    peak = parameters.peak * np.exp(np.clip(rng.normal(0.0, parameters.peak_spread, count), -2.0, 2.0))
    peak *= wanted_px / drawn_px
    angle = np.deg2rad(rng.normal(angle_deg, parameters.angle_spread_deg, count))
    sigma = drawn_px / 2.355
    return _rasterise(
        x, y, np.sin(angle), np.cos(angle), half_length, sigma, np.minimum(peak, 1.0), width, height
    )


def _rasterise(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    along_x: NDArray[np.float64],
    along_y: NDArray[np.float64],
    half_length: NDArray[np.float64],
    sigma: NDArray[np.float64],
    peak: NDArray[np.float64],
    width: int,
    height: int,
) -> FloatArray:
    """Sum the streaks' profiles over the pixels of each streak's bounding box (all streaks in one pass)."""
    reach_x = np.abs(along_x) * half_length + 3.0 * sigma
    reach_y = np.abs(along_y) * half_length + 3.0 * sigma
    left = np.clip(np.floor(x - reach_x), 0, width).astype(np.int64)
    right = np.clip(np.ceil(x + reach_x) + 1, 0, width).astype(np.int64)
    top = np.clip(np.floor(y - reach_y), 0, height).astype(np.int64)
    bottom = np.clip(np.ceil(y + reach_y) + 1, 0, height).astype(np.int64)
    box_width = right - left
    size = box_width * (bottom - top)
    # `owner` names the streak of every pixel of every box: a ragged loop without a Python loop.
    owner = np.repeat(np.arange(len(x)), size)
    if owner.size == 0:
        return np.zeros((height, width), np.float32)
    inside = np.arange(owner.size) - np.repeat(np.cumsum(size) - size, size)
    row = top[owner] + inside // box_width[owner]
    column = left[owner] + inside % box_width[owner]
    dx = (column - x[owner]).astype(np.float32)
    dy = (row - y[owner]).astype(np.float32)
    sin, cos = along_x[owner].astype(np.float32), along_y[owner].astype(np.float32)
    along = np.abs(dx * sin + dy * cos)
    across = dx * cos - dy * sin
    inverse = (1.0 / sigma[owner]).astype(np.float32)
    # The ends fade over a fifth of the half length (a drop enters and leaves within the exposure).
    half = half_length[owner].astype(np.float32)
    ends = np.clip((half - along) / (0.2 * half + 0.5) + 0.5, 0.0, 1.0)
    value = peak[owner].astype(np.float32) * ends * np.exp(np.float32(-0.5) * (across * inverse) ** 2)
    total = np.bincount(row * width + column, weights=value, minlength=width * height)
    return total.reshape(height, width).astype(np.float32)


def _as_unit_float(layer: NDArray[Any]) -> FloatArray:
    if layer.ndim != 2:
        raise ConfigError(f"rain: a streak layer has shape {layer.shape}, but must be (height, width), gray")
    scale = 1.0 / float(np.iinfo(layer.dtype).max) if np.issubdtype(layer.dtype, np.integer) else 1.0
    return (layer.astype(np.float32) * np.float32(scale)).astype(np.float32)


def _random_crop(rng: np.random.Generator, layer: FloatArray, width: int, height: int) -> FloatArray:
    """Return a random crop of a layer, repeated by reflection where the layer is smaller than the picture."""
    rows = _reflected_range(int(rng.integers(2 * layer.shape[0])), height, layer.shape[0])
    columns = _reflected_range(int(rng.integers(2 * layer.shape[1])), width, layer.shape[1])
    return layer[rows[:, None], columns[None, :]]


def _reflected_range(start: int, length: int, size: int) -> NDArray[np.int64]:
    index = (start + np.arange(length)) % (2 * size)
    return np.where(index < size, index, 2 * size - 1 - index)
