//! ListenerSets: who may add listeners to a Gateway, and who wins.

use super::*;

/// The Gateway `gw` with the listener `http` for `a.example`, and this in its spec.
fn gateway(allowed: &str) -> String {
    GATEWAY.replace("protocol: HTTP,", "protocol: HTTP, hostname: a.example,")
        + &format!("  {allowed}\n")
}

const FROM_ALL: &str = "allowedListeners: {namespaces: {from: All}}";

/// A ListenerSet of the Gateway `gw`.
fn set(name: &str, namespace: &str, day: u32, listeners: &str) -> String {
    format!(
        "
kind: ListenerSet
metadata: {{name: {name}, namespace: {namespace}, generation: 2, creationTimestamp: '2026-02-{day:02}T00:00:00Z'}}
spec:
  parentRef: {{name: gw, namespace: infra}}
  listeners: [{listeners}]"
    )
}

fn http(name: &str, hostname: &str) -> String {
    format!("{{name: {name}, port: 80, protocol: HTTP, hostname: {hostname}}}")
}

fn of_set(translation: &Translation, name: &str, r#type: &str) -> String {
    let status = written(translation, ObjectKind::ListenerSet, name).expect("a status is written");
    condition(&status["conditions"], r#type)
}

fn of_entry(translation: &Translation, name: &str, listener: &str, r#type: &str) -> String {
    let status = written(translation, ObjectKind::ListenerSet, name).expect("a status is written");
    let listeners = status["listeners"].as_array().unwrap();
    let found = listeners.iter().find(|l| l["name"] == listener).expect("the listener is there");
    condition(&found["conditions"], r#type)
}

fn attached(translation: &Translation) -> i64 {
    let status = written(translation, ObjectKind::Gateway, "gw").unwrap();
    status["attachedListenerSets"].as_i64().unwrap()
}

#[test]
fn a_gateway_takes_the_sets_that_it_allows() {
    let selector =
        "allowedListeners: {namespaces: {from: Selector, selector: {matchLabels: {a: b}}}}";
    for (allowed, expected) in [
        ("", [false, false]),
        ("allowedListeners: {namespaces: {from: None}}", [false, false]),
        ("allowedListeners: {namespaces: {from: Same}}", [true, false]),
        (FROM_ALL, [true, true]),
        (selector, [false, true]),
    ] {
        let namespace = "kind: Namespace\nmetadata: {name: team, labels: {a: b}}";
        let near = set("near", "infra", 1, &http("l", "near.example"));
        let far = set("far", "team", 1, &http("l", "far.example"));
        let translation = translate(&world(&[&gateway(allowed), namespace, &near, &far]));
        for (name, expected) in ["near", "far"].into_iter().zip(expected) {
            let said = if expected { "True/Accepted" } else { "False/NotAllowed" };
            assert_eq!(of_set(&translation, name, "Accepted"), said, "{name} {allowed}");
            let said = if expected { "True/Programmed" } else { "False/NotAllowed" };
            assert_eq!(of_set(&translation, name, "Programmed"), said, "{name} {allowed}");
        }
        let count = expected.into_iter().filter(|expected| *expected).count();
        assert_eq!(attached(&translation), i64::try_from(count).unwrap(), "{allowed}");
    }
}

#[test]
fn the_gateway_wins_then_the_oldest_set() {
    let parts = [
        gateway(FROM_ALL),
        set("young", "team", 2, &(http("own", "y.example") + "," + &http("both", "b.example"))),
        set("old", "team", 1, &(http("gw", "a.example") + "," + &http("both", "B.example"))),
        set("late", "team", 3, "{name: tcp, port: 80, protocol: TCP}"),
    ];
    let translation = translate(&world(&parts.each_ref().map(String::as_str)));
    assert_eq!(of_listener(&translation, "http", "Accepted"), "True/Accepted");
    assert_eq!(of_listener(&translation, "http", "Conflicted"), "False/NoConflicts");
    for (name, listener, expected) in [
        ("old", "gw", "HostnameConflict"),
        ("old", "both", ""),
        ("young", "own", ""),
        ("young", "both", "HostnameConflict"),
        ("late", "tcp", "ProtocolConflict"),
    ] {
        let said = |r#type| of_entry(&translation, name, listener, r#type);
        if expected.is_empty() {
            assert_eq!(said("Conflicted"), "False/NoConflicts", "{name} {listener}");
            assert_eq!(said("Programmed"), "True/Programmed", "{name} {listener}");
        } else {
            assert_eq!(said("Conflicted"), format!("True/{expected}"), "{name} {listener}");
            assert_eq!(said("Accepted"), format!("False/{expected}"), "{name} {listener}");
            assert_eq!(said("Programmed"), format!("False/{expected}"), "{name} {listener}");
        }
    }
    assert_eq!(of_set(&translation, "old", "Accepted"), "True/ListenersNotValid");
    assert_eq!(of_set(&translation, "old", "Programmed"), "True/Programmed");
    assert_eq!(of_set(&translation, "late", "Accepted"), "False/ListenersNotValid");
    assert_eq!(of_set(&translation, "late", "Programmed"), "False/ListenersNotValid");
    assert_eq!(attached(&translation), 2);
}

#[test]
fn listeners_of_a_set_are_not_the_gateways_in_its_status() {
    let set = set("s", "team", 1, &http("http", "s.example"));
    let translation = translate(&world(&[&gateway(FROM_ALL), &set]));
    let status = written(&translation, ObjectKind::Gateway, "gw").unwrap();
    assert_eq!(status["listeners"].as_array().unwrap().len(), 1);
    let sections: Vec<_> = translation.graph.listeners[&80].sections.values().flatten().collect();
    let mut names: Vec<&str> = sections.iter().map(|section| &*section.name).collect();
    names.sort_unstable();
    assert_eq!(names, ["gateway/infra/gw/http", "listenerset/team/s/http"]);
}

#[test]
fn grants_for_gateways_are_not_grants_for_their_sets() {
    let https = "{name: https, port: 443, protocol: HTTPS, hostname: s.example, tls: {certificateRefs: [{name: cert, namespace: vault}]}}";
    let grant = |kind: &str| {
        format!(
            "
kind: ReferenceGrant
metadata: {{name: {kind}, namespace: vault}}
spec:
  from: [{{group: gateway.networking.k8s.io, kind: {kind}, namespace: infra}}]
  to: [{{group: '', kind: Secret}}]"
        )
    };
    let set = set("s", "infra", 1, https);
    let mut snapshot = world(&[&gateway(FROM_ALL), &set, &grant("Gateway")]);
    put(&mut snapshot, secret("cert", "vault", &["s.example"]));
    let translation = translate(&snapshot);
    assert_eq!(of_entry(&translation, "s", "https", "ResolvedRefs"), "False/RefNotPermitted");
    assert_eq!(of_set(&translation, "s", "Accepted"), "False/ListenersNotValid");
    assert!(notes(&translation, "s")[0].starts_with("RefNotPermitted spec.listeners[0]"));
    add(&mut snapshot, &grant("ListenerSet"));
    let translation = translate(&snapshot);
    assert_eq!(of_entry(&translation, "s", "https", "ResolvedRefs"), "True/ResolvedRefs");
    assert_eq!(of_set(&translation, "s", "Programmed"), "True/Programmed");
}

#[test]
fn a_set_is_no_better_than_its_gateway() {
    let broken = gateway(FROM_ALL) + "  addresses: [{type: test/odd, value: x}]\n";
    let set = set("s", "team", 1, &http("l", "s.example"));
    let translation = translate(&world(&[&broken, &set]));
    assert_eq!(of_set(&translation, "s", "Accepted"), "False/ParentNotAccepted");
    assert_eq!(of_set(&translation, "s", "Programmed"), "False/ParentNotProgrammed");
    assert_eq!(attached(&translation), 0);
}

#[test]
fn sets_of_unknown_gateways_are_nobodys() {
    let set = set("s", "team", 1, &http("l", "s.example")).replace("name: gw", "name: other");
    let translation = translate(&world(&[&gateway(FROM_ALL), &set]));
    assert_eq!(written(&translation, ObjectKind::ListenerSet, "s"), None);
}

#[test]
fn strangers_cannot_take_all_ports() {
    let many: Vec<String> =
        (1..=64).map(|i| format!("{{name: l{i}, port: {}, protocol: TCP}}", 1000 + i)).collect();
    let mut parts = vec![gateway(FROM_ALL)];
    for day in 1..=3 {
        let offset = many.join(",").replace("port: 1", &format!("port: {day}"));
        parts.push(set(&format!("s{day}"), "team", day, &offset));
    }
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let translation = translate(&world(&parts));
    // One is the Gateway's own.
    assert_eq!(of_entry(&translation, "s2", "l63", "Accepted"), "True/Accepted");
    assert_eq!(of_entry(&translation, "s2", "l64", "Accepted"), "False/TooManyListeners");
    assert_eq!(of_set(&translation, "s3", "Accepted"), "False/ListenersNotValid");
}

#[test]
fn the_gateways_service_has_the_ports_of_its_sets() {
    let dns = "{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53, protocol: TCP}";
    let translation = translate(&cluster(&[&gateway(FROM_ALL), &set("s", "team", 1, dns)]));
    let service = translation.infrastructure.iter().find_map(|write| match write {
        InfrastructureWrite::Service(service) => service.spec.clone(),
        _ => None,
    });
    let ports: Vec<_> = service.unwrap().ports.unwrap().into_iter().map(|p| p.name).collect();
    assert_eq!(
        ports,
        [Some("port-53"), Some("port-80"), Some("port-53-udp")].map(|p| p.map(String::from))
    );
}
