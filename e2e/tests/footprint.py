"""What Tidegate costs before it does anything: measured, not judged."""

import http.client
import json
import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from e2e.driver.paths import TARGET
from e2e.lib import kube
from e2e.lib.case import SELECTOR, TIDEGATE
from e2e.lib.results import quantile
from e2e.lib.wait import wait_for

ORDER = 40

_FILE = "footprint.md"
_COLUMNS = ["what", "measured", "goal"]
_ROUTES, _STARTS = 100, 10
_ADMIN, _OFFSET = 19901, 18000


def _manifests(folder: Path) -> None:
    """A Gateway, a Service with an endpoint, and a hundred routes, a file each."""
    meta = {"namespace": "default"}
    group = "gateway.networking.k8s.io/v1"
    common = [
        {"apiVersion": group, "kind": "GatewayClass", "metadata": {"name": "tidegate"},
         "spec": {"controllerName": "tidegate.dev/gateway-controller"}},
        {"apiVersion": group, "kind": "Gateway", "metadata": {"name": "gw", **meta},
         "spec": {"gatewayClassName": "tidegate",
                  "listeners": [{"name": "http", "protocol": "HTTP", "port": 80}]}},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "echo", **meta},
         "spec": {"ports": [{"name": "http", "port": 80}]}},
        {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
         "metadata": {"name": "echo", **meta, "labels": {"kubernetes.io/service-name": "echo"}},
         "ports": [{"name": "http", "port": 9}], "endpoints": [{"addresses": ["127.0.0.1"]}]},
    ]
    routes = [
        {"apiVersion": group, "kind": "HTTPRoute", "metadata": {"name": f"r{i}", **meta},
         "spec": {"parentRefs": [{"name": "gw"}], "hostnames": [f"h{i}.example"],
                  "rules": [{"backendRefs": [{"name": "echo", "port": 80}]}]}}
        for i in range(_ROUTES)
    ]
    for i, one in enumerate(common + routes):
        (folder / f"{i:03}.json").write_text(json.dumps(one))


def _ready() -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", _ADMIN, timeout=1)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def _resident_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) / 1024 for line in status.splitlines()
                if line.startswith("VmRSS"))


def _start(folder: str) -> tuple[subprocess.Popen, float]:
    """The process, and the seconds until it was ready."""
    command = [TARGET / "release" / "tidegate", "run", "--from", folder,
               f"--admin=127.0.0.1:{_ADMIN}", f"--port-offset={_OFFSET}",
               "--drain-delay=0s", "--drain-timeout=1s"]
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while not _ready():
        if process.poll() is not None:
            raise AssertionError(f"tidegate ended at start: {process.stderr.read().decode()}")
        assert time.monotonic() - began < 30, "not ready within 30 s"
        time.sleep(0.002)
    return process, time.monotonic() - began


def test_a_folder_of_routes_is_served_soon_after_the_start(t):
    ready, resident = [], 0.0
    with tempfile.TemporaryDirectory() as folder:
        _manifests(Path(folder))
        for _ in range(_STARTS):
            process, seconds = _start(folder)
            ready.append(1000 * seconds)
            resident = _resident_mib(process.pid)
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=20) == 0, "tidegate did not end with 0 on SIGTERM"
    t.record(_FILE, _COLUMNS, [f"start to ready, {_ROUTES} routes in files, median of {_STARTS}",
                               f"{quantile(ready, 0.5):.0f} ms", "300 ms"])
    t.record(_FILE, _COLUMNS, [f"resident memory, {_ROUTES} routes in files, idle",
                               f"{resident:.1f} MiB", "30 MiB"])


def test_an_idle_pod_is_small(t):
    if not t.cluster.may_break:
        t.say("       left out: processes of pods can be seen on the local cluster only")
        return
    pods = kube.pods(TIDEGATE, SELECTOR)
    assert pods, "no Tidegate pods"
    pids = wait_for(_pod_processes, 10, "the processes of the pods are there")
    largest = max(_resident_mib(pid) for pid in pids)
    t.record(_FILE, _COLUMNS, ["resident memory of a pod in the cluster, the largest",
                               f"{largest:.1f} MiB", "30 MiB"])


def _pod_processes() -> list[int]:
    """Processes whose executable is the image's `/tidegate`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if command[:2] == [b"/tidegate", b"run"] and int(entry.name) != os.getpid():
                found.append(int(entry.name))
    return found
