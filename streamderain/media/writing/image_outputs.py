"""Prepare image targets: encoder, file names, and what of the source they do not keep."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from streamderain.errors import ConfigError
from streamderain.media.side_data import display_matrix
from streamderain.media.track import MediaSource
from streamderain.media.writing.encoder_settings import Candidates, candidates_for, image_codec
from streamderain.media.writing.images import ImageOutlet
from streamderain.media.writing.jpeg_tags import jpeg_tags
from streamderain.media.writing.picture_tags import lost_tags
from streamderain.media.writing.rotation import rotation_filters, swaps_sides
from streamderain.media.writing.stream_copy import describe
from streamderain.media.writing.target import IMAGE_SUFFIXES, Target, refused_streams
from streamderain.options import EncodeOptions


class ImageTarget:
    """One still, a numbered run, or files that keep their source's names.

    Args:
        target: What the user named.
        source: The open source.
        options: How images are encoded.
        overwrite: Whether existing files may be replaced.

    Attributes:
        candidates: Settings of the encoder.
        warnings: What to say before work starts.

    Raises:
        ConfigError: The source has more video streams or pictures than the target holds, the target exists,
            or the encoder's options do not suit.
    """

    def __init__(
        self, target: Target, source: MediaSource, options: EncodeOptions, *, overwrite: bool
    ) -> None:
        if len(source.tracks) > 1:
            raise refused_streams(target, "images", source=source)
        track = source.tracks[0]
        if target.kind == "still" and track.info.rate_fps is not None and track.info.frames != 1:
            raise ConfigError(
                f"{target.text} holds one picture and {source.name} is a video; "
                "name a folder (frames/), a pattern (frames/%06d.png) or a video file"
            )
        self.warnings: list[str] = []
        self._target, self._source, self._overwrite = target, source, overwrite
        self._suffix = _image_suffix(target, source)
        self._codec = image_codec(self._suffix)
        self._place = _place(target, source, self._suffix)
        _check_folder(target, self._place, overwrite=overwrite)
        if target.kind != "still":
            self._say(_left_behind(self._place(0, 0)))
        candidates = candidates_for(track, "image2", options, codec=self._codec)
        self.candidates = _rotated(candidates, self._rotation())
        self._say(candidates.warnings)
        self.warnings += self._lost_tags()
        left = [describe(stream) for stream in source.copied]
        self._say([f"images hold no other streams: {', '.join(left)} left out"] if left else [])
        self._tags = self._jpeg_tags()

    def open(self) -> ImageOutlet:
        """Open the target.

        Raises:
            OpenError: Its folder cannot be made.
        """
        target = self._target
        return ImageOutlet(
            self._place,
            limit=1 if target.kind == "still" else None,
            overwrite=self._overwrite,
            name=target.text,
            folder=target.path if target.kind == "folder" else None,
            tags=self._tags,
        )

    def _say(self, warnings: Sequence[str]) -> None:
        self.warnings += [f"{self._target.text}: {warning}" for warning in warnings]

    @property
    def _is_video(self) -> bool:
        """Whether the pictures are frames of a video rather than image files."""
        return self._source.tracks[0].info.rate_fps is not None and not self._source.image_paths

    def _lost_tags(self) -> list[str]:
        """Warn of tags beside a picture that are lost, in the same words for all pictures of a folder."""
        lost = [] if self._is_video else sorted(lost_tags(Path(self._source.path), self._codec))
        own = Path(self._source.path).suffix
        names = ", ".join(lost)
        return [f"{self._suffix} files made of {own} files do not keep these tags: {names}"] if lost else []

    def _jpeg_tags(self) -> Callable[[int], bytes] | None:
        """Give the tags of the JPEG that a picture was made of; warn where an orientation is lost."""
        source = self._source
        if self._codec == "mjpeg" and source.image_paths:
            return lambda pts: jpeg_tags(_image_of(source, pts))
        if self._is_video:
            return None  # Its pictures are rotated.
        if self._codec == source.tracks[0].info.codec == "mjpeg":
            return lambda pts: jpeg_tags(Path(source.path))
        if source.tracks[0].first.rotation and self._codec not in ("png", "tiff"):
            self._say([f"{self._suffix} files do not keep the rotation of the picture"])
        return None

    def _rotation(self) -> tuple[str, ...]:
        """Return filters that rotate a video's pictures: images cannot say it so that all readers know."""
        if not self._is_video:
            return ()  # What a camera wrote into a picture stays in it.
        matrix = display_matrix(self._source.tracks[0].first)
        filters = () if matrix is None else rotation_filters(matrix)
        if filters is None:
            self._say(["the video is to be shown at a slant, which images cannot say: they are as coded"])
        return filters or ()


def _place(target: Target, source: MediaSource, suffix: str) -> Callable[[int, int], Path]:
    """Give the path of a picture from its number and its pts.

    In a folder, pictures made of image files keep their names; others are numbered from 1.
    """
    if target.kind == "still":
        return lambda number, pts: target.path
    if target.kind == "pattern":
        return lambda number, pts: target.path.with_name(target.path.name % (number + 1))
    if source.image_paths:
        return lambda number, pts: target.path / f"{_image_of(source, pts).stem}{suffix}"
    return lambda number, pts: target.path / f"{number + 1:06d}{suffix}"


def _image_of(source: MediaSource, pts: int) -> Path:
    """Return the image that a frame of a numbered run was made of."""
    info = source.tracks[0].info
    return source.image_paths[round((pts * info.time_base + source.offset_s) * (info.rate_fps or 1))]


def _image_suffix(target: Target, source: MediaSource) -> str:
    if target.kind != "folder":
        return target.path.suffix
    own = Path(source.path).suffix
    return own if source.image_paths and own.lower() in (*IMAGE_SUFFIXES, ".webp") else ".png"


def _check_folder(target: Target, place: Callable[[int, int], Path], *, overwrite: bool) -> None:
    first = place(0, 0)
    if target.kind in ("folder", "pattern") and first.exists() and not overwrite:
        raise ConfigError(
            f"{first} exists; choose another folder, or add --overwrite to replace its pictures"
        )


def _rotated(candidates: Candidates, filters: tuple[str, ...]) -> Candidates:
    """Return the candidates for pictures that go through these filters first."""
    rotated = [replace(settings, rotation=filters) for settings in candidates.settings]
    if swaps_sides(filters):
        rotated = [replace(one, width=one.height, height=one.width) for one in rotated]
    return replace(candidates, settings=tuple(rotated))


def _left_behind(first: Path) -> list[str]:
    """Return a word on numbered images that are there already: a shorter run does not replace them all."""
    numbered = re.fullmatch(r"(.*?)\d+(\D*)", first.name)
    if numbered is None or not first.parent.is_dir():
        return []
    like = re.compile(re.escape(numbered[1]) + r"\d+" + re.escape(numbered[2]))
    names = sorted(path.name for path in first.parent.iterdir() if like.fullmatch(path.name))
    if not names:
        return []
    return [
        f"{len(names)} numbered images are there already ({names[0]} to {names[-1]}): "
        "those that this run does not replace stay among the new ones"
    ]
