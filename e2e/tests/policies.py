"""Tidegate's own kinds, attached by ExtensionRef, targetRefs and Ingress annotation.

What they say of themselves, and what the API server refuses.
"""

from e2e.driver.paths import ROOT
from e2e.lib import http, kube
from e2e.lib.manifests import ingress, ingress_path, route, rule
from e2e.lib.wait import wait_for

ORDER = 13

_API = "tidegate.dev/v1alpha1"


def _middleware(name: str, **spec) -> dict:
    return {"apiVersion": _API, "kind": "Middleware", "metadata": {"name": name}, "spec": spec}


def _rate_limit(name: str, limit: dict, **spec) -> dict:
    """One limit of all requests together, counted in each pod unless `spec` says otherwise."""
    one = {"name": "all", "key": [{"type": "All"}], **limit}
    return {"apiVersion": _API, "kind": "RateLimit", "metadata": {"name": name},
            "spec": {"limits": [one], **spec}}


def _slow(burst: int) -> dict:
    """A limit that lets its burst through, and no more while a test runs."""
    return {"requests": 1, "window": "1h", "burst": burst}


def _secret(name: str, **data) -> dict:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data}


def _consumer(name: str, secret: str, **spec) -> dict:
    keys = [{"secretRef": {"name": secret, "key": "key"}}]
    return {"apiVersion": _API, "kind": "Consumer", "metadata": {"name": name},
            "spec": {"credentials": {"apiKeys": keys}, **spec}}


_BY_KEY = {"methods": [{"apiKey": {"from": [{"header": "X-API-Key"}]}}],
           "headers": {"consumer": "X-Consumer-Name"}}


def _said(t, kind: str, name: str, *words: str) -> dict:
    """Waits for a condition of the object that is not true and says these words."""

    def found():
        status = t.get(kind, name).get("status", {})
        conditions = status.get("conditions", []) + [
            one for ancestor in status.get("ancestors", []) for one in ancestor["conditions"]]
        wrong = [one for one in conditions if one["status"] == "False"]
        assert any(all(word in one["message"] for word in words) for one in wrong), conditions
        return wrong[0]

    return wait_for(found, 20, f"{kind} {name} says {words}")


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
    t.apply(_rate_limit("slow", _slow(burst=5)))
    address = _served(t, "limit.example", _extension("RateLimit", "slow"))
    http.get_when(address, "limit.example", confirm=1)
    codes = [http.get(address, "limit.example").status for _ in range(30)]
    assert codes.count(200) <= 2 * 5, codes  # a bucket in each of the two pods
    assert 429 in codes and set(codes) == {200, 429}, codes


def test_a_rate_limit_keeps_its_state_over_a_change_of_another_route(t):
    t.apply(_rate_limit("slow", _slow(burst=3)))
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


def test_a_limit_is_divided_by_the_pods_that_live(t):
    store = {"type": "Local", "local": {"replicas": "Shared"}}
    t.apply(_rate_limit("divided", {"requests": 20, "window": "1h", "algorithm": "FixedWindow"},
                        store=store))
    address = _served(t, "divided.example", _extension("RateLimit", "divided"))
    http.get_when(address, "divided.example", confirm=1)

    def both_used_up():
        return all(http.get(address, "divided.example").status == 429 for _ in range(20))

    passed = 1
    for _ in range(200):
        passed += http.get(address, "divided.example").status == 200
    wait_for(both_used_up, 15, "both pods have let through what is theirs")
    assert passed <= 20, f"{passed} passed where 20 may in two pods together"
    assert passed >= 18, f"{passed} passed where 20 may"


def test_a_consumer_is_known_as_soon_as_its_secret_is_there(t):
    t.apply(_middleware("who", authentication=_BY_KEY), _consumer("alice", "alice-key"))
    address = _served(t, "who.example", _extension("Middleware", "who"))
    http.get_when(address, "who.example", status=401, headers={"X-API-Key": "s3cret-of-alice"})
    said = _said(t, "consumer", "alice", "alice-key")
    assert "alice-key" in kube.kubectl("describe", "consumer", "alice", "-n", t.namespace), said
    t.apply(_secret("alice-key", key="s3cret-of-alice"))
    answer = http.get_when(address, "who.example", headers={"X-API-Key": "s3cret-of-alice"})
    seen = {name.lower(): values for name, values in answer.json()["headers"].items()}
    assert seen["x-consumer-name"] == ["alice"], seen
    assert "x-api-key" not in seen, seen
    http.get_when(address, "who.example", status=401, headers={"X-API-Key": "wrong"})
    t.delete("secret", "alice-key")
    http.get_when(address, "who.example", status=401, headers={"X-API-Key": "s3cret-of-alice"})


def test_an_issuer_that_cannot_be_reached_is_named(t):
    remote = {"backendRef": {"name": "nowhere", "port": 80}, "path": "/jwks.json"}
    jwt = {"issuer": "https://issuer.example", "keys": {"remote": remote}}
    t.apply(_middleware("tokens", authentication={"methods": [{"jwt": jwt}]}))
    address = _served(t, "tokens.example", _extension("Middleware", "tokens"))
    _said(t, "middleware", "tokens", "nowhere")
    token = {"Authorization": "Bearer e30.e30.e30"}
    http.get_when(address, "tokens.example", status=500, headers=token)


def test_a_policy_in_shadow_refuses_nobody(t):
    t.apply(_middleware("nobody", authorization={"mode": "Shadow", "rules": [
        {"effect": "Deny", "paths": [{"type": "Prefix", "value": "/"}]}]}))
    address = _served(t, "shadow.example", _extension("Middleware", "nobody"))
    http.get_when(address, "shadow.example")
    t.apply(_middleware("nobody", authorization={"mode": "Enforce", "rules": [
        {"effect": "Deny", "paths": [{"type": "Prefix", "value": "/"}]}]}))
    http.get_when(address, "shadow.example", status=403)


def test_a_limit_whose_store_cannot_be_reached_refuses_nobody(t):
    store = {"type": "Redis", "redis": {"topology": "Single", "addresses": ["nowhere.invalid:1"]}}
    t.apply(_rate_limit("lost", {"requests": 1000, "window": "1m"}, store=store))
    address = _served(t, "lost.example", _extension("RateLimit", "lost"))
    http.get_when(address, "lost.example")
    codes = [http.get(address, "lost.example").status for _ in range(50)]
    assert set(codes) == {200}, codes


def test_values_out_of_range_are_refused_by_the_api_server(t):
    good = {"requests": 10, "window": "1m"}
    by_key = {"apiKey": {}}
    for word, one in (
        ("requests", _rate_limit("bad", {**good, "requests": 0})),
        ("requests", _rate_limit("bad", {**good, "requests": 2_000_000_000})),
        ("window", _rate_limit("bad", {**good, "window": "a while"})),
        ("algorithm", _rate_limit("bad", {**good, "algorithm": "Guess"})),
        ("limits", _rate_limit("bad", good, limits=[])),
        ("failureMode", _rate_limit("bad", good, failureMode="Panic")),
        ("store", _rate_limit("bad", good, store={"type": "Memcached"})),
        ("methods", _middleware("bad", authentication={"methods": []})),
        ("methods", _middleware("bad", authentication={"methods": [{**by_key, "basic": {
            "secretRef": {"name": "users"}}}]})),
        ("mode", _middleware("bad", authentication={"mode": "Maybe", "methods": [by_key]})),
        ("rules", _middleware("bad", authorization={"rules": []})),
        ("groups", {"apiVersion": _API, "kind": "Consumer", "metadata": {"name": "bad"},
                    "spec": {"groups": ["x" * 10_000]}}),
    ):
        words = kube.refused(one, t.namespace)
        assert word in words, f"{one['spec']}: {words}"


def test_every_sample_is_accepted_by_the_api_server(t):
    """What the documentation shows must at least be valid."""
    for path in sorted((ROOT / "manifests" / "samples").glob("*.yaml")):
        text = path.read_text().replace("namespace: default", f"namespace: {t.namespace}")
        kube.kubectl("apply", "--dry-run=server", "-f", "-", stdin=text)
