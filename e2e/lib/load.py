"""Runs the load program next to a test and reads what it found."""

import json
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from e2e.cluster import tools

RATE = 500
CONNECTIONS = 50


class Load:
    """A steady load while the `with` block runs; `result` is there after it."""

    def __init__(self, address: tuple[str, int], host: str, path: str = "/", rate: int = RATE,
                 mode: str = "mixed", longest: int = 900):
        self._folder = tempfile.TemporaryDirectory()
        self._out = Path(self._folder.name) / "result.json"
        self._command = [
            str(tools.path("load")),
            f"--rate={rate}", f"--duration={longest}s", f"--connections={CONNECTIONS}",
            f"--mode={mode}", f"--url=http://{address[0]}:{address[1]}{path}",
            f"--host={host}", f"--out={self._out}",
        ]
        self.result: dict = {}

    def __enter__(self) -> "Load":
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        time.sleep(2)  # the connections are open before the test does its worst
        return self

    def __exit__(self, kind, *_error) -> None:
        if kind is None:
            time.sleep(2)  # and what it did has its chance to show
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(30)
        if self._out.exists():
            self.result = json.loads(self._out.read_text())
        self._folder.cleanup()
        assert self.result or kind, "the load program wrote no result"

    @property
    def failures(self) -> list[dict]:
        return self.result["failures"]

    def summary(self) -> str:
        r = self.result
        kinds = ", ".join(f"{kind}: {count}" for kind, count in sorted(r["kinds"].items()))
        return (f"{r['total']} requests, {r['failed']} failed{f' ({kinds})' if kinds else ''}, "
                f"p50 {r['p50_ms']:.1f} ms, p99 {r['p99_ms']:.1f} ms, max {r['max_ms']:.0f} ms")
