//! Who the client is, as fields of the service's yes say it.

use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use super::fields;
use super::spec::IdentitySpec;
use crate::policy::Invalid;
use crate::policy::header_edits::header_name;
use crate::policy::identity::{Claims, Identity, Method};

/// Most bytes of a name that somebody is known by.
const MAX_SUBJECT: usize = 256;
/// Most groups of one client.
const MAX_GROUPS: usize = 64;

/// The fields, by name.
#[derive(Debug)]
pub(super) struct Principal {
    subject: HeaderName,
    groups: Option<HeaderName>,
}

impl Principal {
    pub fn compile(spec: &IdentitySpec) -> Result<Self, Invalid> {
        let name = |field: &str, name: &str| {
            let field = format!("identity.{field}");
            let found = header_name(&field, name)?;
            if fields::is_of_proxy(&found) {
                let message = format!("{found} is set by the proxy alone; use another field");
                return Err(Invalid::new(field, message));
            }
            Ok(found)
        };
        let groups = spec.groups_header.as_ref();
        Ok(Principal {
            subject: name("header", &spec.header)?,
            groups: groups.map(|groups| name("groupsHeader", groups)).transpose()?,
        })
    }

    /// The names of its fields.
    pub fn names(&self) -> impl Iterator<Item = &HeaderName> {
        [&self.subject].into_iter().chain(&self.groups)
    }

    /// Reads who it is from the fields of a yes. A name that is too long or no text is none.
    pub fn find(&self, fields: &[(&HeaderName, &HeaderValue)]) -> Option<Arc<Identity>> {
        let texts = |name: &HeaderName| -> Vec<&str> {
            let values = fields.iter().filter(|(field, _)| *field == name);
            values.filter_map(|(_, value)| value.to_str().ok().map(str::trim)).collect()
        };
        let subject = texts(&self.subject).first().copied().unwrap_or_default();
        if !(1..=MAX_SUBJECT).contains(&subject.len()) {
            return None;
        }
        let lists = self.groups.as_ref().map(texts).unwrap_or_default();
        let groups = lists.iter().flat_map(|list| list.split(',')).map(str::trim);
        Some(Arc::new(Identity {
            method: Method::External,
            subject: subject.into(),
            consumer: None,
            groups: groups.filter(|g| !g.is_empty()).take(MAX_GROUPS).map(Into::into).collect(),
            scopes: Box::default(),
            claims: Claims::new(),
        }))
    }
}
