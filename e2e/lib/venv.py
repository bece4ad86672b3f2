"""Virtual environments of pinned packages, each made once for its set of pins."""

import hashlib
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from e2e.driver.paths import CACHE
from e2e.driver.shell import Log, run


def environment(log: Log, name: str, pins: Path,
                more: Callable[[Path], None] = lambda _home: None) -> Path:
    """Its folder; `more` adds to a new one what pip does not install."""
    digest = hashlib.sha256((pins.read_text() + sys.version).encode()).hexdigest()[:16]
    home = CACHE / f"{name}-{digest}"
    if home.exists():
        return home
    for old in CACHE.glob(f"{name}-*"):
        shutil.rmtree(old)
    partial = home.with_suffix(".partial")
    run(log, sys.executable, "-m", "venv", partial)
    run(log, partial / "bin" / "python", "-m", "pip", "install", "--quiet", "-r", pins)
    more(partial)
    partial.rename(home)
    return home
