"""The experimental channel's CRDs come while Tidegate runs: it takes them up by itself.

All tests before this one ran with the standard channel only; those after it use both.
"""

from e2e.driver import deploy
from e2e.lib import http, kube
from e2e.lib.case import SELECTOR, TIDEGATE
from e2e.lib.load import Load
from e2e.lib.manifests import CLASS, listener, route, route_of
from e2e.lib.wait import wait_for

ORDER = 60

_LIGHT = 50  # requests per second


def _pods() -> set[str]:
    return {pod["metadata"]["uid"] for pod in kube.pods(TIDEGATE, SELECTOR)}


def test_the_experimental_channel_is_taken_up_without_a_restart_or_a_lost_request(t):
    t.backend()
    address = t.gateway(listeners=[listener("HTTP", 80), listener("HTTP", 81)])
    t.apply(route("used", "used.example"))
    http.get_when(address, "used.example")
    before = _pods()
    load = Load(address, "used.example", rate=_LIGHT)
    with load:
        deploy.channel(t, "experimental")
        # A field and a kind that only the experimental channel has.
        t.apply({"apiVersion": "gateway.networking.x-k8s.io/v1alpha1", "kind": "XBackend",
                 "metadata": {"name": "new"},
                 "spec": {"type": "EndpointSelector", "port": {"number": 3000},
                          "endpointSelector": {"matchLabels": {"app": "echo"}}}})
        t.apply(route_of("HTTPRoute", "new", {
            "group": "gateway.networking.x-k8s.io", "kind": "XBackend", "name": "new"},
            hostnames=["new.example"]))
        http.get_when(address, "new.example", timeout=60)
    assert load.result["failed"] == 0, load.summary()
    assert _pods() == before, "pods of Tidegate were replaced"


def test_the_class_stays_accepted_and_says_which_features_there_are(t):
    def accepted():
        status = kube.get("gatewayclass", CLASS)["status"]
        found = kube.condition(status["conditions"], "Accepted")
        assert found.get("status") == "True", found
        return "GatewayListenerFilters" in {one["name"] for one in status["supportedFeatures"]}

    wait_for(accepted, 15, "the GatewayClass is accepted and lists its features")
