//! Listeners of every protocol, and what is in whose way.

use super::*;
use crate::graph::{Protocol, TlsUse};

fn kinds(translation: &Translation, listener: &str) -> Vec<String> {
    let kinds = listener_status(translation, listener)["supportedKinds"].as_array().unwrap();
    kinds.iter().map(|kind| kind["kind"].as_str().unwrap().to_owned()).collect()
}

/// A world that listens on these ports too, and has the Secret `cert`.
fn listening(yaml: &str, ports: &[(Transport, u16)]) -> Snapshot {
    let mut snapshot = world(&[yaml]);
    let all = ports.iter().map(|port| (*port, Ok(())));
    Arc::make_mut(&mut snapshot.listening).extend(all);
    put(&mut snapshot, secret("cert", "infra", &["a.example"]));
    snapshot
}

const TLS: &str = "
  - {name: here, port: 443, protocol: TLS, hostname: a.example, tls: {mode: Terminate, certificateRefs: [{name: cert}]}}
  - {name: through, port: 443, protocol: TLS, hostname: b.example, tls: {mode: Passthrough}}
  - {name: web, port: 443, protocol: HTTPS, hostname: c.example, tls: {certificateRefs: [{name: cert}]}}
";

#[test]
fn each_protocol_takes_the_kinds_of_routes_that_fit_it() {
    let more = "
  - {name: http, port: 80, protocol: HTTP}
  - {name: tcp, port: 53, protocol: TCP}
  - {name: udp, port: 53, protocol: UDP}";
    let translation = translate(&listening(&gateway(&format!("{TLS}{more}")), &[]));
    for (listener, expected) in [
        ("http", &["HTTPRoute", "GRPCRoute"][..]),
        ("web", &["HTTPRoute", "GRPCRoute"]),
        ("here", &["TLSRoute", "TCPRoute"]),
        ("through", &["TLSRoute"]),
        ("tcp", &["TCPRoute"]),
        ("udp", &["UDPRoute"]),
    ] {
        assert_eq!(kinds(&translation, listener), expected, "{listener}");
        assert_eq!(of_listener(&translation, listener, "Accepted"), "True/Accepted", "{listener}");
    }
}

#[test]
fn a_kind_that_the_protocol_cannot_carry_is_left_out() {
    let listener = "  - {name: through, port: 443, protocol: TLS, tls: {mode: Passthrough}, allowedRoutes: {kinds: [{kind: TCPRoute}, {kind: TLSRoute}]}}";
    let translation = translate(&listening(&gateway(listener), &[]));
    assert_eq!(kinds(&translation, "through"), ["TLSRoute"]);
    assert_eq!(of_listener(&translation, "through", "ResolvedRefs"), "False/InvalidRouteKinds");
    let listener = listener.replace(", {kind: TLSRoute}", "");
    let translation = translate(&listening(&gateway(&listener), &[]));
    assert_eq!(kinds(&translation, "through"), [""; 0]);
    assert!(translation.graph.listeners.is_empty(), "nothing could attach");
}

#[test]
fn https_and_both_modes_of_tls_share_a_port_by_their_names() {
    let translation = translate(&listening(&gateway(TLS), &[]));
    let listener = &translation.graph.listeners[&443];
    let of = |host: &str| listener.streams.matching(host).next();
    assert!(matches!(of("a.example"), Some(TlsUse::Terminate(_))));
    assert!(matches!(of("b.example"), Some(TlsUse::Passthrough(_))));
    assert!(matches!(of("c.example"), Some(TlsUse::Http)));
    assert!(of("d.example").is_none());
    let Protocol::Tls(tls) = &listener.protocol else { panic!() };
    assert!(tls.certificates.matching("a.example").next().is_some());
    assert!(tls.certificates.matching("b.example").next().is_none());
    assert_eq!(of_gateway(&translation, "gw", "Programmed"), "True/Programmed");
}

#[test]
fn passthrough_needs_no_certificate_and_termination_does() {
    let bare = "
  - {name: through, port: 443, protocol: TLS, hostname: '*.example', tls: {mode: Passthrough}}
  - {name: here, port: 443, protocol: TLS, hostname: a.example, tls: {mode: Terminate}}";
    let translation = translate(&listening(&gateway(bare), &[]));
    assert_eq!(of_listener(&translation, "through", "Programmed"), "True/Programmed");
    assert_eq!(of_listener(&translation, "here", "Programmed"), "False/Invalid");
    let streams = &translation.graph.listeners[&443].streams;
    let of = streams.matching("a.example").next();
    assert!(matches!(of, Some(TlsUse::Terminate(_))), "nobody else answers for its host");
}

#[test]
fn tcp_and_udp_of_one_port_are_two_ports() {
    let both = "
  - {name: tcp, port: 53, protocol: TCP}
  - {name: udp, port: 53, protocol: UDP}";
    let mut snapshot = listening(&gateway(both), &[(Transport::Tcp, 53)]);
    let translation = translate(&snapshot);
    assert!(matches!(translation.graph.listeners[&53].protocol, Protocol::Tcp(_)));
    assert_eq!(&*translation.graph.datagrams[&53].stream.name, "gateway/infra/gw/udp");
    assert_eq!(of_listener(&translation, "tcp", "Programmed"), "True/Programmed");
    assert_eq!(of_listener(&translation, "udp", "Programmed"), "False/Pending");
    Arc::make_mut(&mut snapshot.listening).insert((Transport::Udp, 53), Ok(()));
    assert_eq!(of_listener(&translate(&snapshot), "udp", "Programmed"), "True/Programmed");
}

#[test]
fn what_cannot_share_a_port_is_refused_altogether() {
    let listeners = "
  - {name: tcp, port: 80, protocol: TCP}
  - {name: http, port: 80, protocol: HTTP}
  - {name: tcp-1, port: 81, protocol: TCP}
  - {name: tcp-2, port: 81, protocol: TCP}
  - {name: pass, port: 82, protocol: TLS, hostname: a.example, tls: {mode: Passthrough}}
  - {name: here, port: 82, protocol: TLS, hostname: a.example, tls: {mode: Terminate, certificateRefs: [{name: cert}]}}
  - {name: web, port: 83, protocol: HTTPS, hostname: a.example, tls: {certificateRefs: [{name: cert}]}}
  - {name: tls, port: 83, protocol: TLS, hostname: a.example, tls: {mode: Passthrough}}
  - {name: udp, port: 80, protocol: UDP}";
    let translation = translate(&listening(&gateway(listeners), &[]));
    for (listener, reason) in [
        ("tcp", "ProtocolConflict"),
        ("http", "ProtocolConflict"),
        ("tcp-1", "HostnameConflict"),
        ("tcp-2", "HostnameConflict"),
        ("pass", "HostnameConflict"),
        ("here", "HostnameConflict"),
        ("web", "ProtocolConflict"),
        ("tls", "ProtocolConflict"),
    ] {
        let conflicted = of_listener(&translation, listener, "Conflicted");
        assert_eq!(conflicted, format!("True/{reason}"), "{listener}");
        let accepted = of_listener(&translation, listener, "Accepted");
        assert_eq!(accepted, format!("False/{reason}"), "{listener}");
    }
    assert_eq!(of_listener(&translation, "udp", "Conflicted"), "False/NoConflicts");
    assert!(translation.graph.listeners.is_empty());
}

#[test]
fn client_certificates_are_demanded_of_https_and_nothing_else() {
    let config = "
kind: ConfigMap
metadata: {name: ca, namespace: infra}
data: {ca.crt: PEM}";
    let mut snapshot = listening(
        &(gateway(TLS)
            + "  tls: {frontend: {default: {validation: {caCertificateRefs: [{group: '', kind: ConfigMap, name: ca}]}}}}"),
        &[],
    );
    let (pem, _) = crate::graph::testing::pem("ca.example");
    let mut map: Value = serde_saphyr::from_str(config).unwrap();
    map["data"]["ca.crt"] = pem.into();
    put(&mut snapshot, map);
    let translation = translate(&snapshot);
    assert_eq!(of_listener(&translation, "web", "Accepted"), "True/Accepted");
    assert_eq!(of_listener(&translation, "web", "ResolvedRefs"), "True/ResolvedRefs");
    assert_eq!(of_gateway(&translation, "gw", "InsecureFrontendValidationMode"), "-");
    Arc::make_mut(&mut snapshot.config_maps).clear();
    let translation = translate(&snapshot);
    assert_eq!(of_listener(&translation, "web", "Accepted"), "False/NoValidCACertificate");
    assert_eq!(of_listener(&translation, "here", "Accepted"), "True/Accepted");
    assert_eq!(of_listener(&translation, "through", "Accepted"), "True/Accepted");
}

#[test]
fn references_to_authorities_say_what_is_wrong_with_them() {
    for (reference, reason) in [
        ("{group: '', kind: ConfigMap, name: gone}", "InvalidCACertificateRef"),
        ("{group: '', kind: ConfigMap, name: empty}", "InvalidCACertificateRef"),
        ("{group: '', kind: Service, name: app}", "InvalidCACertificateKind"),
        ("{group: '', kind: ConfigMap, name: far, namespace: other}", "RefNotPermitted"),
        (
            "{group: certificates.k8s.io, kind: ClusterTrustBundle, name: gone}",
            "InvalidCACertificateRef",
        ),
    ] {
        let tls = format!(
            "  tls: {{frontend: {{default: {{}}, perPort: [{{port: 443, tls: {{validation: {{mode: \
             AllowInsecureFallback, caCertificateRefs: [{reference}]}}}}}}]}}}}"
        );
        let mut snapshot = listening(&(gateway(TLS) + &tls), &[]);
        add(&mut snapshot, "kind: ConfigMap\nmetadata: {name: empty, namespace: infra}");
        let translation = translate(&snapshot);
        let resolved = of_listener(&translation, "web", "ResolvedRefs");
        assert_eq!(resolved, format!("False/{reason}"), "{reference}");
        assert_eq!(of_listener(&translation, "web", "Accepted"), "False/NoValidCACertificate");
        let insecure = of_gateway(&translation, "gw", "InsecureFrontendValidationMode");
        assert_eq!(insecure, "True/ConfigurationChanged");
    }
}

#[test]
fn a_gateways_own_certificate_for_backends_must_be_there() {
    for (reference, expected) in [
        ("{name: cert}", "True/ResolvedRefs"),
        ("{name: gone}", "False/InvalidClientCertificateRef"),
        ("{name: cert, group: wrong.example}", "False/InvalidClientCertificateRef"),
        ("{name: cert, kind: Wrong}", "False/InvalidClientCertificateRef"),
        ("{name: cert, namespace: other}", "False/RefNotPermitted"),
    ] {
        let tls = format!("  tls: {{backend: {{clientCertificateRef: {reference}}}}}\n");
        let http = gateway("  - {name: http, port: 80, protocol: HTTP}\n");
        let translation = translate(&listening(&(http + &tls), &[]));
        assert_eq!(of_gateway(&translation, "gw", "ResolvedRefs"), expected, "{reference}");
        assert_eq!(of_gateway(&translation, "gw", "Accepted"), "True/Accepted");
    }
}

#[test]
fn a_default_gateway_says_that_it_is_one() {
    let translation = translate(&world(&[&format!("{GATEWAY}  defaultScope: All\n")]));
    assert_eq!(of_gateway(&translation, "gw", "DefaultGateway"), "True/DefaultGateway");
    let translation = translate(&world(&[&format!("{GATEWAY}  defaultScope: None\n")]));
    assert_eq!(of_gateway(&translation, "gw", "DefaultGateway"), "-");
}

#[test]
fn there_is_room_for_the_conditions_of_others() {
    let theirs = |name: &str| {
        format!(
            "{{type: {name}, status: 'True', reason: X, message: '', lastTransitionTime: '2020-01-01T00:00:00Z'}}"
        )
    };
    let theirs: Vec<String> = ["A", "B", "C", "D", "E"].map(theirs).into();
    let status = format!("status: {{conditions: [{}]}}\n", theirs.join(", "));
    let translation = translate(&world(&[&format!("{GATEWAY}  defaultScope: All\n{status}")]));
    let status = written(&translation, ObjectKind::Gateway, "gw").unwrap();
    assert_eq!(status["conditions"].as_array().unwrap().len(), 8, "the most that is allowed");
    assert_eq!(condition(&status["conditions"], "Programmed"), "True/Programmed");
}

#[test]
fn a_listener_with_a_broken_filter_keeps_its_hosts_also_where_it_binds_its_own_port() {
    let wide = "  - {name: wide, port: 80, protocol: HTTP}\n";
    let broken = "  - {name: guarded, port: 80, protocol: HTTP, hostname: a.example, filters: {requests: [{type: ExternalAuth}]}}\n";
    let route = route("r", "  rules: [{backendRefs: [{name: app, port: 8080}]}]");
    for listeners in [[wide, broken].concat(), [broken, wide].concat()] {
        let snapshot = world(&[&gateway(&listeners), SERVICE, &route]);
        let translation = translate(&snapshot);
        assert_eq!(outcome(&translation.graph, 80, "a.example", "/"), "InvalidPolicy");
        assert_eq!(of_listener(&translation, "guarded", "Accepted"), "False/InvalidListenerFilter");
        assert_eq!(outcome(&translation.graph, 80, "b.example", "/"), "app*1");
    }
}
