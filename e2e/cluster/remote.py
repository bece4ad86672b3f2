"""What clusters have in common that we reach by a kubeconfig: kubectl and its proxy."""

import atexit
import re
import shutil
import subprocess

from e2e.driver.shell import CommandFailed
from e2e.lib import kube
from e2e.lib.api import Api


class RemoteCluster:
    """A cluster that is not made of our own processes, so no test may break it."""

    name = "remote"
    may_break = False
    known_addresses = False
    pull_policy = "IfNotPresent"
    kubeconfig = ""  # for programs that read KUBECONFIG
    flags: list[str] = []  # of kubectl, to find the cluster

    def __init__(self):
        self._proxy: subprocess.Popen | None = None
        self._url = ""

    def use(self) -> None:
        """Points the tests' kubectl at this cluster."""
        if not shutil.which("kubectl"):
            raise CommandFailed("kubectl is not installed")
        kube.use(["kubectl", *self.flags])
        self._start_proxy()

    def api(self, timeout: float = 10) -> Api:
        return Api(self._url, timeout=timeout)

    def stop_proxy(self) -> None:
        if self._proxy:
            self._proxy.terminate()
            self._proxy.wait()
            self._proxy = None

    def _start_proxy(self) -> None:
        """`kubectl proxy` knows every way of authentication; we need none of them."""
        if self._proxy:
            return
        self._proxy = subprocess.Popen(
            ["kubectl", *self.flags, "proxy", "--port=0"], stdout=subprocess.PIPE, text=True
        )
        line = self._proxy.stdout.readline()
        found = re.search(r"127\.0\.0\.1:\d+", line)
        if not found:
            raise CommandFailed(f"kubectl proxy did not start: {line}")
        self._url = f"http://{found.group()}"
        atexit.register(self.stop_proxy)
