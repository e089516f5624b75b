"""Options of a run, as frozen dataclasses that validate themselves.

The command line, configuration files and the Python API all build these and nothing else.
"""

from __future__ import annotations

import copyreg
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from types import MappingProxyType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from streamderain.errors import ConfigError
from streamderain.models import AUTO

# Options are sent to processes that work on pieces of a file; Python pickles no view of a table by itself.
copyreg.pickle(MappingProxyType, lambda view: (MappingProxyType, (dict(view),)))


def require_types(options: Any) -> None:
    """Check that each field of an options dataclass holds what its annotation says; an int is a float too.

    Raises:
        ConfigError: A field holds something else; names it.
    """
    hints = get_type_hints(type(options))
    for one in fields(options):
        value, wanted = getattr(options, one.name), hints[one.name]
        kinds = tuple(
            get_origin(kind) or kind for kind in (get_args(wanted) if _is_union(wanted) else (wanted,))
        )
        allowed = (*kinds, int) if float in kinds else kinds
        if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in kinds):
            names = " or ".join("None" if kind is type(None) else kind.__name__ for kind in kinds)
            raise ConfigError(
                f"{type(options).__name__}.{one.name} must be {names}, not {value!r} ({type(value).__name__})"
            )


def parse_seconds(text: str) -> float:
    """Read a time: seconds (`60` or `60s`), or [HH:]MM:SS[.fraction].

    Raises:
        ValueError: It is none.
    """
    seconds = 0.0
    try:
        for part in text.split(":"):
            seconds = seconds * 60 + float(part.removesuffix("s"))
    except ValueError:
        raise ValueError(f"{text!r} is no time; write seconds or HH:MM:SS") from None
    return seconds


def parse_bitrate(text: str) -> int:
    """Read bits a second, in units of 1, 1000 (`k`) or a million (`M`).

    Raises:
        ValueError: It is none.
    """
    unit = {"k": 1_000, "K": 1_000, "M": 1_000_000}.get(text.strip()[-1:], 0)
    try:
        return round(float(text.strip()[:-1] if unit else text) * (unit or 1))
    except ValueError:
        raise ValueError(f"{text!r} is no bit rate; write 800k or 4M") from None


def parse_bytes(text: str) -> int:
    """Return a size in bytes: `8GB`, `500MB` or a plain number.

    Raises:
        ValueError: It is none.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(MB|GB|TB)?", text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no size; write 500MB or 8GB")
    return round(float(match[1]) * {None: 1, "MB": 10**6, "GB": 10**9, "TB": 10**12}[match[2]])


def parse_shard(text: str) -> tuple[int, int]:
    """Return the number of a shard, from 0, and how many there are: `0/4`.

    Raises:
        ConfigError: It is none.
    """
    first, sign, count = text.partition("/")
    if not (sign and first.isdigit() and count.isdigit() and int(first) < int(count)):
        raise ConfigError(f"shard must be I/N with I from 0 to N - 1, such as 0/4, not {text!r}")
    return int(first), int(count)


def _is_union(wanted: Any) -> bool:
    return get_origin(wanted) in (Union, UnionType)


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """What is read of a source.

    Attributes:
        start_s: Seconds into the source at which the result begins (`-ss`).
        duration_s: Length of the result in seconds (`-t`); None for all that follows.
        stills: Treat every image of a folder or glob on its own, even where they are numbered like a video.
        recursive: Search the folders within a folder as well; results lie in the same tree.
        deinterlace: Turn interlaced video into progressive frames instead of refusing it.
        image_rate_fps: Frames per second of a numbered run of images.
        hwaccel: `"none"` decodes on the processor, `"cuda"` on an NVIDIA GPU (NVDEC), or not at all.
        live: Whether an address goes on for ever, so that it is sought again where it ends; None where its
            scheme tells: RTSP, RTMP, UDP, RTP, TCP and SRT do, HTTP does not.
        max_latency_s: From how late on frames of a live source are dropped, seconds; none are of files.
        rtsp_transport: `"tcp"` or `"udp"`: how RTSP sends media.
        tls_verify: Take encrypted streams (RTSPS, HTTPS) only from servers whose certificate is valid.
        wait: Wait for a live source that has never answered, instead of giving up.
        give_up_after_s: How long a live source that was lost is sought, seconds; None for ever.
    """

    start_s: float = 0.0
    duration_s: float | None = None
    stills: bool = False
    recursive: bool = False
    deinterlace: bool = False
    image_rate_fps: float = 25.0
    hwaccel: str = "none"
    live: bool | None = None
    max_latency_s: float = 0.5
    rtsp_transport: str = "tcp"
    tls_verify: bool = False
    wait: bool = False
    give_up_after_s: float | None = None

    def __post_init__(self) -> None:
        require_types(self)
        if not (math.isfinite(self.start_s) and self.start_s >= 0):
            raise ConfigError(f"the start (-ss) must be 0 or more seconds, not {self.start_s}")
        if self.duration_s is not None and not (math.isfinite(self.duration_s) and self.duration_s > 0):
            raise ConfigError(f"the length (-t) must be more than 0 seconds, not {self.duration_s}")
        if self.hwaccel not in ("none", "cuda"):
            raise ConfigError(f"hwaccel must be none or cuda, not {self.hwaccel!r}")
        if not self.max_latency_s > 0:
            raise ConfigError(f"max-latency must be more than 0 seconds, not {self.max_latency_s}")
        if self.rtsp_transport not in ("tcp", "udp"):
            raise ConfigError(f"rtsp-transport must be tcp or udp, not {self.rtsp_transport!r}")
        if self.give_up_after_s is not None and not self.give_up_after_s >= 0:
            raise ConfigError(f"give-up-after must be 0 or more seconds, not {self.give_up_after_s}")
        if not (math.isfinite(self.image_rate_fps) and 0 < self.image_rate_fps <= 1000):
            raise ConfigError(f"the image rate must lie in (0, 1000] frames/s, not {self.image_rate_fps}")


@dataclass(frozen=True, slots=True)
class EncodeOptions:
    """How the result is encoded. None means: what suits the source and the target.

    Attributes:
        codec: Encoder name, as FFmpeg calls it; None chooses libx264 wherever the target can hold it.
        crf: Constant rate factor; None for 18 where the encoder knows the option.
        preset: Encoder preset; None for `veryfast` with libx264 and libx265.
        pix_fmt: Pixel format; None keeps the source's depth and chroma where the encoder can.
        extra: Further encoder options (`-e key=value`), checked against the encoder's own list.
        overwrite: Replace an existing target.
        skip_existing: Leave out what has its target already.
        container: Format of standard output (`"matroska"`, `"mpegts"` and others), or of the segments of a
            playlist (`"mpegts"` or `"mp4"`); None for Matroska and MPEG-TS.
        max_bitrate: Most bits a second that the encoder may give; None for what the quality takes.
        split_s: Begin a new file after so many seconds; None where the target's name says it.
        keep: How much of files that were split by time is kept: a time (`7d`) or a size (`50GB`); None for
            all.
        hls_window: How many segments the playlist of a live source holds.
    """

    codec: str | None = None
    crf: float | None = None
    preset: str | None = None
    pix_fmt: str | None = None
    extra: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    overwrite: bool = False
    skip_existing: bool = False
    container: str | None = None
    max_bitrate: int | None = None
    split_s: float | None = None
    keep: str | None = None
    hls_window: int = 6

    def __post_init__(self) -> None:
        require_types(self)
        if self.max_bitrate is not None and self.max_bitrate < 1000:
            raise ConfigError(f"max-bitrate must be at least 1000 bits/s, not {self.max_bitrate}")
        if self.split_s is not None and not (math.isfinite(self.split_s) and self.split_s >= 1):
            raise ConfigError(f"split must be 1 second or more, not {self.split_s}")
        if self.hls_window < 2:
            raise ConfigError(f"hls-window must be 2 segments or more, not {self.hls_window}")
        if self.overwrite and self.skip_existing:
            raise ConfigError(
                "--overwrite replaces existing targets and --skip-existing leaves them: choose one of the two"
            )
        if self.crf is not None and not 0 <= self.crf <= 63:
            raise ConfigError(f"crf must lie in 0..63, not {self.crf}")
        object.__setattr__(self, "extra", MappingProxyType(dict(self.extra)))

    def __reduce__(self) -> tuple[Any, ...]:
        # Options travel to other processes, and pickle knows no read-only mappings.
        values = {name: getattr(self, name) for name in self.__slots__}
        return partial(EncodeOptions, **{**values, "extra": dict(self.extra)}), ()


LEAST_MAX_SIZE = 64
"""Below this many pixels nothing of a frame is left to see."""


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Which model removes the rain, and on what.

    Attributes:
        model: Name of a model, or the path of a folder with a `card.toml`. `"auto"` is dcd-lite, and
            dcd-quality for sources that are single pictures only.
        engine: `"auto"` or an engine's name. A named engine never falls back to another.
        device: Device in the engine's own words (`"cpu"`, `"cuda:1"`); `"auto"` for its default.
        precision: One of the card's precisions; `"auto"` for the engine's default.
        strength: How much of the found rain is taken away, 0 (nothing) to 1 (all).
        alignment: `"auto"` warps neighbouring frames onto the current one where the model wants that; `"off"`
            never does, for comparison.
        max_size: Longest side, px, at which a model that looks at whole frames sees them: larger ones are
            shrunk for it, and what it changes is enlarged again. 0 for their own size.
        threads: Processor threads the engine may use; 0 for all this process may run on.
        causal: Never wait for later frames: less delay, and less of the rain is found.
        fail_closed: Let no frame of a live source pass unprocessed: while the engine is opened, or has
            failed, the output pauses.
    """

    model: str = AUTO
    engine: str = "auto"
    device: str = "auto"
    precision: str = "auto"
    strength: float = 1.0
    alignment: str = "auto"
    max_size: int = 0
    threads: int = 0
    causal: bool = False
    fail_closed: bool = False

    def __post_init__(self) -> None:
        require_types(self)
        if not 0.0 <= self.strength <= 1.0:
            raise ConfigError(f"strength must lie in 0..1, not {self.strength}")
        if self.alignment not in ("auto", "off"):
            raise ConfigError(f"alignment must be auto or off, not {self.alignment!r}")
        if self.max_size < 0 or 0 < self.max_size < LEAST_MAX_SIZE:
            raise ConfigError(
                f"max-size must be 0 (frames as they are) or at least {LEAST_MAX_SIZE} px, "
                f"not {self.max_size}"
            )
        if self.threads < 0:
            raise ConfigError(f"threads must be 0 (all) or more, not {self.threads}")


@dataclass(frozen=True, slots=True)
class WorkOptions:
    """How the work on one file is parted.

    Attributes:
        jobs: Pieces of a file that are worked on at once, each in a process of its own; 0 for what suits the
            machine.
        segment_length_s: Least length of a piece, seconds; None parts files that are long, and where `jobs`
            asks for several at once.
        max_memory_bytes: Most memory of all processes together; None for what the machine has.
        restart: Throw away the pieces that an earlier run left, instead of going on with them.
        pass_failed: Let a piece through unprocessed that the engine crashes on again and again.
        shard: `I/N`: only every N-th file of a source is worked on, from the I-th on, counted from 0. Without
            `recursive`, or instead of its ledger.
        retry_failed: Take up files of an archive that failed before.
        cluster: `"auto"` or `ray://HOST:PORT`: a Ray cluster works on the pieces; None for this machine.
    """

    jobs: int = 0
    segment_length_s: float | None = None
    max_memory_bytes: int | None = None
    restart: bool = False
    pass_failed: bool = False
    shard: str | None = None
    retry_failed: bool = False
    cluster: str | None = None

    def __post_init__(self) -> None:
        require_types(self)
        if self.jobs < 0:
            raise ConfigError(f"jobs must be 0 (what suits the machine) or more, not {self.jobs}")
        if self.cluster is not None and not (self.cluster == "auto" or self.cluster.startswith("ray://")):
            raise ConfigError(f"cluster must be auto or ray://HOST:PORT, not {self.cluster!r}")
        if self.shard is not None:
            parse_shard(self.shard)
        length_s = self.segment_length_s
        if length_s is not None and not (math.isfinite(length_s) and length_s > 0):
            raise ConfigError(f"segment-length must be more than 0 seconds, not {length_s}")
        if self.max_memory_bytes is not None and self.max_memory_bytes <= 0:
            raise ConfigError(f"max-memory must be more than 0 bytes, not {self.max_memory_bytes}")


@dataclass(frozen=True, slots=True)
class RunOptions:
    """All options of one run."""

    read: ReadOptions = field(default_factory=ReadOptions)
    encode: EncodeOptions = field(default_factory=EncodeOptions)
    engine: EngineOptions = field(default_factory=EngineOptions)
    work: WorkOptions = field(default_factory=WorkOptions)

    def __post_init__(self) -> None:
        require_types(self)
