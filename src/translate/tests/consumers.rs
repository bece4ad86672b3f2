//! Consumers: what their status says, and that what is wrong with one leaves the others alone.

use super::*;

const SECRETS: &str = "
kind: Secret
metadata: {name: keys, namespace: infra}
stringData: {apiKey: first-secret-key, short: abc, second: second-secret-key}
---
kind: Secret
metadata: {name: users, namespace: infra}
stringData: {auth: 'bob:{SHA}tiY7sUhYKUwI5L3866kDY+ENcrQ='}";

fn consumer(name: &str, second: u8, credentials: &str) -> String {
    format!(
        "
kind: Consumer
metadata: {{name: {name}, namespace: infra, generation: 2, uid: u-{name}, creationTimestamp: '2026-01-01T00:00:0{second}Z'}}
spec: {{groups: [apps], plan: gold, credentials: {{{credentials}}}}}"
    )
}

/// `status/reason message` of each Consumer's one condition.
fn said(translation: &Translation) -> Vec<(String, String)> {
    let of = translation.statuses.iter().filter(|s| s.object.kind == ObjectKind::Consumer);
    let mut said: Vec<_> = of
        .map(|write| {
            let conditions = write.status["conditions"].as_array().unwrap();
            assert_eq!(conditions.len(), 1);
            let of = |name: &str| conditions[0][name].as_str().unwrap_or_default().to_owned();
            let text = format!("{}/{} {}", of("status"), of("reason"), of("message"));
            (write.object.key.name.clone(), text.trim_end().to_owned())
        })
        .collect();
    said.sort();
    said
}

#[test]
fn a_consumer_whose_credentials_are_good_is_accepted_once() {
    let all = "apiKeys: [{secretRef: {name: keys}, expires: '2027-01-01T00:00:00Z'}], \
               basic: [{secretRef: {name: users}}], \
               jwt: [{issuer: 'https://i.example', values: [a, b]}], \
               clientCertificates: [{name: a.example}]";
    let mut snapshot = world(&[SECRETS, &consumer("app", 0, all), &consumer("guest", 0, "")]);
    let translation = translate(&snapshot);
    let expected = ["app", "guest"].map(|name| (name.to_owned(), "True/Accepted".to_owned()));
    assert_eq!(said(&translation), expected);
    apply(&mut snapshot, &translation);
    assert_eq!(said(&translate(&snapshot)), []);
}

#[test]
fn what_is_wrong_with_credentials_stands_in_the_status_and_in_a_note() {
    for (credentials, expected) in [
        (
            "apiKeys: [{secretRef: {name: gone}}]",
            "SecretNotFound spec.credentials.apiKeys[0]: Secret gone does not exist; create it",
        ),
        (
            "apiKeys: [{secretRef: {name: keys}}, {secretRef: {name: keys, key: other}}]",
            "InvalidSecret spec.credentials.apiKeys[1]: Secret keys has no key `other`",
        ),
        (
            "apiKeys: [{secretRef: {name: keys, key: short}}]",
            "InvalidSecret spec.credentials.apiKeys[0]: Secret keys, key `short`: of 3 characters",
        ),
        (
            "basic: [{secretRef: {name: keys}}]",
            "InvalidSecret spec.credentials.basic[0]: Secret keys has no key `auth`",
        ),
    ] {
        let translation = translate(&world(&[SECRETS, &consumer("app", 0, credentials)]));
        let said = said(&translation);
        assert!(said[0].1.starts_with(&format!("False/{expected}")), "{said:?}");
        assert_eq!(notes(&translation, "app").len(), 1);
    }
}

#[test]
fn of_two_consumers_with_one_credential_the_older_keeps_it_and_the_other_is_told() {
    let credentials = "apiKeys: [{secretRef: {name: keys}}], basic: [{secretRef: {name: users}}], \
                       clientCertificates: [{name: a.example}]";
    for (first, second, refused) in [(0, 1, "b"), (1, 0, "a"), (1, 1, "b")] {
        let translation = translate(&world(&[
            SECRETS,
            &consumer("a", first, credentials),
            &consumer("b", second, credentials),
        ]));
        for (name, text) in said(&translation) {
            if name == refused {
                assert!(text.starts_with("False/Conflicted "), "{text}");
                assert_eq!(text.matches("already").count(), 3, "{text}");
            } else {
                assert_eq!(text, "True/Accepted");
            }
        }
        assert_eq!(notes(&translation, refused).len(), 3);
    }
}

#[test]
fn a_secret_that_changes_is_read_again() {
    let mut snapshot = world(&[SECRETS, &consumer("app", 0, "apiKeys: [{secretRef: {name: k}}]")]);
    assert!(said(&translate(&snapshot))[0].1.starts_with("False/SecretNotFound"));
    add(
        &mut snapshot,
        "{kind: Secret, metadata: {name: k, namespace: infra}, stringData: {apiKey: short}}",
    );
    assert!(said(&translate(&snapshot))[0].1.starts_with("False/InvalidSecret"));
    add(
        &mut snapshot,
        "{kind: Secret, metadata: {name: k, namespace: infra}, stringData: {apiKey: long-enough}}",
    );
    assert_eq!(said(&translate(&snapshot))[0].1, "True/Accepted");
}

#[test]
fn consumers_of_other_namespaces_are_others() {
    let elsewhere = |text: &str| text.replace("infra", "b");
    let credentials = "apiKeys: [{secretRef: {name: keys}}]";
    let one = consumer("app", 0, credentials);
    let translation = translate(&world(&[SECRETS, &elsewhere(SECRETS), &one, &elsewhere(&one)]));
    assert!(said(&translation).iter().all(|(_, text)| text == "True/Accepted"));
}
