"""Tidegate's own kinds, attached by ExtensionRef, targetRefs and Ingress annotation."""

from e2e.driver.paths import ROOT
from e2e.lib import http, kube
from e2e.lib.manifests import ingress, ingress_path, route, rule
from e2e.lib.wait import wait_for

ORDER = 13

_API = "tidegate.dev/v1alpha1"


def _middleware(name: str, **spec) -> dict:
    return {"apiVersion": _API, "kind": "Middleware", "metadata": {"name": name}, "spec": spec}


def _rate_limit(name: str, average: int, burst: int, period: str = "1h", **spec) -> dict:
    return {"apiVersion": _API, "kind": "RateLimit", "metadata": {"name": name},
            "spec": {"local": {"average": average, "burst": burst, "period": period}, **spec}}


def _extension(kind: str, name: str) -> dict:
    return {"type": "ExtensionRef",
            "extensionRef": {"group": "tidegate.dev", "kind": kind, "name": name}}


def _target(kind: str, name: str, group: str = "gateway.networking.k8s.io") -> list[dict]:
    return [{"group": group, "kind": kind, "name": name}]


def _served(t, host: str, *filters: dict):
    t.backend()
    address = t.gateway()
    t.apply(route("one", host, [rule(filters=list(filters))]))
    return address


def test_a_middleware_of_a_rule_changes_request_and_response(t):
    t.apply(_middleware("headers",
                        requestHeaders={"set": [{"name": "X-In", "value": "yes"}]},
                        responseHeaders={"set": [{"name": "X-Out", "value": "yes"}]},
                        rewrite={"regex": {"pattern": "^/api/(.*)$", "substitution": "/v1/$1"}}))
    address = _served(t, "mw.example", _extension("Middleware", "headers"))
    answer = http.get_when(address, "mw.example", "/api/users?x=1")
    assert answer.headers["X-Out"] == "yes"
    assert answer.json()["headers"]["X-In"] == ["yes"]
    assert answer.json()["path"] == "/v1/users?x=1"


def test_a_direct_response_needs_no_backend(t):
    t.apply(_middleware("teapot", directResponse={"statusCode": 418, "body": "short and stout"}))
    address = t.gateway()
    t.apply(route("one", "direct.example", [
        {"filters": [_extension("Middleware", "teapot")]}]))
    assert http.get_when(address, "direct.example", status=418).body == b"short and stout"


def test_an_address_that_is_denied_gets_403(t):
    t.apply(_middleware("nobody", ipAccess={"deny": ["0.0.0.0/0"]}))
    address = _served(t, "denied.example", _extension("Middleware", "nobody"))
    http.get_when(address, "denied.example", status=403)


def test_a_rate_limit_lets_the_burst_through_and_then_answers_429(t):
    t.apply(_rate_limit("slow", average=1, burst=5))
    address = _served(t, "limit.example", _extension("RateLimit", "slow"))
    http.get_when(address, "limit.example", confirm=1)
    codes = [http.get(address, "limit.example").status for _ in range(30)]
    assert codes.count(200) <= 2 * 5, codes  # a bucket in each of the two pods
    assert 429 in codes and set(codes) == {200, 429}, codes


def test_a_rate_limit_keeps_its_state_over_a_change_of_another_route(t):
    t.apply(_rate_limit("slow", average=1, burst=3))
    address = _served(t, "state.example", _extension("RateLimit", "slow"))
    http.get_when(address, "state.example", confirm=1)
    for _ in range(40):
        http.get(address, "state.example")  # both pods' buckets are empty now
    t.apply(route("other", "other.example"))
    http.get_when(address, "other.example")
    codes = [http.get(address, "state.example").status for _ in range(20)]
    assert codes.count(200) <= 1, codes  # one may have been refilled meanwhile


def test_a_policy_on_a_gateway_holds_for_its_routes(t):
    t.backend()
    address = t.gateway()
    t.apply(route("one", "target.example"))
    http.get_when(address, "target.example")
    t.apply(_middleware("all", targetRefs=_target("Gateway", "gw"),
                        responseHeaders={"set": [{"name": "X-From", "value": "gateway"}]}))

    def seen():
        return http.get(address, "target.example").headers["X-From"] == "gateway"

    wait_for(seen, 15, "the header of the Gateway's policy")


def test_a_policy_on_a_route_leaves_other_routes_alone(t):
    t.backend()
    address = t.gateway()
    t.apply(route("one", "one.example"), route("two", "two.example"),
            _middleware("only", targetRefs=_target("HTTPRoute", "one"),
                        responseHeaders={"set": [{"name": "X-From", "value": "route"}]}))

    def seen():
        return http.get_when(address, "one.example").headers["X-From"] == "route"

    wait_for(seen, 15, "the header of the route's policy")
    assert http.get_when(address, "two.example").headers["X-From"] is None


def test_an_ingress_names_its_middlewares_in_an_annotation(t):
    t.backend()
    host = f"annotated.{t.namespace}.example"
    t.apply(_middleware("headers", responseHeaders={"set": [{"name": "X-From", "value": "note"}]}),
            ingress("annotated", host, [ingress_path("/")],
                    annotations={"tidegate.dev/middlewares": "headers"}))
    assert http.get_when(t.ingress_address(), host).headers["X-From"] == "note"


def test_a_missing_middleware_breaks_its_rule_and_says_so(t):
    t.backend()
    address = t.gateway()
    t.apply(route("one", "missing.example", [
        rule(matches=[{"path": {"type": "PathPrefix", "value": "/bad"}}],
             filters=[_extension("Middleware", "nowhere")]),
        rule(matches=[{"path": {"type": "PathPrefix", "value": "/good"}}]),
    ]))
    http.get_when(address, "missing.example", "/good")
    http.get_when(address, "missing.example", "/bad", status=500)
    parents = t.get("httproute", "one")["status"]["parents"]
    messages = [x["message"] for x in parents[0]["conditions"] if x["status"] == "False"]
    assert any("nowhere" in message for message in messages), parents


def test_a_value_out_of_range_is_refused_by_the_api_server(t):
    words = kube.refused(_rate_limit("zero", average=0, burst=1), t.namespace)
    assert "average" in words, words


def test_every_sample_is_accepted_by_the_api_server(t):
    """What the documentation shows must at least be valid."""
    for path in sorted((ROOT / "manifests" / "samples").glob("*.yaml")):
        text = path.read_text().replace("namespace: default", f"namespace: {t.namespace}")
        kube.kubectl("apply", "--dry-run=server", "-f", "-", stdin=text)
