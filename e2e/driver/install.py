"""The packages and the newer Go that a run needs, installed where they are missing."""

import importlib.util
import os

from e2e.cluster import golang
from e2e.driver import debian
from e2e.driver.shell import Log, output

_PROGRAMS = {
    "ip": "iproute2",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "openssl": "openssl",
    "gcc": "gcc",
    "g++": "g++",
    "make": "make",
    "pkg-config": "pkg-config",
    "nsenter": "util-linux",
    "sysctl": "procps",
    "pip3": "python3-pip",
    "redis-server": "redis-server",
    "redis-cli": "redis-tools",
}


def run_step(log: Log) -> None:
    missing = [package for program, package in _PROGRAMS.items() if not _on_path(program)]
    if not _has_library("libseccomp"):
        missing.append("libseccomp-dev")
    if importlib.util.find_spec("ensurepip") is None:  # virtual environments need it
        missing.append("python3-venv")
    if missing:
        debian.install(log, missing)
    golang.install(log)


def _on_path(program: str) -> bool:
    folders = [*os.environ["PATH"].split(":"), "/usr/sbin", "/sbin"]
    return any(os.access(f"{folder}/{program}", os.X_OK) for folder in folders)


def _has_library(name: str) -> bool:
    return _on_path("pkg-config") and bool(output("pkg-config", "--modversion", name, check=False))
