"""TLS to backends and client certificates: BackendTLSPolicy, ClusterTrustBundle, Gateway tls."""

import ssl
import uuid

from e2e.lib import certificates, http, kube, manifests
from e2e.lib.manifests import GATEWAY_API, https_listener, route_of
from e2e.lib.wait import wait_for

ORDER = 17

_HOST = "secure.example"  # of the backend's certificate
_SITE = "site.example"  # of the route


def _policy(reference: dict, host: str = _HOST, **validation) -> dict:
    return {"apiVersion": GATEWAY_API, "kind": "BackendTLSPolicy", "metadata": {"name": "tls"},
            "spec": {"targetRefs": [{"group": "", "kind": "Service", "name": "secure"}],
                     "validation": {"hostname": host, "caCertificateRefs": [reference],
                                    **validation}}}


def _config_map(name: str = "authority") -> dict:
    return {"group": "", "kind": "ConfigMap", "name": name}


def _bundle(name: str) -> dict:
    return {"group": "certificates.k8s.io", "kind": "ClusterTrustBundle", "name": name}


def _secure(t) -> tuple[tuple[str, int], tuple[str, str]]:
    """An HTTPS backend behind a route; the Gateway's address and the backend's authority."""
    authority = certificates.authority()
    t.apply(certificates.secret("backend", *certificates.issued(authority, _HOST)),
            *manifests.tls_echo("secure", "backend"))
    kube.wait_available(t.namespace, "secure")
    address = t.gateway()
    t.apply(route_of("HTTPRoute", "site", {"name": "secure", "port": 443}, hostnames=[_SITE]))
    return address, authority


class _ClusterBundle:
    """A ClusterTrustBundle while the `with` block runs: no namespace takes it away."""

    def __init__(self, certificate: str):
        self.name = f"e2e-{uuid.uuid4().hex[:8]}"
        self._manifest = certificates.bundle(self.name, certificate)

    def __enter__(self) -> "_ClusterBundle":
        kube.apply(self._manifest)
        return self

    def __exit__(self, *_error) -> None:
        kube.delete(self._manifest)

    def change(self, certificate: str) -> None:
        kube.apply(certificates.bundle(self.name, certificate))


def _reached(t, address) -> None:
    answer = http.get_when(address, _SITE)
    assert answer.json()["tls"]["serverName"] == _HOST, answer.json()


def test_a_backend_is_verified_by_the_authority_of_a_config_map(t):
    address, authority = _secure(t)
    t.apply(certificates.config_map("authority", authority[0]), _policy(_config_map()))
    _reached(t, address)
    t.condition("backendtlspolicy", "tls", "Accepted", "True", "Accepted")
    t.condition("backendtlspolicy", "tls", "ResolvedRefs", "True", "ResolvedRefs")


def test_a_backend_of_another_authority_or_name_is_not_spoken_to(t):
    address, authority = _secure(t)
    stranger = certificates.authority("stranger")
    t.apply(certificates.config_map("authority", stranger[0]), _policy(_config_map()))
    http.get_when(address, _SITE, status=502)
    t.apply(certificates.config_map("authority", authority[0]))
    _reached(t, address)
    t.apply(_policy(_config_map(), host="other.example"))
    http.get_when(address, _SITE, status=502)


def test_a_missing_authority_is_named_and_the_client_gets_an_error(t):
    address, _ = _secure(t)
    t.apply(_policy(_config_map("nowhere")))
    http.get_when(address, _SITE, status=500)
    t.condition("backendtlspolicy", "tls", "Accepted", "False", "NoValidCACertificate")
    found = t.condition("backendtlspolicy", "tls", "ResolvedRefs", "False",
                        "InvalidCACertificateRef")
    assert "nowhere" in found["message"], found


def test_a_backend_is_verified_by_a_cluster_trust_bundle(t):
    address, authority = _secure(t)
    with _ClusterBundle(authority[0]) as bundle:
        t.apply(_policy(_bundle(bundle.name)))
        _reached(t, address)
        t.condition("backendtlspolicy", "tls", "Accepted", "True", "Accepted")
        t.condition("backendtlspolicy", "tls", "ResolvedRefs", "True", "ResolvedRefs")


def test_a_change_of_a_cluster_trust_bundle_is_followed(t):
    address, authority = _secure(t)
    stranger = certificates.authority("stranger")
    with _ClusterBundle(stranger[0]) as bundle:
        t.apply(_policy(_bundle(bundle.name)))
        http.get_when(address, _SITE, status=502)
        bundle.change(stranger[0] + authority[0])
        _reached(t, address)


def test_a_missing_cluster_trust_bundle_is_named_until_it_is_there(t):
    address, authority = _secure(t)
    bundle = _ClusterBundle(authority[0])
    t.apply(_policy(_bundle(bundle.name)))
    http.get_when(address, _SITE, status=500)
    t.condition("backendtlspolicy", "tls", "Accepted", "False", "NoValidCACertificate")
    found = t.condition("backendtlspolicy", "tls", "ResolvedRefs", "False",
                        "InvalidCACertificateRef")
    assert bundle.name in found["message"], found
    with bundle:
        _reached(t, address)
        t.condition("backendtlspolicy", "tls", "Accepted", "True", "Accepted")


def _front(t, reference: dict, mode: str = "AllowValidOnly") -> tuple[tuple[str, int], str]:
    """An HTTPS Gateway that asks clients for a certificate; its address and certificate."""
    t.backend()
    certificate, key = certificates.self_signed(_SITE)
    t.apply(certificates.secret("cert", certificate, key))
    validation = {"caCertificateRefs": [reference], "mode": mode}
    t.gateway(listeners=[https_listener(_SITE, "cert")],
              tls={"frontend": {"default": {"validation": validation}}})
    t.apply(route_of("HTTPRoute", "site", {"name": "echo", "port": 80}, hostnames=[_SITE]))
    return t.gateway_address(port=443), certificate


def _refused(address, ca: str, identity=None) -> None:
    """Under TLS 1.3 a client learns of it only when it reads."""

    def refused():
        try:
            response = http.get(address, _SITE, sni=_SITE, ca=ca, identity=identity)
        except (ssl.SSLError, OSError):
            return True
        raise AssertionError(f"answered with {response.status}")

    wait_for(refused, 15, "the connection is refused")


def test_clients_are_verified_by_a_cluster_trust_bundle(t):
    ours, theirs = certificates.authority("ours"), certificates.authority("theirs")
    with _ClusterBundle(ours[0]) as bundle:
        address, ca = _front(t, _bundle(bundle.name))
        client = certificates.issued(ours, "client.example")
        answer = http.get_when(address, _SITE, sni=_SITE, ca=ca, identity=client)
        assert answer.service == "echo"
        _refused(address, ca)
        _refused(address, ca, certificates.issued(theirs, "client.example"))
        bundle.change(theirs[0])
        _refused(address, ca, client)


def test_insecure_fallback_lets_clients_without_certificate_in(t):
    authority = certificates.authority("ours")
    t.apply(certificates.config_map("authority", authority[0]))
    address, ca = _front(t, _config_map(), "AllowInsecureFallback")
    http.get_when(address, _SITE, sni=_SITE, ca=ca)
    client = certificates.issued(authority, "client.example")
    http.get_when(address, _SITE, sni=_SITE, ca=ca, identity=client)


def test_a_missing_cluster_trust_bundle_keeps_clients_out_and_is_named(t):
    name = f"e2e-{uuid.uuid4().hex[:8]}"
    t.backend()
    certificate, key = certificates.self_signed(_SITE)
    t.apply(certificates.secret("cert", certificate, key),
            manifests.gateway(listeners=[https_listener(_SITE, "cert")], tls={
                "frontend": {"default": {"validation": {"caCertificateRefs": [_bundle(name)]}}}}))

    def told():
        status = t.get("gateway", "gw").get("status", {})
        conditions = next(iter(status.get("listeners", [])), {}).get("conditions", [])
        found = kube.condition(conditions, "ResolvedRefs")
        assert (found.get("status"), found.get("reason")) == ("False", "InvalidCACertificateRef")
        assert name in found["message"], found
        return True

    wait_for(told, 15, "the listener says InvalidCACertificateRef")


def test_a_gateway_shows_its_client_certificate_to_backends(t):
    backends, gateways = certificates.authority("backends"), certificates.authority("gateways")
    t.apply(certificates.secret("backend", *certificates.issued(backends, _HOST)),
            certificates.secret("identity", *certificates.issued(gateways, "gateway.example")),
            certificates.config_map("gateways", gateways[0]),
            certificates.config_map("authority", backends[0]),
            *manifests.tls_echo("secure", "backend", "gateways"), _policy(_config_map()))
    kube.wait_available(t.namespace, "secure")
    address = t.gateway(tls={"backend": {"clientCertificateRef": {"name": "identity"}}})
    t.apply(route_of("HTTPRoute", "site", {"name": "secure", "port": 443}, hostnames=[_SITE]))
    shown = http.get_when(address, _SITE).json()["tls"].get("peerCertificates")
    assert shown, "the backend saw no certificate"
