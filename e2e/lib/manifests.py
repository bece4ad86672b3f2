"""Objects that many tests need, as Python dicts: the boring half of each."""

from e2e.cluster import constants as c

GATEWAY_API = "gateway.networking.k8s.io/v1"
CLASS = "tidegate"
POLICY_API = "tidegate.dev/v1alpha1"


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


def peer(name: str, replicas: int = 1, command: list[str] | None = None) -> list[dict]:
    """The program `peer` behind a Service: a backend that fails when asked to (ports 80 and
    81, h2c), authorization by HTTP (82) and ext_authz (83), echo by TCP and UDP (84).

    With `command`, another program of its image: gRPC's interop server is on port 85.
    """
    labels = {"app": name}
    container = {
        "name": "peer",
        "image": c.PEER_IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "env": [_field("POD_NAME", "metadata.name"), {"name": "SERVICE_NAME", "value": name}],
        "args": ["-backend=:3000", "-auth=:3001", "-ext-authz=:3002", "-tcp=:3003", "-udp=:3003"],
        "readinessProbe": {"tcpSocket": {"port": 3003}, "periodSeconds": 1},
        "lifecycle": {"preStop": {"sleep": {"seconds": 5}}},
    }
    if command:
        container |= {"command": command, "args": [],
                      "readinessProbe": {"tcpSocket": {"port": 10000}, "periodSeconds": 1}}
    spec = {"containers": [container], "terminationGracePeriodSeconds": 15}
    h2c = {"appProtocol": "kubernetes.io/h2c"}
    return [
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
         "spec": {"replicas": replicas, "selector": {"matchLabels": labels},
                  "template": {"metadata": {"labels": labels}, "spec": spec}}},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
         "spec": {"selector": labels, "ports": [
             {"name": "http", "port": 80, "targetPort": 3000},
             {"name": "h2c", "port": 81, "targetPort": 3000, **h2c},
             {"name": "auth", "port": 82, "targetPort": 3001},
             {"name": "ext-authz", "port": 83, "targetPort": 3002, **h2c},
             {"name": "tcp", "port": 84, "targetPort": 3003},
             {"name": "udp", "port": 84, "targetPort": 3003, "protocol": "UDP"},
             {"name": "grpc", "port": 85, "targetPort": 10000, **h2c},
         ]}},
    ]


def tls_echo(name: str, secret: str, authority: str | None = None) -> list[dict]:
    """The echo server with HTTPS on the Service's port 443, its certificate in the Secret;
    with the ConfigMap `authority` it asks clients for a certificate."""
    deployment, service = echo(name)
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    volumes = [{"name": "cert", "secret": {"secretName": secret}}]
    container["env"] += [{"name": "TLS_SERVER_CERT", "value": "/cert/tls.crt"},
                         {"name": "TLS_SERVER_PRIVKEY", "value": "/cert/tls.key"}]
    if authority:
        volumes.append({"name": "authority", "configMap": {"name": authority}})
        container["env"].append({"name": "TLS_CLIENT_CACERTS", "value": "/authority/ca.crt"})
    container["volumeMounts"] = [{"name": one["name"], "mountPath": f"/{one['name']}"}
                                 for one in volumes]
    deployment["spec"]["template"]["spec"]["volumes"] = volumes
    service["spec"]["ports"].append({"name": "https", "port": 443, "targetPort": 8443})
    return [deployment, service]


def listener(protocol: str, port: int, name: str | None = None, **parts) -> dict:
    return {"name": name or f"{protocol.lower()}-{port}", "protocol": protocol, "port": port,
            "allowedRoutes": {"namespaces": {"from": "All"}}, **parts}


def route_of(kind: str, name: str, *refs: dict, parent: str = "gw", section: str | None = None,
             **spec) -> dict:
    """A route of any kind whose one rule leads to these backends."""
    where = {"name": parent, **({"sectionName": section} if section else {})}
    return {"apiVersion": GATEWAY_API, "kind": kind, "metadata": {"name": name},
            "spec": {"parentRefs": [where], "rules": [{"backendRefs": list(refs)}], **spec}}


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


def policy(kind: str, name: str, **spec) -> dict:
    """A Middleware, RateLimit or Consumer."""
    return {"apiVersion": POLICY_API, "kind": kind, "metadata": {"name": name}, "spec": spec}


def extension(kind: str, name: str) -> dict:
    """The filter by which a rule or a listener names a Middleware or RateLimit."""
    return {"type": "ExtensionRef",
            "extensionRef": {"group": "tidegate.dev", "kind": kind, "name": name}}


def secret(name: str, **data: str) -> dict:
    """An opaque Secret; those of certificates are made in `certificates`."""
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data}


def redis(name: str, *arguments: str) -> list[dict]:
    """A Redis behind a Service on port 6379 that keeps nothing on disk; `arguments` are more
    settings (`--name value`)."""
    labels = {"app": name}
    container = {
        "name": "redis",
        "image": c.REDIS_IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "args": ["--save", "", "--appendonly", "no", "--protected-mode", "no", *arguments],
        "readinessProbe": {"tcpSocket": {"port": 6379}, "periodSeconds": 1},
    }
    return [
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
         "spec": {"replicas": 1, "selector": {"matchLabels": labels},
                  "template": {"metadata": {"labels": labels},
                               "spec": {"containers": [container]}}}},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
         "spec": {"selector": labels, "ports": [{"port": 6379}]}},
    ]


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
