"""Certificates for tests, made with openssl."""

import base64
import tempfile
from contextlib import contextmanager
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


def authority(name: str = "e2e") -> tuple[str, str]:
    """A certificate authority and its key, both PEM."""
    with tempfile.TemporaryDirectory() as folder:
        key, certificate = Path(folder) / "key", Path(folder) / "crt"
        output(
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30"),
            *("-subj", f"/CN={name}", "-keyout", key, "-out", certificate),
            *("-addext", "basicConstraints=critical,CA:TRUE"),
        )
        return certificate.read_text(), key.read_text()


def issued(issuer: tuple[str, str], host: str) -> tuple[str, str]:
    """A certificate for this host, of server and client, by the authority; PEM, and its key."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, text in zip(("ca.crt", "ca.key"), issuer, strict=True):
            (folder / file).write_text(text)
        (folder / "ext").write_text(
            f"subjectAltName=DNS:{host}\nextendedKeyUsage=serverAuth,clientAuth\n")
        output("openssl", "req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={host}",
               "-keyout", folder / "key", "-out", folder / "csr")
        output("openssl", "x509", "-req", "-in", folder / "csr", "-days", "30",
               "-CA", folder / "ca.crt", "-CAkey", folder / "ca.key", "-CAcreateserial",
               "-extfile", folder / "ext", "-out", folder / "crt")
        return (folder / "crt").read_text(), (folder / "key").read_text()


@contextmanager
def file(text: str):
    """The path of a file with this text, for programs that read files only."""
    with tempfile.NamedTemporaryFile("w") as one:
        one.write(text)
        one.flush()
        yield one.name


def bundle(name: str, certificate: str) -> dict:
    """A ClusterTrustBundle that no signer owns."""
    return {"apiVersion": "certificates.k8s.io/v1beta1", "kind": "ClusterTrustBundle",
            "metadata": {"name": name}, "spec": {"trustBundle": certificate}}


def config_map(name: str, certificate: str) -> dict:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name},
            "data": {"ca.crt": certificate}}


def secret(name: str, certificate: str, key: str) -> dict:
    """A TLS secret; what is put in need not be a certificate."""

    def encode(text: str) -> str:
        return base64.b64encode(text.encode()).decode()

    return {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": {"name": name},
            "data": {"tls.crt": encode(certificate), "tls.key": encode(key)}}
