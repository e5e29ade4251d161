"""Who writes into a folder: one run at a time."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from hdetr_d2.annotations import irregular
from hdetr_d2.processes import is_running, start_of

from .network import whole_number

LOCK_FILE = "run.lock"


@dataclass(frozen=True, kw_only=True)
class Writer:
    """A process that writes into a folder, so that another process can tell whether it still does.

    Args:
        host: name of the machine.
        boot: of the machine; another one means that it was restarted since.
        namespace: of process ids; an id says something only to processes of the same.
        pid, start: the process; see `start_of`.
        since: local time, for people.
        command: what was started.
        job: of a scheduler that runs a job again under the same name, or "".
        attempt: which time it runs.
    """

    host: str
    boot: str
    namespace: str
    pid: int
    start: int | None
    since: str
    command: str
    job: str = ""
    attempt: int = 0

    @classmethod
    def this_process(cls) -> Writer:
        job, attempt = job_and_attempt()
        return cls(
            host=socket.gethostname(),
            boot=_first_line("/proc/sys/kernel/random/boot_id"),
            namespace=_link("/proc/self/ns/pid"),
            pid=os.getpid(),
            start=start_of(os.getpid()),
            since=time.strftime("%Y-%m-%d %H:%M:%S"),
            command=" ".join(sys.argv)[:500],
            job=job,
            attempt=attempt,
        )

    @classmethod
    def from_json(cls, text: str) -> Writer | None:
        """What a lock file says; None where it is empty or damaged, as a kill may leave it."""
        try:
            content = json.loads(text)
            return cls(**content) if isinstance(content, Mapping) else None
        except (ValueError, TypeError):
            return None

    def may_be_writing(self, me: Writer) -> bool:
        """Whether this process still lives, as far as ``me`` can see; True where it cannot see."""
        if self.job and self.job == me.job and self.attempt < me.attempt:
            return False  # the scheduler ended the earlier attempt before it began this one
        if self.host != me.host:
            return True
        if self.boot != me.boot:
            return False
        return self.namespace != me.namespace or is_running(self.pid, self.start)

    def is_visible_to(self, me: Writer) -> bool:
        """Whether ``me`` can see if the process lives."""
        return self.host == me.host and self.namespace == me.namespace


def job_and_attempt() -> tuple[str, int]:
    """The job of Slurm or torchrun that this process belongs to, "" where there is none; how often it began again.

    Raises:
        ConfigError: the environment says no number.
    """
    environment = os.environ
    if "TORCHELASTIC_RUN_ID" in environment:
        name = environment["TORCHELASTIC_RUN_ID"]
        if name == "none":  # what torchrun says where it was given no name
            name = f"{environment.get('MASTER_ADDR')}:{environment.get('MASTER_PORT')}"
        return f"torchrun {name}", whole_number("TORCHELASTIC_RESTART_COUNT")
    if "SLURM_JOB_ID" in environment:
        return f"Slurm {environment['SLURM_JOB_ID']}", whole_number("SLURM_RESTART_COUNT")
    return "", 0


def _first_line(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.readline().strip()
    except OSError:
        return ""


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def take_lock(folder: str) -> Writer | None:
    """Write this process into the folder's lock file.

    A lock whose process is known to be dead is taken over.

    Args:
        folder: exists.

    Returns:
        None, or the writer who has the folder; the file then stays as it is.

    Raises:
        OSError: the file cannot be written.
    """
    me = Writer.this_process()
    with _opened_alone(os.path.join(folder, LOCK_FILE)) as descriptor:
        holder = Writer.from_json(os.read(descriptor, 1 << 16).decode("utf-8", "replace"))
        if holder is not None and holder.may_be_writing(me):
            return holder
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, (json.dumps(asdict(me)) + "\n").encode())
        os.fsync(descriptor)
    return None


def release_lock(folder: str) -> None:
    """Take this process's lock away, if it has it."""
    me, path = Writer.this_process(), os.path.join(folder, LOCK_FILE)
    with contextlib.suppress(OSError):
        if not os.path.isfile(path):
            return
        with _opened_alone(path) as descriptor:
            holder = Writer.from_json(os.read(descriptor, 1 << 16).decode("utf-8", "replace"))
            if holder is not None and (holder.host, holder.pid, holder.start) == (me.host, me.pid, me.start):
                os.remove(path)


@contextlib.contextmanager
def _opened_alone(path: str) -> Iterator[int]:
    """The lock file's descriptor, while no other process of this machine looks at it or changes it.

    The system's lock is held for that moment only: loader processes inherit descriptors and may live longer than the
    process whose lock it is.
    """
    descriptor = _open_and_lock(path)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _open_and_lock(path: str) -> int:
    while True:
        kind = irregular(path) if os.path.exists(path) else None
        if kind is not None:  # opening a pipe would wait for ever
            raise OSError(errno.EINVAL, f"is {kind}, where a file is expected; remove it", path)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            _lock(descriptor)
            if os.path.exists(path) and os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its holder removed it between the two lines above


def _lock(descriptor: int) -> None:
    try:
        import fcntl
    except ImportError:
        return
    with contextlib.suppress(OSError):  # a file system without such locks; the file's content is what counts
        fcntl.flock(descriptor, fcntl.LOCK_EX)


def describe(holder: Writer, folder: str, me: Writer | None = None) -> str:
    """Who has a folder, and what to do, for an error."""
    me = me or Writer.this_process()
    who = f"process {holder.pid} on {holder.host} (since {holder.since}: {holder.command})"
    remedy = "wait for it or stop it, or choose another folder (train.output_dir, or --output)"
    if not holder.is_visible_to(me):
        lock = os.path.join(folder, LOCK_FILE)
        remedy += f"; if it no longer runs there, which cannot be seen from {me.host}, remove {lock}"
    tasks: Any = os.environ.get("SLURM_NTASKS", "1")
    if holder.job and holder.job == me.job and tasks.isdigit() and int(tasks) > 1:
        remedy += (
            f"; {tasks} tasks of {me.job} were started as {tasks} separate runs: start one task a machine and give it "
            "--num-gpus (docs/machines.md)"
        )
    return f"{folder} is being written by {who}; {remedy}"
