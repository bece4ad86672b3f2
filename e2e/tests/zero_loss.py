"""No request fails while pods, routes, backends and the API server come and go."""

import time

from e2e.lib import http, kube, manifests
from e2e.lib.api import collection
from e2e.lib.case import SELECTOR, TIDEGATE
from e2e.lib.load import RATE, Load
from e2e.lib.manifests import route, rule
from e2e.lib.wait import wait_for

ORDER = 40
BREAKS_CLUSTER = True

_FILE = "zero-loss.md"
_COLUMNS = ["what happens", "requests", "failed", "allowed", "kinds", "p50 ms", "p99 ms", "max ms"]
_HOST = "loss.example"


def _target(t) -> tuple[str, int]:
    """A backend of two pods behind a route, ready for load."""
    t.backend(replicas=2)
    address = t.gateway()
    t.apply(route("used", _HOST))
    http.get_when(address, _HOST)
    return address


def _record(t, what: str, load: Load, allowed: str = "0") -> None:
    r = load.result
    kinds = ", ".join(f"{kind}: {count}" for kind, count in sorted(r["kinds"].items())) or "none"
    t.record(_FILE, _COLUMNS, [what, r["total"], r["failed"], allowed, kinds,
                               *(f"{r[key]:.1f}" for key in ("p50_ms", "p99_ms", "max_ms"))])


def _no_loss(t, what: str, action) -> None:
    """Runs `action` under load; then not a single request may have failed."""
    with Load(_target(t), _HOST) as load:
        action()
    _record(t, what, load)
    assert load.result["total"] > RATE, "the load did not run"
    assert load.result["failed"] == 0, f"{load.summary()}: {load.failures[:5]}"


def _all_settled() -> None:
    """The rollout is over and no pod is still on its way out."""
    kube.wait_available(TIDEGATE, "tidegate", 180)
    wait_for(lambda: len(kube.items("pods", TIDEGATE, SELECTOR)) == 2, 120, "two pods are left")


def _leader() -> str:
    """The pod that holds the lease: its name is the holder or the holder's beginning."""
    pods = [pod["metadata"]["name"] for pod in kube.pods(TIDEGATE, SELECTOR)]
    for lease in kube.items("lease", TIDEGATE):
        holder = lease["spec"].get("holderIdentity") or ""
        for pod in pods:
            if holder.startswith(pod):
                return pod
    return ""


def test_rolling_restarts(t):
    times = 20 if t.long else 3

    def restart():
        for _ in range(times):
            kube.kubectl("rollout", "restart", "deployment/tidegate", "--namespace", TIDEGATE)
            _all_settled()

    _no_loss(t, f"all pods restarted one by one, {times} times", restart)


def test_the_leader_is_deleted(t):
    def delete():
        old = wait_for(_leader, 30, "there is a leader")
        kube.kubectl("delete", "pod", old, "--namespace", TIDEGATE, "--wait=false")
        wait_for(lambda: _leader() not in ("", old), 60, "there is another leader")
        _all_settled()

    _no_loss(t, "the leader deleted", delete)


def test_two_hundred_route_changes(t):
    def change():
        api = t.cluster.api()
        for i in range(50):
            other = route(f"other-{i}", f"other-{i}.example")
            other["metadata"]["namespace"] = t.namespace
            path = f"{collection(other)}/other-{i}"
            api.create(other)
            api.patch(path, {"spec": {"hostnames": [f"changed-{i}.example"]}})
            header = [{"type": "RequestHeaderModifier", "requestHeaderModifier": {
                "set": [{"name": "X-Round", "value": str(i)}]}}]
            api.patch(f"{collection(other)}/used", {"spec": {"rules": [rule(filters=header)]}})
            api.delete(path)
            time.sleep(0.1)

    _no_loss(t, "200 route changes, 50 of them of the route in use", change)


def test_a_backend_is_rolled(t):
    def roll():
        for _ in range(2):
            kube.kubectl("rollout", "restart", "deployment/echo", "--namespace", t.namespace)
            kube.wait_available(t.namespace, "echo")
            wait_for(lambda: len(kube.items("pods", t.namespace, "app=echo")) == 2, 60,
                     "the old pods are gone")

    _no_loss(t, "the backend rolled twice", roll)


def test_the_api_server_is_away(t):
    seconds = 60
    seen = []

    def stop():
        t.cluster.stop_api_server()
        try:
            time.sleep(seconds)
        finally:
            t.cluster.start_api_server()
        back = time.monotonic()
        t.apply(route("after", "after.example"))
        http.get_when(t.gateway_address(), "after.example", timeout=120)
        seen.append(f"{time.monotonic() - back:.1f} s")

    try:
        _no_loss(t, f"the API server away for {seconds} s", stop)
        t.say(f"       a change was followed {seen[0]} after the API server was back")
    finally:
        _cluster_recovers(t)


def _cluster_recovers(t) -> None:
    """Waits for kubelet, kube-proxy and the controllers, so that the next test is not theirs.

    Their client's pauses between attempts grow to a minute.
    """
    t.apply(*manifests.echo("probe"))
    kube.wait_available(t.namespace, "probe", 150)
    t.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "front"},
             "spec": {"type": "LoadBalancer", "selector": {"app": "probe"},
                      "ports": [{"port": 80, "targetPort": 3000}]}})

    def address():
        given = t.get("service", "front")["status"].get("loadBalancer", {}).get("ingress", [])
        return given[0]["ip"] if given else None

    found = wait_for(address, 60, "the probe's service has an address")
    http.get_when((found, 80), "probe.example", timeout=150)


def test_a_pod_killed_outright_fails_only_what_it_had_in_flight(t):
    """SIGKILL gives no chance to say goodbye, but it has to be over within 2 seconds."""
    target = _target(t)
    for _ in range(20 if t.long else 1):
        with Load(target, _HOST) as load:
            time.sleep(3)
            pod = kube.pods(TIDEGATE, SELECTOR)[0]["metadata"]["name"]
            killed = time.time() * 1000
            t.cluster.kill_pod(TIDEGATE, pod, "tidegate")
            time.sleep(10)
            _all_settled()
        _record(t, "a pod killed with SIGKILL", load, "for 2 s at most")
        late = [x for x in load.failures if x["sent_ms"] > killed + 2000]
        assert not late, f"{len(late)} sent more than 2 s after the kill failed: {late[:5]}"
