"""All cameras of a site: begin, end, and take over a changed file."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import replace

from streamderain.options import RunOptions
from streamderain.serve.config import Site
from streamderain.serve.metrics import SiteMetrics
from streamderain.serve.supervisor import CameraProcess, Status


class RunningSite:
    """The cameras of a site, each in a process of its own.

    Args:
        site: What is run.
    """

    def __init__(self, site: Site) -> None:
        self.site = site
        self.cameras: dict[str, CameraProcess] = {}
        self.metrics = SiteMetrics(lambda: self.statuses)

    @property
    def statuses(self) -> Mapping[str, Status]:
        """What is known of each camera, by name."""
        return {name: camera.status for name, camera in self.cameras.items()}

    @property
    def is_ready(self) -> bool:
        """Whether every camera gives frames."""
        return all(status.state == "running" for status in self.statuses.values())

    async def start(self) -> None:
        """Begin to run all cameras."""
        for name in self.site.cameras:
            self._add(name)

    async def stop(self) -> None:
        """End all cameras; what they record is finished."""
        await asyncio.gather(*(camera.stop() for camera in self.cameras.values()))
        self.cameras.clear()

    async def reload(self, site: Site) -> list[str]:
        """Take over a changed file; cameras that did not change are not touched.

        Returns:
            Names of the cameras that were ended, begun or both.
        """
        before = self.site
        gone = [
            name
            for name, camera in self.cameras.items()
            if name not in site.cameras
            or (site.cameras[name], _options(site, name)) != (camera.camera, camera.options)
        ]
        await asyncio.gather(*(self.cameras.pop(name).stop() for name in gone))
        self.site = site
        new = [name for name in site.cameras if name not in self.cameras]
        for name in set(before.cameras) - set(site.cameras):
            self.metrics.forget(name)
        for name in new:
            self._add(name)
        return sorted({*gone, *new})

    def _add(self, name: str) -> None:
        camera = CameraProcess(
            name,
            self.site.cameras[name],
            _options(self.site, name),
            observed=lambda seconds: self.metrics.observe_latency(name, seconds),
        )
        self.cameras[name] = camera
        camera.start()


def _options(site: Site, name: str) -> RunOptions:
    """Return how a camera is run: engines share the cores, unless the file says otherwise."""
    options = site.options[name]
    if options.engine.threads:
        return options
    threads = max(1, len(os.sched_getaffinity(0)) // len(site.cameras))
    return replace(options, engine=replace(options.engine, threads=threads))
