"""The benchmark's configs and programs still fit: one request to each, nothing is measured."""

import re

from e2e.driver.paths import CACHE, ROOT, TARGET
from e2e.driver.shell import run as run_program

_LEAN = ("nginx", "haproxy", "tidegate")  # the other peers are large downloads


def run(context) -> tuple[int, int]:
    """Returns how many rows' configs worked; the first that does not ends the step."""
    run_program(context.log, "python3", "-B", "-m", "unittest", "discover", "-s", "bench/tests",
                "-t", ".", cwd=ROOT)
    tools = ("--manifest-path", ROOT / "bench" / "tools" / "Cargo.toml")
    run_program(context.log, "cargo", "fmt", "--check", *tools)
    run_program(context.log, "cargo", "test", "--release", "--locked", *tools,
                "--target-dir", CACHE / "bench" / "target")
    run_program(context.log, ROOT / "bench" / "run", "--check", "--peer", *_LEAN,
                "--binary", TARGET / "release" / "tidegate")
    return len(re.findall(r": ok$", context.log.path.read_text(), re.MULTILINE)), 0
