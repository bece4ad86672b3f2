//! Gateways and their listeners.

use super::*;

fn https(name: &str, hostname: &str, secret: &str) -> String {
    format!(
        "  - {{name: {name}, port: 443, protocol: HTTPS, hostname: '{hostname}', \
         tls: {{certificateRefs: [{{name: {secret}}}]}}}}\n"
    )
}

#[test]
fn a_gateway_is_programmed_once_its_ports_are_bound() {
    let mut snapshot = world(&[GATEWAY]);
    let translation = translate(&snapshot);
    assert_eq!(of_gateway(&translation, "gw", "Accepted"), "True/Accepted");
    assert_eq!(of_gateway(&translation, "gw", "Programmed"), "True/Programmed");
    assert_eq!(of_listener(&translation, "http", "Programmed"), "True/Programmed");
    assert_eq!(of_listener(&translation, "http", "Conflicted"), "False/NoConflicts");
    snapshot.listening = Arc::default();
    let translation = translate(&snapshot);
    assert_eq!(of_gateway(&translation, "gw", "Programmed"), "False/Pending");
    snapshot.listening = Arc::new([((Transport::Tcp, 80), Err("in use".to_owned()))].into());
    let translation = translate(&snapshot);
    let status = written(&translation, ObjectKind::Gateway, "gw").unwrap();
    assert!(status.to_string().contains("port 80 cannot be bound: in use"));
}

#[test]
fn gateways_of_other_controllers_are_left_alone() {
    let other = GATEWAY.replace("tidegate.dev/gateway-controller", "example.com/other");
    let translation = translate(&world(&[&other, SERVICE, &route("r", TO_APP)]));
    assert_eq!(translation.statuses, []);
    assert!(translation.graph.listeners.is_empty());
}

#[test]
fn the_class_lists_what_tidegate_can_do_in_order() {
    let translation = translate(&world(&[GATEWAY]));
    let status = written(&translation, ObjectKind::GatewayClass, "tidegate").unwrap();
    assert_eq!(condition(&status["conditions"], "Accepted"), "True/Accepted");
    let names: Vec<&str> = status["supportedFeatures"]
        .as_array()
        .unwrap()
        .iter()
        .map(|feature| feature["name"].as_str().unwrap())
        .collect();
    assert!(names.is_sorted() && names.contains(&"HTTPRoute"), "{names:?}");
}

#[test]
fn a_protocol_that_is_not_supported_refuses_that_listener_only() {
    let http = "  - {name: http, port: 80, protocol: HTTP}\n";
    let bad = "  - {name: bad, port: 1111, protocol: INVALID}\n";
    let translation = translate(&world(&[&gateway(bad)]));
    assert_eq!(of_gateway(&translation, "gw", "Accepted"), "False/ListenersNotValid");
    assert_eq!(of_listener(&translation, "bad", "Accepted"), "False/UnsupportedProtocol");
    assert_eq!(listener_status(&translation, "bad")["supportedKinds"], serde_json::json!([]));
    let translation = translate(&world(&[&gateway(&format!("{http}{bad}"))]));
    assert_eq!(of_gateway(&translation, "gw", "Accepted"), "True/ListenersNotValid");
    assert_eq!(of_gateway(&translation, "gw", "Programmed"), "True/Programmed");
    assert_eq!(of_listener(&translation, "http", "Accepted"), "True/Accepted");
}

#[test]
fn kinds_of_routes_that_are_not_known_do_not_resolve() {
    for (kinds, supported) in [("{kind: Strange}", 0), ("{kind: Strange}, {kind: HTTPRoute}", 1)] {
        let listener = format!(
            "  - {{name: http, port: 80, protocol: HTTP, allowedRoutes: {{kinds: [{kinds}]}}}}"
        );
        let translation = translate(&world(&[&gateway(&listener)]));
        assert_eq!(of_listener(&translation, "http", "ResolvedRefs"), "False/InvalidRouteKinds");
        let kinds = &listener_status(&translation, "http")["supportedKinds"];
        assert_eq!(kinds.as_array().unwrap().len(), supported);
    }
}

#[test]
fn listeners_that_cannot_be_told_apart_are_all_refused() {
    let translation = translate(&world(&[&gateway(
        "  - {name: a, port: 80, protocol: HTTP, hostname: x.example}
  - {name: b, port: 80, protocol: HTTP, hostname: X.example}
  - {name: c, port: 80, protocol: HTTP}
  - {name: d, port: 81, protocol: HTTP}
  - {name: e, port: 81, protocol: HTTPS}",
    )]));
    for (listener, expected) in [
        ("a", "True/HostnameConflict"),
        ("b", "True/HostnameConflict"),
        ("c", "False/NoConflicts"),
        ("d", "True/ProtocolConflict"),
        ("e", "True/ProtocolConflict"),
    ] {
        assert_eq!(of_listener(&translation, listener, "Conflicted"), expected, "{listener}");
    }
    assert_eq!(of_gateway(&translation, "gw", "Accepted"), "True/ListenersNotValid");
}

#[test]
fn certificates_that_cannot_be_had_say_why() {
    let malformed = "
kind: Secret
metadata: {name: malformed, namespace: infra}
stringData: {tls.crt: Hello, tls.key: World}";
    for (reference, reason) in [
        ("{name: gone}", "InvalidCertificateRef"),
        ("{name: malformed}", "InvalidCertificateRef"),
        ("{name: good, kind: Thing}", "InvalidCertificateRef"),
        ("{name: good, group: example.com}", "InvalidCertificateRef"),
        ("{name: gone, namespace: other}", "RefNotPermitted"),
    ] {
        let listener = format!(
            "  - {{name: https, port: 443, protocol: HTTPS, tls: {{certificateRefs: [{reference}]}}}}"
        );
        let mut snapshot = world(&[&gateway(&listener), malformed, SERVICE, &route("r", TO_APP)]);
        put(&mut snapshot, secret("good", "infra", &["a.example"]));
        let translation = translate(&snapshot);
        let resolved = of_listener(&translation, "https", "ResolvedRefs");
        assert_eq!(resolved, format!("False/{reason}"), "{reference}");
        assert_eq!(of_listener(&translation, "https", "Accepted"), "True/Accepted");
        assert_eq!(of_listener(&translation, "https", "Programmed"), "False/Invalid");
        assert_eq!(listener_status(&translation, "https")["attachedRoutes"], 1);
        assert!(translation.graph.listeners.is_empty(), "nothing to show, nothing bound");
    }
}

#[test]
fn a_broken_certificate_keeps_its_last_good_version_and_says_so() {
    let mut snapshot = world(&[&gateway(&https("https", "a.example", "cert")), SERVICE]);
    add(&mut snapshot, &route("r", TO_APP));
    put(&mut snapshot, secret("cert", "infra", &["a.example"]));
    let key = Key::new("infra", "cert");
    let translation = translate(&snapshot);
    assert_eq!(translation.good_certificates, std::slice::from_ref(&key));
    assert_eq!(of_listener(&translation, "https", "ResolvedRefs"), "True/ResolvedRefs");
    let good = snapshot.secrets[&key].clone();
    snapshot.good_certificates = Arc::new(BTreeMap::from([(key, good)]));
    add(&mut snapshot, "kind: Secret\nmetadata: {name: cert, namespace: infra}\ndata: {}");
    let translation = translate(&snapshot);
    assert_eq!(outcome(&translation.graph, 443, "a.example", "/"), "app*1");
    assert_eq!(of_listener(&translation, "https", "ResolvedRefs"), "False/InvalidCertificateRef");
    assert_eq!(of_listener(&translation, "https", "Programmed"), "True/Programmed");
    assert!(translation.good_certificates.is_empty());
    assert!(notes(&translation, "gw")[0].starts_with("InvalidCertificateRef spec.listeners[0]"));
}

#[test]
fn a_certificate_that_has_ended_is_shown_and_told() {
    let mut snapshot = world(&[&gateway(&https("https", "a.example", "cert")), SERVICE]);
    add(&mut snapshot, &route("r", TO_APP));
    put(&mut snapshot, secret("cert", "infra", &["a.example"]));
    assert_eq!(notes(&translate(&snapshot), "gw"), [""; 0]);
    // Beyond the end of what the test's library makes.
    snapshot.taken = "5000-01-01T00:00:00Z".parse().unwrap();
    let translation = translate(&snapshot);
    assert_eq!(
        notes(&translation, "gw"),
        ["CertificateExpired spec.listeners[0].tls.certificateRefs[0]"]
    );
    assert_eq!(outcome(&translation.graph, 443, "a.example", "/"), "app*1");
    assert_eq!(of_listener(&translation, "https", "ResolvedRefs"), "True/ResolvedRefs");
}

#[test]
fn a_broken_certificate_does_not_hurt_its_neighbour() {
    let listeners = https("good", "a.example", "cert") + &https("bad", "b.example", "gone");
    let mut snapshot = world(&[&gateway(&listeners), SERVICE, &route("r", TO_APP)]);
    put(&mut snapshot, secret("cert", "infra", &["a.example"]));
    let translation = translate(&snapshot);
    assert_eq!(outcome(&translation.graph, 443, "a.example", "/"), "app*1");
    assert_eq!(outcome(&translation.graph, 443, "b.example", "/"), "NoRoute");
    assert_eq!(of_listener(&translation, "good", "Programmed"), "True/Programmed");
    assert_eq!(of_listener(&translation, "bad", "Programmed"), "False/Invalid");
}

#[test]
fn each_listener_shows_its_own_certificate() {
    use crate::graph::Protocol;
    let listeners = https("a", "a.example", "cert-a") + &https("any", "", "cert-any");
    let mut snapshot = world(&[&gateway(&listeners)]);
    put(&mut snapshot, secret("cert-a", "infra", &["a.example"]));
    put(&mut snapshot, secret("cert-any", "infra", &["z.example"]));
    let translation = translate(&snapshot);
    let Protocol::Tls(tls) = &translation.graph.listeners[&443].protocol else { panic!() };
    let of = |host| tls.certificates.matching(host).next().unwrap().cert[0].clone();
    assert_ne!(of("a.example"), of("b.example"));
    assert_eq!(of("z.example"), of("b.example"));
    assert_eq!(of_listener(&translation, "a", "OverlappingTLSConfig"), "True/OverlappingHostnames");
}

#[test]
fn without_overlap_there_is_no_such_condition() {
    let listeners = https("a", "a.example", "cert") + &https("b", "b.example", "cert");
    let mut snapshot = world(&[&gateway(&listeners)]);
    put(&mut snapshot, secret("cert", "infra", &["a.example"]));
    let translation = translate(&snapshot);
    assert_eq!(of_listener(&translation, "a", "OverlappingTLSConfig"), "-");
}

#[test]
fn without_an_authority_nobody_is_let_in() {
    let validation =
        "{validation: {caCertificateRefs: [{group: '', kind: ConfigMap, name: gone}]}}";
    let gateway = gateway(&https("https", "a.example", "cert"))
        + &format!("  tls: {{frontend: {{default: {validation}}}}}");
    let mut snapshot = world(&[&gateway]);
    put(&mut snapshot, secret("cert", "infra", &["a.example"]));
    let translation = translate(&snapshot);
    assert_eq!(of_listener(&translation, "https", "Accepted"), "False/NoValidCACertificate");
    assert_eq!(of_listener(&translation, "https", "ResolvedRefs"), "False/InvalidCACertificateRef");
    assert!(translation.graph.listeners.is_empty());
}

#[test]
fn of_two_gateways_on_one_port_of_a_host_the_older_has_it() {
    let younger = GATEWAY
        .split("\n---")
        .nth(1)
        .unwrap()
        .replace("name: gw", "name: aa")
        .replace("2026-01-01", "2026-01-02");
    let translation = translate(&world(&[GATEWAY, &younger]));
    assert_eq!(of_gateway(&translation, "gw", "Accepted"), "True/Accepted");
    assert_eq!(of_gateway(&translation, "aa", "Accepted"), "False/ListenersNotValid");
    let status = written(&translation, ObjectKind::Gateway, "aa").unwrap();
    let reason = condition(&status["listeners"][0]["conditions"], "Accepted");
    assert_eq!(reason, "False/PortUnavailable");
    assert!(status.to_string().contains("infra/gw"), "it names who has it");
}

#[test]
fn privileged_ports_are_shifted_by_the_offset() {
    let mut snapshot = world(&[GATEWAY]);
    let ports = Ports::Own { offset: 8000 };
    snapshot.settings = Arc::new(Settings { ports, ..Settings::default() });
    let graph = translate(&snapshot).graph;
    assert_eq!(graph.listeners[&8080].public_port, 8080, "what users connect to");
}

#[test]
fn a_host_port_in_a_cluster_leads_back_to_the_listeners_own_port() {
    let mut snapshot = cluster(&[GATEWAY]);
    let mut settings = (*snapshot.settings).clone();
    settings.ports = Ports::Own { offset: 8000 };
    snapshot.settings = Arc::new(settings);
    let graph = translate(&snapshot).graph;
    assert_eq!(graph.listeners[&8080].public_port, 80);
}

#[test]
fn two_ports_of_a_gateway_that_the_offset_makes_one_are_not_mixed() {
    let more = "  - {name: more, port: 8080, protocol: HTTP}\n";
    let mut snapshot = world(&[&format!("{GATEWAY}{more}")]);
    let ports = Ports::Own { offset: 8000 };
    snapshot.settings = Arc::new(Settings { ports, ..Settings::default() });
    let translation = translate(&snapshot);
    assert_eq!(of_listener(&translation, "http", "Accepted"), "True/Accepted");
    assert_eq!(of_listener(&translation, "more", "Accepted"), "False/PortUnavailable");
}

#[test]
fn parameters_and_addresses_that_are_not_supported_refuse_the_gateway() {
    for (field, reason) in [
        ("infrastructure: {parametersRef: {group: g, kind: K, name: some}}", "InvalidParameters"),
        ("addresses: [{type: test/odd, value: x}]", "UnsupportedAddress"),
    ] {
        let gateway = format!("{GATEWAY}  {field}\n");
        let translation = translate(&world(&[&gateway, SERVICE, &route("r", TO_APP)]));
        assert_eq!(of_gateway(&translation, "gw", "Accepted"), format!("False/{reason}"));
        assert_eq!(of_gateway(&translation, "gw", "Programmed"), "False/Invalid");
        assert_eq!(of_route(&translation, "r", "Accepted"), "False/Pending");
        assert!(translation.graph.listeners.is_empty());
    }
}
