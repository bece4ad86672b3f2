//! HTTPRoutes: attachment, matches, backends and filters.

use super::*;

#[test]
fn a_route_forwards_to_the_ready_endpoints_of_its_service() {
    let translation = translate(&world(&[GATEWAY, SERVICE, &route("r", TO_APP)]));
    let graph = &translation.graph;
    assert_eq!(outcome(graph, 80, "any.example", "/"), "app*1");
    let addresses = graph.backends[0].endpoints.addrs();
    assert_eq!(addresses, ["10.0.0.1:3000".parse().unwrap()]);
    assert_eq!(of_route(&translation, "r", "Accepted"), "True/Accepted");
    assert_eq!(of_route(&translation, "r", "ResolvedRefs"), "True/ResolvedRefs");
    assert_eq!(listener_status(&translation, "http")["attachedRoutes"], 1);
}

#[test]
fn the_observed_generation_is_the_routes() {
    let translation = translate(&world(&[GATEWAY, SERVICE, &route("r", TO_APP)]));
    let status = written(&translation, ObjectKind::HttpRoute, "r").unwrap();
    for condition in status["parents"][0]["conditions"].as_array().unwrap() {
        assert_eq!(condition["observedGeneration"], 7);
    }
}

#[test]
fn weights_are_kept_and_an_unresolved_backend_keeps_its_share() {
    let spec = "  rules:
  - backendRefs:
    - {name: app, port: 8080, weight: 9}
    - {name: gone, port: 8080, weight: 1}
    - {name: app, port: 8080, weight: 0}";
    let translation = translate(&world(&[GATEWAY, SERVICE, &route("r", spec)]));
    assert_eq!(outcome(&translation.graph, 80, "a", "/"), "app*9 BackendNotFound*1");
    assert_eq!(of_route(&translation, "r", "ResolvedRefs"), "False/BackendNotFound");
    assert_eq!(of_route(&translation, "r", "Accepted"), "True/Accepted");
}

#[test]
fn without_a_backend_or_with_zero_weights_a_rule_answers_500() {
    let spec = "  rules:
  - matches: [{path: {value: /none}}]
  - matches: [{path: {value: /zero}}]
    backendRefs: [{name: app, port: 8080, weight: 0}]";
    let translation = translate(&world(&[GATEWAY, SERVICE, &route("r", spec)]));
    for path in ["/none", "/zero"] {
        assert_eq!(outcome(&translation.graph, 80, "a", path), "NoBackend");
    }
    assert_eq!(of_route(&translation, "r", "ResolvedRefs"), "True/ResolvedRefs");
}

#[test]
fn references_that_cannot_be_followed_say_why() {
    for (backend, reason) in [
        ("{group: x.example.com, kind: Thing, name: app, port: 8080}", "InvalidKind"),
        ("{name: app, namespace: other, port: 8080}", "RefNotPermitted"),
        ("{name: app, port: 9999}", "BackendNotFound"),
        ("{name: app}", "BackendNotFound"),
        ("{name: odd, port: 80}", "UnsupportedProtocol"),
    ] {
        let odd = "
kind: Service
metadata: {name: odd, namespace: infra}
spec: {ports: [{port: 80, appProtocol: example.com/odd}]}";
        let spec = format!("  rules: [{{backendRefs: [{backend}]}}]");
        let translation = translate(&world(&[GATEWAY, SERVICE, odd, &route("r", &spec)]));
        assert_eq!(of_route(&translation, "r", "ResolvedRefs"), format!("False/{reason}"));
        assert_eq!(outcome(&translation.graph, 80, "a", "/"), format!("{reason}*1"));
    }
}

#[test]
fn a_grant_lets_exactly_its_references_through() {
    let grant = |from: &str, to: &str| {
        format!(
            "
kind: ReferenceGrant
metadata: {{name: g, namespace: other}}
spec: {{from: [{from}], to: [{to}]}}"
        )
    };
    let from = "{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: infra}";
    let service = "
kind: Service
metadata: {name: app, namespace: other}
spec: {ports: [{port: 80}]}";
    let spec = "  rules: [{backendRefs: [{name: app, namespace: other, port: 80}]}]";
    for (from, to, allowed) in [
        (from, r#"{group: "", kind: Service, name: app}"#, true),
        (from, r#"{group: "", kind: Service}"#, true),
        (from, r#"{group: "", kind: Service, name: else}"#, false),
        (from, r#"{group: "", kind: Secret, name: app}"#, false),
        (from, "{group: x, kind: Service}", false),
        ("{group: x, kind: HTTPRoute, namespace: infra}", r#"{group: "", kind: Service}"#, false),
        (&from.replace("HTTPRoute", "Gateway"), r#"{group: "", kind: Service}"#, false),
        (&from.replace("infra", "else"), r#"{group: "", kind: Service}"#, false),
    ] {
        let grant = grant(from, to);
        let translation = translate(&world(&[GATEWAY, service, &grant, &route("r", spec)]));
        let expected = if allowed { "True/ResolvedRefs" } else { "False/RefNotPermitted" };
        assert_eq!(of_route(&translation, "r", "ResolvedRefs"), expected, "{from} {to}");
    }
}

#[test]
fn a_mirror_needs_a_grant_as_any_backend_does() {
    let mirror = "requestMirror: {backendRef: {name: app, namespace: other, port: 80}}";
    let spec = format!(
        "  rules:\n  - filters: [{{type: RequestMirror, {mirror}}}]\n    \
         backendRefs: [{{name: app, port: 8080}}]"
    );
    let service = "
kind: Service
metadata: {name: app, namespace: other}
spec: {ports: [{port: 80}]}";
    let grant = |namespace: &str| {
        format!(
            "
kind: ReferenceGrant
metadata: {{name: g, namespace: {namespace}}}
spec:
  from: [{{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: infra}}]
  to: [{{group: '', kind: Service}}]"
        )
    };
    for (grant, mirrors) in [(grant("infra"), 0), (grant("other"), 1)] {
        let parts = [GATEWAY, SERVICE, service, &grant, &route("r", &spec)];
        let translation = translate(&world(&parts));
        assert_eq!(outcome(&translation.graph, 80, "a", "/"), "app*1");
        assert_eq!(find(&translation.graph, 80, "a", "/").unwrap().mirrors.len(), mirrors);
        let resolved = ["False/RefNotPermitted", "True/ResolvedRefs"][mirrors];
        assert_eq!(of_route(&translation, "r", "ResolvedRefs"), resolved);
    }
}

#[test]
fn a_route_that_no_listener_takes_is_told_the_reason() {
    let same = GATEWAY.replace("from: All", "from: Same");
    let parent = |parent: &str| {
        format!(
            "
kind: HTTPRoute
metadata: {{name: r, namespace: other, generation: 1}}
spec: {{parentRefs: [{parent}], hostnames: [b.example], rules: [{{}}]}}"
        )
    };
    let hosted = GATEWAY.replace("port: 80,", "port: 80, hostname: a.example,");
    for (gateway, reference, reason) in [
        (&*same, "{name: gw, namespace: infra}", "NotAllowedByListeners"),
        (GATEWAY, "{name: gw, namespace: infra, sectionName: none}", "NoMatchingParent"),
        (GATEWAY, "{name: gw, namespace: infra, port: 81}", "NoMatchingParent"),
        (&*hosted, "{name: gw, namespace: infra}", "NoMatchingListenerHostname"),
    ] {
        let translation = translate(&world(&[gateway, &parent(reference)]));
        assert_eq!(of_route(&translation, "r", "Accepted"), format!("False/{reason}"));
        assert_eq!(of_route(&translation, "r", "ResolvedRefs"), "True/ResolvedRefs");
        assert_eq!(listener_status(&translation, "http")["attachedRoutes"], 0);
        assert_eq!(outcome(&translation.graph, 80, "b.example", "/"), "NoRoute");
        assert_eq!(notes(&translation, "r"), [format!("{reason} spec.parentRefs")]);
    }
}

#[test]
fn namespaces_are_selected_by_their_labels() {
    let gateway = GATEWAY.replace(
        "from: All",
        "from: Selector, selector: {matchLabels: {team: blue}, \
         matchExpressions: [{key: stage, operator: NotIn, values: [dev]}]}",
    );
    let other = route("r", TO_APP).replace("[{name: gw}]", "[{name: gw, namespace: infra}]");
    let other = other.replace("name: r, namespace: infra", "name: r, namespace: other");
    for (labels, expected) in [
        ("{team: blue}", "True/Accepted"),
        ("{team: blue, stage: dev}", "False/NotAllowedByListeners"),
        ("{team: red}", "False/NotAllowedByListeners"),
    ] {
        let namespace = format!("kind: Namespace\nmetadata: {{name: other, labels: {labels}}}");
        let translation = translate(&world(&[&gateway, &namespace, &other]));
        assert_eq!(of_route(&translation, "r", "Accepted"), expected, "{labels}");
    }
}

#[test]
fn of_two_routes_the_more_specific_host_name_wins_inside_an_exact_listener() {
    let gateway = GATEWAY.replace("port: 80,", "port: 80, hostname: a.example.com,");
    let older = route(
        "wide",
        "  hostnames: ['*.example.com']\n  rules: [{matches: [{path: {value: /path/long}}], backendRefs: [{name: app, port: 8080}]}]",
    );
    let newer = route(
        "narrow",
        "  hostnames: [a.example.com]\n  rules: [{matches: [{path: {value: /path}}], backendRefs: [{name: gone, port: 1}]}]",
    );
    let graph = translate(&world(&[&gateway, SERVICE, &older, &newer])).graph;
    assert_eq!(outcome(&graph, 80, "a.example.com", "/path/long"), "BackendNotFound*1");
    assert_eq!(outcome(&graph, 80, "b.example.com", "/path/long"), "NoRoute");
}

#[test]
fn an_invalid_match_drops_its_rule_and_no_other() {
    for bad in [
        "{path: {type: RegularExpression, value: '('}}",
        "{path: {type: RegularExpression, value: 'a)|(b'}}",
        "{path: {type: Fancy, value: /}}",
        "{path: {value: 'a'}}",
        "{headers: [{type: Fancy, name: a, value: b}]}",
        "{method: 'G T'}",
    ] {
        let spec = format!(
            "  rules:
  - matches: [{bad}]
  - backendRefs: [{{name: app, port: 8080}}]"
        );
        let translation = translate(&world(&[GATEWAY, SERVICE, &route("r", &spec)]));
        assert_eq!(outcome(&translation.graph, 80, "a", "/x"), "app*1", "{bad}");
        assert_eq!(of_route(&translation, "r", "Accepted"), "True/Accepted", "{bad}");
        let partial = of_route(&translation, "r", "PartiallyInvalid");
        assert_eq!(partial, "True/UnsupportedValue", "{bad}");
        let only = spec.lines().take(2).collect::<Vec<_>>().join("\n");
        let translation = translate(&world(&[GATEWAY, &route("r", &only)]));
        assert_eq!(of_route(&translation, "r", "Accepted"), "False/UnsupportedValue", "{bad}");
        assert_eq!(of_route(&translation, "r", "PartiallyInvalid"), "-", "{bad}");
        assert_eq!(listener_status(&translation, "http")["attachedRoutes"], 0);
    }
}

#[test]
fn regular_expressions_match_the_whole_path() {
    let spec = "  rules:
  - matches: [{path: {type: RegularExpression, value: '/a|/b'}}]
    backendRefs: [{name: app, port: 8080}]";
    let graph = translate(&world(&[GATEWAY, SERVICE, &route("r", spec)])).graph;
    assert_eq!(outcome(&graph, 80, "h", "/b"), "app*1");
    assert_eq!(outcome(&graph, 80, "h", "/bc"), "NoRoute");
    assert_eq!(outcome(&graph, 80, "h", "/c/b"), "NoRoute");
}

#[test]
fn paths_are_compared_in_their_normal_form() {
    let spec = "  rules:
  - matches: [{path: {type: Exact, value: '/a%2db%2f'}}, {path: {value: '/%63/'}}]
    backendRefs: [{name: app, port: 8080}]";
    let graph = translate(&world(&[GATEWAY, SERVICE, &route("r", spec)])).graph;
    for path in ["/a-b%2F", "/c", "/c/d"] {
        assert_eq!(outcome(&graph, 80, "h", path), "app*1", "{path}");
    }
}

#[test]
fn a_filter_that_is_not_known_is_never_skipped() {
    let spec = "  rules:
  - matches: [{path: {value: /auth}}]
    filters: [{type: Compression, compression: {}}]
    backendRefs: [{name: app, port: 8080}]
  - backendRefs: [{name: app, port: 8080}]";
    let translation = translate(&world(&[GATEWAY, SERVICE, &route("r", spec)]));
    assert_eq!(outcome(&translation.graph, 80, "h", "/auth"), "UnsupportedValue");
    assert_eq!(outcome(&translation.graph, 80, "h", "/"), "app*1");
    assert_eq!(of_route(&translation, "r", "PartiallyInvalid"), "True/UnsupportedValue");
}

#[test]
fn redirect_and_rewrite_exclude_each_other() {
    let spec = "  rules:
  - filters:
    - {type: RequestRedirect, requestRedirect: {hostname: a.example}}
    - {type: URLRewrite, urlRewrite: {hostname: b.example}}";
    let translation = translate(&world(&[GATEWAY, &route("r", spec)]));
    assert_eq!(of_route(&translation, "r", "Accepted"), "False/IncompatibleFilters");
}

#[test]
fn filters_become_policies_in_their_order_and_mirrors_shares() {
    let spec = "  rules:
  - filters:
    - {type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: a, value: b}]}}
    - {type: RequestHeaderModifier, requestHeaderModifier: {remove: [c]}}
    - {type: RequestMirror, requestMirror: {backendRef: {name: app, port: 8080}, percent: 5}}
    - {type: RequestMirror, requestMirror: {backendRef: {name: gone, port: 8080}}}
    backendRefs:
    - name: app
      port: 8080
      filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: d, value: e}]}}]
    timeouts: {request: 2s, backendRequest: 500ms}";
    let translation = translate(&world(&[GATEWAY, SERVICE, &route("r", spec)]));
    let rule = find(&translation.graph, 80, "h", "/").unwrap();
    assert_eq!(policies(&translation.graph, rule), ["response_headers", "request_headers"]);
    assert_eq!(rule.mirrors.len(), 1, "one that is not there is not mirrored to");
    assert_eq!((rule.mirrors[0].numerator, rule.mirrors[0].denominator), (5, 100));
    let Action::Forward(split) = &rule.action else { panic!("{:?}", rule.action) };
    assert_eq!(split.targets[0].transforms.len(), 1);
    assert_eq!(rule.timeouts.request, Some(std::time::Duration::from_secs(2)));
    assert_eq!(rule.timeouts.backend_request, Some(std::time::Duration::from_millis(500)));
    assert_eq!(of_route(&translation, "r", "ResolvedRefs"), "False/BackendNotFound");
}

#[test]
fn a_redirect_needs_no_backend_and_its_rule_keeps_the_redirect() {
    let spec = "  rules: [{filters: [{type: RequestRedirect, requestRedirect: {scheme: https, statusCode: 301}}]}]";
    let graph = translate(&world(&[GATEWAY, &route("r", spec)])).graph;
    let rule = find(&graph, 80, "h", "/").unwrap();
    assert_eq!(policies(&graph, rule), ["redirect"]);
}

#[test]
fn the_service_says_how_it_is_spoken_to() {
    use crate::graph::BackendProtocol;
    let service = "
kind: Service
metadata: {name: app, namespace: infra, annotations: {tidegate.dev/backend-tls-verify: 'false'}}
spec: {ports: [{port: 1, appProtocol: kubernetes.io/h2c}, {port: 2, appProtocol: https}, {port: 3, appProtocol: kubernetes.io/ws}]}";
    let spec = "  rules: [{backendRefs: [{name: app, port: 1}, {name: app, port: 2}, {name: app, port: 3}]}]";
    let graph = translate(&world(&[GATEWAY, service, &route("r", spec)])).graph;
    let protocols: Vec<_> = graph.backends.iter().map(|b| b.key.protocol).collect();
    assert_eq!(protocols, ["h2c", "tls", "http1"]);
    assert!(matches!(graph.backends[1].protocol, BackendProtocol::Tls(_)));
}

#[test]
fn the_service_says_how_its_endpoints_take_turns() {
    use crate::graph::Balance;
    for (value, balance, warned) in [
        ("RoundRobin", Balance::RoundRobin, false),
        ("PowerOfTwoChoices", Balance::PowerOfTwo, false),
        ("roundrobin", Balance::PowerOfTwo, true),
    ] {
        let service = format!(
            "
kind: Service
metadata: {{name: app, namespace: infra, annotations: {{tidegate.dev/load-balancing: {value}}}}}
spec: {{ports: [{{port: 80}}]}}"
        );
        let spec = "  rules: [{backendRefs: [{name: app, port: 80}]}]";
        let translation = translate(&world(&[GATEWAY, &service, &route("r", spec)]));
        assert_eq!(translation.graph.backends[0].balance, balance, "{value}");
        let told = translation.notes.iter().any(|note| note.message.contains("write RoundRobin"));
        assert_eq!(told, warned, "{value}");
    }
}

#[test]
fn external_names_are_backends_only_where_that_is_allowed() {
    let service = "
kind: Service
metadata: {name: out, namespace: infra}
spec: {type: ExternalName, externalName: example.org}";
    let spec = "  rules: [{backendRefs: [{name: out, port: 443}]}]";
    let mut snapshot = world(&[GATEWAY, service, &route("r", spec)]);
    let translation = translate(&snapshot);
    assert_eq!(of_route(&translation, "r", "ResolvedRefs"), "False/UnsupportedValue");
    snapshot.settings = Arc::new(Settings { external_names: true, ..Settings::default() });
    let ip = IpAddr::from([192, 0, 2, 7]);
    snapshot.resolved = Arc::new(BTreeMap::from([("example.org".to_owned(), vec![ip])]));
    let graph = translate(&snapshot).graph;
    assert_eq!(graph.backends[0].endpoints.addrs(), ["192.0.2.7:443".parse().unwrap()]);
}

#[test]
fn ready_endpoints_come_first_and_serving_ones_are_the_last_resort() {
    let slices = |first: &str, second: &str| {
        format!(
            "
kind: EndpointSlice
metadata: {{name: app-2, namespace: infra, labels: {{kubernetes.io/service-name: app}}}}
addressType: IPv6
ports: [{{name: http, port: 3000}}, {{name: other, port: 1}}]
endpoints: [{{addresses: ['fd00::1'], conditions: {first}}}, {{addresses: ['fd00::2'], conditions: {second}}}]"
        )
    };
    let service = SERVICE.split("\n---").next().unwrap();
    let ready = "{ready: true}";
    let leaving = "{ready: false, serving: true, terminating: true}";
    let dead = "{ready: false, serving: false, terminating: true}";
    for (first, second, expected) in [
        (ready, leaving, &["[fd00::1]:3000"][..]),
        (leaving, dead, &["[fd00::1]:3000"]),
        (dead, dead, &[]),
        ("{}", ready, &["[fd00::1]:3000", "[fd00::2]:3000"]),
    ] {
        let snapshot = world(&[GATEWAY, service, &slices(first, second), &route("r", TO_APP)]);
        let graph = translate(&snapshot).graph;
        let addresses = graph.backends[0].endpoints.addrs();
        let expected: Vec<std::net::SocketAddr> =
            expected.iter().map(|a| a.parse().unwrap()).collect();
        assert_eq!(addresses, expected, "{first} {second}");
        let again = crate::translate::endpoints_of(
            &graph.backends[0],
            &snapshot.services,
            &snapshot.endpoint_slices,
            &snapshot.resolved,
            &snapshot.settings,
        );
        assert_eq!(again, addresses, "the fast path gives the same");
    }
}

#[test]
fn in_a_cluster_no_endpoint_leads_to_the_pod_itself_or_its_node() {
    let slice = |address: &str, r#type: &str| {
        format!(
            "
kind: EndpointSlice
metadata: {{name: app-2, namespace: infra, labels: {{kubernetes.io/service-name: app}}}}
addressType: {type}
ports: [{{name: http, port: 9901}}]
endpoints: [{{addresses: ['{address}']}}]"
        )
    };
    let special = [
        ("127.0.0.1", "IPv4"),
        ("127.8.8.8", "IPv4"),
        ("0.0.0.0", "IPv4"),
        ("169.254.169.254", "IPv4"),
        ("224.0.0.1", "IPv4"),
        ("255.255.255.255", "IPv4"),
        ("::1", "IPv6"),
        ("::", "IPv6"),
        ("::ffff:127.0.0.1", "IPv6"),
        ("fe80::1", "IPv6"),
        ("ff02::1", "IPv6"),
    ];
    for (address, r#type) in special {
        let parts = [GATEWAY, SERVICE, &slice(address, r#type), &route("r", TO_APP)];
        let translation = translate(&cluster(&parts));
        let addresses = translation.graph.backends[0].endpoints.addrs();
        assert_eq!(addresses, ["10.0.0.1:3000".parse().unwrap()], "{address}");
        assert_eq!(notes(&translation, "app"), ["AddressNotUsable "], "{address}");
        let graph = translate(&world(&parts)).graph;
        assert_eq!(graph.backends[0].endpoints.addrs().len(), 2, "{address} out of a file");
    }
}

#[test]
fn an_external_name_cannot_lead_to_the_pod_itself() {
    let service = "
kind: Service
metadata: {name: out, namespace: infra}
spec: {type: ExternalName, externalName: example.org}";
    let spec = "  rules: [{backendRefs: [{name: out, port: 443}]}]";
    let mut snapshot = cluster(&[GATEWAY, service, &route("r", spec)]);
    let settings = Settings { external_names: true, ..(*snapshot.settings).clone() };
    snapshot.settings = Arc::new(settings);
    let ips = ["127.0.0.1", "169.254.169.254", "192.0.2.7"].map(|ip| ip.parse().unwrap());
    snapshot.resolved = Arc::new(BTreeMap::from([("example.org".to_owned(), ips.to_vec())]));
    let graph = translate(&snapshot).graph;
    assert_eq!(graph.backends[0].endpoints.addrs(), ["192.0.2.7:443".parse().unwrap()]);
}

/// A rule with this many regular expressions.
fn expressions(name: &str, count: usize) -> String {
    let one = |i| format!("{{path: {{type: RegularExpression, value: '/{name}{i}'}}}}");
    let all: Vec<String> = (0..count).map(one).collect();
    format!("  - {{matches: [{}], backendRefs: [{{name: app, port: 8080}}]}}\n", all.join(", "))
}

#[test]
fn a_route_has_a_bounded_number_of_regular_expressions() {
    let plain = "  - {backendRefs: [{name: app, port: 8080}]}";
    let spec = format!("  rules:\n{}{}{plain}", expressions("a", 64), expressions("b", 1));
    let translation = translate(&world(&[GATEWAY, SERVICE, &route("r", &spec)]));
    assert_eq!(outcome(&translation.graph, 80, "h.example", "/a63"), "app*1");
    assert_eq!(outcome(&translation.graph, 80, "h.example", "/b0"), "app*1", "by the last rule");
    assert_eq!(of_route(&translation, "r", "Accepted"), "True/Accepted");
    assert_eq!(of_route(&translation, "r", "PartiallyInvalid"), "True/UnsupportedValue");
    assert_eq!(notes(&translation, "r"), ["UnsupportedValue spec.rules[1].matches"]);
}

#[test]
fn a_namespace_has_a_bounded_number_of_regular_expressions() {
    let mut snapshot = world(&[GATEWAY, SERVICE]);
    for i in 0..9 {
        let rule = expressions(&format!("r{i}-"), 64);
        let spec = format!("  hostnames: [h{i}.example]\n  rules:\n{rule}");
        add(&mut snapshot, &route(&format!("r{i}"), &spec));
    }
    let translation = translate(&snapshot);
    assert_eq!(outcome(&translation.graph, 80, "h7.example", "/r7-1"), "app*1");
    assert_eq!(of_route(&translation, "r7", "Accepted"), "True/Accepted");
    assert_eq!(of_route(&translation, "r8", "Accepted"), "False/UnsupportedValue");
}

#[test]
fn an_expression_may_be_what_paths_need_and_not_a_bomb() {
    let fits = ["/v[0-9]+/[a-z]{2,8}/.*", "/\\w+/\\d{4}-\\d{2}/[^/]+", "/(?i)(en|de|fr)/.{0,64}"];
    for (pattern, status) in fits.map(|p| (p, "True/Accepted")).into_iter().chain([
        ("/(\\w{50}){50}", "False/UnsupportedValue"),
        ("/(a{100}){100}", "False/UnsupportedValue"),
        ("/\\pL{99}", "False/UnsupportedValue"),
    ]) {
        let spec = format!(
            "  rules: [{{matches: [{{path: {{type: RegularExpression, value: '{pattern}'}}}}], \
             backendRefs: [{{name: app, port: 8080}}]}}]"
        );
        let translation = translate(&world(&[GATEWAY, SERVICE, &route("r", &spec)]));
        assert_eq!(of_route(&translation, "r", "Accepted"), status, "{pattern}");
    }
}

#[test]
fn a_host_has_a_bounded_number_of_regular_expressions_and_the_older_have_them() {
    let mut snapshot = world(&[GATEWAY, SERVICE]);
    for i in 0..5 {
        // The first in name is the youngest.
        let spec =
            format!("  hostnames: [h.example]\n  rules:\n{}", expressions(&format!("r{i}-"), 64));
        let aged = format!("namespace: infra, creationTimestamp: '2026-01-0{}T00:00:00Z'", 9 - i);
        let route = route(&format!("r{i}"), &spec).replace("namespace: infra", &aged);
        add(&mut snapshot, &route);
    }
    let elsewhere = format!("  hostnames: [other.example]\n  rules:\n{}", expressions("o", 64));
    add(&mut snapshot, &route("other", &elsewhere));
    let translation = translate(&snapshot);
    assert_eq!(of_route(&translation, "r0", "Accepted"), "False/UnsupportedValue");
    assert_eq!(outcome(&translation.graph, 80, "h.example", "/r0-0"), "NoRoute");
    for name in ["r1", "r2", "r3", "r4", "other"] {
        assert_eq!(of_route(&translation, name, "Accepted"), "True/Accepted", "{name}");
    }
    assert_eq!(outcome(&translation.graph, 80, "h.example", "/r4-63"), "app*1");
}

#[test]
fn the_older_route_wins_a_tie_and_then_the_name() {
    let aged = |name: &str, time: &str, to: &str| {
        route(name, &format!("  rules: [{{backendRefs: [{{name: {to}, port: 1}}]}}]"))
            .replace("generation: 7", &format!("creationTimestamp: '{time}'"))
    };
    let services = ["a", "b"].map(|name| {
        format!("kind: Service\nmetadata: {{name: {name}, namespace: infra}}\nspec: {{ports: [{{port: 1}}]}}")
    });
    let (old, new) = ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z");
    for (first, second, expected) in [(new, old, "b*1"), (old, new, "a*1"), (old, old, "a*1")] {
        let parts = [aged("a", first, "a"), aged("b", second, "b")];
        let graph =
            translate(&world(&[GATEWAY, &services[0], &services[1], &parts[0], &parts[1]])).graph;
        assert_eq!(outcome(&graph, 80, "h", "/"), expected);
    }
}

#[test]
fn retries_and_sessions_stand_in_the_rule() {
    use crate::graph::Retry;
    let spec = "  rules:
  - retry: {codes: [503, 500], attempts: 3, backoff: 50ms}
    sessionPersistence: {cookie: {name: stay}}
    backendRefs: [{name: app, port: 8080}]";
    let translation = translate(&world(&[GATEWAY, SERVICE, &route("r", spec)]));
    let rule = find(&translation.graph, 80, "h", "/").unwrap();
    let backoff = std::time::Duration::from_millis(50);
    assert_eq!(rule.retry, Some(Retry { codes: vec![500, 503], attempts: 3, backoff }));
    assert!(rule.session.is_some());
    assert!(notes(&translation, "r").is_empty());
}

#[test]
fn retries_and_sessions_that_cannot_be_are_refused_with_their_field() {
    for (field, value, told) in [
        ("retry", "{codes: [200]}", "retry.codes"),
        ("retry", "{attempts: 1000}", "retry.attempts"),
        ("retry", "{backoff: 1d}", "retry.backoff"),
        ("sessionPersistence", "{type: Ip}", "sessionPersistence.type"),
        ("sessionPersistence", "{absoluteTimeout: x}", "sessionPersistence.absoluteTimeout"),
    ] {
        let spec =
            format!("  rules: [{{{field}: {value}, backendRefs: [{{name: app, port: 8080}}]}}]");
        let translation = translate(&world(&[GATEWAY, SERVICE, &route("r", &spec)]));
        assert_eq!(of_route(&translation, "r", "Accepted"), "False/UnsupportedValue");
        assert_eq!(notes(&translation, "r"), [format!("UnsupportedValue spec.rules[0].{told}")]);
        assert_eq!(outcome(&translation.graph, 80, "h", "/"), "UnsupportedValue");
    }
}
