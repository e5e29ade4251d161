"""The folder of a run: one run writes into it, and no run takes another's files for its own."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import re
import shutil
from collections.abc import Iterator
from typing import Literal

from hdetr_d2.distributed import from_main_process, rank
from hdetr_d2.errors import UserError
from hdetr_d2.processes import is_running

from .lock import describe, release_lock, take_lock
from .settings import IfExists

Purpose = Literal["start", "resume", "evaluate"]

_TRACES = re.compile(r"^(model_\d{7,}\.pth|last_checkpoint|metrics\.json|evaluations\.json)$")
"""What only a training leaves."""

_OWN = re.compile(
    r"^(model_(\d{7,}|best|final|restart)\.pth|last_checkpoint|metrics\.json|evaluations\.json|positives\.json"
    r"|nonfinite_\d{7,}\.pth|longtail\.html|config\.yaml|description\.json|report\.html|(wandb|mlflow)_run\.txt|log\.txt(\.rank\d+)?|events\.out\.tfevents\..*)$"
)
"""All that a training writes into its folder, but what is in folders."""

_DETECTIONS = "inference"
_FOLDERS = (_DETECTIONS, "microscope")
"""Folders that only a training and its evaluations write into."""
_TEMPORARY = re.compile(r"\.(?P<pid>\d+)\.tmp$|\.tmp-(?P<other>\d+)\.ya?ml(\.pkl)?$")


class RunFolderError(UserError, RuntimeError):
    """A folder that this run cannot have; the message names it, who or what has it, and what to do."""


@contextlib.contextmanager
def claimed(
    folder: str, *, purpose: Purpose, if_exists: IfExists = "refuse", needed_files: tuple[str, ...] = ()
) -> Iterator[str]:
    """Have a folder for this job alone; every process of the job must call it.

    Args:
        folder: ``train.output_dir``; made where it does not exist.
        purpose: "start" a training, "resume" one, or "evaluate".
        if_exists: what "start" does with a folder that holds a training: "refuse", take the first free of
            ``<folder>-2``, ``<folder>-3``, ..., or "overwrite": delete what that training wrote.
        needed_files: that "overwrite" must not delete.

    Yields:
        The folder to write into.

    Raises:
        RunFolderError: another process has it, it holds a training, or it cannot be written.
    """
    path = from_main_process(lambda: _claim(folder, purpose, if_exists, needed_files))
    try:
        yield path
    finally:
        if rank() == 0:
            release_lock(path)


def _claim(folder: str, purpose: Purpose, if_exists: IfExists, needed_files: tuple[str, ...]) -> str:
    folder = folder.rstrip("/") or folder
    if not folder:
        raise RunFolderError("train.output_dir is empty; name a folder for what the run writes")
    if purpose == "start" and if_exists == "number":
        return _claim_numbered(folder)
    _lock_or_refuse(folder)
    try:
        if purpose == "start" and _holds_training(folder):
            if if_exists == "refuse":
                raise _taken(folder)
            _delete_training(folder, needed_files)
        _remove_leftovers(folder)
    except BaseException:
        release_lock(folder)
        raise
    return folder


def _taken(folder: str) -> RunFolderError:
    return RunFolderError(
        f"{folder} holds a training already ({', '.join(_holds_training(folder))}); --resume goes on with it, "
        "train.if_exists=number starts beside it in a folder with a number, train.if_exists=overwrite deletes it; or "
        "choose another folder (train.output_dir, or --output)"
    )


def folder_for_start(folder: str, if_exists: IfExists) -> str:
    """The folder that a new run would have, for what is written there before the run claims it; nothing is changed.

    Raises:
        RunFolderError: it holds a training, which is to be refused.
    """
    folder = folder.rstrip("/") or folder

    def is_taken(path: str) -> bool:
        return os.path.isdir(path) and bool(_holds_training(path))

    if if_exists == "number":
        paths = itertools.chain([folder], (f"{folder}-{number}" for number in itertools.count(2)))
        return next(path for path in paths if not is_taken(path))
    if if_exists == "refuse" and is_taken(folder):
        raise _taken(folder)
    return folder


def _claim_numbered(folder: str) -> str:
    """The folder, or the first with a number after it, that holds no training and that nobody writes into."""
    for number in itertools.count(1):
        path = folder if number == 1 else f"{folder}-{number}"
        if os.path.isdir(path) and _holds_training(path):
            continue
        if _try_to_lock(path) is None:
            if not _holds_training(path):
                _remove_leftovers(path)
                return path
            release_lock(path)
    raise AssertionError("counting has no end")


def _lock_or_refuse(folder: str) -> None:
    holder = _try_to_lock(folder)
    if holder is not None:
        raise RunFolderError(holder)


def _try_to_lock(folder: str) -> str | None:
    """Make the folder and lock it; None, or who has it.

    Raises:
        RunFolderError: it cannot be made or written.
    """
    try:
        os.makedirs(folder, exist_ok=True)
        holder = take_lock(folder)
    except (FileExistsError, NotADirectoryError) as error:
        raise RunFolderError(
            f"train.output_dir={folder}: {_file_on_the_way(folder)} is a file and no "
            "folder; choose another folder, or move that file"
        ) from error
    except OSError as error:
        raise RunFolderError(f"train.output_dir={folder}: {explain(error)}") from error
    return None if holder is None else describe(holder, folder)


def _file_on_the_way(folder: str) -> str:
    """The part of a path that is no folder."""
    path = os.path.abspath(folder)
    while not os.path.lexists(path) and path != os.path.dirname(path):
        path = os.path.dirname(path)
    return path


def _holds_training(folder: str) -> list[str]:
    """The files that only a training leaves; a file that a start which failed left empty does not count."""
    names = sorted(name for name in os.listdir(folder) if _TRACES.match(name))
    return [name for name in names if os.path.getsize(os.path.join(folder, name))]


def _delete_training(folder: str, needed_files: tuple[str, ...]) -> None:
    doomed = [os.path.join(folder, name) for name in sorted(os.listdir(folder)) if _OWN.match(name)]
    needed = {os.path.realpath(file) for file in needed_files if file}
    for path in doomed:
        if os.path.realpath(path) in needed:
            raise RunFolderError(
                f"train.if_exists=overwrite would delete {path}, which this run starts from; move that file, or choose "
                "another folder (train.output_dir, or --output)"
            )
    try:
        for path in doomed:
            os.remove(path)
        for name in _FOLDERS:
            if os.path.isdir(os.path.join(folder, name)):
                shutil.rmtree(os.path.join(folder, name))
    except OSError as error:
        raise RunFolderError(f"train.if_exists=overwrite: {explain(error)}") from error


def _remove_leftovers(folder: str) -> None:
    """Files that a kill left half-written; those of a living process of this machine stay."""
    for parent in (folder, *(os.path.join(folder, name) for name in _FOLDERS)):
        for name in os.listdir(parent) if os.path.isdir(parent) else ():
            match = _TEMPORARY.search(name)
            if not match:
                continue
            pid = int(match["pid"] or match["other"])
            if pid == os.getpid() or not is_running(pid):
                with contextlib.suppress(OSError):
                    os.remove(os.path.join(parent, name))


_REMEDIES = {
    errno.ENOSPC: "free space",
    errno.EDQUOT: "free space, or have the quota raised",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f)",
    errno.EROFS: "choose another folder",
    errno.EACCES: "choose another folder, or have its permissions changed",
    errno.EPERM: "choose another folder, or have its permissions changed",
    errno.EISDIR: "it is in the place of a file; move it away",
    errno.ENOTDIR: "a file is in the place of a folder; move it away",
    errno.EIO: "see whether the disk is in order",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ESTALE: "see whether the network file system is there",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.ENFILE: "raise the limit on open files (ulimit -n)",
}
"""What the system refuses to a run's files, and what helps."""


def explain(error: OSError) -> str:
    """One line about an error of the file system: which file, what, and what to do."""
    remedy = _REMEDIES.get(error.errno or 0, "choose another folder")
    what = error.strerror or str(error)
    name = error.filename2 or error.filename  # where it was to be moved to
    return f"{name}: {what}; {remedy}" if name else f"{what}; {remedy}"


def storage_error(error: BaseException) -> OSError | None:
    """The file system's error that ``error`` is or came from, if it is one that `explain` has a remedy for.

    ``torch.save`` says something else when a write fails, and leaves the cause in the chain.
    """
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        if isinstance(current, OSError) and current.errno in _REMEDIES:
            return current
        seen.add(id(current))
        current = current.__cause__ or current.__context__
    return None
