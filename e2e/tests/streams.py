"""TCPRoutes, UDPRoutes and TLSRoutes: bytes and datagrams, from outside."""

import collections
import os
import ssl

from e2e.lib import certificates, http, kube, manifests
from e2e.lib.case import SELECTOR, TIDEGATE
from e2e.lib.manifests import listener, route_of
from e2e.lib.streams import Datagrams, OpenStreams, Stream, datagram_when, stream_when
from e2e.lib.wait import wait_for

ORDER = 14

_FILE = "streams.md"
_COLUMNS = ["what happens", "streams", "broken", "allowed"]


def _ref(name: str = "peer", port: int = 84, **parts) -> dict:
    return {"name": name, "port": port, **parts}


def _tcp(t, *refs: dict) -> tuple[str, int]:
    """A Gateway with a TCP listener that leads to these backends."""
    t.gateway(listeners=[listener("TCP", 9000)])
    t.apply(route_of("TCPRoute", "tcp", *(refs or [_ref()])))
    return t.gateway_address(port=9000)


def test_a_tcp_route_carries_bytes_both_ways_and_ends_each_half_by_itself(t):
    t.peer()
    address = _tcp(t)
    stream_when(address, "peer")
    data = os.urandom(3_000_000)
    with Stream(address) as stream:
        stream.exchange(b"first")
        stream.socket.sendall(data[:100_000])
        assert stream.finish() == data[:100_000], "what was under way is lost at a half-close"
    with Stream(address) as stream:
        for start in range(0, len(data), 200_000):
            stream.exchange(data[start:start + 200_000])
    t.condition("tcproute", "tcp", "Accepted", "True", "Accepted")
    t.condition("tcproute", "tcp", "ResolvedRefs", "True", "ResolvedRefs")


def test_weights_share_the_connections(t):
    for name in ("one", "two", "none"):
        t.peer(name)
    address = _tcp(t, _ref("one", weight=80), _ref("two", weight=20), _ref("none", weight=0))
    wait_for(lambda: _arrives(address), 15, "connections arrive")
    count: collections.Counter = collections.Counter()
    for _ in range(300):
        with Stream(address) as stream:
            count[stream.service] += 1
    assert count["none"] == 0, count
    assert 200 <= count["one"] <= 280, count  # 240 expected, sigma 7


def _arrives(address) -> bool:
    try:
        with Stream(address) as stream:
            return bool(stream.service)
    except OSError:
        return False


def test_a_tcp_route_without_backend_closes_connections_and_says_why(t):
    address = _tcp(t, _ref("nowhere"))
    found = t.condition("tcproute", "tcp", "ResolvedRefs", "False", "BackendNotFound")
    assert "nowhere" in found["message"], found

    def closed():
        try:
            sock = http.connect(address)
        except OSError:
            return False  # kube-proxy rejects the new port until it knows where it leads
        with sock:
            try:
                return sock.recv(1) == b""
            except ConnectionResetError:
                return True

    wait_for(closed, 10, "the connection is closed")


def test_a_tcp_route_leaves_when_it_is_deleted(t):
    t.peer()
    address = _tcp(t)
    stream_when(address, "peer")
    t.delete("tcproute", "tcp")
    wait_for(lambda: not any(_arrives(address) for _ in range(5)), 15, "no connection arrives")


def test_a_udp_route_answers_each_sender_and_stays_with_its_backend(t):
    t.peer(replicas=2)
    t.gateway(listeners=[listener("UDP", 9000)])
    t.apply(route_of("UDPRoute", "udp", _ref()))
    address = t.gateway_address(port=9000)
    datagram_when(address, "peer")
    with Datagrams(address) as one, Datagrams(address) as two:
        pods = {one.ask(b"one")[1] for _ in range(10)}
        assert len(pods) == 1, f"the datagrams of one session went to {pods}"
        assert two.ask(os.urandom(1400))[0] == "peer"
        assert two.ask(b"")[0] == "peer", "an empty datagram is a datagram"
    pods = set()
    for _ in range(40):
        with Datagrams(address) as other:
            pods.add(other.ask(b"x")[1])
    assert len(pods) == 2, f"all sessions went to {pods}"
    t.condition("udproute", "udp", "Accepted", "True", "Accepted")


def test_tcp_and_udp_may_have_the_same_port_of_a_gateway(t):
    t.peer()
    t.gateway(listeners=[listener("TCP", 9000), listener("UDP", 9000), listener("HTTP", 80)])
    t.apply(route_of("TCPRoute", "tcp", _ref(), section="tcp-9000"),
            route_of("UDPRoute", "udp", _ref(), section="udp-9000"),
            route_of("HTTPRoute", "http", _ref(port=80), section="http-80"))
    address = t.gateway_address(port=9000)
    stream_when(address, "peer")
    datagram_when(address, "peer")
    assert http.get_when((address[0], 80), "any.example").service == "peer"


def _tls(mode: str, host: str, secret: str | None = None, name: str | None = None) -> dict:
    tls = {"mode": mode, **({"certificateRefs": [{"name": secret}]} if secret else {})}
    return listener("TLS", 443, name, hostname=host, tls=tls)


def _tls_backend(t, host: str) -> str:
    """An HTTPS echo server of this host; its certificate, which is its own authority."""
    certificate, key = certificates.self_signed(host)
    t.apply(certificates.secret("backend", certificate, key),
            *manifests.tls_echo("secure", "backend"))
    kube.wait_available(t.namespace, "secure")
    return certificate


def test_passthrough_shows_the_backends_certificate(t):
    host = "pass.example"
    certificate = _tls_backend(t, host)
    t.gateway(listeners=[_tls("Passthrough", host)])
    t.apply(route_of("TLSRoute", "tls", _ref("secure", 443), hostnames=[host]))
    address = t.gateway_address(port=443)
    answer = http.get_when(address, host, sni=host, ca=certificate)
    assert answer.service == "secure"
    assert answer.json()["tls"]["serverName"] == host
    t.condition("tlsroute", "tls", "Accepted", "True", "Accepted")


def test_terminate_hands_the_bytes_on_in_clear(t):
    host = "terminate.example"
    t.peer()
    certificate, key = certificates.self_signed(host)
    t.apply(certificates.secret("cert", certificate, key))
    t.gateway(listeners=[_tls("Terminate", host, "cert")])
    t.apply(route_of("TLSRoute", "tls", _ref(), hostnames=[host]))
    address = t.gateway_address(port=443)
    stream_when(address, "peer", sni=host, ca=certificate)
    with Stream(address, sni=host, ca=certificate) as stream:
        stream.exchange(os.urandom(500_000))


def test_one_port_may_pass_one_name_through_and_terminate_another(t):
    through, ended = "pass.mixed.example", "terminate.mixed.example"
    t.peer()
    authority = _tls_backend(t, through)
    certificate, key = certificates.self_signed(ended)
    t.apply(certificates.secret("cert", certificate, key))
    t.gateway(listeners=[_tls("Passthrough", through, name="through"),
                         _tls("Terminate", ended, "cert", name="ended")])
    t.apply(route_of("TLSRoute", "through", _ref("secure", 443), hostnames=[through]),
            route_of("TLSRoute", "ended", _ref(), hostnames=[ended]))
    address = t.gateway_address(port=443)
    assert http.get_when(address, through, sni=through, ca=authority).service == "secure"
    stream_when(address, "peer", sni=ended, ca=certificate)


def test_a_server_name_without_route_gets_no_handshake(t):
    host = "pass.example"
    certificate = _tls_backend(t, host)
    t.gateway(listeners=[_tls("Passthrough", "*.example")])
    t.apply(route_of("TLSRoute", "tls", _ref("secure", 443), hostnames=[host]))
    address = t.gateway_address(port=443)
    http.get_when(address, host, sni=host, ca=certificate)
    try:
        http.connect(address, sni="other.example").close()
    except (ssl.SSLError, ConnectionError):
        return
    raise AssertionError("a handshake with a name that no route has succeeded")


def test_open_streams_survive_the_rolling_restart_of_tidegate(t):
    t.peer(replicas=2)
    address = _tcp(t)
    stream_when(address, "peer")
    times = 20 if t.long else 1
    with OpenStreams(address) as streams:
        for _ in range(times):
            kube.kubectl("rollout", "restart", "deployment/tidegate", "--namespace", TIDEGATE)
            kube.wait_available(TIDEGATE, "tidegate", 180)
            wait_for(lambda: len(kube.items("pods", TIDEGATE, SELECTOR)) == 2, 120,
                     "the old pods are gone")
    _record(t, f"all pods of Tidegate restarted one by one, {times} times", streams)


def test_open_streams_survive_route_changes(t):
    t.peer(replicas=2)
    address = _tcp(t)
    stream_when(address, "peer")
    with OpenStreams(address, seconds=2) as streams:
        for i in range(20):
            t.apply(route_of("TCPRoute", "tcp", _ref(weight=i + 1)),
                    route_of("TCPRoute", "tcp-younger", _ref("nowhere")))
    _record(t, "20 changes of the route in use", streams)


def _record(t, what: str, streams: OpenStreams) -> None:
    t.record(_FILE, _COLUMNS, [what, streams.finished, len(streams.failures), 0])
    assert streams.finished > 0, "no stream came to its end"
    assert not streams.failures, streams.failures[:5]
