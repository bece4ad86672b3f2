//! How long a pass takes in a large world. Run it with
//! `cargo test --release --lib measure -- --ignored --nocapture`.

use std::fmt::Write;
use std::time::{Duration, Instant};

use super::*;

const ROUTES: usize = 10_000;
const SECRETS: usize = 1_000;
const ENDPOINTS: usize = 5_000;
/// Most listeners of a Gateway.
const LISTENERS: usize = 64;

/// Routes of two rules each, every twentieth with a regular expression; HTTPS listeners with a
/// certificate each; a Service with many endpoints.
fn large() -> Snapshot {
    let mut snapshot = world(&[GATEWAY, SERVICE]);
    for i in 0..ROUTES {
        let path = match i % 20 {
            0 => format!("{{type: RegularExpression, value: '/v[0-9]+/[a-z]{{2,8}}/{i}'}}"),
            _ => "{value: /a}".to_owned(),
        };
        let spec = format!(
            "  hostnames: [h{i}.example]\n  rules:\n  - matches: [{{path: {path}}}]\n    \
             backendRefs: [{{name: app, port: 8080}}]\n  - backendRefs: [{{name: app, port: 8080}}]"
        );
        add(&mut snapshot, &route(&format!("r{i}"), &spec));
    }
    for first in (0..SECRETS).step_by(LISTENERS) {
        let mut listeners = String::new();
        for i in first..SECRETS.min(first + LISTENERS) {
            put(&mut snapshot, secret(&format!("s{i}"), "infra", &[&format!("s{i}.example")]));
            writeln!(
                listeners,
                "  - {{name: l{i}, port: 443, protocol: HTTPS, hostname: s{i}.example, tls: \
                 {{certificateRefs: [{{name: s{i}}}]}}}}"
            )
            .unwrap();
        }
        let gateway = format!(
            "kind: Gateway\nmetadata: {{name: g{first}, namespace: infra}}\nspec:\n  \
             gatewayClassName: tidegate\n  listeners:\n{listeners}"
        );
        add(&mut snapshot, &gateway);
    }
    for i in 0..ENDPOINTS / 1000 {
        let one = |j: usize| format!("{{addresses: [10.{}.{}.{}]}}", i + 1, j / 250, j % 250 + 1);
        let all: Vec<String> = (0..1000).map(one).collect();
        let slice = format!(
            "kind: EndpointSlice\nmetadata: {{name: big-{i}, namespace: infra, labels: \
             {{kubernetes.io/service-name: app}}}}\naddressType: IPv4\nports: [{{name: http, port: \
             3000}}]\nendpoints: [{}]",
            all.join(", ")
        );
        add(&mut snapshot, &slice);
    }
    let mut settings = (*snapshot.settings).clone();
    // Gateways with ports of their own, as in a cluster.
    settings.ports = Ports::Container { first: 20000, last: 21000 };
    snapshot.settings = Arc::new(settings);
    for i in 0..SECRETS.div_ceil(LISTENERS) {
        let name = format!("g{}", i * LISTENERS);
        let service = format!(
            "kind: Service\nmetadata: {{name: {name}-tidegate, namespace: infra, labels: \
             {{app.kubernetes.io/managed-by: tidegate}}}}\nspec: {{ports: [{{name: port-443, port: \
             443, targetPort: {}}}]}}",
            20100 + i
        );
        add(&mut snapshot, &service);
    }
    snapshot
}

#[test]
#[ignore = "measures"]
fn measure_a_large_world() {
    let mut snapshot = large();
    let timed = |snapshot: &Snapshot| {
        let began = Instant::now();
        let translation = translate(snapshot);
        (began.elapsed(), translation)
    };
    let (first, translation) = timed(&snapshot);
    assert_eq!(translation.good_certificates.len(), SECRETS);
    apply(&mut snapshot, &translation);
    let (second, translation) = timed(&snapshot);
    apply(&mut snapshot, &translation);
    let mut later: Vec<(Duration, usize)> = Vec::new();
    for _ in 0..5 {
        let (took, translation) = timed(&snapshot);
        later.push((took, translation.statuses.len()));
    }
    snapshot.memo = Arc::default();
    let (without, _) = timed(&snapshot);
    eprintln!("first {first:?}, second {second:?}, later {later:?}, without memo {without:?}");
}
