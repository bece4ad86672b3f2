"""Daemons of the local cluster: started in the node's namespace, known by pid file."""

import os
import signal
import subprocess
import time

from e2e.cluster import constants as c
from e2e.cluster.network import INSIDE


def start(name: str, *command, inside=True, env=None) -> None:
    """Starts a daemon with a log and a pid file of its own.

    `nsenter` replaces itself by the program, so the recorded pid is the program's.
    """
    c.LOG.mkdir(parents=True, exist_ok=True)
    c.PIDS.mkdir(parents=True, exist_ok=True)
    words = [*(INSIDE if inside else []), *map(str, command)]
    with open(c.LOG / f"{name}.log", "ab") as log:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )
    (c.PIDS / name).write_text(f"{process.pid} {_birth(process.pid)}\n")


def running(name: str) -> bool:
    return _pid(name) is not None


def stop(name: str, how: int = signal.SIGTERM, patience: float = 5.0) -> None:
    """Ends a daemon by its recorded pid; SIGKILL if it does not go in time."""
    pid = _pid(name)
    if pid is None:
        (c.PIDS / name).unlink(missing_ok=True)
        return
    kill(pid, how)
    end = time.monotonic() + patience
    while _pid(name) is not None:
        if time.monotonic() > end:
            kill(pid, signal.SIGKILL)
            end += patience
        time.sleep(0.02)
    (c.PIDS / name).unlink(missing_ok=True)


def recorded() -> list[str]:
    return sorted(path.name for path in c.PIDS.iterdir()) if c.PIDS.exists() else []


def kill(pid: int, how: int) -> None:
    try:
        os.kill(pid, how)
    except ProcessLookupError:
        pass


def _pid(name: str) -> int | None:
    """The daemon's pid, or None if it ended: a pid that was reused does not count."""
    try:
        pid, birth = (c.PIDS / name).read_text().split()
    except (FileNotFoundError, ValueError):
        return None
    _reap(int(pid))
    return int(pid) if _birth(int(pid)) == birth else None


def _reap(pid: int) -> None:
    """Lets an ended child go, else it would look alive for as long as we run."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        pass


def _birth(pid: int) -> str:
    """The start time in clock ticks: with the pid it names a process for ever."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            fields = stat.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return "gone"
    return "gone" if fields[0] == "Z" else fields[19]
