"""What else only the experimental channel has: XBackend, its policy, default Gateways."""

import uuid

from e2e.driver.paths import ROOT
from e2e.lib import http, kube, manifests
from e2e.lib.manifests import listener, route, route_of, rule
from e2e.lib.wait import wait_for

ORDER = 66
CHANNEL = "experimental"

_GROUP = "gateway.networking.x-k8s.io"


def _backend(name: str, **spec) -> dict:
    return {"apiVersion": f"{_GROUP}/v1alpha1", "kind": "XBackend", "metadata": {"name": name},
            "spec": spec}


def _ref(name: str) -> dict:
    return {"group": _GROUP, "kind": "XBackend", "name": name}


def test_an_x_backend_selects_pods_without_a_service(t):
    t.peer(replicas=2)
    address = t.gateway()
    t.apply(_backend("pods", type="EndpointSelector", port={"number": 3000},
                     endpointSelector={"matchLabels": {"app": "peer"}}),
            route_of("HTTPRoute", "one", _ref("pods"), hostnames=["pods.example"]))
    http.get_when(address, "pods.example")
    pods = {http.get(address, "pods.example").pod for _ in range(40)}
    assert len(pods) == 2, pods


def test_an_x_backend_leads_to_a_host_outside_of_the_cluster(t):
    if t.cluster.name != "local":
        t.say("       left out: only the local cluster's DNS has names for it")
        return
    t.peer()
    address = t.gateway()
    # A pod that no Service has is nobody's endpoint: as far as addresses go, it is outside.
    t.apply(*(part for part in manifests.peer("far") if part["kind"] != "Service"))
    kube.wait_available(t.namespace, "far")
    [pod] = kube.items("pods", t.namespace, "app=far")
    far = pod["status"]["podIP"].replace(".", "-")
    hosts = [("outside", f"{far}.{t.namespace}.pod.outside.test", 3000),
             ("inside", f"peer.{t.namespace}.outside.test", 80)]
    for name, host, port in hosts:
        t.apply(_backend(name, type="ExternalHostname", port={"number": port},
                         externalHostname={"hostname": host}),
                route_of("HTTPRoute", name, _ref(name), hostnames=[f"{name}.example"]))
    assert http.get_when(address, "outside.example").service == "far"
    assert http.get_when(address, "inside.example", status=503).status == 503


def test_a_missing_x_backend_is_named(t):
    address = t.gateway()
    t.apply(route_of("HTTPRoute", "one", _ref("nowhere"), hostnames=["lost.example"]))
    found = t.condition("httproute", "one", "ResolvedRefs", "False", "BackendNotFound")
    assert "nowhere" in found["message"], found
    http.get_when(address, "lost.example", status=500)


def test_a_budget_limits_what_is_tried_again(t):
    t.peer()
    address = t.gateway()
    t.apply(route("retried", "budget.example", [
        rule("peer", retry={"codes": [503], "attempts": 1, "backoff": "1ms"})]))
    http.get_when(address, "budget.example")
    t.apply({"apiVersion": f"{_GROUP}/v1alpha1", "kind": "XBackendTrafficPolicy",
             "metadata": {"name": "budget"},
             "spec": {"targetRefs": [{"group": "", "kind": "Service", "name": "peer"}],
                      "retryConstraint": {"budget": {"percent": 0, "interval": "10s"},
                                          "minRetryRate": {"count": 1, "interval": "60s"}}}})

    def failing() -> int:
        headers = {"X-Attempts-Of": uuid.uuid4().hex, "X-Fail-Times": "1", "X-Fail-Code": "503"}
        return http.get(address, "budget.example", headers=headers).status

    def limited():
        codes = [failing() for _ in range(30)]
        return codes.count(503) >= 20

    wait_for(limited, 20, "most requests are not tried again")
    t.condition("xbackendtrafficpolicy", "budget", "Accepted", "True", "Accepted")


def test_a_route_that_asks_for_default_gateways_gets_them(t):
    t.backend()
    host = f"default.{t.namespace}.example"
    address = t.gateway(listeners=[listener("HTTP", 80)], defaultScope="All")
    one = route("one", host)
    del one["spec"]["parentRefs"]
    one["spec"]["useDefaultGateways"] = "All"
    t.apply(one)
    http.get_when(address, host)
    t.gateway(listeners=[listener("HTTP", 80)], defaultScope="None")
    http.get_when(address, host, status=404)

    def left():
        return not t.get("httproute", "one").get("status", {}).get("parents")

    wait_for(left, 15, "the route has no parent any more")


def test_every_sample_of_the_channel_is_accepted_by_the_api_server(t):
    for path in sorted((ROOT / "manifests" / "samples" / "experimental").glob("*.yaml")):
        text = path.read_text().replace("namespace: default", f"namespace: {t.namespace}")
        kube.kubectl("apply", "--dry-run=server", "-f", "-", stdin=text)
