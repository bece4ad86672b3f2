"""Broken objects hurt nobody but themselves."""

import copy
import json
from contextlib import contextmanager

from e2e.driver.shell import CommandFailed
from e2e.lib import certificates, http, kube
from e2e.lib.case import SELECTOR, TIDEGATE
from e2e.lib.load import Load
from e2e.lib.manifests import https_listener, ingress, ingress_path, route, rule
from e2e.lib.wait import wait_for

ORDER = 20

_CRD = "httproutes.gateway.networking.k8s.io"
_LIGHT = 50  # requests per second


@contextmanager
def _good_neighbour(t, host="good.example"):
    """A route under light load for as long as the block runs; no request may fail."""
    t.backend()
    address = t.gateway()
    t.apply(route("good", host))
    http.get_when(address, host)
    load = Load(address, host, rate=_LIGHT)
    with load:
        yield address
    assert load.result["failed"] == 0, load.summary()


def _still_follows_changes(t, address) -> None:
    """Configuration is not stuck: a route that comes now is served."""
    t.apply(route("later", "later.example"))
    http.get_when(address, "later.example")


@contextmanager
def _unchecked_routes():
    """The HTTPRoute CRD with an open schema, as a newer CRD would look to an older Tidegate."""
    strict = kube.get("crd", _CRD)
    for field in ("resourceVersion", "uid", "creationTimestamp", "generation", "managedFields"):
        strict["metadata"].pop(field, None)
    strict.pop("status", None)
    loose = copy.deepcopy(strict)
    for version in loose["spec"]["versions"]:
        version["schema"]["openAPIV3Schema"]["properties"]["spec"] = {
            "type": "object", "x-kubernetes-preserve-unknown-fields": True}
    kube.kubectl("replace", "-f", "-", stdin=json.dumps(loose))
    try:
        yield
    finally:
        kube.kubectl("replace", "-f", "-", stdin=json.dumps(strict))


def _undecodable() -> list[dict]:
    future = route("future-filter", "future.example", [
        rule(filters=[{"type": "FutureFilter", "futureFilter": {"depth": 3}}])])
    match = route("future-match", "future.example", [
        rule(matches=[{"path": {"type": "Telepathy", "value": "/"}}])])
    odd = route("odd", "odd.example")
    odd["spec"]["rules"] = {"not": "a list"}
    wrong = route("wrong-types", "wrong.example")
    wrong["spec"]["hostnames"] = [{"a": 1}]
    wrong["spec"]["parentRefs"] = [{"name": "gw", "port": "eighty"}]
    return [future, match, odd, wrong]


def _create_unchecked(t, objects: list[dict]) -> None:
    """The open schema takes a moment to be in force, so the first tries may be refused."""

    def created():
        try:
            for one in objects:
                kube.kubectl("apply", "--namespace", t.namespace, "--validate=false", "-f", "-",
                             stdin=json.dumps(one))
        except Exception as error:
            raise AssertionError(str(error)) from error
        return True

    wait_for(created, 20, "the open schema is in force", every=0.5)


def test_routes_that_cannot_be_decoded_do_not_disturb_others(t):
    with _good_neighbour(t) as address:
        with _unchecked_routes():
            _create_unchecked(t, _undecodable())
            _still_follows_changes(t, address)
        t.apply(route("after", "after.example"))
        http.get_when(address, "after.example")


def test_a_pod_starts_although_stored_routes_cannot_be_decoded(t):
    with _good_neighbour(t) as address:
        with _unchecked_routes():
            _create_unchecked(t, _undecodable())
        name = kube.pods(TIDEGATE, SELECTOR)[0]["metadata"]["name"]
        kube.kubectl("delete", "pod", name, "--namespace", TIDEGATE, "--wait=false")
        wait_for(lambda: name not in [x["metadata"]["name"] for x in kube.pods(TIDEGATE, SELECTOR)],
                 30, "the pod is on its way out")
        kube.wait_available(TIDEGATE, "tidegate")
        _still_follows_changes(t, address)


def test_a_broken_certificate_breaks_its_own_listener_only(t):
    t.backend()
    certificate, key = certificates.self_signed("good.tls.example")
    t.apply(certificates.secret("good", certificate, key))
    broken = certificates.secret("bad", "no certificate", "no key")
    broken["type"] = "Opaque"
    t.apply(broken)
    t.gateway(listeners=[https_listener("good.tls.example", "good", "good"),
                         https_listener("bad.tls.example", "bad", "bad")])
    address = t.gateway_address(port=443)
    t.apply(route("good", "good.tls.example"))
    http.get_when(address, "good.tls.example", sni="good.tls.example", ca=certificate)

    def told():
        listeners = t.get("gateway", "gw")["status"]["listeners"]
        bad = next(x for x in listeners if x["name"] == "bad")
        found = kube.condition(bad["conditions"], "ResolvedRefs")
        assert (found.get("status"), found.get("reason")) == ("False", "InvalidCertificateRef")
        return True

    wait_for(told, 15, "the bad listener says InvalidCertificateRef")


def test_a_broken_certificate_of_an_ingress_leaves_other_ingresses_alone(t):
    t.backend()
    good, bad = f"good.{t.namespace}.example", f"bad.{t.namespace}.example"
    certificate, key = certificates.self_signed(good)
    other, _ = certificates.self_signed(bad)
    t.apply(certificates.secret("good", certificate, key),
            certificates.secret("mismatch", other, key))  # a key of another certificate
    for host, secret in ((good, "good"), (bad, "mismatch")):
        t.apply(ingress(secret, host, [ingress_path("/")],
                        tls=[{"hosts": [host], "secretName": secret}]))
    address = t.ingress_address(443)
    http.get_when(address, good, sni=good, ca=certificate)


def test_an_invalid_regex_leaves_the_routes_next_to_it_alone(t):
    with _good_neighbour(t) as address:
        t.apply(route("regex", "regex.example", [
            rule(matches=[{"path": {"type": "RegularExpression", "value": "/(unclosed"}}]),
            rule(matches=[{"path": {"type": "PathPrefix", "value": "/fine"}}]),
        ]))

        def told():
            parents = t.get("httproute", "regex").get("status", {}).get("parents", [])
            found = [x for one in parents for x in one["conditions"]]
            partly = kube.condition(found, "PartiallyInvalid").get("status") == "True"
            return partly or any(x["status"] == "False" for x in found)

        wait_for(told, 15, "the route says that something is wrong")
        _still_follows_changes(t, address)


def test_nobody_else_points_the_service_of_a_gateway_at_another_port(t):
    """The container port of a neighbour's Gateway would bring the neighbour's traffic."""
    t.backend()
    t.gateway()
    ports = t.get("service", "gw-tidegate")["spec"]["ports"]
    moved = [{**ports[0], "targetPort": ports[0]["targetPort"] + 1}]
    for change in ({"spec": {"ports": moved}},
                   {"metadata": {"labels": {"app.kubernetes.io/managed-by": None}}},
                   {"metadata": {"annotations": {"tidegate.dev/controller": None}}}):
        try:
            _patch(t, "gw-tidegate", change)
        except CommandFailed as refusal:
            assert "only Tidegate" in str(refusal), f"{change}: {refusal}"
        else:
            raise AssertionError(f"{change} was not refused")
    _patch(t, "gw-tidegate", {"metadata": {"annotations": {"example.com/note": "mine"}}})


def _patch(t, service: str, change: dict) -> None:
    kube.kubectl("patch", "service", service, "--namespace", t.namespace, "--type=merge",
                 f"--patch={json.dumps(change)}")


def test_a_gateway_that_comes_and_goes_does_not_disturb_its_neighbours(t):
    with _good_neighbour(t):
        for _ in range(3):
            t.gateway("passing")
            t.delete("gateway", "passing")
            wait_for(lambda: not t.get("gateway", "passing"), 15, "the gateway is gone")
