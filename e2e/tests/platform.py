"""The cluster itself: what the other tests rely on."""

import socket
import struct

from e2e.cluster import constants as c
from e2e.lib import http, kube
from e2e.lib.streams import Datagrams, datagram_when, stream_when
from e2e.lib.wait import stays, wait_for

ORDER = 0
BREAKS_CLUSTER = True


def _service(name: str, **spec) -> dict:
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {"type": "LoadBalancer", "selector": {"app": "echo"},
                     "ports": [{"port": 80, "targetPort": 3000}], **spec}}


def _address(t, name: str) -> str | None:
    given = t.get("service", name)["status"].get("loadBalancer", {}).get("ingress", [])
    return given[0]["ip"] if given else None


def test_a_load_balancer_service_is_reached_from_outside(t):
    t.backend()
    t.apply(_service("front"))
    address = wait_for(lambda: _address(t, "front"), 10, "the service has an address")
    answer = http.get_when((address, 80), "any.example")
    assert answer.json()["namespace"] == t.namespace
    assert answer.service == "echo"


def test_a_requested_address_is_honoured_and_one_out_of_range_stays_pending(t):
    wanted = c.USABLE_ADDRESS
    t.apply(_service("wanted", loadBalancerIP=wanted),
            _service("out-of-range", loadBalancerIP=c.UNUSABLE_ADDRESS),
            _service("twice", loadBalancerIP=wanted))
    one = wait_for(lambda: _address(t, "wanted") or _address(t, "twice"), 10, "an address")
    assert one == wanted
    stays(lambda: not _address(t, "out-of-range"), 1, "out of range is pending")
    assert not (_address(t, "wanted") and _address(t, "twice")), "two have one address"


def test_an_address_is_reached_by_tcp_and_udp_and_follows_a_new_pod(t):
    """Connection tracking must not keep the datagrams of one sender at a pod that is gone."""
    t.peer()
    ports = [{"name": kind.lower(), "protocol": kind, "port": 84, "targetPort": 3003}
             for kind in ("TCP", "UDP")]
    t.apply(_service("front", selector={"app": "peer"}, ports=ports))
    address = (wait_for(lambda: _address(t, "front"), 10, "the service has an address"), 84)
    stream_when(address, "peer")
    datagram_when(address, "peer")
    with Datagrams(address, 0.5) as sender:
        _, pod = sender.ask(b"before")
        kube.kubectl("delete", "pod", pod, "--namespace", t.namespace)

        def followed():
            try:
                return sender.ask(b"after")[1] != pod
            except OSError:
                return False

        wait_for(followed, 30, "the same sender arrives at the new pod")


def test_a_service_without_selector_leads_to_pods_of_another_namespace(t):
    """How one shared proxy serves the Gateways of many namespaces."""
    t.backend()
    pod = kube.pods(t.namespace, "app=echo")[0]["status"]["podIP"]
    other = t.other_namespace()
    service = _service("front")
    del service["spec"]["selector"]
    endpoints = {
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "front", "labels": {"kubernetes.io/service-name": "front"}},
        "endpoints": [{"addresses": [pod], "conditions": {"ready": True}}],
        "ports": [{"port": 3000, "protocol": "TCP"}],
    }
    kube.apply([service, endpoints], other)

    def address():
        status = kube.get("service", "front", other)["status"]
        given = status.get("loadBalancer", {}).get("ingress", [])
        return given[0]["ip"] if given else None

    found = wait_for(address, 10, "the service has an address")
    assert http.get_when((found, 80), "any.example").json()["namespace"] == t.namespace


def test_the_cluster_dns_knows_services(t):
    t.backend()
    expected = t.get("service", "echo")["spec"]["clusterIP"]
    name = f"echo.{t.namespace}.svc.cluster.local"
    wait_for(lambda: _resolve(name) == expected, 10, f"{name} resolves to {expected}")


def test_the_api_server_stops_and_comes_back_while_pods_serve(t):
    t.backend()
    t.apply(_service("front"))
    address = wait_for(lambda: _address(t, "front"), 10, "the service has an address")
    http.get_when((address, 80), "any.example")
    t.cluster.stop_api_server()
    try:
        assert http.get((address, 80), "any.example").status == 200
    finally:
        t.cluster.start_api_server()
    assert t.get("service", "echo"), "etcd has kept the objects"


def test_a_container_that_is_killed_is_started_again(t):
    t.backend()
    pod = kube.pods(t.namespace, "app=echo")[0]["metadata"]["name"]
    t.cluster.kill_pod(t.namespace, pod, "echo")

    def restarted():
        status = kube.get("pod", pod, t.namespace)["status"]["containerStatuses"][0]
        return status["restartCount"] == 1 and status["ready"]

    wait_for(restarted, 30, "the container runs again")


def _resolve(name: str) -> str | None:
    """Asks the cluster's DNS for an A record: one question, no library needed."""
    question = b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\0"
    query = struct.pack("!6H", 1, 0x0100, 1, 0, 0, 0) + question + struct.pack("!2H", 1, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(2)
        sock.sendto(query, (c.DNS_SERVICE_IP, 53))
        try:
            answer = sock.recv(512)
        except TimeoutError:
            return None
    answers = struct.unpack("!6H", answer[:12])[3]
    return socket.inet_ntoa(answer[-4:]) if answers else None  # the record ends with it
