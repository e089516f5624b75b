"""The command `streamderain demo`: derain the bundled clip and make a before/after picture."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import click
import numpy as np

from streamderain.api import run
from streamderain.cli.run import interruptible
from streamderain.cli.view import View
from streamderain.derainer import frames
from streamderain.errors import ConfigError
from streamderain.media.arrays import save_picture
from streamderain.media.writing.target import check_targets
from streamderain.options import EncodeOptions, EngineOptions, RunOptions

CLIP = Path(__file__).parent.parent / "assets" / "demo.mp4"
PICTURED_FRAME = 24
DIVIDER_PX = 4


def demo_command(folder: str, *, overwrite: bool) -> int:
    """Derain the clip into `folder`; return the exit code.

    Raises:
        ConfigError: The folder cannot be made, or holds files of the results' names that may not be replaced.
    """
    place = Path(folder)
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"the folder {folder} cannot be made: {error.strerror}; choose another with -o"
        ) from error
    clean, picture = place / "clean.mp4", place / "before-after.png"
    check_targets([CLIP], [str(clean), str(picture)], EncodeOptions(overwrite=overwrite))
    options = RunOptions(encode=EncodeOptions(overwrite=overwrite))
    with interruptible() as stop, View() as view:
        report = run(CLIP, clean, options=options, observer=view.show, stop=stop)
    if report.exit_code:
        return report.exit_code
    sides = [_frame(CLIP), _frame(clean)]
    divider = np.full((sides[0].shape[0], DIVIDER_PX, 3), 255, np.uint8)
    save_picture(picture, np.hstack([sides[0], divider, sides[1]]))
    click.echo(f"rainy:   {CLIP}")
    click.echo(f"clean:   {clean.absolute()}")
    click.echo(f"picture: {picture.absolute()} (left: rainy, right: clean)")
    return report.exit_code


def _frame(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Return the pictured frame of a video as it is."""
    unchanged = RunOptions(engine=EngineOptions(engine="identity"))
    return next(islice(frames(path, unchanged), PICTURED_FRAME, None)).image
