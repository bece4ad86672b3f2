"""Ingress v1, sentence by sentence: hosts, paths, backends, TLS and classes.

The sentences are those of the API's own documentation (k8s.io/api, networking/v1, and the
page "Ingress" of the Kubernetes manual); each has its cases here or in `ingress`.
"""

import uuid
from dataclasses import dataclass

from e2e.lib import certificates, http, kube, manifests
from e2e.lib.manifests import CLASS, ingress, ingress_path
from e2e.lib.wait import wait_for

ORDER = 11

_BACKENDS = ("one", "two", "three")


@dataclass
class Paths:
    """Paths of one host, in the order listed, and where requests have to go: None is 404.

    The first path leads to the backend `one`, the second to `two`, the third to `three`.
    """

    sentence: str
    paths: list[tuple[str, str]]  # pathType, path
    expected: dict[str, str | None]


_PATHS = [
    Paths("Prefix / matches every path", [("Prefix", "/")],
          {"/": "one", "/a": "one", "/a/b": "one", "/a?q=/b": "one"}),
    Paths("Exact matches the URL path exactly", [("Exact", "/foo")],
          {"/foo": "one", "/bar": None, "/foo/": None, "/foo/bar": None, "/": None}),
    Paths("an Exact path with a slash at its end is another path", [("Exact", "/foo/")],
          {"/foo/": "one", "/foo": None}),
    Paths("Exact is case-sensitive", [("Exact", "/foo")], {"/Foo": None, "/FOO": None}),
    Paths("the path ends where the query begins", [("Exact", "/foo")],
          {"/foo?a=1": "one", "/foo?/bar": "one"}),
    Paths("Prefix /foo matches /foo and /foo/", [("Prefix", "/foo")],
          {"/foo": "one", "/foo/": "one", "/foo/bar": "one", "/": None}),
    Paths("Prefix /foo/ matches /foo and /foo/: the slash at the end is ignored",
          [("Prefix", "/foo/")], {"/foo": "one", "/foo/": "one", "/foo/bar": "one"}),
    Paths("Prefix is matched element by element", [("Prefix", "/aaa/bb")],
          {"/aaa/bbb": None, "/aaa/bb": "one", "/aaa/bb/b": "one", "/aaa": None}),
    Paths("a last element that is a substring of the request's is no match",
          [("Prefix", "/foo/bar")],
          {"/foo/barbaz": None, "/foo/bar": "one", "/foo/bar/baz": "one"}),
    Paths("Prefix with a slash at its end is matched element by element too",
          [("Prefix", "/aaa/bbb/")],
          {"/aaa/bbb": "one", "/aaa/bbb/": "one", "/aaa/bbb/ccc": "one", "/aaa/bbbxyz": None}),
    Paths("Prefix is case-sensitive", [("Prefix", "/foo")], {"/Foo/bar": None}),
    Paths("the longest matching path has priority, whatever the order",
          [("Prefix", "/"), ("Prefix", "/aaa/bbb"), ("Prefix", "/aaa")],
          {"/aaa/bbb": "two", "/aaa/bbb/ccc": "two", "/aaa/ccc": "three", "/aaa": "three",
           "/ccc": "one", "/aaab": "one"}),
    Paths("if /foo and /foo/ are both there, the longer one (/foo/) has priority",
          [("Prefix", "/foo"), ("Prefix", "/foo/")],
          {"/foo": "two", "/foo/": "two", "/foo/bar": "two"}),
    Paths("of equal paths Exact goes before Prefix", [("Prefix", "/foo"), ("Exact", "/foo")],
          {"/foo": "two", "/foo/": "one", "/foo/bar": "one"}),
    Paths("Exact goes before Prefix in the other order as well",
          [("Exact", "/foo"), ("Prefix", "/foo")], {"/foo": "one", "/foo/": "two"}),
    Paths("a longer Prefix goes before a shorter Exact only where it matches",
          [("Exact", "/foo"), ("Prefix", "/foo/bar")],
          {"/foo": "one", "/foo/bar": "two", "/foo/baz": None}),
    Paths("ImplementationSpecific is treated like Prefix", [("ImplementationSpecific", "/foo")],
          {"/foo": "one", "/foo/bar": "one", "/foobar": None}),
    Paths("all three path types work next to each other",
          [("ImplementationSpecific", "/a"), ("Exact", "/a/b"), ("Prefix", "/a/b/c")],
          {"/a": "one", "/a/b": "two", "/a/b/c": "three", "/a/b/d": "one"}),
    Paths("characters that are not of a URL's path may be escaped in requests",
          [("Prefix", "/a b")], {"/a%20b": "one", "/a%20b/c": "one", "/a": None}),
]


def _host(t, name: str) -> str:
    return f"{name}.{t.namespace}.example"


def _backends(t, *names: str) -> None:
    t.apply(*(one for name in names for one in manifests.echo(name)))
    for name in names:
        kube.wait_available(t.namespace, name)


def _where(address, host: str, path: str = "/", **options) -> str | None:
    answer = http.get(address, host, path, **options)
    assert answer.status in (200, 404), f"{host}{path}: {answer.status}"
    return answer.service if answer.status == 200 else None


def test_paths(t):
    _backends(t, *_BACKENDS)
    address = t.ingress_address()
    for number, case in enumerate(_PATHS):
        paths = [ingress_path(path, backend, kind)
                 for (kind, path), backend in zip(case.paths, _BACKENDS, strict=False)]
        t.apply(ingress(f"case-{number}", _host(t, f"case-{number}"), paths))
    t.apply(ingress("last", _host(t, "last"), [ingress_path("/", "one")]))
    http.get_when(address, _host(t, "last"))
    wrong = []
    for number, case in enumerate(_PATHS):
        for path, backend in case.expected.items():
            found = _where(address, _host(t, f"case-{number}"), path)
            if found != backend:
                wrong.append(f"{case.sentence}: {path} goes to {found}, not to {backend}")
    assert not wrong, "; ".join(wrong)


def test_hosts(t):
    _backends(t, *_BACKENDS)
    address = t.ingress_address()
    foo = _host(t, "foo")
    t.apply(ingress("precise", foo, [ingress_path("/", "one")]),
            ingress("wildcard", f"*.{foo}", [ingress_path("/", "two")]),
            ingress("inner", f"precise.{foo}", [ingress_path("/", "three")]))
    http.get_when(address, f"precise.{foo}")
    expected = {
        foo: "one",  # precise: the Host header is equal to it
        foo.upper(): "one",  # names of hosts have no case
        f"{foo}:80": "one",  # ports are no part of a rule
        f"bar.{foo}": "two",  # the wildcard is one label
        f"baz.bar.{foo}": None,  # not two
        f"precise.{foo}": "three",  # the precise one goes before the wildcard
        f"x{foo}": None,
        "127.0.0.1": None,
    }
    found = {host: _where(address, host) for host in expected}
    assert found == expected, found


def test_a_host_is_matched_before_its_paths(t):
    """A short path of the precise host goes before a long one of the wildcard, which has what
    is left: its host matches the request as well."""
    _backends(t, "one", "two")
    address = t.ingress_address()
    foo = _host(t, "foo")
    t.apply(ingress("precise", f"a.{foo}", [ingress_path("/only", "one")]),
            ingress("wildcard", f"*.{foo}", [ingress_path("/", "two"),
                                             ingress_path("/only/long", "two", "Exact")]))
    http.get_when(address, f"b.{foo}")
    found = {path: _where(address, f"a.{foo}", path) for path in ("/only", "/only/long", "/other")}
    assert found == {"/only": "one", "/only/long": "one", "/other": "two"}, found


def test_a_rule_without_host_takes_all_traffic_that_no_host_takes(t):
    _backends(t, "one", "two")
    address = t.ingress_address()
    named = _host(t, "named")
    t.apply(ingress("named", named, [ingress_path("/", "one")]),
            ingress("every", None, [ingress_path("/every", "two")]))
    http.get_when(address, _host(t, "any"), "/every")
    assert _where(address, named, "/every") == "one"
    assert _where(address, _host(t, "any"), "/other") is None
    t.delete("ingress", "every")  # it takes every host: the next test must not meet it
    http.get_when(address, _host(t, "any"), "/every", status=404)


def _refused(t, change) -> str:
    one = ingress("refused", _host(t, "refused"), [ingress_path("/")])
    change(one["spec"])
    return kube.refused(one, t.namespace)


def test_the_api_server_refuses_what_the_specification_forbids(t):
    """Tidegate never sees these; that this is so is worth knowing when it reads them."""

    def rule(**parts):
        return lambda spec: spec["rules"][0].update(parts)

    def path(**parts):
        return lambda spec: spec["rules"][0]["http"]["paths"][0].update(parts)

    for host in ("10.0.0.1", "a.example:80", "*", "foo.*.example", "**.example", "a.example."):
        assert "host" in _refused(t, rule(host=host)), host
    assert "path" in _refused(t, path(path="foo")), "a path begins with a slash"
    assert "path" in _refused(t, path(path="")), "Prefix needs a path"
    assert "pathType" in _refused(t, path(pathType=None)), "pathType is required"
    assert "pathType" in _refused(t, path(pathType="Regex")), "three path types there are"
    both = {"service": {"name": "a", "port": {"number": 80}},
            "resource": {"kind": "Bucket", "name": "b"}}
    assert "backend" in _refused(t, path(backend=both)), "a Service or a resource"
    neither = {"service": {"name": "a", "port": {"number": 80, "name": "http"}}}
    assert "port" in _refused(t, path(backend=neither)), "a number or a name"
    assert "spec" in _refused(t, lambda spec: spec.pop("rules")), "rules or a default backend"


def _default(t, name: str, backend: str, **parts) -> None:
    t.apply({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": name},
             "spec": {"ingressClassName": CLASS, **parts, "defaultBackend": {
                 "service": {"name": backend, "port": {"number": 80}}}}})


def test_the_default_backend_gets_what_matches_no_host_or_no_path(t):
    _backends(t, "one", "two")
    address = t.ingress_address()
    known, other = _host(t, "known"), _host(t, "other")
    t.apply(ingress("other", other, [ingress_path("/only", "one")]))
    rules = ingress("x", known, [ingress_path("/only", "one")])["spec"]["rules"]
    _default(t, "default", "two", rules=rules)
    http.get_when(address, _host(t, "nobody"))
    try:
        found = {(host, path): _where(address, host, path)
                 for host in (known, other, _host(t, "nobody")) for path in ("/only", "/else")}
        expected = {(known, "/only"): "one", (known, "/else"): "two",
                    (other, "/only"): "one", (other, "/else"): "two",
                    (_host(t, "nobody"), "/only"): "two", (_host(t, "nobody"), "/else"): "two"}
        assert found == expected, found
    finally:
        t.delete("ingress", "default")
        http.get_when(address, _host(t, "nobody"), status=404)


def test_an_ingress_without_rules_sends_all_traffic_to_its_default_backend(t):
    _backends(t, "one")
    address = t.ingress_address()
    _default(t, "default", "one")
    try:
        assert http.get_when(address, _host(t, "any"), "/any").service == "one"
    finally:
        t.delete("ingress", "default")
        http.get_when(address, _host(t, "any"), status=404)


def test_a_rule_without_paths_leaves_its_host_to_the_default_backend(t):
    _backends(t, "one")
    address = t.ingress_address()
    host = _host(t, "bare")
    _default(t, "default", "one", rules=[{"host": host}])
    try:
        assert http.get_when(address, host, "/any").service == "one"
    finally:
        t.delete("ingress", "default")
        http.get_when(address, host, status=404)


def test_a_service_port_is_named_by_its_number_or_its_name(t):
    _backends(t, "one")
    address = t.ingress_address()
    by_name = ingress_path("/name", "one")
    by_name["backend"]["service"]["port"] = {"name": "http"}
    missing = ingress_path("/missing", "one")
    missing["backend"]["service"]["port"] = {"name": "nothing"}
    host = _host(t, "ports")
    t.apply(ingress("ports", host, [ingress_path("/number", "one"), by_name, missing]))
    assert http.get_when(address, host, "/number").service == "one"
    assert http.get_when(address, host, "/name").service == "one"
    http.get_when(address, host, "/missing", status=500)


def _warned(t, name: str, words: str) -> None:
    def warned():
        return any(event["type"] == "Warning" and words in event["message"]
                   for event in kube.events(t.namespace, name))

    wait_for(warned, 15, f"a Warning event about {name} says {words}")


def test_a_backend_that_cannot_be_is_named_and_leaves_the_others_alone(t):
    """The Service must be in the Ingress's own namespace; Tidegate has no resource backends."""
    _backends(t, "one")
    other = t.other_namespace()
    kube.apply(manifests.echo("far"), other)
    address = t.ingress_address()
    resource = ingress_path("/resource")
    resource["backend"] = {"resource": {"apiGroup": "x.example", "kind": "Bucket", "name": "b"}}
    host = _host(t, "bad")
    t.apply(ingress("bad", host, [ingress_path("/good", "one"), ingress_path("/far", "far"),
                                  resource]))
    http.get_when(address, host, "/good")
    for path in ("/far", "/resource"):
        assert http.get(address, host, path).status in (500, 503), path
    _warned(t, "bad", "far")
    _warned(t, "bad", "resource")


def test_several_ingresses_share_a_host(t):
    _backends(t, *_BACKENDS)
    address = t.ingress_address()
    host = _host(t, "shared")
    t.apply(ingress("first", host, [ingress_path("/a", "one"), ingress_path("/same", "one")]))
    http.get_when(address, host, "/same")
    t.apply(ingress("second", host, [ingress_path("/b", "two"), ingress_path("/same", "two"),
                                     ingress_path("/a/deeper", "three")]))
    http.get_when(address, host, "/b")
    found = {path: _where(address, host, path)
             for path in ("/a", "/a/deeper", "/b", "/same", "/c")}
    # Of two equal paths that of the older Ingress is served.
    assert found == {"/a": "one", "/a/deeper": "three", "/b": "two", "/same": "one", "/c": None}
    t.delete("ingress", "first")
    http.get_when(address, host, "/a", status=404)
    assert http.get_when(address, host, "/same").service == "two"


def test_another_namespace_does_not_get_a_host_that_is_taken(t):
    _backends(t, "one")
    address = t.ingress_address()
    host = _host(t, "taken")
    t.apply(ingress("owner", host, [ingress_path("/", "one")]))
    http.get_when(address, host)
    other = t.other_namespace()
    kube.apply([*manifests.echo("thief"), ingress("thief", host, [ingress_path("/x", "thief")])],
               other)
    kube.wait_available(other, "thief")

    def warned():
        return [event for event in kube.events(other, "thief") if event["type"] == "Warning"]

    wait_for(warned, 15, "the later Ingress is told")
    assert _where(address, host, "/x") == "one"


def _certified(t, *hosts: str) -> dict[str, str]:
    """A Secret for each host, named by its first label; the certificates by host."""
    found = {}
    for host in hosts:
        found[host], key = certificates.self_signed(host)
        t.apply(certificates.secret(host.partition(".")[0], found[host], key))
    return found


def test_the_server_name_chooses_between_the_members_of_tls(t):
    _backends(t, "one")
    hosts = [_host(t, name) for name in ("red", "blue")]
    certified = _certified(t, *hosts)
    both = ingress("both", hosts[0], [ingress_path("/", "one")],
                   tls=[{"hosts": [host], "secretName": host.partition(".")[0]} for host in hosts])
    both["spec"]["rules"].append({**both["spec"]["rules"][0], "host": hosts[1]})
    t.apply(both)
    address = t.ingress_address(443)
    for host in hosts:
        assert http.get_when(address, host, sni=host, ca=certified[host]).service == "one"


def test_the_server_name_is_for_the_certificate_and_the_host_for_the_route(t):
    _backends(t, "one", "two")
    hosts = [_host(t, name) for name in ("sni", "route")]
    certified = _certified(t, *hosts)
    for host, backend in zip(hosts, ("one", "two"), strict=True):
        t.apply(ingress(backend, host, [ingress_path("/", backend)],
                        tls=[{"hosts": [host], "secretName": host.partition(".")[0]}]))
    address = t.ingress_address(443)
    for host in hosts:
        http.get_when(address, host, sni=host, ca=certified[host])
    assert _where(address, hosts[1], sni=hosts[0], ca=certified[hosts[0]]) == "two"


def test_tls_without_hosts_covers_the_hosts_of_its_certificate(t):
    _backends(t, "one")
    host = _host(t, "implied")
    certified = _certified(t, host)
    t.apply(ingress("implied", host, [ingress_path("/", "one")], tls=[{"secretName": "implied"}]))
    answer = http.get_when(t.ingress_address(443), host, sni=host, ca=certified[host])
    assert answer.service == "one"


def test_tls_of_a_missing_secret_is_named_and_the_clear_port_still_serves(t):
    _backends(t, "one")
    host = _host(t, "nocert")
    t.apply(ingress("nocert", host, [ingress_path("/", "one")],
                    tls=[{"hosts": [host], "secretName": "nowhere"}]))
    assert http.get_when(t.ingress_address(), host).service == "one"
    _warned(t, "nocert", "nowhere")


class _Class:
    """An IngressClass while the `with` block runs."""

    def __init__(self, controller: str, default: bool = False):
        self.name = f"e2e-{uuid.uuid4().hex[:8]}"
        key = "ingressclass.kubernetes.io/is-default-class"
        self._manifest = {
            "apiVersion": "networking.k8s.io/v1", "kind": "IngressClass",
            "metadata": {"name": self.name, "annotations": {key: "true"} if default else {}},
            "spec": {"controller": controller}}

    def __enter__(self) -> "_Class":
        kube.apply(self._manifest)
        return self

    def __exit__(self, *_error) -> None:
        kube.delete(self._manifest)


_OURS = "tidegate.dev/ingress-controller"


def test_every_class_of_our_controller_is_served_and_no_other(t):
    _backends(t, "one")
    address = t.ingress_address()
    ours, theirs, nobodys = (_host(t, name) for name in ("ours", "theirs", "nobodys"))
    with _Class(_OURS) as mine, _Class("other.example/controller") as other:
        t.apply(ingress("theirs", theirs, [ingress_path("/", "one")], ingress_class=other.name),
                ingress("nobodys", nobodys, [ingress_path("/", "one")], ingress_class=None),
                ingress("ours", ours, [ingress_path("/", "one")], ingress_class=mine.name))
        assert http.get_when(address, ours).service == "one"
        assert _where(address, theirs) is None
        assert _where(address, nobodys) is None
    http.get_when(address, ours, status=404)  # its class is gone


def test_an_ingress_without_class_gets_the_default_class(t):
    _backends(t, "one")
    address = t.ingress_address()
    with _Class(_OURS, default=True) as one:
        def assigned():
            t.apply(ingress("plain", _host(t, "plain"), [ingress_path("/", "one")],
                            ingress_class=None))
            return t.get("ingress", "plain")["spec"].get("ingressClassName") == one.name

        def fresh():
            kube.kubectl("delete", "ingress", "plain", "--ignore-not-found", "--namespace",
                         t.namespace)
            return assigned()

        wait_for(fresh, 15, "the API server assigns the default class", every=0.5)
        assert http.get_when(address, _host(t, "plain")).service == "one"


def test_the_field_goes_before_the_annotation(t):
    """The API server refuses both in new objects; an older one may still have them."""
    one = ingress("both", _host(t, "both"), [ingress_path("/")],
                  annotations={"kubernetes.io/ingress.class": "other"})
    assert "annotation" in kube.refused(one, t.namespace)
