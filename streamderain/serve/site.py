"""All cameras of a site: begin, end, and take over a changed file."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import replace

from streamderain.options import RunOptions
from streamderain.serve.config import Camera, Site
from streamderain.serve.metrics import SiteMetrics
from streamderain.serve.supervisor import CameraProcess, Status
from streamderain.system.cpu_share import cpu_shares


class RunningSite:
    """The cameras of a site, each in a process of its own.

    Args:
        site: What is run.
    """

    def __init__(self, site: Site) -> None:
        self.site = site
        self.cameras: dict[str, CameraProcess] = {}
        self.metrics = SiteMetrics(lambda: self.statuses)
        self._shares = cpu_shares()
        self._changing = asyncio.Lock()

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
        async with self._changing:
            await asyncio.gather(*(camera.stop() for camera in self.cameras.values()))
            self.cameras.clear()

    async def reload(self, site: Site) -> list[str]:
        """Take over a changed file; cameras that did not change are not touched.

        Returns:
            Names of the cameras that were ended, begun or both.
        """
        async with self._changing:
            return await self._reload(site)

    async def _reload(self, site: Site) -> list[str]:
        # What the file says is compared: with more cameras a share of the cores is smaller, and those that
        # run keep theirs until they begin anew.
        ended = [name for name in self.cameras if _said(self.site, name) != _said(site, name)]
        # Until another is there a camera answers, if only that it stopped: its tile stays on the page.
        await asyncio.gather(*(self.cameras[name].stop() for name in ended))
        self.site = site
        for name in set(ended) - set(site.cameras):
            del self.cameras[name]
            self.metrics.forget(name)
        begun = [name for name in site.cameras if name in ended or name not in self.cameras]
        for name in begun:
            self._add(name)
        return sorted({*ended, *begun})

    def _add(self, name: str) -> None:
        camera = CameraProcess(
            name,
            self.site.cameras[name],
            _options(self.site, name),
            observed=lambda seconds: self.metrics.observe_latency(name, seconds),
            shares=self._shares,
        )
        self.cameras[name] = camera
        camera.start()


def _said(site: Site, name: str) -> tuple[Camera, RunOptions] | None:
    return (site.cameras[name], site.options[name]) if name in site.cameras else None


def _options(site: Site, name: str) -> RunOptions:
    """Return how a camera is run: engines share the cores, unless the file says otherwise."""
    options = site.options[name]
    if options.engine.threads:
        return options
    cores = len(os.sched_getaffinity(0))
    # Not one alone: a large camera could not use what small ones leave.
    threads = min(cores, max(2, cores // len(site.cameras)))
    return replace(options, engine=replace(options.engine, threads=threads))
