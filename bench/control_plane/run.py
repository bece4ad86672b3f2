"""The measurement: what `bench/control_plane.py` does."""

import concurrent.futures
import http.client
import json
import os
import socket
import statistics
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from bench.control_plane import objects
from bench.control_plane.server import Cost, end
from e2e.driver.paths import BIN
from e2e.lib.api import ApiError
from e2e.lib.standalone import free_port
from e2e.lib.wait import wait_for

HOST = "127.0.0.1"
OFFSET = 24000  # added to the ports of Gateways
PORT = OFFSET + 80
PATIENCE = 30  # seconds for one route
PASSES = "tidegate_reconcile_passes_total"
GRAPH = "tidegate_config_generation"
WRITES = "tidegate_status_writes_total"

GATEWAY_API = "/apis/gateway.networking.k8s.io"
PATHS = {
    "Namespace": "/api/v1/namespaces",
    "GatewayClass": f"{GATEWAY_API}/v1/gatewayclasses",
    "Service": "/api/v1/namespaces/{}/services",
    "EndpointSlice": "/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices",
    "ReferenceGrant": GATEWAY_API + "/v1beta1/namespaces/{}/referencegrants",
    "Gateway": GATEWAY_API + "/v1/namespaces/{}/gateways",
    "HTTPRoute": GATEWAY_API + "/v1/namespaces/{}/httproutes",
}


def create(api, one):
    path = PATHS[one["kind"]].format(one["metadata"].get("namespace"))
    for attempt in range(5):
        try:
            return api.post(path, one)
        except ApiError as error:
            if error.status == 409:
                return None
            if attempt == 4:
                raise
            time.sleep(0.2)
    return None


def own_address():
    """An address of this machine that is no loopback: endpoints must not be."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("192.0.2.1", 9))
        return sock.getsockname()[0]


class Tidegate:
    """A Tidegate outside of the cluster, with the ports of its Gateways on this machine."""

    def __init__(self, binary, *arguments, env=None):
        self.admin = free_port()
        command = [
            binary, "run", f"--admin={HOST}:{self.admin}", f"--port-offset={OFFSET}", "--workers=1",
            "--ingress-http-port=0", "--ingress-https-port=0", "--access-log=false",
            "--drain-delay=0s", "--drain-timeout=1s", *arguments,
        ]
        self.log = tempfile.NamedTemporaryFile(prefix="tidegate-", suffix=".log")
        self.process = subprocess.Popen(
            list(map(str, command)), stdout=self.log, stderr=self.log, env={**os.environ, **(env or {})}
        )
        self.cost = Cost(self.process.pid)

    def get(self, path):
        connection = http.client.HTTPConnection(HOST, self.admin, timeout=5)
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()

    def metric(self, name):
        lines = [line for line in self.get("/metrics")[1].splitlines() if line.startswith(name)]
        return sum(float(line.split()[-1]) for line in lines)

    def is_ready(self):
        if self.process.poll() is not None:
            raise SystemExit(f"Tidegate ended:\n{Path(self.log.name).read_text()[-2000:]}")
        try:
            return self.get("/readyz")[0] == 200
        except OSError:
            return False


class Client:
    """Asks for one host after the other over a kept connection."""

    def __init__(self):
        self.connection = None

    def get(self, host):
        try:
            if self.connection is None:
                self.connection = http.client.HTTPConnection(HOST, PORT, timeout=2)
            self.connection.request("GET", "/a", headers={"Host": host})
            answer = self.connection.getresponse()
            answer.read()
            return answer.status
        except (OSError, http.client.HTTPException):
            self.connection = None
            return 0

    def wait(self, host, other, began, patience=PATIENCE):
        """Seconds until the first 200; counts what came before it."""
        while time.perf_counter() - began < patience:
            status = self.get(host)
            if status == 200:
                return time.perf_counter() - began
            other[status] = other.get(status, 0) + 1
            time.sleep(0.001)
        return float(patience)


class Bench:
    """One run against one API server."""

    def __init__(self, server, binary, options):
        self.server, self.binary = server, binary
        self.routes, self.adds, self.rate = options.routes, options.adds, options.rate
        self.settle = options.settle
        self.facts = {}
        self.next = self.routes
        self.wrong = 0

    def say(self, name, value, text):
        self.facts[name] = value
        print(f"{name:24} {text}", flush=True)

    def run(self, backend_port):
        self.prepare(backend_port)
        tidegate = self.start()
        try:
            wait_for(tidegate.is_ready, 30, "Tidegate is ready")
            self.rss("rss_empty_mb", tidegate, 0, "without routes")
            client = Client()
            self.create_routes(client)
            self.wait_quiet(tidegate)
            self.rss("rss_mb", tidegate, self.settle, f"with {self.routes} routes that came one by one")
            self.measure_adds(tidegate, client)
            self.rss("rss_after_adds_mb", tidegate, self.settle, "after all")
            self.all_live("not_live", client)
            self.write_nothing_new(tidegate)
        finally:
            end(tidegate.process)
        self.restart()

    def start(self):
        env = {"KUBECONFIG": str(self.server.kubeconfig)}
        return Tidegate(self.binary, "--host-ports", "--namespace=default", env=env)

    def rss(self, name, tidegate, settle, what):
        rss = tidegate.cost.rss(settle)
        self.say(name, rss, f"{rss:.1f} MB {what}")

    def prepare(self, backend_port):
        api, address = self.server.api(), own_address()
        for name in [*objects.namespaces(), objects.HOME]:
            create(api, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        for one in objects.files(0, backend_port):
            if one["kind"] == "EndpointSlice":
                one["endpoints"][0]["addresses"] = [address]
            create(api, one)

    def create_routes(self, client):
        local = threading.local()

        def one(n):
            if not hasattr(local, "api"):
                local.api = self.server.api()
            create(local.api, objects.route(n, objects.GATEWAY))

        began = time.perf_counter()
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(one, range(self.routes)))
        created = time.perf_counter()
        for n in [self.routes - 1, *range(0, self.routes, max(1, self.routes // 40))]:
            client.wait(objects.host(n), {}, created, 300)
        took = created - began
        self.say("routes_created_s", took, f"{self.routes} routes in {took:.1f} s")
        took = time.perf_counter() - created
        self.say("all_live_after_s", took, f"{took:.2f} s after the last was created")

    def wait_quiet(self, tidegate):
        """Until nothing is left to be written: no pass and no status in three seconds."""
        last = None
        while (now := (tidegate.metric(WRITES), tidegate.metric(PASSES))) != last:
            last = now
            time.sleep(3)

    def measure_adds(self, tidegate, client):
        cpu, passes, writes = self.add_routes("add_quiet_ms", tidegate, client, 0.1)
        text = f"{cpu:.2f} ms of CPU an add, {passes:.1f} passes, {writes:.1f} statuses"
        self.say("cpu_per_change_ms", cpu, text)
        last = tidegate.metric("tidegate_reconcile_last_duration_microseconds")
        self.say("last_pass_us", last, f"{last:.0f} us the last pass, as it says")
        self.add_routes("add_back_to_back_ms", tidegate, client)
        with tempfile.NamedTemporaryFile(prefix="load-", suffix=".json") as out:
            load = self.load(out.name)
            time.sleep(2)
            self.add_routes("add_under_load_ms", tidegate, client, 0.05)
            end(load)
            result = json.loads(Path(out.name).read_text())
        total, failed, p50, p99 = (result[key] for key in ("total", "failed", "p50_ms", "p99_ms"))
        text = f"{total} requests, {failed} failed, p50 {p50:.2f} ms, p99 {p99:.2f} ms"
        self.say("load", {"total": total, "failed": failed, "p50_ms": p50, "p99_ms": p99}, text)

    def add_routes(self, name, tidegate, client, pause=0.0):
        """Returns what each add cost: milliseconds of CPU, passes, statuses."""
        def cost():
            return tidegate.cost.cpu() * 1000, tidegate.metric(PASSES), tidegate.metric(WRITES)

        api, times, other, before = self.server.api(), [], {}, cost()
        for _ in range(self.adds):
            create(api, objects.route(self.next, objects.GATEWAY))
            times.append(client.wait(objects.host(self.next), other, time.perf_counter()) * 1000)
            self.next += 1
            time.sleep(pause)
        time.sleep(1)  # the statuses are part of it
        after = cost()
        times.sort()
        p50, p99 = statistics.median(times), times[min(len(times) - 1, int(len(times) * 0.99))]
        self.say(name, {"p50": p50, "p99": p99, "best": times[0], "max": times[-1]},
                 f"{self.adds} adds: median {p50:.1f}, p99 {p99:.1f}, best {times[0]:.1f}, "
                 f"max {times[-1]:.1f}; answers before it {other}")
        # A route is not there, and then it is: nothing else is in between.
        self.wrong += sum(count for status, count in other.items() if status != 404)
        self.facts["wrong_answers"] = self.wrong
        return [(b - a) / self.adds for a, b in zip(before, after, strict=True)]

    def all_live(self, name, client):
        """Asks for the host of every route once."""
        silent = sum(client.get(objects.host(n)) != 200 for n in range(self.next))
        self.say(name, silent, f"{silent} of {self.next} routes do not answer")

    def write_nothing_new(self, tidegate):
        """Annotations that nobody reads make new versions of objects, and no pass and no graph."""
        def done():
            return tidegate.metric(PASSES), tidegate.metric(GRAPH)

        before, api = done(), self.server.api()
        for n in range(self.adds):
            meta = objects.route(n, objects.GATEWAY)["metadata"]
            path = PATHS["HTTPRoute"].format(meta["namespace"]) + "/" + meta["name"]
            api.patch(path, {"metadata": {"annotations": {objects.UNREAD: str(n)}}})
        time.sleep(1)
        passes, graphs = (int(b - a) for a, b in zip(before, done(), strict=True))
        self.say("unchanged", {"passes": passes, "graphs": graphs},
                 f"{self.adds} versions that say the same: {passes} passes, {graphs} graphs")

    def load(self, out):
        command = [
            str(BIN / "load"), f"--rate={self.rate}", "--duration=900s", "--connections=50",
            "--mode=keepalive", f"--url=http://{HOST}:{PORT}/a", f"--host={objects.host(0)}",
            f"--out={out}",
        ]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def restart(self):
        began, tidegate = time.perf_counter(), self.start()
        try:
            client = Client()
            for n in [0, self.routes - 1, self.next - 1]:
                client.wait(objects.host(n), {}, began, 120)
            took, cpu = time.perf_counter() - began, tidegate.cost.cpu()
            self.say("first_load_s", took, f"{took:.2f} s until all serve, {cpu:.2f} s of CPU")
            self.wait_quiet(tidegate)
            self.rss("rss_restarted_mb", tidegate, self.settle, "with all routes from the start")
            self.all_live("not_live_restarted", client)
        finally:
            end(tidegate.process)
