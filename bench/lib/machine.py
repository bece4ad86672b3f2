"""What a reader has to know of the machine and the versions, without names of either's owner."""

import platform
import re
from pathlib import Path

from bench.lib import install, paths
from e2e.driver.shell import CommandFailed, output

_VERSIONS = {"nginx": ["-v"], "haproxy": ["-v"], "envoy": ["--version"], "traefik": ["version"],
             "caddy": ["version"], "wrk": ["-v"], "h2load": ["--version"]}


def facts(binaries: dict[str, Path], peers: set[str]) -> dict:
    versions = {name: _version(name, words) for name, words in _VERSIONS.items()
                if name in peers or name in ("wrk", "h2load")}
    versions |= {name: _first_number(output(path, "--version")) for name, path in binaries.items()}
    return {"processor": _processor(), "cores": len(paths.cores()), "kernel": _kernel(),
            "memory_gb": _memory_gb(), "versions": versions}


def _processor() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1].strip() if found else platform.machine()


def _kernel() -> str:
    return "Linux " + ".".join(platform.release().split("-")[0].split(".")[:2])


def _memory_gb() -> int:
    found = re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())
    return round(int(found[1]) / 1024 / 1024)


def _version(name: str, words: list[str]) -> str:
    try:  # some say it on stderr, and wrk ends with 1
        return _first_number(output("sh", "-c", '"$@" 2>&1 || true', "sh", install.program(name),
                                    *words))
    except CommandFailed:
        return "?"


def _first_number(text: str) -> str:
    found = re.search(r"\d+\.\d+(\.\d+)?", text)
    return found[0] if found else "?"
