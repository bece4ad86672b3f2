"""The objects of a large world: a Gateway, one Service, and HTTPRoutes with a host each, spread
over namespaces.

`python3 bench/control_plane/objects.py ROUTES FILE` writes them for file mode, with an endpoint on
loopback.
"""

import json
import sys
from pathlib import Path

GROUP = "gateway.networking.k8s.io"
NAMESPACES = 50
# Where the Gateway, the Service and the grants are.
HOME = "default"
GATEWAY = "cp"
# An annotation that only kubectl reads.
UNREAD = "kubectl.kubernetes.io/last-applied-configuration"


def namespaces(count=NAMESPACES):
    return [f"cp-{n}" for n in range(count)]


def gateway(name, gateway_class):
    listener = {"name": "http", "port": 80, "protocol": "HTTP", "allowedRoutes": {"namespaces": {"from": "All"}}}
    return {"apiVersion": f"{GROUP}/v1", "kind": "Gateway", "metadata": {"name": name, "namespace": HOME},
            "spec": {"gatewayClassName": gateway_class, "listeners": [listener]}}


def grants(names):
    """As many as are needed: the list of one grant is bounded at 16."""
    for n, first in enumerate(range(0, len(names), 16)):
        sources = [{"group": GROUP, "kind": "HTTPRoute", "namespace": name} for name in names[first:first + 16]]
        yield {"apiVersion": f"{GROUP}/v1beta1", "kind": "ReferenceGrant",
               "metadata": {"name": f"cp-{n}", "namespace": HOME},
               "spec": {"from": sources, "to": [{"group": "", "kind": "Service"}]}}


def host(n):
    return f"h{n}.example.com"


def route(n, gateway_name, service="echo", port=80):
    """The nth of them; its namespace follows from its number."""
    backend = {"name": service, "namespace": HOME, "port": port}
    return {"apiVersion": f"{GROUP}/v1", "kind": "HTTPRoute",
            "metadata": {"name": f"r{n}", "namespace": f"cp-{n % NAMESPACES}"},
            "spec": {"parentRefs": [{"name": gateway_name, "namespace": HOME}], "hostnames": [host(n)],
                     "rules": [{"matches": [{"path": {"type": "PathPrefix", "value": "/a"}}],
                                "backendRefs": [backend]}]}}


def files(count, port=9000):
    """Everything that file mode needs, the backend on a port of loopback."""
    yield {"apiVersion": f"{GROUP}/v1", "kind": "GatewayClass", "metadata": {"name": "tidegate"},
           "spec": {"controllerName": "tidegate.dev/gateway-controller"}}
    yield gateway(GATEWAY, "tidegate")
    yield from grants(namespaces())
    yield {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "echo", "namespace": HOME},
           "spec": {"ports": [{"port": 80, "targetPort": port}]}}
    yield {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
           "metadata": {"name": "echo-1", "namespace": HOME, "labels": {"kubernetes.io/service-name": "echo"}},
           "addressType": "IPv4", "ports": [{"port": port}],
           "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": True}}]}
    for n in range(count):
        yield route(n, GATEWAY)


def answering(port):
    """A Gateway on this port (below 1024: with the offset added) that answers 200 by itself."""
    yield {"apiVersion": f"{GROUP}/v1", "kind": "GatewayClass", "metadata": {"name": "tidegate"},
           "spec": {"controllerName": "tidegate.dev/gateway-controller"}}
    one = gateway("backend", "tidegate")
    one["spec"]["listeners"][0]["port"] = port
    yield one
    meta = {"name": "ok", "namespace": HOME}
    yield {"apiVersion": "tidegate.dev/v1alpha1", "kind": "Middleware", "metadata": meta,
           "spec": {"directResponse": {"statusCode": 200, "body": "ok"}}}
    named = {"group": "tidegate.dev", "kind": "Middleware", "name": "ok"}
    yield {"apiVersion": f"{GROUP}/v1", "kind": "HTTPRoute", "metadata": meta,
           "spec": {"parentRefs": [{"name": "backend"}],
                    "rules": [{"filters": [{"type": "ExtensionRef", "extensionRef": named}]}]}}


def write(path, all_of_them):
    """As a file of YAML, which JSON is."""
    Path(path).write_text("\n---\n".join(json.dumps(one) for one in all_of_them))


if __name__ == "__main__":
    write(sys.argv[2], files(int(sys.argv[1])))
