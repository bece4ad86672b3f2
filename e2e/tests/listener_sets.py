"""ListenerSets: listeners of other namespaces on a shared Gateway."""

from e2e.lib import http, kube, manifests
from e2e.lib.manifests import GATEWAY_API, listener, route_of
from e2e.lib.wait import wait_for

ORDER = 16

_ECHO = {"name": "echo", "port": 80}


def _set(name: str, *listeners: dict, parent: str = "gw", namespace: str | None = None) -> dict:
    where = {"name": parent, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": GATEWAY_API, "kind": "ListenerSet", "metadata": {"name": name},
            "spec": {"parentRef": where, "listeners": list(listeners)}}


def _shared(t, allowed: str = "All") -> None:
    """A Gateway that takes ListenerSets, with a listener of its own on port 80."""
    t.gateway(allowedListeners={"namespaces": {"from": allowed}},
              listeners=[listener("HTTP", 80, "own", hostname="own.example")])


def _route(name: str, parent: str, section: str | None = None, **spec) -> dict:
    route = route_of("HTTPRoute", name, _ECHO, parent=parent, section=section, **spec)
    route["spec"]["parentRefs"][0]["kind"] = "ListenerSet"
    return route


def test_a_listener_of_a_set_is_served_at_the_gateways_address(t):
    t.backend()
    _shared(t)
    t.apply(_set("more", listener("HTTP", 8080, "extra"),
                 listener("HTTP", 80, "named", hostname="named.example")),
            _route("extra", "more", "extra"), _route("named", "more", "named"))
    address = t.gateway_address()
    assert http.get_when((address[0], 8080), "any.example").service == "echo"
    assert http.get_when(address, "named.example").service == "echo"
    assert http.get(address, "own.example").status == 404
    t.condition("listenerset", "more", "Accepted", "True", "Accepted")
    t.condition("listenerset", "more", "Programmed", "True", "Programmed")
    listeners = t.get("listenerset", "more")["status"]["listeners"]
    attached = [one["attachedRoutes"] for one in listeners]
    assert attached == [1, 1], attached


def test_a_set_of_another_namespace_with_a_route_of_its_own(t):
    _shared(t)
    other = t.other_namespace()
    kube.apply([*manifests.echo("echo"), _set("theirs", listener("HTTP", 8080, "theirs"),
                                              namespace=t.namespace),
                _route("theirs", "theirs")], other)
    kube.wait_available(other, "echo")
    address = t.gateway_address(port=8080)
    assert http.get_when(address, "any.example").json()["namespace"] == other

    def counted():
        return t.get("gateway", "gw")["status"].get("attachedListenerSets") == 1

    wait_for(counted, 15, "the Gateway counts one ListenerSet")


def test_a_gateway_that_does_not_allow_sets_refuses_them(t):
    t.backend()
    t.gateway(listeners=[listener("HTTP", 80, "own")])
    t.apply(_set("refused", listener("HTTP", 8080, "extra")), _route("r", "refused"))
    found = t.condition("listenerset", "refused", "Accepted", "False", "NotAllowed")
    assert "allowedListeners" in found["message"], found


def test_a_listener_that_the_gateway_has_already_is_in_conflict(t):
    t.backend()
    _shared(t)
    t.apply(_set("late", listener("HTTP", 80, "same", hostname="own.example"),
                 listener("HTTP", 8080, "fine")),
            _route("same", "late", "same"), _route("fine", "late", "fine"))
    address = t.gateway_address(port=8080)
    assert http.get_when(address, "any.example").service == "echo"

    def told():
        status = t.get("listenerset", "late")["status"]
        same = next(one for one in status["listeners"] if one["name"] == "same")
        found = kube.condition(same["conditions"], "Conflicted")
        assert (found.get("status"), found.get("reason")) == ("True", "HostnameConflict"), found
        return True

    wait_for(told, 15, "the listener that came later is in conflict")
    assert http.get((address[0], 80), "own.example").status == 404


def test_a_set_that_is_deleted_takes_its_listeners_with_it(t):
    t.backend()
    _shared(t)
    t.apply(_set("more", listener("HTTP", 80, "named", hostname="named.example")),
            _route("named", "more"))
    address = t.gateway_address()
    http.get_when(address, "named.example")
    t.delete("listenerset", "more")
    http.get_when(address, "named.example", status=404)
