"""The ExternalAuth filter (GEP-1494): a service decides whether a request may go on."""

from e2e.lib import http, kube, manifests
from e2e.lib.manifests import route, rule
from e2e.lib.wait import wait_for

ORDER = 62
CHANNEL = "experimental"

_GOOD = {"Authorization": "Bearer good"}
_PORTS = {"HTTP": 82, "GRPC": 83}


def asks(protocol: str, name: str = "peer", body: int | None = None, **config) -> dict:
    """The filter, as rules and listeners have it."""
    auth = {"protocol": protocol, "backendRef": {"name": name, "port": _PORTS[protocol]},
            protocol.lower(): config}
    if body is not None:
        auth["forwardBody"] = {"maxSize": body}
    return {"type": "ExternalAuth", "externalAuth": auth}


def _guarded(t, host: str, one: dict) -> tuple[str, int]:
    t.peer()
    address = t.gateway()
    t.apply(route("guarded", host, [rule("peer", filters=[one])]))
    http.get_when(address, host, status=401)
    return address


def _headers(answer: http.Response) -> dict[str, list[str]]:
    """What the backend saw, by lower-case name."""
    return {name.lower(): values for name, values in answer.json()["headers"].items()}


def test_http_lets_go_on_what_the_service_answers_with_200(t):
    address = _guarded(t, "http.example", asks("HTTP"))
    answer = http.get(address, "http.example", "/a/b?q=1", headers=_GOOD)
    assert answer.status == 200
    assert answer.json()["path"] == "/a/b?q=1"
    assert _headers(answer)["x-auth-user"] == ["alice"]


def test_http_gives_the_client_the_services_refusal(t):
    address = _guarded(t, "http.example", asks("HTTP"))
    answer = http.get(address, "http.example", headers={"Authorization": "Bearer bad"})
    assert (answer.status, answer.body) == (401, b"refused by HTTP"), answer
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="peer"', answer.headers


def test_http_sends_what_the_filter_allows_and_nothing_else(t):
    address = _guarded(t, "http.example", asks("HTTP", path="/check", allowedHeaders=["X-Tenant"]))
    sent = {**_GOOD, "X-Tenant": "t1", "X-Secret": "s"}
    seen = _headers(http.request(address, "http.example", "/a?q=1", "DELETE", sent))
    assert seen["x-auth-path"] == ["/check/a?q=1"], seen
    assert seen["x-auth-method"] == ["DELETE"], seen
    assert seen["x-auth-host"] == ["http.example"], seen
    assert seen["x-auth-length"] == ["0"], "Content-Length must be that of what was sent"
    names = seen["x-auth-names"][0].split()
    assert {"authorization", "x-tenant"} <= set(names) and "x-secret" not in names, names


def test_http_takes_over_only_the_response_headers_that_are_allowed(t):
    address = _guarded(t, "http.example", asks("HTTP", allowedResponseHeaders=["X-Auth-User"]))
    forged = {**_GOOD, "X-Auth-User": "mallory"}
    seen = _headers(http.get(address, "http.example", headers=forged))
    assert seen["x-auth-user"] == ["alice"], seen
    assert "x-auth-path" not in seen, seen


def _bodies(t, protocol: str) -> None:
    host = "body.example"
    address = _guarded(t, host, asks(protocol, body=1000))
    answer = http.request(address, host, method="POST", headers=_GOOD, body=b"x" * 900)
    assert answer.status == 200
    assert _headers(answer)["x-auth-body"] == ["900"], answer.body
    assert answer.json()["body"] == 900, "the backend has to get the body as well"
    answer = http.request(address, host, method="POST", headers=_GOOD, body=b"x" * 1001)
    assert answer.status in (403, 413), f"too long a body: {answer.status}"


def test_http_forwards_the_body_up_to_its_limit(t):
    _bodies(t, "HTTP")


def test_grpc_forwards_the_body_up_to_its_limit(t):
    _bodies(t, "GRPC")


def test_without_forward_body_the_service_gets_none(t):
    address = _guarded(t, "none.example", asks("HTTP"))
    answer = http.request(address, "none.example", method="POST", headers=_GOOD, body=b"x" * 500)
    assert _headers(answer)["x-auth-body"] == ["0"], answer.body
    assert answer.json()["body"] == 500


def test_grpc_lets_go_on_and_changes_the_request_as_the_service_says(t):
    address = _guarded(t, "grpc.example", asks("GRPC"))
    sent = {**_GOOD, "X-Remove-Me": "1", "X-Auth-User": "mallory"}
    answer = http.get(address, "grpc.example", "/a/b?q=1", headers=sent)
    seen = _headers(answer)
    assert answer.status == 200
    assert seen["x-auth-user"] == ["alice"], seen
    assert seen["x-auth-path"] == ["/a/b?q=1"], seen
    assert "x-remove-me" not in seen, seen


def test_grpc_gives_the_client_the_services_refusal(t):
    address = _guarded(t, "grpc.example", asks("GRPC"))
    answer = http.get(address, "grpc.example")
    assert (answer.status, answer.body) == (401, b"refused by gRPC"), answer
    assert answer.headers["X-Auth-Method"] == "GET", answer.headers


def test_grpc_sends_all_headers_or_those_that_are_allowed(t):
    address = _guarded(t, "grpc.example", asks("GRPC"))
    sent = {**_GOOD, "X-Tenant": "t1", "X-Other": "o"}
    names = _headers(http.get(address, "grpc.example", headers=sent))["x-auth-names"][0].split()
    assert {"authorization", "x-tenant", "x-other"} <= set(names), names
    few = asks("GRPC", allowedHeaders=["Authorization", "X-Tenant"])
    t.apply(route("guarded", "grpc.example", [rule("peer", filters=[few])]))

    def fewer():
        answer = http.get(address, "grpc.example", headers=sent)
        return _headers(answer)["x-auth-names"][0].split() == ["authorization", "x-tenant"]

    wait_for(fewer, 15, "only the allowed headers are sent")


def test_a_missing_service_breaks_its_rule_only_and_is_named(t):
    t.peer()
    address = t.gateway()
    path = {"path": {"type": "PathPrefix", "value": "/open"}}
    t.apply(route("guarded", "missing.example", [
        rule("peer", filters=[asks("HTTP", "nowhere")]), rule("peer", matches=[path])]))
    http.get_when(address, "missing.example", "/open")
    http.get_when(address, "missing.example", status=500, headers=_GOOD)
    found = t.condition("httproute", "guarded", "ResolvedRefs", "False", "BackendNotFound")
    assert "nowhere" in found["message"], found


def test_nothing_goes_on_while_the_service_is_away(t):
    t.peer("auth")
    t.backend()
    address = t.gateway()
    t.apply(route("guarded", "away.example", [rule(filters=[asks("HTTP", "auth")])]))
    http.get_when(address, "away.example", headers=_GOOD)
    kube.kubectl("scale", "deployment/auth", "--replicas=0", "--namespace", t.namespace)
    http.get_when(address, "away.example", status=503, headers=_GOOD, timeout=30)


def test_a_service_of_another_namespace_needs_a_grant(t):
    t.peer()
    address = t.gateway()
    other = t.other_namespace()
    kube.apply(manifests.peer("auth"), other)
    kube.wait_available(other, "auth")
    one = asks("HTTP", "auth")
    one["externalAuth"]["backendRef"]["namespace"] = other
    t.apply(route("guarded", "far.example", [rule("peer", filters=[one])]))
    http.get_when(address, "far.example", status=500, headers=_GOOD)
    t.condition("httproute", "guarded", "ResolvedRefs", "False", "RefNotPermitted")
    kube.apply({
        "apiVersion": "gateway.networking.k8s.io/v1beta1", "kind": "ReferenceGrant",
        "metadata": {"name": "grant"},
        "spec": {"from": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute",
                           "namespace": t.namespace}],
                 "to": [{"group": "", "kind": "Service"}]},
    }, other)
    http.get_when(address, "far.example", headers=_GOOD)
    assert http.get(address, "far.example").status == 401
