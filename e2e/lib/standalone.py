"""A Tidegate of its own on loopback, from files: for suites that need no cluster.

The objects are those of a cluster; only the endpoints are processes of this machine.
"""

import http.client
import itertools
import json
import os
import random
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

from e2e.driver.paths import TARGET
from e2e.driver.shell import CommandFailed, Log
from e2e.lib.manifests import CLASS, GATEWAY_API
from e2e.lib.wait import wait_for

HOST = "127.0.0.1"
_ports = itertools.cycle(random.sample(range(22_000, 32_000), 10_000))
_META = {"namespace": "default"}


def free_port() -> int:
    """A port that nobody has now; whoever takes it next binds it with SO_REUSEADDR. Not one of
    those that the system gives away (32768 and up): it could become the near end of a connection
    before it is bound."""
    while True:
        port = next(_ports)
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind((HOST, port))
            except OSError:
                continue
            return port


class Standalone:
    """A running Tidegate; a context manager that ends it."""

    def __init__(self, log: Log, objects: list[dict], *arguments: str):
        """`arguments` are more of `tidegate run`; without objects of their kind, the ports of
        Ingress stay closed."""
        self._log = log
        self._objects = objects
        self._arguments = arguments
        self._admin = free_port()

    def __enter__(self) -> "Standalone":
        binary = TARGET / "release" / "tidegate"
        if not binary.exists():
            raise CommandFailed(f"{binary} is missing: run the step `build` first")
        self._folder = tempfile.TemporaryDirectory()
        for i, one in enumerate(self._objects):
            (Path(self._folder.name) / f"{i:03}.json").write_text(json.dumps(one))
        self._process = start(
            self._log, binary, "run", "--from", self._folder.name,
            f"--admin={HOST}:{self._admin}", "--drain-delay=0s", "--drain-timeout=2s",
            "--access-log=false", *self._arguments)
        try:
            wait_for(self._ready, 30, "Tidegate is ready", every=0.02)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_error) -> None:
        stop(self._process)
        self._folder.cleanup()

    def counter(self, name: str) -> float:
        """The sum of a metric over its labels."""
        _, text = self._admin_get("/metrics")
        lines = [line for line in text.splitlines() if line.startswith(name)]
        assert lines, f"no metric {name}"
        return sum(float(line.split()[-1]) for line in lines)

    def _ready(self) -> bool:
        if self._process.poll() is not None:
            raise CommandFailed(f"tidegate ended with {self._process.returncode}")
        try:
            return self._admin_get("/readyz")[0] == 200
        except OSError:
            return False

    def _admin_get(self, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection(HOST, self._admin, timeout=1)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()


def start(log: Log, *command, env: dict | None = None) -> subprocess.Popen:
    """A program in the background, its output in the log."""
    words = [str(word) for word in command]
    log.write(f"$ {' '.join(words)} &\n")
    return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log.file,
                            stderr=subprocess.STDOUT, env={**os.environ, **(env or {})})


def stop(process: subprocess.Popen) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def listens(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), 1).close()
        return True
    except OSError:
        return False


def wait_listens(process: subprocess.Popen, port: int) -> None:
    def up():
        if process.poll() is not None:
            raise CommandFailed(f"{process.args[0]} ended with {process.returncode}")
        return listens(port)

    wait_for(up, 20, f"{process.args[0]} listens on {port}", every=0.02)


def gateway(http_port: int, https_port: int | None = None, secret: str = "cert") -> list[dict]:
    """The class and a Gateway `gw` with a listener in clear, and one with TLS."""
    listeners = [{"name": "http", "protocol": "HTTP", "port": http_port}]
    if https_port:
        listeners.append({"name": "https", "protocol": "HTTPS", "port": https_port,
                          "tls": {"certificateRefs": [{"name": secret}]}})
    return [
        {"apiVersion": GATEWAY_API, "kind": "GatewayClass", "metadata": {"name": CLASS},
         "spec": {"controllerName": "tidegate.dev/gateway-controller"}},
        {"apiVersion": GATEWAY_API, "kind": "Gateway", "metadata": {"name": "gw", **_META},
         "spec": {"gatewayClassName": CLASS, "listeners": listeners}},
    ]


def backend(name: str, port: int, protocol: str | None = None) -> list[dict]:
    """A Service on port 80 and its one endpoint, a process on loopback."""
    service = {"name": "main", "port": 80, **({"appProtocol": protocol} if protocol else {})}
    return [
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, **_META},
         "spec": {"ports": [service]}},
        {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
         "metadata": {"name": name, **_META, "labels": {"kubernetes.io/service-name": name}},
         "ports": [{"name": "main", "port": port}], "endpoints": [{"addresses": [HOST]}]},
    ]


def route(name: str, kind: str = "HTTPRoute", **rule) -> dict:
    """Everything to the backend `name`."""
    refs = [{"name": name, "port": 80}]
    return {"apiVersion": GATEWAY_API, "kind": kind, "metadata": {"name": name, **_META},
            "spec": {"parentRefs": [{"name": "gw"}], "rules": [{"backendRefs": refs, **rule}]}}


def secret(manifest: dict) -> dict:
    return {**manifest, "metadata": {**manifest["metadata"], **_META}}
