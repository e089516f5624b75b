"""Metrics of a site for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from streamderain.serve.supervisor import Status

_BUCKETS_S = (0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0)


class SiteMetrics(Collector):
    """Makes metrics of what is known of the cameras at the moment they are asked for.

    Args:
        statuses: Gives the status of each camera by its name.
    """

    def __init__(self, statuses: Callable[[], Mapping[str, Status]]) -> None:
        self._statuses = statuses
        self._registry = CollectorRegistry()
        self._registry.register(self)
        self._latency = Histogram(
            "streamderain_latency_seconds",
            "How long a frame takes from its decoder to its packet.",
            ["camera"],
            buckets=_BUCKETS_S,
            registry=self._registry,
        )

    def observe_latency(self, camera: str, seconds: float) -> None:
        """Note the latency of a frame."""
        self._latency.labels(camera).observe(seconds)

    def forget(self, camera: str) -> None:
        """Drop what was noted of a camera that is gone."""
        self._latency.remove_by_labels({"camera": camera})

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics but the latency."""
        cameras = self._statuses()
        yield _gauge("up", "Whether frames come out.", cameras, lambda s: s.state == "running")
        yield _gauge("output_fps", "Frames that come out a second.", cameras, _fps)
        yield _gauge("input_fps", "Frames that come in a second.", cameras, lambda s: s.input_fps)
        yield _gauge("rain_light", "Light taken away, mean codes of luma.", cameras, lambda s: s.light)
        yield _gauge("restarts", "How often the process was started again.", cameras, lambda s: s.restarts)
        yield _counter("frames", "Frames that came out.", cameras, "frames_out")
        yield _counter("passthrough_frames", "Frames that passed unprocessed.", cameras, "passed")
        yield _counter("engine_failures", "How often the engine failed.", cameras, "engine lost")
        yield _labelled(
            "dropped_frames", "Frames that came too late.", "reason", cameras, {"late": "dropped"}
        )
        sides = {"source": "source lost", "target": "target lost"}
        yield _labelled("reconnects", "How often a side was lost.", "side", cameras, sides)


def _fps(status: Status) -> float:
    return float(status.numbers.get("fps", 0.0)) if status.state == "running" else 0.0


def _gauge(
    name: str, about: str, cameras: Mapping[str, Status], value: Callable[[Status], float]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"streamderain_{name}", about, labels=["camera"])
    for camera, status in cameras.items():
        family.add_metric([camera], float(value(status)))
    return family


def _counter(name: str, about: str, cameras: Mapping[str, Status], total: str) -> CounterMetricFamily:
    family = CounterMetricFamily(f"streamderain_{name}", about, labels=["camera"])
    for camera, status in cameras.items():
        family.add_metric([camera], status.totals.get(total, 0))
    return family


def _labelled(
    name: str, about: str, label: str, cameras: Mapping[str, Status], totals: Mapping[str, str]
) -> CounterMetricFamily:
    family = CounterMetricFamily(f"streamderain_{name}", about, labels=["camera", label])
    pairs: Iterable[tuple[str, Status]] = cameras.items()
    for camera, status in pairs:
        for value, total in totals.items():
            family.add_metric([camera, value], status.totals.get(total, 0))
    return family
