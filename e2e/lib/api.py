"""The Kubernetes API over one kept connection: no process per call, so cheap enough
for loops that poll, and for measuring what an answer of the API server takes."""

import http.client
import json
import ssl
from pathlib import Path
from urllib.parse import urlsplit

_NAMESPACED = {
    "Secret": ("/api/v1", "secrets"),
    "ConfigMap": ("/api/v1", "configmaps"),
    "Service": ("/api/v1", "services"),
    "Pod": ("/api/v1", "pods"),
    "Event": ("/api/v1", "events"),
    "Deployment": ("/apis/apps/v1", "deployments"),
    "EndpointSlice": ("/apis/discovery.k8s.io/v1", "endpointslices"),
    "Lease": ("/apis/coordination.k8s.io/v1", "leases"),
    "Ingress": ("/apis/networking.k8s.io/v1", "ingresses"),
    "Gateway": ("/apis/gateway.networking.k8s.io/v1", "gateways"),
    "HTTPRoute": ("/apis/gateway.networking.k8s.io/v1", "httproutes"),
}


class ApiError(Exception):
    """The API server refused; `status` is the HTTP status."""

    def __init__(self, status: int, message: str):
        super().__init__(f"{status}: {message}")
        self.status = status


class Api:
    """A client of one API server; not for use by several threads at once."""

    def __init__(self, server: str, keys: str | Path | None = None, timeout: float = 10):
        url = urlsplit(server)
        if url.scheme == "https":
            context = ssl.create_default_context(cafile=f"{keys}/ca.crt")
            context.load_cert_chain(f"{keys}/admin.crt", f"{keys}/admin.key")
            self._connection = http.client.HTTPSConnection(
                url.hostname, url.port, timeout=timeout, context=context
            )
        else:
            self._connection = http.client.HTTPConnection(
                url.hostname, url.port, timeout=timeout
            )

    def get(self, path: str) -> dict:
        return self._call("GET", path)

    def create(self, manifest: dict) -> dict:
        return self._call("POST", collection(manifest), manifest)

    def post(self, path: str, body: dict) -> dict:
        return self._call("POST", path, body)

    def patch(self, path: str, body: dict) -> dict:
        return self._call("PATCH", path, body, "application/merge-patch+json")

    def delete(self, path: str) -> dict:
        return self._call("DELETE", path)

    def text(self, path: str) -> str:
        return self._exchange("GET", path).decode()

    def _call(self, method: str, path: str, body: dict | None = None,
              kind: str = "application/json") -> dict:
        text = self._exchange(method, path, body, kind)
        return json.loads(text) if text else {}

    def _exchange(self, method: str, path: str, body: dict | None = None,
                  kind: str = "application/json") -> bytes:
        payload = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": kind, "Accept": "application/json"}
        try:
            self._connection.request(method, path, payload, headers)
            response = self._connection.getresponse()
            text = response.read()
        except (http.client.HTTPException, OSError) as error:
            self._connection.close()  # the next call opens a new one
            raise ConnectionError(f"{method} {path}: {error!r}") from error
        if response.status >= 400:
            raise ApiError(response.status, text.decode(errors="replace")[:500])
        return text


def collection(manifest: dict) -> str:
    """The path under which an object of this kind and namespace is created."""
    group, plural = _NAMESPACED[manifest["kind"]]
    return f"{group}/namespaces/{manifest['metadata']['namespace']}/{plural}"


def path_of(kind: str, namespace: str, name: str = "") -> str:
    group, plural = _NAMESPACED[kind]
    return f"{group}/namespaces/{namespace}/{plural}" + (f"/{name}" if name else "")
