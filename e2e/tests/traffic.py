"""HTTPRoutes, TLS and WebSocket through a Gateway, from outside."""

import collections

from e2e.driver.paths import ROOT
from e2e.lib import certificates, http
from e2e.lib.manifests import https_listener, route, rule
from e2e.lib.websocket import TEXT, WebSocket

ORDER = 10


def _match(path: str, kind: str = "PathPrefix", **parts) -> dict:
    return {"path": {"type": kind, "value": path}, **parts}


def test_a_route_sends_the_request_to_its_backend(t):
    t.backend()
    address = t.gateway()
    t.apply(route("all", "all.example"))
    answer = http.get_when(address, "all.example", "/some/path?q=1")
    assert answer.service == "echo"
    assert answer.json()["path"] == "/some/path?q=1"
    assert answer.json()["host"] == "all.example"


def test_a_host_without_route_gets_404(t):
    t.backend()
    address = t.gateway()
    t.apply(route("all", "known.example"))
    http.get_when(address, "known.example")
    assert http.get(address, "unknown.example").status == 404


def test_the_more_specific_path_wins(t):
    for name in ("one", "two", "three"):
        t.backend(name)
    address = t.gateway()
    t.apply(route("paths", "paths.example", [
        rule("one", matches=[_match("/")]),
        rule("two", matches=[_match("/a/b")]),
        rule("three", matches=[_match("/a/b", "Exact")]),
    ]))
    http.get_when(address, "paths.example")
    expected = {"/": "one", "/a/bc": "one", "/a/b/c": "two", "/a/b/": "two", "/a/b": "three"}
    found = {path: http.get(address, "paths.example", path).service for path in expected}
    assert found == expected, found


def test_a_header_chooses_the_backend(t):
    for name in ("one", "two"):
        t.backend(name)
    address = t.gateway()
    header = {"headers": [{"name": "X-Version", "value": "2"}]}
    t.apply(route("headers", "headers.example", [
        rule("one", matches=[_match("/")]),
        rule("two", matches=[_match("/", **header)]),
    ]))
    assert http.get_when(address, "headers.example").service == "one"
    assert http.get(address, "headers.example", headers={"X-Version": "2"}).service == "two"
    assert http.get(address, "headers.example", headers={"X-Version": "3"}).service == "one"


def test_weights_share_the_requests(t):
    for name in ("one", "two", "none"):
        t.backend(name)
    address = t.gateway()
    weights = {"one": 80, "two": 20, "none": 0}
    refs = [{"name": name, "port": 80, "weight": weight} for name, weight in weights.items()]
    t.apply(route("weights", "weights.example", [{"backendRefs": refs}]))
    http.get_when(address, "weights.example")
    answers = [http.get(address, "weights.example").service for _ in range(400)]
    count = collections.Counter(answers)
    assert count["none"] == 0, count
    assert 270 <= count["one"] <= 370, count  # 320 expected, sigma 8


def test_every_ready_pod_gets_requests(t):
    t.backend(replicas=2)
    address = t.gateway()
    t.apply(route("pods", "pods.example"))
    http.get_when(address, "pods.example")
    pods = {http.get(address, "pods.example").pod for _ in range(40)}
    assert len(pods) == 2, pods


def test_a_redirect_and_header_filters_do_what_they_say(t):
    t.backend()
    address = t.gateway()
    t.apply(route("filters", "filters.example", [
        {"matches": [_match("/old")],
         "filters": [{"type": "RequestRedirect", "requestRedirect": {
             "path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/new"},
             "statusCode": 301}}]},
        rule(matches=[_match("/")], filters=[
            {"type": "RequestHeaderModifier",
             "requestHeaderModifier": {"set": [{"name": "X-Sent", "value": "yes"}]}},
            {"type": "ResponseHeaderModifier",
             "responseHeaderModifier": {"add": [{"name": "X-Back", "value": "yes"}]}},
        ]),
    ]))
    answer = http.get_when(address, "filters.example")
    assert answer.headers["X-Back"] == "yes"
    assert answer.json()["headers"]["X-Sent"] == ["yes"]
    moved = http.get(address, "filters.example", "/old/page")
    assert moved.status == 301
    assert moved.headers["Location"].endswith("filters.example/new/page"), moved.headers


def test_the_server_name_chooses_the_certificate(t):
    t.backend()
    listeners, authorities = [], {}
    for name in ("one", "two"):
        host = f"{name}.tls.example"
        authorities[host], key = certificates.self_signed(host)
        t.apply(certificates.secret(name, authorities[host], key))
        listeners.append(https_listener(host, name, name))
    t.gateway(listeners=listeners)
    address = t.gateway_address(port=443)
    for host in authorities:
        t.apply(route(host.replace(".", "-"), host))
    for host, authority in authorities.items():
        answer = http.get_when(address, host, sni=host, ca=authority)
        assert answer.service == "echo"


def test_a_renewed_certificate_is_served_without_a_restart(t):
    t.backend()
    host = "renewed.tls.example"
    old, key = certificates.self_signed(host)
    t.apply(certificates.secret("cert", old, key))
    t.gateway(listeners=[https_listener(host, "cert")])
    address = t.gateway_address(port=443)
    t.apply(route("renewed", host))
    http.get_when(address, host, sni=host, ca=old)
    new, key = certificates.self_signed(host)
    t.apply(certificates.secret("cert", new, key))
    http.get_when(address, host, sni=host, ca=new)


def test_a_websocket_carries_messages_both_ways(t):
    t.backend()
    address = t.gateway()
    t.apply(route("ws", "ws.example"))
    http.get_when(address, "ws.example")
    with WebSocket(address, "ws.example", "/ws") as websocket:
        for message in (b"first", b"second"):
            websocket.send(message)
            assert websocket.receive() == (TEXT, message)


def test_ambiguous_framing_smuggles_nothing(t):
    """The HTTP engine hides Content-Length beside chunked: see docs/limits.md."""
    t.backend()
    address = t.gateway()
    t.apply(route("strict", "strict.example"))
    http.get_when(address, "strict.example")
    both = (b"POST / HTTP/1.1\r\nHost: strict.example\r\nContent-Length: 4\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
            b"GET /smuggled HTTP/1.1\r\nHost: strict.example\r\n\r\n")
    answer = http.raw(address, both)
    assert answer.count(b"HTTP/1.1 ") == 1, f"more than one answer: {answer[:600]}"
    assert b"connection: close" in answer.lower(), f"the connection goes on: {answer[:300]}"


def test_a_second_host_is_refused(t):
    t.backend()
    address = t.gateway()
    t.apply(route("strict", "strict.example"))
    http.get_when(address, "strict.example")
    twice = b"GET / HTTP/1.1\r\nHost: strict.example\r\nHost: other.example\r\n\r\n"
    answer = http.raw(address, twice)
    assert answer.startswith(b"HTTP/1.1 400"), answer[:300]


def test_two_gateways_have_addresses_of_their_own(t):
    t.backend()
    first, second = t.gateway("gw"), t.gateway("gw2")
    assert first != second
    t.apply(route("one", "same.example"))
    http.get_when(first, "same.example")
    http.get_when(second, "same.example", status=404)


def test_the_quickstart_works_as_it_is_written(t):
    """The files in manifests/quickstart, in a namespace of this test."""
    for path in sorted((ROOT / "manifests" / "quickstart").glob("*.yaml")):
        if path.name == "10-echo.yaml":
            continue  # its image is not in this cluster
        text = path.read_text().replace("namespace: default", f"namespace: {t.namespace}")
        documents = [part for part in text.split("\n---\n") if "kind: GatewayClass" not in part
                     and "kind: IngressClass" not in part]
        t.apply("\n---\n".join(documents))
    t.backend()
    address = t.gateway_address("demo")
    http.get_when(address, "any.example")
    assert http.get(address, "any.example", "/old/page").status == 301
    limited = http.get_when(address, "any.example", "/limited/users/42", confirm=1).json()
    assert limited["path"] == "/users/42"
    assert limited["headers"]["X-Middleware"] == ["demo"]
    codes = [http.get(address, "any.example", "/limited/").status for _ in range(20)]
    assert 429 in codes, codes
