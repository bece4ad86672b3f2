"""Certificates for tests, made with openssl."""

import base64
import tempfile
from pathlib import Path

from e2e.driver.shell import output


def self_signed(*hosts: str) -> tuple[str, str]:
    """A certificate for these hosts and its key, both PEM."""
    names = ",".join(f"DNS:{host}" for host in hosts)
    with tempfile.TemporaryDirectory() as folder:
        key, certificate = Path(folder) / "key", Path(folder) / "crt"
        output(
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30"),
            *("-subj", f"/CN={hosts[0]}", "-addext", f"subjectAltName={names}"),
            *("-keyout", key, "-out", certificate),
        )
        return certificate.read_text(), key.read_text()


def secret(name: str, certificate: str, key: str) -> dict:
    """A TLS secret; what is put in need not be a certificate."""

    def encode(text: str) -> str:
        return base64.b64encode(text.encode()).decode()

    return {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": {"name": name},
            "data": {"tls.crt": encode(certificate), "tls.key": encode(key)}}
