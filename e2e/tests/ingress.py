"""Ingresses: classes, path types, TLS and the default backend."""

from e2e.lib import certificates, http
from e2e.lib.manifests import CLASS, ingress, ingress_path
from e2e.lib.wait import stays, wait_for

ORDER = 11


def _host(t, name: str) -> str:
    """Every Ingress shares one address, so each test has hosts of its own."""
    return f"{name}.{t.namespace}.example"


def test_the_class_of_the_field_and_of_the_annotation_both_count(t):
    t.backend()
    address = t.ingress_address()
    field, annotation, foreign = (_host(t, name) for name in ("field", "annotation", "foreign"))
    t.apply(
        ingress("field", field, [ingress_path("/")]),
        ingress("annotation", annotation, [ingress_path("/")], ingress_class=None,
                annotations={"kubernetes.io/ingress.class": CLASS}),
        ingress("foreign", foreign, [ingress_path("/")], ingress_class="another"),
    )
    assert http.get_when(address, field).service == "echo"
    assert http.get_when(address, annotation).service == "echo"
    assert http.get(address, foreign).status == 404


def test_exact_and_prefix_paths_match_as_the_api_says(t):
    for name in ("one", "two"):
        t.backend(name)
    address, host = t.ingress_address(), _host(t, "paths")
    t.apply(ingress("paths", host, [
        ingress_path("/prefix", "one"),
        ingress_path("/prefix/exact", "two", "Exact"),
    ]))
    http.get_when(address, host, "/prefix")
    expected = {"/prefix/": "one", "/prefix/x": "one", "/prefix/exact": "two",
                "/prefix/exact/": "one"}
    found = {path: http.get(address, host, path).service for path in expected}
    assert found == expected, found
    assert http.get(address, host, "/prefixed").status == 404
    assert http.get(address, host, "/").status == 404


def test_a_wildcard_host_covers_one_label(t):
    t.backend()
    address = t.ingress_address()
    t.apply(ingress("wild", f"*.{_host(t, 'wild')}", [ingress_path("/")]))
    http.get_when(address, f"a.{_host(t, 'wild')}")
    assert http.get(address, f"a.b.{_host(t, 'wild')}").status == 404


def test_tls_serves_the_certificate_of_the_secret(t):
    t.backend()
    host = _host(t, "tls")
    certificate, key = certificates.self_signed(host)
    t.apply(certificates.secret("cert", certificate, key),
            ingress("tls", host, [ingress_path("/")],
                    tls=[{"hosts": [host], "secretName": "cert"}]))
    answer = http.get_when(t.ingress_address(443), host, sni=host, ca=certificate,
                           headers={"X-Forwarded-Proto": "forged"})
    assert answer.json()["headers"]["X-Forwarded-Proto"] == ["https"]


def test_the_default_backend_gets_what_no_rule_takes(t):
    for name in ("echo", "fallback"):
        t.backend(name)
    address, host = t.ingress_address(), _host(t, "default")
    with_default = ingress("default", host, [ingress_path("/known")])
    with_default["spec"]["defaultBackend"] = {
        "service": {"name": "fallback", "port": {"number": 80}}}
    t.apply(with_default)
    assert http.get_when(address, host, "/known").service == "echo"
    assert http.get_when(address, f"nobody.{host}", "/").service == "fallback"
    # It takes every host: the tests after this one must not meet it.
    t.delete("ingress", "default")
    http.get_when(address, f"nobody.{host}", status=404)


def test_the_status_names_the_address_of_the_service(t):
    t.backend()
    address, host = t.ingress_address(), _host(t, "status")
    t.apply(ingress("status", host, [ingress_path("/")]))

    def given():
        status = t.get("ingress", "status")["status"].get("loadBalancer", {})
        return [entry.get("ip") for entry in status.get("ingress", [])] == [address[0]]

    wait_for(given, 15, "the Ingress has the address of the service tidegate")


def test_an_ingress_that_changes_its_class_is_no_longer_served(t):
    t.backend()
    address, host = t.ingress_address(), _host(t, "leaves")
    t.apply(ingress("leaves", host, [ingress_path("/")]))
    http.get_when(address, host)
    t.apply(ingress("leaves", host, [ingress_path("/")], ingress_class="another"))
    http.get_when(address, host, status=404)
    stays(lambda: http.get(address, host).status == 404, 1, "404")
