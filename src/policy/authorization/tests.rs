use std::sync::Arc;

use http::StatusCode;

use super::*;
use crate::policy::identity::Identity;
use crate::policy::testing::{self, answer, exchange};

fn compile(yaml: &str) -> Result<Authorization, Invalid> {
    let spec: Spec = serde_saphyr::from_str(yaml).unwrap();
    Authorization::compile(&spec, &Refs::default())
}

fn by(who: Option<Identity>, method: &str, path: &str) -> Exchange<'static> {
    let mut ex = exchange(method, &format!("http://a.example{path}"), &[("x-a", "1")]);
    ex.identity = who.map(Arc::new);
    ex
}

/// The status for alice's GET of a path, if there is one.
fn alice(yaml: &str, path: &str) -> Option<StatusCode> {
    let policy = compile(yaml).unwrap();
    let reply = answer(&policy, &mut by(Some(testing::alice()), "GET", path));
    reply.map(|reply| reply.status)
}

fn nobody(yaml: &str, path: &str) -> Option<StatusCode> {
    let reply = answer(&compile(yaml).unwrap(), &mut by(None, "GET", path));
    reply.map(|reply| reply.status)
}

const FORBIDDEN: Option<StatusCode> = Some(StatusCode::FORBIDDEN);
const UNAUTHORIZED: Option<StatusCode> = Some(StatusCode::UNAUTHORIZED);

#[test]
fn each_condition_holds_for_one_of_its_entries() {
    for (holds, does_not) in [
        ("consumers: [bob, alice]", "consumers: [bob]"),
        ("groups: [staff]", "groups: [Staff]"),
        ("groups: [apps]", "groups: [app]"),
        ("scopes: [write, read]", "scopes: [admin]"),
        ("claims: [{name: tenant, values: [x, acme]}]", "claims: [{name: tenant, values: [x]}]"),
        ("claims: [{name: age, values: ['30']}]", "claims: [{name: age, values: ['3']}]"),
        ("claims: [{name: vip, values: ['true']}]", "claims: [{name: vip, values: ['1']}]"),
        ("claims: [{name: score, values: ['1.5']}]", "claims: [{name: none, values: ['null']}]"),
        ("claims: [{name: roles, values: [reader]}]", "claims: [{name: roles, values: [nested]}]"),
        ("claims: [{name: roles, values: ['7']}]", "claims: [{name: realm, values: [roles]}]"),
        ("claims: [{name: realm.roles, values: [deep]}]", "claims: [{name: gone, values: ['']}]"),
        ("methods: [POST, GET]", "methods: [POST]"),
        ("paths: [{value: /v1}]", "paths: [{value: /V1}]"),
        ("paths: [{value: /v1/}]", "paths: [{value: /v}]"),
        ("paths: [{value: /}]", "paths: [{type: Exact, value: /v1/}]"),
        ("paths: [{type: Exact, value: /v1/items}]", "paths: [{type: Exact, value: /v1}]"),
        ("sourceIPs: [192.0.2.0/24]", "sourceIPs: [192.0.3.0/24]"),
        (r#"expression: "identity.plan == 'gold'""#, r#"expression: "identity.plan == 'free'""#),
        (
            r#"expression: "request.headers['x-a'] == '1'""#,
            r#"expression: "request.headers['x-a'] == '2'""#,
        ),
    ] {
        assert_eq!(alice(&format!("rules: [{{{holds}}}]"), "/v1/items"), None, "{holds}");
        assert_eq!(
            alice(&format!("rules: [{{{does_not}}}]"), "/v1/items"),
            FORBIDDEN,
            "{does_not}"
        );
        let deny = format!("rules: [{{effect: Deny, {holds}}}]");
        assert_eq!(alice(&deny, "/v1/items"), FORBIDDEN, "{deny}");
    }
}

#[test]
fn all_conditions_of_a_rule_must_hold_and_one_rule_is_enough() {
    let both = "rules: [{groups: [staff], paths: [{value: /staff}]}]";
    assert_eq!(alice(both, "/staff/x"), None);
    assert_eq!(alice(both, "/other"), FORBIDDEN);
    let either = "rules: [{groups: [none]}, {paths: [{value: /staff}]}]";
    assert_eq!(alice(either, "/staff"), None);
    let claims = "rules: [{claims: [{name: tenant, values: [acme]}, {name: age, values: [x]}]}]";
    assert_eq!(alice(claims, "/"), FORBIDDEN);
}

#[test]
fn a_rule_that_denies_wins_wherever_it_stands() {
    for rules in [
        "[{effect: Deny, paths: [{value: /admin}]}, {groups: [staff]}]",
        "[{groups: [staff]}, {effect: Deny, paths: [{value: /admin}]}]",
    ] {
        let yaml = format!("rules: {rules}");
        assert_eq!(alice(&yaml, "/admin/x"), FORBIDDEN);
        assert_eq!(alice(&yaml, "/administrator"), None);
    }
    let only_deny = "rules: [{effect: Deny, paths: [{value: /admin}]}]";
    assert_eq!(nobody(only_deny, "/"), None, "without a rule that allows, all others may");
}

#[test]
fn what_backends_may_take_a_path_for_counts_as_well() {
    let deny = "rules: [{effect: Deny, paths: [{value: /admin}]}]";
    let allow = "rules: [{paths: [{value: /public}]}]";
    for path in ["/public/..;/admin", "/public/..%2Fadmin", "/public/..%252Fadmin"] {
        assert_eq!(alice(deny, path), FORBIDDEN, "{path}");
        assert_eq!(alice(allow, path), FORBIDDEN, "{path}");
    }
    assert_eq!(alice(deny, "/admin%2Fusers"), FORBIDDEN);
    assert_eq!(alice(allow, "/public/a%2Fb;v=1"), None);
}

#[test]
fn who_could_be_let_in_if_they_were_known_is_asked_who_they_are() {
    for (rules, path, expected) in [
        ("[{groups: [staff]}]", "/", UNAUTHORIZED),
        ("[{expression: 'identity.plan == \"gold\"'}]", "/", UNAUTHORIZED),
        ("[{groups: [staff], paths: [{value: /staff}]}]", "/staff", UNAUTHORIZED),
        ("[{groups: [staff], paths: [{value: /staff}]}]", "/other", FORBIDDEN),
        ("[{paths: [{value: /a}]}]", "/b", FORBIDDEN),
        ("[{effect: Deny, paths: [{value: /a}]}, {groups: [staff]}]", "/a", FORBIDDEN),
        (
            r#"[{expression: "identity.plan == 'gold' && request.path == '/a'"}]"#,
            "/a",
            UNAUTHORIZED,
        ),
        (r#"[{expression: "identity.plan == 'gold' && request.path == '/a'"}]"#, "/b", FORBIDDEN),
        ("[{effect: Deny, groups: [banned]}]", "/", None),
        ("[{effect: Deny, expression: 'identity.plan != \"gold\"'}]", "/", UNAUTHORIZED),
        ("[{effect: Deny, expression: \"request.headers['x-b'] == '1'\"}]", "/", FORBIDDEN),
        ("[{expression: \"request.headers['x-b'] == '1'\"}]", "/", FORBIDDEN),
    ] {
        assert_eq!(nobody(&format!("rules: {rules}"), path), expected, "{rules} {path}");
    }
}

#[test]
fn an_anonymous_consumer_may_what_its_rules_say_and_is_asked_who_it_is_else() {
    let policy = compile("rules: [{groups: [staff]}, {scopes: [other], methods: [PUT]}]").unwrap();
    let asked = |method: &str| {
        let mut who = Identity { method: Method::Anonymous, ..testing::alice() };
        if method == "PUT" {
            who.consumer = None;
        }
        answer(&policy, &mut by(Some(who), method, "/")).map(|reply| reply.status)
    };
    assert_eq!((asked("GET"), asked("PUT")), (None, UNAUTHORIZED));
}

#[test]
fn what_cannot_be_evaluated_does_not_allow_and_does_deny() {
    let text = "identity.claims.gone == 'x'";
    assert_eq!(alice(&format!("rules: [{{expression: \"{text}\"}}]"), "/"), FORBIDDEN);
    assert_eq!(
        alice(&format!("rules: [{{effect: Deny, expression: \"{text}\"}}]"), "/"),
        FORBIDDEN
    );
}

#[test]
fn what_is_wrong_is_said_with_rule_and_field() {
    for (rules, field) in [
        ("[]", "rules"),
        ("[{groups: [a]}, {}]", "rules[1]"),
        ("[{effect: Deny}]", "rules[0]"),
        ("[{groups: ['']}]", "rules[0].groups[0]"),
        ("[{groups: [a]}, {sourceIPs: [10.0.0.1, 10.0.0/8]}]", "rules[1].sourceIPs[1]"),
        ("[{methods: [GET, 'P UT']}]", "rules[0].methods[1]"),
        ("[{methods: [get]}]", "rules[0].methods[0]"),
        ("[{paths: [{value: a}]}]", "rules[0].paths[0].value"),
        ("[{paths: [{value: /a/../b}]}]", "rules[0].paths[0].value"),
        ("[{paths: [{value: /a%2fb}]}]", "rules[0].paths[0].value"),
        ("[{paths: [{value: /%61}]}]", "rules[0].paths[0].value"),
        ("[{paths: [{value: /a%2}]}]", "rules[0].paths[0].value"),
        ("[{claims: [{name: '', values: [a]}]}]", "rules[0].claims[0].name"),
        ("[{claims: [{name: a, values: []}]}]", "rules[0].claims[0].values"),
        ("[{expression: 'request.body == 1'}]", "rules[0].expression"),
    ] {
        let error = compile(&format!("rules: {rules}")).unwrap_err();
        assert_eq!(error.field, field, "{rules}: {error}");
    }
    assert!(compile("rules: [{paths: [{value: /a%2Fb}]}]").is_ok());
    let rules = vec!["{groups: [a]}"; 65].join(",");
    assert_eq!(compile(&format!("rules: [{rules}]")).unwrap_err().field, "rules");
}

#[test]
fn decisions_are_counted_where_they_are_enforced() {
    let policy = compile("rules: [{groups: [staff]}]").unwrap();
    // Other tests count as well: so there may be more.
    let before = Decision::Unauthenticated.total();
    answer(&policy, &mut by(None, "GET", "/"));
    assert!(Decision::Unauthenticated.total() > before);
}
