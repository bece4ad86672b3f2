"""Objects that many tests need, as Python dicts: the boring half of each."""

from e2e.cluster import constants as c

GATEWAY_API = "gateway.networking.k8s.io/v1"
CLASS = "tidegate"


def namespace(name: str) -> dict:
    return {"apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": name, "labels": {"e2e": "test"}}}


def echo(name: str, replicas: int = 1) -> list[dict]:
    """The echo server behind a Service.

    It ends at once on SIGTERM, so like any such server it needs a `preStop` pause
    while proxies learn that the pod is going.
    """
    labels = {"app": name}
    container = {
        "name": "echo",
        "image": c.ECHO_IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "env": [_field("POD_NAME", "metadata.name"), _field("NAMESPACE", "metadata.namespace"),
                {"name": "SERVICE_NAME", "value": name}],
        "ports": [{"containerPort": 3000}],
        "readinessProbe": {"httpGet": {"path": "/health", "port": 3000}, "periodSeconds": 1},
        "lifecycle": {"preStop": {"sleep": {"seconds": 5}}},
    }
    spec = {"containers": [container], "terminationGracePeriodSeconds": 15}
    return [
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
         "spec": {"replicas": replicas, "selector": {"matchLabels": labels},
                  "strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
                  "template": {"metadata": {"labels": labels}, "spec": spec}}},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
         "spec": {"selector": labels, "ports": [
             {"name": "http", "port": 80, "targetPort": 3000},
             {"name": "h2c", "port": 81, "targetPort": 3001, "appProtocol": "kubernetes.io/h2c"},
         ]}},
    ]


def gateway(name: str = "gw", listeners: list[dict] | None = None, **spec) -> dict:
    http = {"name": "http", "protocol": "HTTP", "port": 80,
            "allowedRoutes": {"namespaces": {"from": "All"}}}
    return {"apiVersion": GATEWAY_API, "kind": "Gateway", "metadata": {"name": name},
            "spec": {"gatewayClassName": CLASS, "listeners": listeners or [http], **spec}}


def https_listener(hostname: str, secret: str, name: str = "https") -> dict:
    return {"name": name, "protocol": "HTTPS", "port": 443, "hostname": hostname,
            "tls": {"certificateRefs": [{"name": secret}]},
            "allowedRoutes": {"namespaces": {"from": "All"}}}


def route(name: str, host: str, rules: list[dict] | None = None, gateway: str = "gw",
          backend: str = "echo") -> dict:
    """An HTTPRoute; without rules, everything of the host goes to the backend."""
    rules = rules or [{"backendRefs": [{"name": backend, "port": 80}]}]
    return {"apiVersion": GATEWAY_API, "kind": "HTTPRoute", "metadata": {"name": name},
            "spec": {"parentRefs": [{"name": gateway}], "hostnames": [host], "rules": rules}}


def rule(backend: str = "echo", **parts) -> dict:
    return {"backendRefs": [{"name": backend, "port": 80}], **parts}


def ingress(name: str, host: str | None, paths: list[dict], ingress_class: str | None = CLASS,
            annotations: dict | None = None, tls: list[dict] | None = None) -> dict:
    spec = {"rules": [{**({"host": host} if host else {}), "http": {"paths": paths}}]}
    if ingress_class:
        spec["ingressClassName"] = ingress_class
    if tls:
        spec["tls"] = tls
    return {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
            "metadata": {"name": name, "annotations": annotations or {}}, "spec": spec}


def ingress_path(path: str, backend: str = "echo", kind: str = "Prefix") -> dict:
    return {"path": path, "pathType": kind,
            "backend": {"service": {"name": backend, "port": {"number": 80}}}}


def _field(name: str, path: str) -> dict:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}
