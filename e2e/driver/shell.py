"""Runs programs, with their output in the log of the current step."""

import os
import subprocess
import sys
from pathlib import Path


class CommandFailed(Exception):
    """A program ended with an error; the message says which, and its last words."""


class Log:
    """The log file of a step: programs write to it directly, Python through `say`."""

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.file = open(path, "ab", buffering=0)

    def write(self, text: str) -> None:
        self.file.write(text.encode())

    def say(self, text: str) -> None:
        """A line for the reader of the terminal as well as of the log."""
        self.write(text + "\n")
        print(f"    {text}", flush=True)

    def tail(self, lines: int = 80) -> str:
        text = self.path.read_text(errors="replace").splitlines()
        return "\n".join(text[-lines:])


def run(log: Log, *command, cwd=None, env=None, nice=False) -> None:
    """Runs a program to its end; its output goes to the log."""
    words = [str(word) for word in command]
    log.write(f"$ {' '.join(words)}\n")
    result = _run(
        ["nice", "-n", "5", *words] if nice else words,
        cwd, env,
        stdin=subprocess.DEVNULL,
        stdout=log.file,
        stderr=subprocess.STDOUT,
    )
    if result.returncode:
        raise CommandFailed(f"`{' '.join(words)}` ended with {result.returncode}")


def output(*command, cwd=None, env=None, stdin: str | None = None, check=True) -> str:
    """Runs a program and returns what it printed; an error carries its stderr."""
    words = [str(word) for word in command]
    result = _run(words, cwd, env, input=stdin, capture_output=True, text=True)
    if check and result.returncode:
        shown = " ".join(words) if len(words) < 20 else " ".join(words[:20]) + " ..."
        raise CommandFailed(f"`{shown}` ended with {result.returncode}: {result.stderr.strip()}")
    return result.stdout


def _run(words: list[str], cwd, env, **options) -> subprocess.CompletedProcess:
    env = {**os.environ, **{k: str(v) for k, v in (env or {}).items()}}
    try:
        return subprocess.run(words, cwd=cwd, env=env, **options)
    except FileNotFoundError as error:
        raise CommandFailed(f"{error.filename} is missing: not installed, or not in PATH") from error


def warn(text: str) -> None:
    print(f"    warning: {text}", file=sys.stderr, flush=True)
