"""Images out of files, folders, patterns, lists, videos and cameras."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hdetr_d2.data import UnusableImageError, read_rgb_image
from hdetr_d2.errors import UserError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".jp2"})
VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv"})
CAMERA = "camera:"
STDIN = "-"


class InputsError(UserError, ValueError):
    """There is nothing to detect in; the message says what was given."""


@dataclass(frozen=True)
class Frame:
    """One image, or why there is none.

    Args:
        name: as results call it: of a file its path below what was named, of a video its name and the frame's number.
        pixels: (H, W, 3) uint8 RGB; None where it cannot be read.
        path: of the file it is in; None for a camera.
        error: why it cannot be read; "" where it can.
        stem: a name for files about it, without ending.
        frames_per_second: of the video; None for single images.
    """

    name: str
    pixels: npt.NDArray[np.uint8] | None
    path: str | None
    error: str = ""
    stem: str = ""
    frames_per_second: float | None = None


@dataclass(frozen=True)
class Inputs:
    """What is detected in.

    Args:
        images: (path, name) of image files.
        videos: paths of video files.
        cameras: their numbers.
        folders: in which all images were looked for.
    """

    images: tuple[tuple[str, str], ...] = ()
    videos: tuple[str, ...] = ()
    cameras: tuple[int, ...] = ()
    folders: tuple[str, ...] = ()

    @property
    def total(self) -> int | None:
        """How many frames there are, where that is known beforehand."""
        if self.cameras:
            return None
        counts = [_frame_count(video) for video in self.videos]
        return None if None in counts else len(self.images) + sum(count or 0 for count in counts)

    def __iter__(self) -> Iterator[Frame]:
        """Every image, decoded; what cannot be is a frame with an error."""
        stems: set[str] = set()
        for path, name in self.images:
            stem = _unused(str(Path(name).with_suffix("")), stems)
            try:
                yield Frame(name, read_rgb_image(path), path, stem=stem)
            except UnusableImageError as error:
                yield Frame(name, None, path, error=str(error), stem=stem)
        for video in self.videos:
            yield from _frames(video, Path(video).name, _unused(Path(video).stem, stems))
        for camera in self.cameras:
            yield from _frames(camera, f"{CAMERA}{camera}", f"camera_{camera}")


def open_inputs(names: Sequence[str]) -> Inputs:
    """Find what is named, before anything is loaded.

    Args:
        names: image and video files; folders, whose images are taken, those of their folders too; patterns such as
            ``"photos/*.jpg"``; ``"-"``, a list of any of these on standard input, one a line; ``"camera:0"``.

    Raises:
        InputsError: something is not there, is neither image nor video, or holds no images.
    """
    images: dict[str, str] = {}
    videos: list[str] = []
    cameras: list[int] = []
    folders: list[str] = []
    for name in _expanded(names):
        if name.startswith(CAMERA):
            number = name.removeprefix(CAMERA)
            if not number.isdigit():
                raise InputsError(f'"{name}": a camera is named by its number, such as camera:0')
            _capture(int(number)).release()  # before a model is loaded, as of videos
            cameras.append(int(number))
            continue
        path = Path(os.path.expanduser(name))
        if os.path.isdir(path):  # Path's own functions raise on a name that is too long
            found = _images_below(path)
            if not found:
                raise InputsError(f"{name}: the folder holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
            folders.append(name)
            images.update((str(each), each.relative_to(path).as_posix()) for each in found)
        elif not os.path.exists(path):
            raise InputsError(f"{name}: there is no such file or folder")
        elif not path.is_file():
            raise InputsError(f"{name}: is no regular file")
        elif path.suffix.lower() in VIDEO_SUFFIXES:
            _capture(str(path)).release()  # before a model is loaded
            videos.append(str(path))
        else:
            images.setdefault(str(path), path.name)
    if not (images or videos or cameras):
        raise InputsError("there is nothing to detect in: name images, folders, patterns, videos, camera:0 or -")
    return Inputs(tuple(images.items()), tuple(dict.fromkeys(videos)), tuple(cameras), tuple(folders))


def _expanded(names: Sequence[str]) -> Iterator[str]:
    for name in names:
        if not name:  # of a shell's variable that is not set, and Path("") is the current folder
            raise InputsError('"" names nothing; the current folder is "."')
        if name == STDIN:
            lines = [line.strip() for line in sys.stdin]
            yield from _expanded([line for line in lines if line and line != STDIN])
        elif glob.has_magic(name) and not os.path.exists(name):
            found = sorted(glob.glob(os.path.expanduser(name), recursive=True))
            if not found:
                raise InputsError(f"{name}: no file fits this pattern")
            known = [each for each in found if os.path.isdir(each) or _is_known(each)]
            if not known:
                raise InputsError(
                    f"{name}: only files fit this pattern that are neither images nor videos by their names"
                )
            yield from known
        else:
            yield name


def _is_known(path: str) -> bool:
    return Path(path).suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES


def _images_below(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def _unused(stem: str, taken: set[str]) -> str:
    number, candidate = 2, stem
    while candidate in taken:
        candidate, number = f"{stem}-{number}", number + 1
    taken.add(candidate)
    return candidate


def _capture(source: str | int) -> Any:
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # quiet: what cannot be opened is said below, in one line
    import cv2

    before = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        capture = cv2.VideoCapture(source)
    finally:
        cv2.utils.logging.setLogLevel(before)
    if not capture.isOpened():
        if isinstance(source, int):
            raise InputsError(f"{CAMERA}{source}: there is no such camera, or another program has it")
        raise InputsError(f"{source}: cannot be opened as a video")
    return capture


def _frame_count(video: str) -> int | None:
    import cv2

    capture = _capture(video)
    count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    capture.release()
    return count if count > 0 else None


def _frames(source: str | int, name: str, stem: str) -> Iterator[Frame]:
    import cv2

    capture = _capture(source)
    speed = float(capture.get(cv2.CAP_PROP_FPS)) or 25.0
    path = source if isinstance(source, str) else None
    try:
        number = 0
        while True:
            there, frame = capture.read()
            if not there:
                break
            pixels: npt.NDArray[np.uint8] = np.ascontiguousarray(frame[..., ::-1])
            yield Frame(f"{name}#{number}", pixels, path, stem=stem, frames_per_second=speed)
            number += 1
    finally:
        capture.release()
    if number == 0:
        yield Frame(name, None, path, error=f'"{name}" holds no frame that can be read', stem=stem)
