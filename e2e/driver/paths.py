"""Where things are: the repository, and the cache that outlives a run."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
E2E = ROOT / "e2e"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tidegate"

BIN = CACHE / "bin"  # one link per tool, to the build that fits its inputs
TOOLS = CACHE / "tools"  # the builds, each in a folder named by a hash of its inputs
IMAGES = CACHE / "images"  # image archives, ready to import
LOGS = CACHE / "logs"
RESULTS = CACHE / "results"
STATE = CACHE / "cluster"  # the local cluster: its keys, logs, data, pids

TARGET = Path(os.environ.get("CARGO_TARGET_DIR") or CACHE / "target")
