"""Configs of many hosts, and the certificate that all proxies show."""

import json
from pathlib import Path

from bench.lib.paths import HOST
from e2e.driver.shell import output
from e2e.lib import certificates

COUNT = 5_000


def nginx(port: int) -> str:
    """A server for each host, as nginx is configured for them."""
    blocks = ["    server_names_hash_max_size 32768;"]
    blocks += [f"    server {{ listen {HOST}:{port}; server_name h{i}.bench.example; "
               f"location / {{ proxy_pass http://origin; }} }}" for i in range(COUNT)]
    return "\n".join(blocks)


def tidegate() -> str:
    """An HTTPRoute for each host. JSON is YAML, and faster to write."""
    return "\n---\n".join(json.dumps({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": f"h{i}", "namespace": "default"},
        "spec": {"hostnames": [f"h{i}.bench.example"],
                 "parentRefs": [{"name": "bench", "sectionName": "http"}],
                 "rules": [{"backendRefs": [{"name": "origin", "port": 80}]}]},
    }) for i in range(COUNT))


def certificate(folder: Path) -> None:
    """ECDSA P-256, self-signed: `tls.crt`, `tls.key`, and both in `tls.pem`."""
    key, crt = folder / "tls.key", folder / "tls.crt"
    output("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
           "-nodes", "-days", "30", "-subj", "/CN=bench.example",
           "-addext", "subjectAltName=DNS:bench.example,DNS:*.bench.example",
           "-keyout", key, "-out", crt)
    (folder / "tls.pem").write_text(crt.read_text() + key.read_text())


def secret(name: str, folder: Path) -> str:
    manifest = certificates.secret(name, (folder / "tls.crt").read_text(),
                                   (folder / "tls.key").read_text())
    manifest["metadata"]["namespace"] = "default"
    return json.dumps(manifest)
