"""What users see of their objects: conditions, addresses, events."""

from e2e.lib import http, kube, manifests
from e2e.lib.manifests import CLASS, route
from e2e.lib.wait import stays, wait_for

ORDER = 12


def parent(t, name: str) -> dict:
    """The first parent's status of an HTTPRoute of this test."""
    parents = t.get("httproute", name).get("status", {}).get("parents", [])
    return parents[0] if parents else {}


def wait_condition(t, name: str, kind: str, status: str, reason: str) -> dict:
    def found():
        one = kube.condition(parent(t, name).get("conditions", []), kind)
        assert (one.get("status"), one.get("reason")) == (status, reason), one
        return one

    return wait_for(found, 15, f"{kind} of route {name} is {status} ({reason})")


def test_the_class_is_accepted_and_lists_its_features(t):
    status = wait_for(lambda: kube.get("gatewayclass", CLASS).get("status"), 15, "a status")
    assert kube.condition(status["conditions"], "Accepted")["status"] == "True", status
    assert "HTTPRoute" in {feature["name"] for feature in status.get("supportedFeatures", [])}


def test_a_gateway_is_accepted_programmed_and_counts_its_routes(t):
    t.backend()
    address = t.gateway()
    t.apply(route("one", "one.example"), route("two", "two.example"))
    http.get_when(address, "two.example")

    def counted():
        status = t.get("gateway", "gw")["status"]
        assert kube.condition(status["conditions"], "Accepted")["status"] == "True", status
        return status["listeners"][0]["attachedRoutes"] == 2

    wait_for(counted, 15, "the listener counts two routes")


def test_a_good_route_is_accepted_and_resolved(t):
    t.backend()
    t.gateway()
    t.apply(route("good", "good.example"))
    wait_condition(t, "good", "Accepted", "True", "Accepted")
    wait_condition(t, "good", "ResolvedRefs", "True", "ResolvedRefs")
    generation = t.get("httproute", "good")["metadata"]["generation"]
    assert all(x["observedGeneration"] == generation for x in parent(t, "good")["conditions"])


def test_a_missing_backend_is_named_and_answers_500(t):
    address = t.gateway()
    t.apply(route("lost", "lost.example", backend="nowhere"))
    found = wait_condition(t, "lost", "ResolvedRefs", "False", "BackendNotFound")
    assert "nowhere" in found["message"], found
    http.get_when(address, "lost.example", status=500)


def test_a_route_whose_host_no_listener_has_is_told_so(t):
    listener = {"name": "http", "protocol": "HTTP", "port": 80, "hostname": "only.example"}
    t.backend()
    t.gateway(listeners=[listener])
    t.apply(route("other", "other.example"))
    wait_condition(t, "other", "Accepted", "False", "NoMatchingListenerHostname")


def test_a_backend_in_another_namespace_needs_a_grant(t):
    address = t.gateway()
    other = t.other_namespace()
    kube.apply(manifests.echo("far"), other)
    kube.wait_available(other, "far")
    t.apply(route("far", "far.example", [
        {"backendRefs": [{"name": "far", "namespace": other, "port": 80}]}]))
    wait_condition(t, "far", "ResolvedRefs", "False", "RefNotPermitted")
    http.get_when(address, "far.example", status=500)
    kube.apply({
        "apiVersion": "gateway.networking.k8s.io/v1beta1", "kind": "ReferenceGrant",
        "metadata": {"name": "grant"},
        "spec": {"from": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute",
                           "namespace": t.namespace}],
                 "to": [{"group": "", "kind": "Service"}]},
    }, other)
    http.get_when(address, "far.example")
    wait_condition(t, "far", "ResolvedRefs", "True", "ResolvedRefs")


def test_a_broken_route_gets_a_warning_event(t):
    t.gateway()
    t.apply(route("broken", "broken.example", backend="nowhere"))
    wait_condition(t, "broken", "ResolvedRefs", "False", "BackendNotFound")

    def warned():
        return [x for x in kube.events(t.namespace, "broken") if x["type"] == "Warning"]

    events = wait_for(warned, 15, "a Warning event about the route")
    assert any("nowhere" in event["message"] for event in events), events


def test_a_status_at_rest_is_not_written_again(t):
    t.backend()
    address = t.gateway()
    t.apply(route("rest", "rest.example"))
    http.get_when(address, "rest.example")
    wait_condition(t, "rest", "ResolvedRefs", "True", "ResolvedRefs")

    def version():
        return [t.get(kind, name)["metadata"]["resourceVersion"]
                for kind, name in (("httproute", "rest"), ("gateway", "gw"))]

    before = []

    def settled():
        before[:] = [version(), *before][:2]
        return len(before) == 2 and before[0] == before[1]

    wait_for(settled, 10, "the statuses settle", every=1)
    stays(lambda: version() == before[0], 3, "no status is written", every=0.5)
