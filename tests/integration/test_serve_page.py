"""The page of a site in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from benchmarks.camera import camera
from benchmarks.live import write_camera_clip
from benchmarks.rtsp_relay import Relay
from tests.integration.test_serve import CAMERAS, Served, served
from tests.support.browser import opened

pytestmark = pytest.mark.browser

WAIT_MS = 20_000


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("site")
    clip = folder / "camera.mp4"
    write_camera_clip(clip, width=96, height=64, rate_fps=10, frames=50)
    with ExitStack() as stack:
        relay = stack.enter_context(Relay())
        for name in CAMERAS:
            stack.enter_context(camera(clip, relay.address(f"/{name}")))
        site = stack.enter_context(served(folder, relay))
        for name in CAMERAS:
            site.await_state(name, "running")
        yield site


def address(site: Served) -> str:
    return f"http://127.0.0.1:{site.port}/"


def await_pictures(view: Any, name: str) -> None:
    """Wait until both pictures of a tile are shown."""
    view.wait_for_function(
        "name => [...document.querySelectorAll(`[data-camera=${name}] img`)].every(i => i.naturalWidth > 0)",
        arg=name,
        timeout=WAIT_MS,
    )


def await_summary(view: Any, words: str) -> None:
    """Wait until the page says something at its head."""
    says = "words => document.getElementById('summary').textContent.includes(words)"
    view.wait_for_function(says, arg=words, timeout=WAIT_MS)


def await_another(view: Any, picture: str) -> None:
    """Wait until the first tile shows another picture than this one."""
    changed = "old => document.querySelector('[data-camera=front] .after').src !== old"
    view.wait_for_function(changed, arg=picture, timeout=WAIT_MS)


def test_each_camera_has_a_tile_whose_divider_can_be_dragged(site: Served) -> None:
    with opened(address(site)) as view:
        for name in CAMERAS:
            await_pictures(view, name)
        tile = view.locator("[data-camera=front]")
        assert tile.locator(".state").inner_text() == "running"
        pictures = tile.locator(".pictures")
        box = pictures.bounding_box()
        view.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        view.mouse.down()
        view.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + box["height"] / 2, steps=5)
        view.mouse.up()
        at = float(pictures.evaluate("one => getComputedStyle(one).getPropertyValue('--at')").rstrip("%"))
        assert 15 < at < 35
        other = view.locator("[data-camera=back] .pictures")
        assert other.evaluate("one => getComputedStyle(one).getPropertyValue('--at')").strip() == "50%"
        before = view.locator("[data-camera=front] .after").get_attribute("src")
        view.wait_for_function(
            "old => document.querySelector('[data-camera=front] .after').src !== old",
            arg=before,
            timeout=WAIT_MS,
        )


def test_the_divider_moves_by_the_keyboard(site: Served) -> None:
    with opened(address(site)) as view:
        await_pictures(view, "front")
        divider = view.locator("[data-camera=front] .divider")
        divider.focus()
        for _ in range(5):
            view.keyboard.press("ArrowLeft")
        assert divider.input_value() == "45"
        assert "divider between before and after" in divider.get_attribute("aria-label")


@pytest.mark.parametrize("dark", [False, True])
def test_narrow_screens_and_dark_ones(site: Served, dark: bool) -> None:
    with opened(address(site), width=360, dark=dark) as view:
        await_pictures(view, "front")
        assert view.evaluate("document.documentElement.scrollWidth") <= 360
        light = view.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, light[4:-1].split(","))) < 200) is dark


def test_tiles_come_back_after_the_server_was_away(tmp_path: Path) -> None:
    clip = tmp_path / "camera.mp4"
    write_camera_clip(clip, width=96, height=64, rate_fps=10, frames=50)
    with ExitStack() as stack:
        relay = stack.enter_context(Relay())
        for name in CAMERAS:
            stack.enter_context(camera(clip, relay.address(f"/{name}")))
        with ExitStack() as first:
            site = first.enter_context(served(tmp_path, relay))
            site.await_state("front", "running")
            view = stack.enter_context(opened(address(site)))
            await_pictures(view, "front")
        view.wait_for_function(
            "() => document.getElementById('summary').textContent.includes('does not answer')",
            timeout=WAIT_MS,
        )
        shown = view.locator("[data-camera=front] .after").get_attribute("src")
        with served(tmp_path, relay, port=site.port):
            view.wait_for_function(
                "() => document.getElementById('summary').textContent === '2 of 2 cameras running'",
                timeout=WAIT_MS,
            )
            await_another(view, shown)
