"""Packages of the distribution, without the services that some of them would start."""

import os
import shutil
from contextlib import contextmanager
from pathlib import Path

from e2e.driver.shell import CommandFailed, Log, output, run

_SERVICES = ("redis-server", "nginx", "haproxy")  # packages that bring one of this name

# What Debian asks before it starts a service: 101 means no.
_POLICY = Path("/usr/sbin/policy-rc.d")


def install(log: Log, packages: list[str]) -> None:
    """Installs them as root. A service among them runs neither now nor after the next boot:
    whoever needs the program starts it on a port of its own."""
    if os.geteuid() != 0:
        raise CommandFailed(f"packages to install as root: {' '.join(packages)}")
    log.say(f"installing {' '.join(packages)}")
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    run(log, "apt-get", "update", env=quiet)
    with _no_service_starts():
        run(log, "apt-get", "install", "--yes", "--no-install-recommends", *packages, env=quiet)
    for service in set(_SERVICES) & set(packages):
        if shutil.which("update-rc.d"):
            output("update-rc.d", service, "disable", check=False)


@contextmanager
def _no_service_starts():
    ours = not _POLICY.exists()
    if ours:
        _POLICY.write_text("#!/bin/sh\nexit 101\n")
        _POLICY.chmod(0o755)
    try:
        yield
    finally:
        if ours:
            _POLICY.unlink(missing_ok=True)
