//! Ingress v1.

use super::*;

fn ingress(name: &str, namespace: &str, spec: &str) -> String {
    format!(
        "
kind: Ingress
metadata: {{name: {name}, namespace: {namespace}, annotations: {{}}}}
spec:
  ingressClassName: tidegate
{spec}"
    )
}

fn to(service: &str) -> String {
    format!("backend: {{service: {{name: {service}, port: {{number: 8080}}}}}}")
}

fn one(host: &str, path: &str, path_type: &str) -> String {
    let host = if host.is_empty() { String::new() } else { format!("host: '{host}', ") };
    format!(
        "  rules: [{{{host}http: {{paths: [{{path: {path}, pathType: {path_type}, {}}}]}}}}]",
        to("app")
    )
}

#[test]
fn path_types_match_as_the_ingress_api_says() {
    for (path, path_type, hits, misses) in [
        ("/a", "Exact", &["/a"][..], &["/a/", "/a/b", "/"][..]),
        ("/a", "Prefix", &["/a", "/a/", "/a/b"], &["/ab", "/"]),
        ("/a/", "Prefix", &["/a", "/a/b"], &["/ab"]),
        ("/", "Prefix", &["/", "/x"], &[]),
        ("/a", "ImplementationSpecific", &["/a/b"], &["/ab"]),
    ] {
        let graph =
            translate(&world(&[SERVICE, &ingress("i", "infra", &one("", path, path_type))])).graph;
        for hit in hits {
            assert_eq!(outcome(&graph, 80, "h", hit), "app*1", "{path} {path_type} {hit}");
        }
        for miss in misses {
            assert_eq!(outcome(&graph, 80, "h", miss), "NoRoute", "{path} {path_type} {miss}");
        }
    }
}

#[test]
fn a_wildcard_host_stands_for_exactly_one_label() {
    let graph =
        translate(&world(&[SERVICE, &ingress("i", "infra", &one("*.foo.com", "/", "Prefix"))]))
            .graph;
    assert_eq!(outcome(&graph, 80, "bar.foo.com", "/"), "app*1");
    assert_eq!(outcome(&graph, 80, "baz.bar.foo.com", "/"), "NoRoute");
    assert_eq!(outcome(&graph, 80, "foo.com", "/"), "NoRoute");
}

#[test]
fn the_class_comes_by_field_by_annotation_or_by_default() {
    let class = |controller: &str, default: &str| {
        format!(
            "
kind: IngressClass
metadata: {{name: tidegate, annotations: {{ingressclass.kubernetes.io/is-default-class: '{default}'}}}}
spec: {{controller: {controller}}}"
        )
    };
    let ours = "tidegate.dev/ingress-controller";
    let by_field = ingress("i", "infra", &one("", "/", "Prefix"));
    let none = by_field.replace("  ingressClassName: tidegate\n", "");
    let annotated = |class: &str| {
        none.replace(
            "annotations: {}",
            &format!("annotations: {{kubernetes.io/ingress.class: {class}}}"),
        )
    };
    for (class, ingress, served) in [
        (class(ours, "false"), by_field.clone(), true),
        (class("example.com/other", "true"), by_field.clone(), false),
        (class(ours, "true"), none.clone(), true),
        (class(ours, "false"), none.clone(), false),
        (class(ours, "true"), annotated("nginx"), false),
        (class("example.com/other", "true"), annotated("tidegate"), true),
    ] {
        let graph = translate(&world(&[&class, SERVICE, &ingress])).graph;
        assert_eq!(graph.listeners.contains_key(&80), served, "{class} {ingress}");
    }
}

#[test]
fn the_default_backend_comes_last() {
    let default = ingress(
        "a-default",
        "infra",
        "  defaultBackend: {service: {name: gone, port: {number: 1}}}",
    );
    let all = ingress("z-all", "infra", &one("", "/", "Prefix"));
    let host = ingress("host", "infra", &one("a.example", "/x", "Prefix"));
    let graph = translate(&world(&[SERVICE, &default, &host])).graph;
    assert_eq!(outcome(&graph, 80, "a.example", "/x"), "app*1");
    assert_eq!(outcome(&graph, 80, "a.example", "/y"), "BackendNotFound*1");
    let graph = translate(&world(&[SERVICE, &default, &all])).graph;
    assert_eq!(outcome(&graph, 80, "b.example", "/"), "app*1");
}

#[test]
fn ingresses_of_one_namespace_share_a_host_and_the_older_wins_a_path() {
    let service = SERVICE
        .replace("name: app,", "name: other,")
        .replace("service-name: app", "service-name: other")
        .replace("app-1", "other-1");
    let aged = |text: String, day: u8| {
        text.replace("annotations: {}", &format!("creationTimestamp: '2026-01-0{day}T00:00:00Z'"))
    };
    let a = aged(ingress("z", "infra", &one("a.example", "/x", "Prefix")), 1);
    let b = aged(
        ingress("b", "infra", &one("a.example", "/x", "Prefix"))
            .replace("name: app,", "name: other,"),
        2,
    );
    let c = aged(
        ingress("c", "infra", &one("a.example", "/x/y", "Prefix"))
            .replace("name: app,", "name: other,"),
        3,
    );
    let graph = translate(&world(&[SERVICE, &service, &a, &b, &c])).graph;
    assert_eq!(outcome(&graph, 80, "a.example", "/x"), "app*1");
    assert_eq!(outcome(&graph, 80, "a.example", "/x/y"), "other*1");
}

#[test]
fn a_host_belongs_to_the_namespace_of_its_oldest_ingress() {
    let thief = ingress("thief", "other", &one("a.example", "/admin", "Prefix"))
        .replace("annotations: {}", "creationTimestamp: '2026-01-02T00:00:00Z'");
    let owner = ingress("owner", "infra", &one("a.example", "/", "Prefix"))
        .replace("annotations: {}", "creationTimestamp: '2026-01-01T00:00:00Z'");
    let translation = translate(&world(&[SERVICE, &thief, &owner]));
    assert_eq!(outcome(&translation.graph, 80, "a.example", "/admin"), "app*1");
    assert_eq!(notes(&translation, "thief"), ["HostConflict spec.rules[0].host"]);
}

#[test]
fn tls_hosts_show_the_certificate_of_their_secret() {
    use crate::graph::Protocol;
    let spec = format!(
        "{}\n  tls: [{{hosts: [a.example], secretName: cert}}]",
        one("a.example", "/", "Prefix")
    );
    let mut snapshot = world(&[SERVICE, &ingress("i", "infra", &spec)]);
    assert!(!translate(&snapshot).graph.listeners.contains_key(&443), "nothing to show yet");
    put(&mut snapshot, secret("cert", "infra", &["a.example"]));
    let translation = translate(&snapshot);
    let Protocol::Tls(tls) = &translation.graph.listeners[&443].protocol else { panic!() };
    assert!(tls.certificates.get_exact("a.example").is_some());
    assert_eq!(outcome(&translation.graph, 443, "a.example", "/"), "app*1");
    assert_eq!(outcome(&translation.graph, 80, "a.example", "/"), "app*1", "no redirect unasked");
    assert_eq!(translation.good_certificates, [Key::new("infra", "cert")]);
}

#[test]
fn a_secret_of_another_tenant_cannot_be_shown_for_a_host_that_is_owned() {
    let owner = ingress(
        "owner",
        "infra",
        &format!(
            "{}\n  tls: [{{hosts: [a.example], secretName: cert}}]",
            one("a.example", "/", "Prefix")
        ),
    )
    .replace("annotations: {}", "creationTimestamp: '2026-01-01T00:00:00Z'");
    let thief = ingress("thief", "other", "  tls: [{hosts: [a.example], secretName: mine}]")
        .replace("annotations: {}", "creationTimestamp: '2026-01-02T00:00:00Z'");
    let mut snapshot = world(&[SERVICE, &thief, &owner]);
    put(&mut snapshot, secret("cert", "infra", &["a.example"]));
    put(&mut snapshot, secret("mine", "other", &["a.example"]));
    let translation = translate(&snapshot);
    assert_eq!(notes(&translation, "thief"), ["HostConflict spec.tls[0].hosts[0]"]);
}

#[test]
fn ssl_redirect_answers_on_the_clear_port_only() {
    let spec = format!(
        "{}\n  tls: [{{hosts: [a.example], secretName: cert}}]",
        one("a.example", "/", "Prefix")
    );
    let text = ingress("i", "infra", &spec)
        .replace("annotations: {}", "annotations: {tidegate.dev/ssl-redirect: 'true'}");
    let mut snapshot = world(&[SERVICE, &text]);
    put(&mut snapshot, secret("cert", "infra", &["a.example"]));
    let graph = translate(&snapshot).graph;
    let clear = find(&graph, 80, "a.example", "/").unwrap();
    assert_eq!(policies(&graph, clear), ["redirect"]);
    assert_eq!(outcome(&graph, 443, "a.example", "/"), "app*1");
}

#[test]
fn annotations_attach_policies_and_the_protocol() {
    let middleware = "
kind: Middleware
metadata: {name: m, namespace: infra}
spec: {ipAccess: {deny: [10.0.0.0/8]}, requestHeaders: {remove: [a]}}";
    let limit = "
kind: RateLimit
metadata: {name: slow, namespace: infra}
spec: {limits: [{name: a, requests: 5, window: 1s}]}";
    let annotations = "annotations: {tidegate.dev/middlewares: 'm', tidegate.dev/rate-limits: slow, tidegate.dev/backend-protocol: H2C}";
    let text =
        ingress("i", "infra", &one("", "/", "Prefix")).replace("annotations: {}", annotations);
    let translation = translate(&world(&[SERVICE, middleware, limit, &text]));
    let graph = &translation.graph;
    let rule = find(graph, 80, "h", "/").unwrap();
    assert_eq!(policies(graph, rule), ["ip_access", "rate_limit", "request_headers"]);
    assert_eq!(graph.backends[0].key.protocol, "h2c");
    let status = written(&translation, ObjectKind::Middleware, "m").unwrap();
    assert_eq!(status["ancestors"][0]["ancestorRef"]["kind"], "Ingress");
}

#[test]
fn an_annotation_that_cannot_be_followed_closes_the_ingress() {
    for (annotation, reason) in [
        ("tidegate.dev/middlewares: gone", "InvalidPolicy"),
        ("tidegate.dev/backend-protocol: FTP", "UnsupportedValue"),
    ] {
        let text = ingress("i", "infra", &one("", "/", "Prefix"))
            .replace("annotations: {}", &format!("annotations: {{{annotation}}}"));
        let translation = translate(&world(&[SERVICE, &text]));
        assert_eq!(outcome(&translation.graph, 80, "h", "/"), reason);
        assert_eq!(notes(&translation, "i").len(), 1);
    }
}

#[test]
fn a_misspelt_annotation_is_told() {
    let text = ingress("i", "infra", &one("", "/", "Prefix"))
        .replace("annotations: {}", "annotations: {tidegate.dev/middleware: m}");
    let translation = translate(&world(&[SERVICE, &text]));
    assert_eq!(
        notes(&translation, "i"),
        ["UnsupportedValue metadata.annotations[tidegate.dev/middleware]"]
    );
    assert_eq!(outcome(&translation.graph, 80, "h", "/"), "app*1");
}

#[test]
fn the_status_has_the_addresses_of_our_own_service() {
    let own = "
kind: Service
metadata: {name: tidegate, namespace: tidegate}
spec: {type: LoadBalancer}
status: {loadBalancer: {ingress: [{ip: 192.0.2.5}]}}";
    let class = "
kind: IngressClass
metadata: {name: tidegate}
spec: {controller: tidegate.dev/ingress-controller}";
    let mut snapshot =
        cluster(&[own, class, SERVICE, &ingress("i", "infra", &one("", "/", "Prefix"))]);
    let translation = translate(&snapshot);
    let status = written(&translation, ObjectKind::Ingress, "i").unwrap();
    assert_eq!(status["loadBalancer"]["ingress"][0]["ip"], "192.0.2.5");
    assert_eq!(translation.graph.listeners[&8080].public_port, 80);
    apply(&mut snapshot, &translation);
    assert_eq!(translate(&snapshot).statuses, []);
}

#[test]
fn a_gateway_stands_before_ingress_on_a_port_they_share() {
    let gateway = GATEWAY.replace("port: 80,", "port: 80, hostname: a.example,");
    let route = route(
        "r",
        "  rules: [{matches: [{path: {value: /gw}}], backendRefs: [{name: gone, port: 1}]}]",
    );
    let all = ingress("i", "infra", &one("", "/", "Prefix"));
    let graph = translate(&world(&[&gateway, SERVICE, &route, &all])).graph;
    assert_eq!(outcome(&graph, 80, "a.example", "/gw"), "BackendNotFound*1");
    assert_eq!(outcome(&graph, 80, "b.example", "/gw"), "app*1");
}
