"""Addresses of Gateways: requested ones, and where they can be reached from (GEP-5093)."""

import ipaddress

from e2e.cluster import constants as c
from e2e.lib import http, kube, manifests
from e2e.lib.manifests import CLASS, route
from e2e.lib.wait import wait_for

ORDER = 64
CHANNEL = "experimental"
KNOWS_ADDRESSES = True

_CLUSTER = {"type": "IPAddress", "routability": "Cluster"}
_DEFAULT = {"type": "IPAddress", "routability": ""}
_SENTINEL = "testing.x-k8s.io/sentinel"


def _status(t) -> list[dict]:
    return t.get("gateway", "gw").get("status", {}).get("addresses", [])


def _cluster_ip(t) -> str:
    """The ClusterIP of the Service that Tidegate has made for the Gateway."""
    services = kube.items("services", t.namespace, "gateway.networking.k8s.io/gateway-name=gw")
    assert len(services) == 1, f"{len(services)} Services for one Gateway"
    return services[0]["spec"]["clusterIP"]


def _wants(t, *addresses: dict) -> None:
    t.apply(manifests.gateway(addresses=list(addresses)))


def _assigned(t, *routabilities: str) -> list[str]:
    """Waits until every entry has its address, of these routabilities; the values."""
    t.condition("gateway", "gw", "AddressesAssigned", "True", "AddressesAssigned")

    def told():
        given = [one.get("routability") for one in _status(t)]
        assert sorted(given, key=str) == sorted(routabilities), given
        return [one["value"] for one in _status(t)]

    return wait_for(told, 15, f"addresses of {routabilities}")


def _in(value: str, network: str) -> bool:
    return ipaddress.ip_address(value) in ipaddress.ip_network(network)


def test_the_class_claims_both_features(t):
    names = {one["name"] for one in kube.get("gatewayclass", CLASS)["status"]["supportedFeatures"]}
    assert {"GatewayAddressRoutability", "GatewayAddressRoutabilityCluster"} <= names


def test_the_api_server_knows_which_values_there_may_be(t):
    for value in ("", "Cluster", "other.example/moon", _SENTINEL):
        _wants(t, {"routability": value})
    for value in ("Moon", "/moon", "other.example/", "-bad-/moon", "k8s.io/x", "a.k8s.io/x"):
        words = kube.refused(manifests.gateway(addresses=[{"routability": value}]), t.namespace)
        assert "outability" in words, words


def test_an_address_of_the_cluster_is_the_services_cluster_ip(t):
    t.backend()
    _wants(t, _CLUSTER)
    t.apply(route("one", "cluster.example"))
    [value] = _assigned(t, "Cluster")
    assert value == _cluster_ip(t) and _in(value, c.SERVICE_RANGE), value
    t.condition("gateway", "gw", "Programmed", "True", "Programmed")
    http.get_when((value, 80), "cluster.example")
    service = kube.items("services", t.namespace, "gateway.networking.k8s.io/gateway-name=gw")[0]
    assert service["spec"]["type"] == "ClusterIP", "nobody asked for a load balancer"


def test_without_a_request_the_default_address_says_so(t):
    for addresses in ([], [{"type": "IPAddress"}], [_DEFAULT]):
        _wants(t, *addresses)
        [value] = _assigned(t, "")
        assert _in(value, c.LOAD_BALANCER_RANGE), value


def test_each_entry_gets_one_address_in_any_order(t):
    t.backend()
    t.apply(route("one", "both.example"))
    for addresses in ([_DEFAULT, _CLUSTER], [_CLUSTER, _DEFAULT]):
        _wants(t, *addresses)
        values = _assigned(t, "", "Cluster")
        assert _cluster_ip(t) in values, values
        for value in values:
            http.get_when((value, 80), "both.example")


def test_the_sentinel_of_the_specification_is_reported_as_it_was_asked_for(t):
    _wants(t, {"type": "IPAddress", "routability": _SENTINEL})
    _assigned(t, _SENTINEL)


def test_a_part_that_cannot_be_had_leaves_the_rest_working(t):
    t.backend()
    outside = {**_CLUSTER, "value": "192.0.2.7"}
    _wants(t, _DEFAULT, outside)
    t.apply(route("one", "part.example"))
    found = t.condition("gateway", "gw", "AddressesAssigned", "False", "PartiallyAssigned")
    assert "192.0.2.7" in found["message"], found
    [one] = _status(t)
    assert one["routability"] == "", one
    http.get_when((one["value"], 80), "part.example")


def test_a_reach_that_nobody_knows_leaves_the_gateway_without_address(t):
    _wants(t, {"routability": "other.example/moon"})
    t.condition("gateway", "gw", "Programmed", "False", "AddressNotAssigned")
    found = t.condition("gateway", "gw", "AddressesAssigned", "False", "NotAssigned")
    assert "other.example/moon" in found["message"], found
    assert not _status(t), _status(t)


def test_a_requested_cluster_ip_is_given(t):
    wanted = c.SERVICE_RANGE.replace("0.0/16", "200.77")
    _wants(t, {**_CLUSTER, "value": wanted})
    assert _assigned(t, "Cluster") == [wanted]


def test_a_requested_address_is_given_and_an_unusable_one_is_named(t):
    t.backend()
    _wants(t, {"value": c.UNUSABLE_ADDRESS})
    found = t.condition("gateway", "gw", "Programmed", "False", "AddressNotUsable")
    assert c.UNUSABLE_ADDRESS in found["message"], found
    _wants(t, {"value": c.USABLE_ADDRESS})
    t.apply(route("one", "static.example"))
    assert t.gateway_address()[0] == c.USABLE_ADDRESS
    http.get_when((c.USABLE_ADDRESS, 80), "static.example")
