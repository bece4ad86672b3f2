"""An API server of its own on loopback: etcd and kube-apiserver, the programs of the e2e cluster,
without any node.

Enough for a Tidegate outside of it, which watches and writes there as it would in a pod.
"""

import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from e2e.driver.paths import BIN, ROOT
from e2e.driver.shell import output
from e2e.lib.api import Api, ApiError
from e2e.lib.standalone import free_port
from e2e.lib.wait import wait_for

CHART = ROOT / "charts/tidegate/files"
CRDS = [CHART / "gateway-api/standard.yaml", *sorted((CHART / "crds").glob("*"))]


class Server:
    """Up while the `with` block runs."""

    def __enter__(self):
        self._folder = tempfile.TemporaryDirectory()
        self._path = Path(self._folder.name)
        self._processes = []
        self._port = free_port()
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_error):
        for process in reversed(self._processes):
            end(process, signal.SIGKILL)
        self._folder.cleanup()

    @property
    def url(self):
        return f"https://127.0.0.1:{self._port}"

    @property
    def kubeconfig(self):
        return self._path / "kubeconfig"

    def api(self, timeout=30):
        return Api(self.url, self._path, timeout)

    def _start(self):
        self._keys()
        etcd, peers = free_port(), free_port()
        self._run("etcd", f"--data-dir={self._path}/etcd", f"--listen-client-urls=http://127.0.0.1:{etcd}",
                  f"--advertise-client-urls=http://127.0.0.1:{etcd}", f"--listen-peer-urls=http://127.0.0.1:{peers}",
                  "--unsafe-no-fsync")
        self._run("kube-apiserver", f"--etcd-servers=http://127.0.0.1:{etcd}", "--bind-address=127.0.0.1",
                  f"--secure-port={self._port}", f"--tls-cert-file={self._path}/apiserver.crt",
                  f"--tls-private-key-file={self._path}/apiserver.key", f"--client-ca-file={self._path}/ca.crt",
                  f"--service-account-key-file={self._path}/sa.pub", "--service-cluster-ip-range=10.96.0.0/16",
                  f"--service-account-signing-key-file={self._path}/ca.key", "--authorization-mode=RBAC",
                  "--service-account-issuer=https://kubernetes.default.svc")
        wait_for(self._is_ready, 90, "the API server is ready")
        for file in CRDS:
            output(BIN / "kube", "kubectl", f"--kubeconfig={self.kubeconfig}", "apply", "--server-side", "-f", file)
        wait_for(self._knows_routes, 30, "the API server serves HTTPRoutes")

    def _run(self, *words):
        log = open(self._path / f"{words[0]}.log", "wb")
        command = [str(BIN / "kube"), *map(str, words)]
        self._processes.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log))

    def _is_ready(self):
        for process in self._processes:
            if process.poll() is not None:
                log = (self._path / f"{process.args[1]}.log").read_text(errors="replace")
                raise SystemExit(f"{process.args[1]} ended:\n{log[-2000:]}")
        try:
            return self.api(2).text("/readyz") == "ok"
        except (ApiError, OSError):
            return False

    def _knows_routes(self):
        try:
            return "items" in self.api(2).get("/apis/gateway.networking.k8s.io/v1/httproutes")
        except (ApiError, OSError):
            return False

    def _keys(self):
        at = self._path
        output("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "9", "-subj", "/CN=bench",
               "-keyout", at / "ca.key", "-out", at / "ca.crt")
        output("openssl", "rsa", "-in", at / "ca.key", "-pubout", "-out", at / "sa.pub")
        self._issue("apiserver", "/CN=kube-apiserver", "IP:127.0.0.1,IP:10.96.0.1")
        self._issue("admin", "/O=system:masters/CN=admin", "DNS:admin")
        self.kubeconfig.write_text(
            "apiVersion: v1\nkind: Config\ncurrent-context: bench\n"
            f'clusters: [{{name: bench, cluster: {{server: "{self.url}", certificate-authority: "{at}/ca.crt"}}}}]\n'
            f'users: [{{name: admin, user: {{client-certificate: "{at}/admin.crt", client-key: "{at}/admin.key"}}}}]\n'
            "contexts: [{name: bench, context: {cluster: bench, user: admin}}]\n")

    def _issue(self, name, subject, names):
        at = self._path
        (at / "ext").write_text(f"subjectAltName={names}\nextendedKeyUsage=serverAuth,clientAuth\n")
        output("openssl", "req", "-newkey", "rsa:2048", "-nodes", "-subj", subject, "-keyout", at / f"{name}.key",
               "-out", at / f"{name}.csr")
        output("openssl", "x509", "-req", "-in", at / f"{name}.csr", "-days", "9", "-CA", at / "ca.crt", "-CAkey",
               at / "ca.key", "-CAcreateserial", "-extfile", at / "ext", "-out", at / f"{name}.crt")


def end(process, how=signal.SIGTERM):
    if process.poll() is None:
        process.send_signal(how)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Cost:
    """What a process has cost so far: CPU seconds of its threads, and memory."""

    def __init__(self, pid):
        self.pid = pid

    def cpu(self):
        """Seconds, to the nanosecond where the kernel counts so; threads that ended count in the ticks only."""
        total = 0
        for task in os.listdir(f"/proc/{self.pid}/task"):
            try:
                total += int(Path(f"/proc/{self.pid}/task/{task}/schedstat").read_text().split()[0])
            except OSError:
                pass
        return total / 1e9

    def rss(self, settle=0):
        """MB, after so many seconds in which memory that is not used goes back to the system."""
        time.sleep(settle)
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        return 0.0
