//! What `manifests/install.yaml` holds. Its roles against what the code calls: no verb more,
//! because a controller that was taken over has all of them, and none less. Its CRDs, and the
//! chart's, against `crds/`.

#![allow(clippy::unwrap_used, reason = "a panic here is a failed test")]

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use tidegate::translate::ObjectKind;

/// Verbs by API group and resource.
type Rights = BTreeMap<(String, String), BTreeSet<String>>;

fn add(rights: &mut Rights, group: &str, resource: &str, verbs: &[&str]) {
    let known = rights.entry((group.to_owned(), resource.to_owned())).or_default();
    known.extend(verbs.iter().map(|verb| (*verb).to_owned()));
}

/// What `source` and `controller` call in the whole cluster.
fn used() -> Rights {
    let mut used = Rights::new();
    for kind in ObjectKind::ALL {
        let (api_version, _, plural) = kind.names();
        let group = api_version.rsplit_once('/').map_or("", |(group, _)| group);
        // source::watch, and of ConfigMaps only source::named
        add(&mut used, group, plural, &["list", "watch"]);
        let more: &[&str] = match kind {
            // source::named, for those beyond its watches
            ObjectKind::Secret | ObjectKind::ConfigMap => &["get"],
            // controller::infrastructure: POST, PUT, and GET before DELETE
            ObjectKind::Service | ObjectKind::EndpointSlice => {
                &["get", "create", "update", "delete"]
            }
            _ => &[],
        };
        add(&mut used, group, plural, more);
        let has_status = matches!(
            kind,
            ObjectKind::GatewayClass
                | ObjectKind::Gateway
                | ObjectKind::HttpRoute
                | ObjectKind::GrpcRoute
                | ObjectKind::TlsRoute
                | ObjectKind::TcpRoute
                | ObjectKind::UdpRoute
                | ObjectKind::ListenerSet
                | ObjectKind::BackendTlsPolicy
                | ObjectKind::XBackend
                | ObjectKind::XBackendTrafficPolicy
                | ObjectKind::Ingress
                | ObjectKind::Middleware
                | ObjectKind::RateLimit
                | ObjectKind::Consumer
        );
        if has_status {
            // controller::status
            add(&mut used, group, &format!("{plural}/status"), &["patch"]);
        }
    }
    // controller::events
    add(&mut used, "events.k8s.io", "events", &["create"]);
    used
}

fn read(path: &str) -> String {
    std::fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// The objects that a person installs.
fn installed() -> Vec<Value> {
    let text = read("manifests/install.yaml");
    text.split("\n---\n").map(|document| serde_saphyr::from_str(document).unwrap()).collect()
}

/// The rules of every role of this kind, and the objects that they name.
fn granted(kind: &str) -> (Rights, BTreeSet<String>) {
    let (mut rights, mut names) = (Rights::new(), BTreeSet::new());
    for object in installed() {
        if object["kind"] != kind {
            continue;
        }
        for rule in object["rules"].as_array().unwrap() {
            let list = |field: &str| -> Vec<&str> {
                rule[field].as_array().into_iter().flatten().map(|v| v.as_str().unwrap()).collect()
            };
            names.extend(list("resourceNames").into_iter().map(str::to_owned));
            for group in list("apiGroups") {
                for resource in list("resources") {
                    add(&mut rights, group, resource, &list("verbs"));
                }
            }
        }
    }
    (rights, names)
}

#[test]
fn the_cluster_role_grants_exactly_what_the_code_calls() {
    assert_eq!(granted("ClusterRole").0, used());
}

#[test]
fn in_its_own_namespace_only_the_lease_is_more() {
    let mut lease = Rights::new();
    // controller::leader
    add(&mut lease, "coordination.k8s.io", "leases", &["get", "create", "update"]);
    let (rights, names) = granted("Role");
    assert_eq!(rights, lease);
    assert_eq!(names, BTreeSet::from(["tidegate".to_owned()]), "one Lease, by its name");
}

#[test]
fn the_crds_that_are_installed_are_those_of_the_code() {
    let installed = installed();
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/crds")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let text = read(&format!("crds/{name}"));
        let copy = read(&format!("charts/tidegate/files/crds/{name}"));
        assert_eq!(copy, text, "the chart's copy of crds/{name}: run charts/render");
        let crd: Value = serde_saphyr::from_str(&text).unwrap();
        let here = |object: &&Value| object["metadata"]["name"] == crd["metadata"]["name"];
        let there = installed.iter().find(here).expect("install.yaml has every CRD");
        assert_eq!(there["spec"], crd["spec"], "crds/{name} in install.yaml: run charts/render");
    }
}
