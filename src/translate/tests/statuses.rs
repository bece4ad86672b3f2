//! Statuses: foreign entries, transition times, and silence where nothing changed.

use super::*;

#[test]
fn what_was_said_is_not_said_again() {
    let listeners = "
kind: Middleware
metadata: {name: m, namespace: infra}
spec: {targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: gw}], requestHeaders: {remove: [a]}}";
    let mut snapshot = world(&[GATEWAY, SERVICE, listeners, &route("r", TO_APP)]);
    let translation = translate(&snapshot);
    assert_eq!(translation.statuses.len(), 4);
    apply(&mut snapshot, &translation);
    snapshot.taken = "2026-11-21T13:00:00Z".parse().unwrap();
    assert_eq!(translate(&snapshot).statuses, []);
}

#[test]
fn a_transition_time_moves_only_with_its_status() {
    let mut snapshot = world(&[GATEWAY, SERVICE, &route("r", TO_APP)]);
    let translation = translate(&snapshot);
    apply(&mut snapshot, &translation);
    snapshot.taken = "2026-11-21T13:00:00Z".parse().unwrap();
    Arc::make_mut(&mut snapshot.services).clear();
    let translation = translate(&snapshot);
    let status = written(&translation, ObjectKind::HttpRoute, "r").unwrap();
    let since = |r#type: &str| {
        let list = status["parents"][0]["conditions"].as_array().unwrap();
        list.iter().find(|c| c["type"] == r#type).unwrap()["lastTransitionTime"].clone()
    };
    assert_eq!(since("Accepted"), "2026-11-21T12:00:00Z");
    assert_eq!(since("ResolvedRefs"), "2026-11-21T13:00:00Z");
}

#[test]
fn conditions_of_others_survive_untouched() {
    let foreign = r#"{type: Theirs, status: "True", reason: X, message: "", lastTransitionTime: "2020-01-01T00:00:00Z", observedGeneration: 1, newer: kept}"#;
    let status = format!(
        "status:\n  conditions: [{foreign}]\n  newer: 2\n  listeners: [{{name: http, attachedRoutes: 5, supportedKinds: [], conditions: [{foreign}]}}]\n"
    );
    let translation = translate(&world(&[&format!("{GATEWAY}{status}")]));
    let status = written(&translation, ObjectKind::Gateway, "gw").unwrap();
    for conditions in [&status["conditions"], &status["listeners"][0]["conditions"]] {
        let list = conditions.as_array().unwrap();
        let theirs = list.iter().find(|c| c["type"] == "Theirs").unwrap();
        assert_eq!(theirs["lastTransitionTime"], "2020-01-01T00:00:00Z");
        assert_eq!(theirs["observedGeneration"], 1);
        assert_eq!(theirs["newer"], "kept");
    }
    assert_eq!(status["newer"], 2);
}

#[test]
fn parents_of_other_controllers_survive_and_ours_without_a_gateway_go() {
    let status = "
status:
  parents:
  - {controllerName: example.com/other, parentRef: {name: unmanaged}, conditions: [{type: Accepted, status: 'True', reason: Accepted, message: '', lastTransitionTime: '2020-01-01T00:00:00Z'}], extra: 1}
  - {controllerName: tidegate.dev/gateway-controller, parentRef: {name: old}, conditions: []}";
    let spec = format!("{TO_APP}{status}").replace("  rules", "  - {name: unmanaged}\n  rules");
    let text = route("r", &spec).replace("[{name: gw}]", "\n  - {name: gw}");
    let translation = translate(&world(&[GATEWAY, SERVICE, &text]));
    let status = written(&translation, ObjectKind::HttpRoute, "r").unwrap();
    let parents = status["parents"].as_array().unwrap();
    let names: Vec<_> = parents.iter().map(|p| p["parentRef"]["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["unmanaged", "gw"]);
    assert_eq!(parents[0]["extra"], 1);
    assert_eq!(parents[0]["conditions"][0]["lastTransitionTime"], "2020-01-01T00:00:00Z");
}

#[test]
fn every_entry_stays_where_it_stood() {
    let mut snapshot = world(&[GATEWAY, SERVICE, &route("r", TO_APP)]);
    let translation = translate(&snapshot);
    apply(&mut snapshot, &translation);
    let mut object = serde_json::to_value(&snapshot.http_routes[&Key::new("infra", "r")]).unwrap();
    let foreign = serde_json::json!({
        "parentRef": {"name": "theirs"}, "controllerName": "example.com/other", "conditions": [],
    });
    object["status"]["parents"].as_array_mut().unwrap().insert(0, foreign);
    put(&mut snapshot, object);
    assert_eq!(translate(&snapshot).statuses, [], "who puts its own first is not fought");
}

#[test]
fn a_condition_that_is_not_said_any_more_goes() {
    let bad = "  rules:
  - matches: [{path: {type: RegularExpression, value: '('}}]
  - backendRefs: [{name: app, port: 8080}]";
    let mut snapshot = world(&[GATEWAY, SERVICE, &route("r", bad)]);
    let translation = translate(&snapshot);
    apply(&mut snapshot, &translation);
    let status = snapshot.http_routes[&Key::new("infra", "r")].status.clone();
    let mut fixed: Value = serde_saphyr::from_str(&route("r", TO_APP)).unwrap();
    fixed["status"] = serde_json::to_value(status).unwrap();
    put(&mut snapshot, fixed);
    assert_eq!(of_route(&translate(&snapshot), "r", "PartiallyInvalid"), "-");
}

#[test]
fn equal_snapshots_give_equal_translations() {
    let snapshot = cluster(&[GATEWAY, SERVICE, &route("r", TO_APP), &route("s", TO_APP)]);
    let (a, b) = (translate(&snapshot), translate(&snapshot));
    assert_eq!(a.statuses, b.statuses);
    assert_eq!(a.infrastructure, b.infrastructure);
    assert_eq!(a.notes, b.notes);
}

#[test]
fn an_object_that_cannot_be_read_is_noted() {
    let mut snapshot = world(&[GATEWAY]);
    snapshot.undecodable = Arc::new(vec![crate::translate::Undecodable {
        kind: "HTTPRoute".into(),
        key: Key::new("infra", "broken"),
        uid: None,
        origin: Some("a.yaml:3".into()),
        message: "spec.rules: not a list".into(),
    }]);
    assert_eq!(notes(&translate(&snapshot), "broken"), ["Undecodable "]);
}
