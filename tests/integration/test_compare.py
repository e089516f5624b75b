"""`streamderain compare`: videos that can be looked at, pages that a real browser opens."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from streamderain.measure import compare as compare_module
from streamderain.measure.compare import compare, stacked, summary
from streamderain.measure.pages import compare_page
from streamderain.media.arrays import ClipWriter
from streamderain.options import ReadOptions
from tests.support import media
from tests.support.browser import opened
from tests.support.command import streamderain

WIDTH, HEIGHT, FRAMES = 160, 96, 12
DARK, LIGHT, GRAY = (60, 40, 40), (190, 220, 180), (120, 120, 140)


def write(path: Path, colour: tuple[int, int, int], *, frames: int = FRAMES, height: int = HEIGHT) -> Path:
    """One colour with a bright column that moves with the frames."""
    with ClipWriter(path, rate_fps=Fraction(25), crf=4) as clip:
        for index in range(frames):
            picture = np.full((height, WIDTH, 3), colour, np.uint8)
            picture[:, 8 * index : 8 * index + 8] = 250
            clip.write(picture)
    return path


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, str]:
    folder = tmp_path_factory.mktemp("compare")
    colours = {"rainy": DARK, "clean": LIGHT, "truth": GRAY}
    names = [str(write(folder / f"{name}.mp4", colour)) for name, colour in colours.items()]
    return names[0], names[1], names[2]


def decoded(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [media.rgb(frame) for frame in container.decode(video=0)]


def near(pixel: Any, colour: tuple[int, int, int]) -> bool:
    return bool(np.abs(np.asarray(pixel[:3], float) - colour).max() < 14)


def test_side_by_side(clips: tuple[str, str, str], tmp_path: Path) -> None:
    target = tmp_path / "sides.mp4"
    outcome = streamderain("compare", *clips, "-o", target)
    assert outcome.code == 0, outcome.err
    frames = decoded(target)
    assert len(frames) == FRAMES
    assert frames[0].shape == (HEIGHT, 3 * WIDTH + 8, 3)
    for place, colour in enumerate((DARK, LIGHT, GRAY)):
        assert near(frames[0][50, place * (WIDTH + 4) + 150], colour)
    assert "Against truth.mp4" in outcome.out.decode()
    assert "rainy.mp4" in outcome.out.decode()


def test_a_wipe_crosses_the_picture(clips: tuple[str, str, str], tmp_path: Path) -> None:
    target = tmp_path / "wipe.mp4"
    outcome = streamderain("compare", *clips[:2], "-o", target, "--wipe", "-q", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.summary["against"] == "rainy.mp4"
    assert len(outcome.summary["metrics"]["clean.mp4"]) == len(outcome.summary["times_s"]) == FRAMES
    frames = decoded(target)
    assert frames[0].shape == (HEIGHT, WIDTH, 3)
    assert near(frames[0][50, 70], DARK)
    assert near(frames[0][50, 90], LIGHT)
    later = [near(frame[50, 84], DARK) or near(frame[50, 76], LIGHT) for frame in frames[3:8]]
    assert any(later), "the divider stands still"


def test_the_figures_are_those_of_the_files(clips: tuple[str, str, str], tmp_path: Path) -> None:
    found = compare(clips, tmp_path / "out.mp4", layout="side", read=ReadOptions())
    truth = decoded(Path(clips[2]))
    for name in ("rainy.mp4", "clean.mp4"):
        own = decoded(Path(clips[0]).with_name(name))
        errors = [np.mean((a.astype(float) - b) ** 2) for a, b in zip(own, truth, strict=True)]
        expected = [10 * np.log10(255**2 / error) for error in errors]
        assert [frame["psnr_rgb_db"] for frame in found.metrics[name]] == pytest.approx(expected)
    table = summary(found)
    assert table.title == "Against truth.mp4"
    assert {row[0] for row in table.rows} == {"rainy.mp4", "clean.mp4"}


def test_without_a_reference_b_is_measured_against_a(clips: tuple[str, str, str], tmp_path: Path) -> None:
    found = compare(clips[:2], tmp_path / "out.mp4", layout="side", read=ReadOptions(duration_s=0.2))
    assert list(found.metrics) == ["clean.mp4"]
    assert len(found.times_s) == 5
    assert summary(found).title == "Against rainy.mp4"


def test_frames_without_a_partner_are_told(clips: tuple[str, str, str], tmp_path: Path) -> None:
    short = write(tmp_path / "short.mp4", LIGHT, frames=9)
    outcome = streamderain("compare", clips[0], short, "-o", tmp_path / "out.mp4")
    assert outcome.code == 0, outcome.err
    assert "9 frames. 3 frames of rainy.mp4 have no partner" in outcome.out.decode()


def test_clips_of_one_name_are_told_apart(clips: tuple[str, str, str], tmp_path: Path) -> None:
    other = write(tmp_path / "rainy.mp4", LIGHT)
    found = compare((clips[0], str(other)), tmp_path / "out.mp4", layout="side", read=ReadOptions())
    assert found.names == ("A: rainy.mp4", "B: rainy.mp4")


def test_phone_video_stands_upright(tmp_path: Path) -> None:
    clip = media.write(tmp_path / "phone.mp4", media.Video(frames=3, rotation=90))
    compare((str(clip), str(clip)), tmp_path / "out.mp4", layout="side", read=ReadOptions())
    with av.open(str(clip)) as container:
        coded = media.rgb(next(container.decode(video=0)))
    shown = decoded(tmp_path / "out.mp4")[0]
    assert shown.shape == (64, 2 * 48 + 4, 3)
    assert np.abs(shown[:, :48].astype(float) - np.rot90(coded)).mean() < 12


def pixel(view: Any, x: float) -> list[int]:
    """A canvas pixel at a share of the width, in the middle row."""
    script = """([x]) => { const c = document.getElementById("canvas");
        return [...c.getContext("2d").getImageData(x * c.width, c.height * 0.6, 1, 1).data]; }"""
    found: list[int] = view.evaluate(script, [x])
    return found


def shown(view: Any, frame: int) -> None:
    """Waits until the canvas shows a frame."""
    view.wait_for_function(f'document.getElementById("canvas").dataset.frame === "{frame}"')


@pytest.mark.browser
def test_the_page_works_in_a_browser(clips: tuple[str, str, str], tmp_path: Path) -> None:
    page = tmp_path / "compare.html"
    outcome = streamderain("compare", *clips, "-o", page, "-q")
    assert outcome.code == 0, outcome.err
    with opened(page) as view:
        shown(view, 0)
        assert near(pixel(view, 0.4), DARK)
        assert near(pixel(view, 0.6), LIGHT)
        assert view.inner_text("#left-name") == "rainy.mp4"

        box = view.locator("#stage").bounding_box()
        y = box["y"] + box["height"] / 2
        view.mouse.move(box["x"] + box["width"] / 2, y)
        view.mouse.down()
        view.mouse.move(box["x"] + box["width"] * 0.8, y, steps=4)
        view.mouse.up()
        assert near(pixel(view, 0.7), DARK)
        assert near(pixel(view, 0.9), LIGHT)

        view.keyboard.press("ArrowRight")
        view.keyboard.press("ArrowRight")
        shown(view, 2)
        assert "frame 2, 0.08 s" in view.inner_text("#where")
        column = (8 * 2 + 4) / WIDTH
        view.wait_for_timeout(200)
        assert near(pixel(view, column), (250, 250, 250))
        assert near(pixel(view, 4 / WIDTH), DARK)

        view.select_option("#right", "2")
        assert near(pixel(view, 0.9), GRAY)
        assert view.inner_text("#right-name") == "truth.mp4"

        view.fill("#seek", "7")
        shown(view, 7)
        view.click("#play")
        view.wait_for_function('document.getElementById("canvas").dataset.frame === "11"')

        assert view.locator("#curve .scatterlayer .trace").count() == 2
        view.wait_for_function('document.getElementById("play").textContent === "Play"')
        view.locator("#curve").scroll_into_view_if_needed()
        point = view.locator("#curve .nsewdrag").bounding_box()
        x, y = point["x"] + point["width"] * 0.5, point["y"] + point["height"] * 0.5
        view.mouse.move(x, y, steps=5)
        view.wait_for_selector("#curve .hoverlayer .legend", state="attached")
        view.mouse.click(x, y)
        view.wait_for_function("+document.getElementById('seek').value < 11")


def test_wide_pictures_are_shown_smaller(
    clips: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(compare_module, "_PAGE_LONGEST_PX", 80)
    found, video = stacked(clips[:2], read=ReadOptions())
    target = tmp_path / "stack.mp4"
    target.write_bytes(video)
    assert found.shrunk == 2
    assert decoded(target)[0].shape == (HEIGHT, WIDTH // 2, 3)
    assert re.search("shown 2 times\\s+smaller", compare_page(found, video))


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("{a}", "-o", "out.html"), 2, "two clips"),
        (("{a}", "{b}", "-o", "out.txt"), 2, "name a file.html or a file.mp4"),
        (("{a}", "{b}", "-o", "out.html", "--wipe"), 2, "divider that you drag"),
        (("{a}", "-", "-o", "out.html"), 2, "pipe"),
        (("{a}", "{b}", "-o", "{a}"), 2, "the source itself"),
        (("{a}", "{b}", "-o", "no/out.html"), 2, "make it first"),
        (("{a}", "missing.mp4", "-o", "out.html"), 3, "missing.mp4"),
        (("{a}", "{low}", "-o", "out.mp4"), 2, "160x64"),
    ],
)
def test_what_cannot_be_compared_is_said(
    clips: tuple[str, str, str], tmp_path: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    low = write(tmp_path / "low.mp4", LIGHT, height=64)
    given = [argument.format(a=clips[0], b=clips[1], low=low) for argument in arguments]
    outcome = streamderain("compare", *given, cwd=tmp_path)
    assert (outcome.code, message in outcome.err) == (code, True), outcome.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["low.mp4"]


def test_what_is_there_stays_unless_it_may_be_replaced(clips: tuple[str, str, str], tmp_path: Path) -> None:
    target = tmp_path / "out.html"
    target.write_text("mine")
    assert streamderain("compare", *clips, "-o", target).code == 2
    assert target.read_text() == "mine"
    assert streamderain("compare", *clips, "-o", target, "--overwrite", "-q").code == 0
    assert target.read_text() != "mine"
