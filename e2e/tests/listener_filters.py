"""Filters of Gateway listeners (GEP-5224): they run before a route is chosen."""

from e2e.lib import http, kube, manifests
from e2e.lib.manifests import extension, listener, policy, route, rule
from e2e.lib.wait import wait_for
from e2e.tests.external_auth import asks

ORDER = 63
CHANNEL = "experimental"

_GOOD = {"Authorization": "Bearer good"}


def _sets(name: str, header: str, value: str) -> dict:
    """A Middleware that sets a request header; the listener's filters name it."""
    return policy("Middleware", name, requestHeaders={"set": [{"name": header, "value": value}]})


def _extension(name: str) -> dict:
    return extension("Middleware", name)


def _filtered(*filters: dict) -> list[dict]:
    return [listener("HTTP", 80, "http", filters={"requests": list(filters)})]


def _by_header(name: str, value: str, backend: str) -> dict:
    match = {"headers": [{"name": name, "value": value}]}
    return rule(backend, matches=[match])


def _listener_condition(t, kind: str, status: str, reason: str) -> dict:
    def found():
        listeners = t.get("gateway", "gw").get("status", {}).get("listeners", [])
        one = kube.condition(next(iter(listeners), {}).get("conditions", []), kind)
        assert (one.get("status"), one.get("reason")) == (status, reason), one
        return one

    return wait_for(found, 15, f"{kind} of the listener is {status} ({reason})")


def test_a_header_that_a_filter_sets_chooses_the_route(t):
    for name in ("original", "changed"):
        t.backend(name)
    t.apply(_sets("tenant", "X-Tenant", "changed"))
    address = t.gateway(listeners=_filtered(_extension("tenant")))
    t.apply(route("by-tenant", "match.example", [
        _by_header("x-tenant", "original", "original"),
        _by_header("x-tenant", "changed", "changed")]))
    http.get_when(address, "match.example")
    answer = http.get(address, "match.example", headers={"X-Tenant": "original"})
    assert answer.service == "changed", "the route must see what the filter has set"


def test_filters_run_strictly_in_their_order(t):
    t.backend()
    t.apply(_sets("first", "X-Order", "first"), _sets("second", "X-Order", "second"))
    address = t.gateway(listeners=_filtered(_extension("first"), _extension("second")))
    t.apply(route("any", "order.example"))
    http.get_when(address, "order.example")

    def order() -> list[str]:
        return http.get_when(address, "order.example", confirm=3).json()["headers"]["X-Order"]

    assert order() == ["second"]
    t.gateway(listeners=_filtered(_extension("second"), _extension("first")))
    wait_for(lambda: order() == ["first"], 15, "the other order has the other outcome")


def test_no_filter_changes_the_host(t):
    for name in ("right", "wrong"):
        t.backend(name)
    t.apply(_sets("host", "Host", "wrong.example"), _sets("seen", "X-Seen", "yes"))
    address = t.gateway(listeners=_filtered(_extension("host"), _extension("seen")))
    t.apply(route("right", "right.example", backend="right"),
            route("wrong", "wrong.example", backend="wrong"))

    def filtered():
        answer = http.get(address, "right.example")
        if answer.status >= 500:
            return True  # refusing the request is allowed, too
        seen = answer.json()
        assert answer.service == "right" and seen["host"] == "right.example", seen
        return "X-Seen" in seen["headers"]

    wait_for(filtered, 15, "the filter ran, and the Host is what the client sent")


def test_external_auth_of_a_listener_guards_all_of_its_routes(t):
    t.peer()
    address = t.gateway(listeners=_filtered(asks("HTTP")))
    t.apply(route("one", "one.example", backend="peer"),
            route("two", "two.example", backend="peer"))
    for host in ("one.example", "two.example"):
        http.get_when(address, host, status=401)
        assert http.get(address, host, headers=_GOOD).status == 200
    assert http.get(address, "no-route.example").status in (401, 404)


def test_identity_that_a_service_establishes_chooses_the_route(t):
    t.peer()
    for name in ("anyone", "alice"):
        t.backend(name)
    address = t.gateway(listeners=_filtered(asks("GRPC")))
    t.apply(route("by-user", "user.example", [
        rule("anyone"), _by_header("x-auth-user", "alice", "alice")]))
    http.get_when(address, "user.example", headers=_GOOD)
    assert http.get(address, "user.example", headers=_GOOD).service == "alice"


def test_a_refusal_keeps_the_filters_after_it_and_the_routes_from_running(t):
    t.peer()
    t.apply(_sets("later", "X-Later", "yes"))
    address = t.gateway(listeners=_filtered(asks("HTTP"), _extension("later")))
    t.apply(route("any", "deny.example", backend="peer"))
    http.get_when(address, "deny.example", headers=_GOOD)
    answer = http.get(address, "deny.example")
    assert (answer.status, answer.body) == (401, b"refused by HTTP"), answer
    seen = http.get(address, "deny.example", headers=_GOOD).json()["headers"]
    assert "X-Later" in seen, seen


def test_a_filter_that_cannot_be_resolved_is_named_and_nothing_passes_unguarded(t):
    t.backend()
    t.apply(manifests.gateway(listeners=_filtered(_extension("nowhere"))),
            route("any", "lost.example"))
    found = _listener_condition(t, "ResolvedRefs", "False", "InvalidListenerFilterRef")
    assert "nowhere" in found["message"], found
    t.apply(manifests.gateway(listeners=_filtered(asks("HTTP", "gone"))))

    def named():
        return "gone" in _listener_condition(
            t, "ResolvedRefs", "False", "InvalidListenerFilterRef")["message"]

    wait_for(named, 15, "the missing service is named")


def test_a_service_of_another_namespace_needs_a_grant(t):
    other = t.other_namespace()
    kube.apply(manifests.peer("auth"), other)
    one = asks("HTTP", "auth")
    one["externalAuth"]["backendRef"]["namespace"] = other
    t.apply(manifests.gateway(listeners=_filtered(one)))
    _listener_condition(t, "ResolvedRefs", "False", "RefNotPermitted")


def test_a_filter_on_a_listener_that_is_not_http_is_refused_by_the_api_server(t):
    tcp = listener("TCP", 9000, filters={"requests": [_extension("any")]})
    words = kube.refused(manifests.gateway(listeners=[tcp]), t.namespace)
    assert "filters may only be set" in words, words
