//! The fields that tell the backend who asks.
//!
//! Whatever a client wrote in them is removed first, also under the names that CGI-like backends
//! take for them (`x_consumer_name`), so that a backend may believe them. What would be read as
//! something else than it is (a comma in the name of a group, space around a subject) is left out.

use http::{HeaderMap, HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::policy::Invalid;
use crate::policy::header_edits::{editable, remove_with_look_alikes};
use crate::policy::identity::Identity;

/// The names of fields of the request to the backend; what is not named is not told. What a
/// client wrote in them is always removed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "IdentityHeaders")]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    /// Gets the name of the Consumer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub consumer: Option<String>,
    /// Gets the groups of the Consumer and of the credentials, with commas between them. A group
    /// whose name has a comma is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub groups: Option<String>,
    /// Gets the subject: a token's `sub`, a user name, the name in a certificate, what a service
    /// says, or the name of the Consumer that an API key belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub subject: Option<String>,
    /// Gets the plan of the Consumer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub plan: Option<String>,
}

/// A [`Spec`], parsed, with the fields that claims are written in.
#[derive(Debug, Default)]
pub struct IdentityHeaders {
    consumer: Option<HeaderName>,
    groups: Option<HeaderName>,
    subject: Option<HeaderName>,
    plan: Option<HeaderName>,
    /// All of them, and those of claims.
    names: Box<[HeaderName]>,
}

impl IdentityHeaders {
    /// With the names of other fields that tell of an identity.
    pub fn compile<'n>(
        spec: &Spec,
        claims: impl Iterator<Item = &'n HeaderName>,
    ) -> Result<Self, Invalid> {
        let mut names: Vec<HeaderName> = Vec::new();
        let mut parse = |field: &str, name: &Option<String>| {
            let Some(name) = name else { return Ok(None) };
            let name = editable(&format!("headers.{field}"), name)?;
            if names.contains(&name) {
                let message = format!("{name} is another's already; name each field once");
                return Err(Invalid::new(format!("headers.{field}"), message));
            }
            names.push(name.clone());
            Ok(Some(name))
        };
        let consumer = parse("consumer", &spec.consumer)?;
        let groups = parse("groups", &spec.groups)?;
        let subject = parse("subject", &spec.subject)?;
        let plan = parse("plan", &spec.plan)?;
        for name in claims {
            if !names.contains(name) {
                names.push(editable("methods[].jwt.claimsToHeaders[].header", name.as_str())?);
            }
        }
        Ok(IdentityHeaders { consumer, groups, subject, plan, names: names.into() })
    }

    /// Removes what the client wrote.
    pub fn remove(&self, headers: &mut HeaderMap) {
        for name in &self.names {
            remove_with_look_alikes(headers, name);
        }
    }

    /// Writes who it is; [`IdentityHeaders::remove`] comes before.
    pub fn set(&self, identity: &Identity, headers: &mut HeaderMap) {
        let mut set = |name: &Option<HeaderName>, value: Option<&str>| {
            if let Some(name) = name
                && let Some(value) = value.and_then(exact)
            {
                headers.insert(name, value);
            }
        };
        let consumer = identity.consumer.as_ref();
        set(&self.consumer, consumer.map(|consumer| &*consumer.name));
        set(&self.subject, Some(&identity.subject));
        set(&self.plan, identity.plan());
        if self.groups.is_some() {
            set(&self.groups, groups(identity).as_deref());
        }
    }
}

/// The groups, each once.
fn groups(identity: &Identity) -> Option<String> {
    let mut list: Vec<&str> = Vec::new();
    for group in identity.groups() {
        if !group.contains(',') && exact(group).is_some() && !list.contains(&group) {
            list.push(group);
        }
    }
    (!list.is_empty()).then(|| list.join(","))
}

/// The value, if the backend reads the same.
fn exact(text: &str) -> Option<HeaderValue> {
    let same = !text.is_empty() && text.trim() == text;
    HeaderValue::from_bytes(text.as_bytes()).ok().filter(|_| same)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::policy::consumer::Consumer;
    use crate::policy::identity::{Claims, Method};
    use crate::policy::testing::head;

    fn spec() -> Spec {
        let name = |name: &str| Some(name.to_owned());
        Spec {
            consumer: name("X-Consumer-Name"),
            groups: name("X-Consumer-Groups"),
            subject: name("X-Subject"),
            plan: name("X-Consumer-Plan"),
        }
    }

    fn identity(subject: &str, groups: &[&str]) -> Identity {
        Identity {
            method: Method::Jwt,
            subject: subject.into(),
            consumer: Some(Arc::new(Consumer {
                namespace: "ns".into(),
                name: "app".into(),
                groups: ["apps".into(), "all".into()].into(),
                plan: None,
            })),
            groups: groups.iter().map(|group| (*group).into()).collect(),
            scopes: Box::default(),
            claims: Claims::default(),
        }
    }

    #[test]
    fn what_the_client_wrote_is_gone_also_under_names_that_are_read_alike() {
        let claim = HeaderName::from_static("x-tenant-id");
        let headers = IdentityHeaders::compile(&spec(), [&claim].into_iter()).unwrap();
        let fields = [
            ("x-consumer-name", "admin"),
            ("x-consumer-name", "root"),
            ("x_consumer_name", "admin"),
            ("x-consumer_groups", "admins"),
            ("x-subject", "admin"),
            ("x-consumer-plan", "gold"),
            ("x-tenant-id", "a"),
            ("x_tenant_id", "a"),
            ("x-other_name", "kept"),
        ];
        let mut request = head("GET", "http://a.example/", &fields);
        headers.remove(&mut request.headers);
        let left: Vec<_> = request.headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["x-other_name"]);
    }

    #[test]
    fn what_a_backend_would_read_otherwise_is_left_out() {
        let headers = IdentityHeaders::compile(&spec(), [].into_iter()).unwrap();
        for (subject, groups, expected) in [
            ("bob", &["x", "apps"][..], (Some("bob"), "apps,all,x")),
            (" bob", &["a,admins", "b\nc", " d"], (None, "apps,all")),
            ("bob\r\nx-admin: 1", &[], (None, "apps,all")),
            ("", &[""], (None, "apps,all")),
        ] {
            let mut map = HeaderMap::new();
            headers.set(&identity(subject, groups), &mut map);
            let text = |name: &str| map.get(name).map(|value| value.to_str().unwrap());
            assert_eq!(
                (text("x-subject"), text("x-consumer-groups")),
                (expected.0, Some(expected.1))
            );
            assert_eq!(text("x-consumer-name"), Some("app"));
            assert_eq!(text("x-consumer-plan"), None);
        }
    }

    #[test]
    fn fields_that_the_proxy_owns_and_names_for_two_things_are_refused() {
        let spec = Spec { consumer: Some("Host".into()), ..Spec::default() };
        assert!(IdentityHeaders::compile(&spec, [].into_iter()).is_err());
        let same = Some("X-A".to_owned());
        let spec = Spec { consumer: same.clone(), plan: same, ..Spec::default() };
        let error = IdentityHeaders::compile(&spec, [].into_iter()).unwrap_err();
        assert!(error.message.contains("each field once"), "{error}");
    }
}
