//! The files' side of `source`: reading, reading again, and what stays when a file breaks.

#![allow(clippy::unwrap_used, reason = "a panic here is a failed test")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tidegate::source::{Embedded, FileProblem, FileSource, Source};
use tidegate::translate::{Key, Settings, Snapshot};

fn service(name: &str, port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\nspec:\n  ports:\n  - port: \
         {port}\n---\n"
    )
}

fn broken_service(name: &str) -> String {
    service(name, 0).replace("port: 0", "port: eighty")
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn write(folder: &TempDir, name: &str, text: &str) -> PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, text).unwrap();
    path
}

fn start(path: &Path) -> Result<Source, Vec<FileProblem>> {
    FileSource::start(vec![path.to_owned()], Arc::new(Settings::default()), Vec::new())
        .map(Source::Files)
}

fn refused(path: &Path) -> Vec<String> {
    let problems = start(path).err().expect("it does not start");
    let folder = format!("{}/", path.display());
    problems.iter().map(|problem| problem.to_string().replace(&folder, "")).collect()
}

async fn pass(source: &mut Source) -> Snapshot {
    tokio::time::timeout(Duration::from_secs(10), source.changed()).await.expect("a pass is due");
    source.snapshot()
}

async fn passes(source: &mut Source, done: impl Fn(&Snapshot) -> bool) -> Snapshot {
    loop {
        let snapshot = pass(source).await;
        if done(&snapshot) {
            return snapshot;
        }
    }
}

/// The ports of all Services by name.
fn ports(snapshot: &Snapshot) -> Vec<(String, i32)> {
    let port = |service: &k8s_openapi::api::core::v1::Service| {
        service.spec.as_ref().unwrap().ports.as_ref().unwrap()[0].port
    };
    snapshot.services.iter().map(|(key, service)| (key.name.clone(), port(service))).collect()
}

fn are(expected: &[(&str, i32)]) -> impl Fn(&Snapshot) -> bool {
    let expected: Vec<_> = expected.iter().map(|(name, port)| ((*name).into(), *port)).collect();
    move |snapshot| ports(snapshot) == expected
}

const EVERY_KIND: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: a}
spec: {}
---
apiVersion: gateway.networking.k8s.io/v1alpha2
kind: TLSRoute
metadata: {name: a}
spec: {}
---
apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata: {name: a}
spec: {}
---
apiVersion: gateway.networking.k8s.io/v1alpha2
kind: UDPRoute
metadata: {name: a}
spec: {}
---
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {name: a}
spec: {}
---
apiVersion: gateway.networking.k8s.io/v1alpha3
kind: BackendTLSPolicy
metadata: {name: a}
spec: {}
---
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XBackend
metadata: {name: a}
spec: {}
---
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XBackendTrafficPolicy
metadata: {name: a}
spec: {}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: a}
---
apiVersion: certificates.k8s.io/v1beta1
kind: ClusterTrustBundle
metadata: {name: a}
spec: {trustBundle: PEM}
";

#[tokio::test]
async fn every_kind_is_read_in_every_version() {
    let folder = folder();
    write(&folder, "a.yaml", EVERY_KIND);
    let mut source = start(folder.path()).unwrap_or_else(|problems| panic!("{problems:?}"));
    let s = pass(&mut source).await;
    let a = Key::new("default", "a");
    assert!(s.grpc_routes.contains_key(&a) && s.tls_routes.contains_key(&a));
    assert!(s.tcp_routes.contains_key(&a) && s.udp_routes.contains_key(&a));
    assert!(s.listener_sets.contains_key(&a) && s.backend_tls_policies.contains_key(&a));
    assert!(s.x_backends.contains_key(&a) && s.x_backend_traffic_policies.contains_key(&a));
    assert!(s.config_maps.contains_key(&a));
    assert!(s.cluster_trust_bundles.contains_key(&Key::new("", "a")));
}

#[tokio::test]
async fn a_kind_that_nobody_knows_stops_the_start_if_its_group_is_known() {
    let folder = folder();
    let text = "apiVersion: gateway.networking.k8s.io/v1\nkind: HttpRoute\nmetadata: {name: a}\n";
    write(&folder, "a.yaml", text);
    let expected =
        "a.yaml:2: gateway.networking.k8s.io has no kind \"HttpRoute\"; did you mean HTTPRoute?";
    assert_eq!(refused(folder.path()), [expected]);
}

#[tokio::test]
async fn a_folder_is_read_with_its_folders_in_any_form() {
    let folder = folder();
    write(&folder, "a.yaml", &(service("a", 1) + &service("b", 2)));
    fs::create_dir(folder.path().join("sub")).unwrap();
    write(
        &folder,
        "sub/c.yml",
        "kind: List\nitems:\n- {apiVersion: v1, kind: Service, metadata: {name: c}, spec: {ports: [{port: 3}]}}\n",
    );
    write(
        &folder,
        "d.json",
        r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"d"},"spec":{"ports":[{"port":4}]}}"#,
    );
    write(&folder, "notes.txt", "no: [yaml");
    write(&folder, ".hidden.yaml", "no: [yaml");
    let mut source = start(folder.path()).unwrap();
    let snapshot = pass(&mut source).await;
    assert!(are(&[("a", 1), ("b", 2), ("c", 3), ("d", 4)])(&snapshot));
    let namespace = &snapshot.namespaces[&Key::new("", "default")];
    let labels = namespace.metadata.labels.as_ref().unwrap();
    assert_eq!(labels["kubernetes.io/metadata.name"], "default");
}

#[test]
fn a_field_that_is_wrong_is_told_with_its_line_and_nothing_starts() {
    let folder = folder();
    write(&folder, "a.yaml", &(service("a", 1) + &broken_service("b")));
    let problems = refused(folder.path());
    assert_eq!(problems.len(), 1);
    let start = "a.yaml:15: Service default/b: spec.ports[0].port: ";
    assert!(problems[0].starts_with(start), "{problems:?}");
}

#[test]
fn a_file_that_is_no_yaml_is_told_with_its_line() {
    let folder = folder();
    write(&folder, "a.yaml", "kind: Service\nmetadata: {name: [}\n");
    let problems = refused(folder.path());
    assert!(problems[0].starts_with("a.yaml:2: is no YAML: "), "{problems:?}");
}

#[test]
fn two_objects_of_one_name_are_told_with_both_places() {
    let folder = folder();
    write(&folder, "a.yaml", &service("a", 1));
    write(&folder, "b.yaml", &(service("b", 1) + &service("a", 2)));
    let problems = refused(folder.path());
    let place = folder.path().join("a.yaml").display().to_string();
    assert_eq!(
        problems,
        [format!("b.yaml:9: Service default/a: is already at {place}:1; remove one of the two")
            .replace(&format!("{}/", folder.path().display()), "")]
    );
}

#[test]
fn a_path_that_is_not_there_is_told() {
    let folder = folder();
    let problems = start(&folder.path().join("none")).err().unwrap();
    assert!(problems[0].message.starts_with("cannot be read: "), "{problems:?}");
}

#[tokio::test]
async fn what_is_compiled_in_is_read_too() {
    let embedded = Embedded { name: "demo.yaml".into(), text: service("demo", 80) };
    let files = FileSource::start(Vec::new(), Arc::new(Settings::default()), vec![embedded]);
    let snapshot = pass(&mut Source::Files(files.unwrap())).await;
    assert!(are(&[("demo", 80)])(&snapshot));
}

#[tokio::test]
async fn changes_new_files_and_removed_files_are_seen() {
    let folder = folder();
    let first = write(&folder, "a.yaml", &service("a", 1));
    let mut source = start(folder.path()).unwrap();
    pass(&mut source).await;
    write(&folder, "a.yaml", &service("a", 2));
    passes(&mut source, are(&[("a", 2)])).await;
    write(&folder, "b.yaml", &service("b", 3));
    passes(&mut source, are(&[("a", 2), ("b", 3)])).await;
    fs::remove_file(first).unwrap();
    passes(&mut source, are(&[("b", 3)])).await;
}

#[tokio::test]
async fn a_file_that_an_editor_renames_over_is_read() {
    let folder = folder();
    let path = write(&folder, "a.yaml", &service("a", 1));
    let mut source = start(&path).unwrap();
    pass(&mut source).await;
    for port in 2..4 {
        let new = write(&folder, "a.yaml.swp", &service("a", port));
        fs::rename(new, &path).unwrap();
        passes(&mut source, are(&[("a", i32::from(port))])).await;
    }
}

#[tokio::test]
async fn a_config_map_volume_that_swaps_its_link_is_read() {
    let folder = folder();
    for (version, port) in [("..1", 1), ("..2", 2)] {
        fs::create_dir(folder.path().join(version)).unwrap();
        write(&folder, &format!("{version}/a.yaml"), &service("a", port));
    }
    symlink("..1", folder.path().join("..data")).unwrap();
    symlink("..data/a.yaml", folder.path().join("a.yaml")).unwrap();
    let mut source = start(folder.path()).unwrap();
    assert!(are(&[("a", 1)])(&pass(&mut source).await));
    symlink("..2", folder.path().join("..data_tmp")).unwrap();
    fs::rename(folder.path().join("..data_tmp"), folder.path().join("..data")).unwrap();
    passes(&mut source, are(&[("a", 2)])).await;
}

#[tokio::test]
async fn an_object_that_breaks_keeps_its_last_good_version() {
    let folder = folder();
    write(&folder, "a.yaml", &(service("a", 1) + &service("b", 1)));
    let mut source = start(folder.path()).unwrap();
    pass(&mut source).await;
    write(&folder, "a.yaml", &(broken_service("a") + &service("b", 2)));
    let snapshot = passes(&mut source, are(&[("a", 1), ("b", 2)])).await;
    assert_eq!(snapshot.undecodable.len(), 1);
    let origin = snapshot.undecodable[0].origin.as_deref().unwrap();
    assert!(origin.ends_with("a.yaml:1"), "{origin}");
    assert_eq!(source.handle().problems().len(), 1);
    assert_eq!(source.handle().stats().counts().reload_errors, 1);

    write(&folder, "a.yaml", &(service("a", 3) + &service("b", 2)));
    let snapshot = passes(&mut source, are(&[("a", 3), ("b", 2)])).await;
    assert!(snapshot.undecodable.is_empty());
    assert!(source.handle().problems().is_empty());
}

#[tokio::test]
async fn a_file_that_breaks_keeps_all_its_objects_and_its_neighbours_change() {
    let folder = folder();
    write(&folder, "a.yaml", &(service("a", 1) + &service("b", 1)));
    write(&folder, "z.yaml", &service("z", 1));
    let mut source = start(folder.path()).unwrap();
    pass(&mut source).await;
    write(&folder, "a.yaml", "kind: [");
    write(&folder, "z.yaml", &service("z", 2));
    passes(&mut source, are(&[("a", 1), ("b", 1), ("z", 2)])).await;
    // It stays so while it is broken.
    write(&folder, "z.yaml", &service("z", 3));
    passes(&mut source, are(&[("a", 1), ("b", 1), ("z", 3)])).await;
    write(&folder, "a.yaml", &service("a", 2));
    passes(&mut source, are(&[("a", 2), ("z", 3)])).await;
}

#[tokio::test]
async fn a_folder_that_disappears_keeps_its_objects() {
    let folder = folder();
    let sub = folder.path().join("sub");
    fs::create_dir(&sub).unwrap();
    write(&folder, "sub/a.yaml", &service("a", 1));
    let mut source = start(&sub).unwrap();
    pass(&mut source).await;
    let away = folder.path().join("away");
    fs::rename(&sub, &away).unwrap();
    for _ in 0..2000 {
        if !source.handle().problems().is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(are(&[("a", 1)])(&source.snapshot()));
    fs::rename(&away, &sub).unwrap();
    write(&folder, "sub/a.yaml", &service("a", 2));
    passes(&mut source, are(&[("a", 2)])).await;
}

#[tokio::test]
async fn external_names_are_resolved_before_the_first_pass() {
    let folder = folder();
    write(
        &folder,
        "a.yaml",
        "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {type: ExternalName, \
         externalName: localhost, ports: [{port: 80}]}\n",
    );
    let settings = Settings { external_names: true, ..Settings::default() };
    let files = FileSource::start(vec![folder.path().into()], Arc::new(settings), Vec::new());
    let snapshot = pass(&mut Source::Files(files.unwrap())).await;
    assert_eq!(snapshot.resolved["localhost"][0].to_string(), "127.0.0.1");
}

#[test]
fn a_link_to_a_folder_that_it_is_in_is_told_once() {
    let folder = folder();
    write(&folder, "a.yaml", &service("a", 1));
    symlink(".", folder.path().join("loop")).unwrap();
    let problems = refused(folder.path());
    assert_eq!(problems, ["loop: cannot be read: is a link to a folder that it is in; remove it"]);
}

#[test]
fn a_path_that_is_named_and_is_no_file_is_told() {
    let path = Path::new("/dev/null");
    assert_eq!(refused(path), ["/dev/null: cannot be read: is neither a file nor a folder"]);
}
