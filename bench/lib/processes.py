"""Programs in the background: started, watched by what they cost, and always ended."""

import os
import signal
import subprocess
from pathlib import Path

from e2e.driver.shell import CommandFailed

_TICK = os.sysconf("SC_CLK_TCK")
_running: list["Process"] = []


# What else runs on the machine should wait, not what is measured. Only root may say so, and
# where sessions are scheduled as groups it has to be said of the group. Should this run be
# killed, what it started ends too.
_FIRST = """
renice -n -15 -p $$ >/dev/null 2>&1
echo -15 2>/dev/null >/proc/self/autogroup
exec setpriv --pdeathsig TERM taskset -c "$0" "$@"
"""


def pinned(words: list, cores: str) -> list[str]:
    """The command on these cores; it has to become a session of its own."""
    return ["sh", "-c", _FIRST, cores, *map(str, words)]


def client(words: list, cores: str, timeout: float = 60) -> str:
    """Runs a program to its end and returns what it printed."""
    process = subprocess.Popen(
        pinned(words, cores), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        out, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired as error:
        raise CommandFailed(f"`{words[0]}` did not end within {timeout:.0f} s") from error
    finally:
        process.kill()
        process.wait()
    if process.returncode:
        raise CommandFailed(f"`{' '.join(map(str, words))}` ended with {process.returncode}: "
                            f"{errors.strip()}")
    return out


class Process:
    """A program pinned to cores; its cost is that of all its processes and threads."""

    def __init__(self, words: list, log: Path, cores: str, out: Path | None = None,
                 env: dict | None = None, stdin=subprocess.DEVNULL):
        self.log = log
        self.words = [str(word) for word in words]
        with open(log, "ab") as errors, open(out or log, "ab") as output:
            errors.write(f"$ {' '.join(self.words)}\n".encode())
            errors.flush()
            self.popen = subprocess.Popen(
                pinned(self.words, cores), stdin=stdin, stdout=output,
                stderr=errors, env={**os.environ, **(env or {})}, start_new_session=True)
        _running.append(self)

    def check(self) -> None:
        """Says why it ended, if it did."""
        if self.popen.poll() is not None:
            raise CommandFailed(f"`{' '.join(self.words)}` ended with {self.popen.returncode}: "
                                f"{self.log.read_text(errors='replace')[-2000:]}")

    def cpu(self) -> "Cpu":
        return sum((_cpu(pid) for pid in self.pids()), Cpu())

    def memory_kb(self) -> tuple[int, int]:
        """The proportional and the plain resident size of all its processes."""
        pss = rss = 0
        for pid in self.pids():
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                pss += int(line.split()[1]) if line.startswith("Pss:") else 0
                rss += int(line.split()[1]) if line.startswith("Rss:") else 0
        return pss, rss

    def pids(self) -> list[int]:
        """It and its descendants."""
        found = [self.popen.pid]
        for pid in found:
            for task in _list(f"/proc/{pid}/task"):
                children = _read(f"/proc/{pid}/task/{task}/children")
                found.extend(int(child) for child in children.split())
        return found

    def stop(self) -> None:
        if self.popen.stdin:
            self.popen.stdin.close()
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGTERM)
            try:
                self.popen.wait(5)
            except subprocess.TimeoutExpired:
                os.killpg(self.popen.pid, signal.SIGKILL)
                self.popen.wait()
        if self in _running:
            _running.remove(self)


class Cpu:
    """Seconds: in all (exact), and as sampled in user and in system mode."""

    def __init__(self, total: float = 0.0, user: float = 0.0, system: float = 0.0):
        self.total, self.user, self.system = total, user, system

    def __add__(self, other: "Cpu") -> "Cpu":
        return Cpu(self.total + other.total, self.user + other.user, self.system + other.system)

    def __sub__(self, other: "Cpu") -> "Cpu":
        return Cpu(self.total - other.total, self.user - other.user, self.system - other.system)

    def system_share(self) -> float:
        return self.system / max(self.user + self.system, 1e-9)


def stop_all() -> None:
    for process in reversed(list(_running)):
        process.stop()


def _cpu(pid: int) -> Cpu:
    """Threads' run times are in nanoseconds; the split in user and system is in ticks.

    Threads that ended are only in the process's ticks: then those count, if they are more.
    """
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    if not fields:
        return Cpu()
    user, system = int(fields[11]) / _TICK, int(fields[12]) / _TICK
    exact = sum(int((_read(f"/proc/{pid}/task/{task}/schedstat") or "0").split()[0])
                for task in _list(f"/proc/{pid}/task")) / 1e9
    lost = user + system - exact > 0.1
    return Cpu(user + system if lost else exact, user, system)


def _list(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, ProcessLookupError):
        return []


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
