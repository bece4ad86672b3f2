"""The cluster's certificates and kubeconfigs, made with openssl."""

import tempfile
from pathlib import Path

from e2e.cluster import constants as c
from e2e.driver.shell import output

_SERVER_NAMES = (
    "DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:localhost,"
    f"IP:{c.API_SERVICE_IP},IP:{c.NODE_IP},IP:127.0.0.1"
)

# Name of the files, subject (Kubernetes reads user and group from it), names.
_CERTIFICATES = [
    ("apiserver", "/CN=kube-apiserver", _SERVER_NAMES),
    ("admin", "/O=system:masters/CN=admin", "DNS:admin"),
    ("controllers", "/CN=system:kube-controller-manager", "DNS:controllers"),
    ("scheduler", "/CN=system:kube-scheduler", "DNS:scheduler"),
    ("kubelet", f"/O=system:nodes/CN=system:node:{c.NODE}", f"DNS:{c.NODE},IP:{c.NODE_IP}"),
    ("proxy", "/CN=system:kube-proxy", "DNS:proxy"),
]


def create() -> None:
    """Makes the CA, the service-account key, and one certificate per component."""
    c.PKI.mkdir(parents=True, exist_ok=True)
    _ca()
    output("openssl", "genrsa", "-out", c.PKI / "sa.key", "2048")
    output("openssl", "rsa", "-in", c.PKI / "sa.key", "-pubout", "-out", c.PKI / "sa.pub")
    for name, subject, names in _CERTIFICATES:
        _issue(name, subject, names)
        if name != "apiserver":
            kubeconfig_path(name).write_text(_kubeconfig(name))


def kubeconfig_path(name: str) -> Path:
    return c.STATE / f"{name}.kubeconfig"


def _ca() -> None:
    output(
        *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "3650"),
        *("-subj", "/CN=tidegate-e2e", "-keyout", c.PKI / "ca.key", "-out", c.PKI / "ca.crt"),
    )


def _issue(name: str, subject: str, names: str) -> None:
    key, request, certificate = (c.PKI / f"{name}.{kind}" for kind in ("key", "csr", "crt"))
    output(
        *("openssl", "req", "-newkey", "rsa:2048", "-nodes", "-subj", subject),
        *("-keyout", key, "-out", request),
    )
    with tempfile.NamedTemporaryFile("w") as extensions:
        extensions.write(f"subjectAltName={names}\nextendedKeyUsage=serverAuth,clientAuth\n")
        extensions.flush()
        output(
            *("openssl", "x509", "-req", "-in", request, "-days", "3650", "-CAcreateserial"),
            *("-CA", c.PKI / "ca.crt", "-CAkey", c.PKI / "ca.key"),
            *("-extfile", extensions.name, "-out", certificate),
        )


def _kubeconfig(name: str) -> str:
    return f"""apiVersion: v1
kind: Config
clusters:
- name: e2e
  cluster: {{server: "{c.API_URL}", certificate-authority: "{c.PKI}/ca.crt"}}
users:
- name: {name}
  user: {{client-certificate: "{c.PKI}/{name}.crt", client-key: "{c.PKI}/{name}.key"}}
contexts:
- name: e2e
  context: {{cluster: e2e, user: {name}}}
current-context: e2e
"""
