//! Changes to header fields, as HTTPRoute's header modifiers describe them.
//!
//! Request and response headers are two policies with one Spec and one way to apply it. Fields
//! that frame a message or belong to one connection cannot be edited: the proxy owns them.

use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Invalid;

/// Longest name of a header field, as HTTPRoute has it.
const MAX_NAME: usize = 256;
/// Longest value of a header field, as HTTPRoute has it.
const MAX_VALUE: usize = 4096;

/// Changes to header fields. `set` is done first, then `add`, then `remove`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "HeaderEdits")]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    /// Fields that are written over whatever is there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub set: Vec<Header>,
    /// Fields that are added to those that are there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub add: Vec<Header>,
    /// Names of fields that are removed, in any case.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 256)))]
    pub remove: Vec<String>,
}

/// A header field.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Header {
    /// The name of the field, in any case.
    #[schemars(length(min = 1, max = 256), regex(pattern = r"^[A-Za-z0-9!#$%&'*+\-.^_`|~]+$"))]
    pub name: String,
    /// The value of the field.
    #[schemars(length(min = 1, max = 4096))]
    pub value: String,
}

/// A [`Spec`], parsed.
#[derive(Debug)]
pub struct HeaderEdits {
    set: Vec<(HeaderName, HeaderValue)>,
    add: Vec<(HeaderName, HeaderValue)>,
    remove: Vec<HeaderName>,
}

impl HeaderEdits {
    pub fn compile(spec: &Spec) -> Result<Self, Invalid> {
        let names = spec.remove.iter().enumerate();
        Ok(HeaderEdits {
            set: fields("set", &spec.set)?,
            add: fields("add", &spec.add)?,
            remove: names
                .map(|(i, name)| editable(&format!("remove[{i}]"), name))
                .collect::<Result<_, _>>()?,
        })
    }

    pub fn apply(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.set {
            headers.insert(name, value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name, value.clone());
        }
        for name in &self.remove {
            headers.remove(name);
        }
    }
}

fn fields(list: &str, headers: &[Header]) -> Result<Vec<(HeaderName, HeaderValue)>, Invalid> {
    let one = |(i, header): (usize, &Header)| {
        let name = editable(&format!("{list}[{i}].name"), &header.name)?;
        Ok((name, value(&format!("{list}[{i}].value"), &header.value)?))
    };
    headers.iter().enumerate().map(one).collect()
}

/// As [`header_name`], for a field that is not the proxy's own.
pub(super) fn editable(field: &str, name: &str) -> Result<HeaderName, Invalid> {
    let parsed = header_name(field, name)?;
    if parsed == HOST {
        return Err(Invalid::new(
            field,
            "the Host field cannot be edited as a header; use a rewrite with `hostname`",
        ));
    }
    let owned = [CONNECTION, CONTENT_LENGTH, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];
    if owned.contains(&parsed) || matches!(parsed.as_str(), "keep-alive" | "proxy-connection") {
        return Err(Invalid::new(
            field,
            format!("{name} belongs to the connection and is set by the proxy; leave it out"),
        ));
    }
    Ok(parsed)
}

/// Parses the name of a header field; `field` is where the user wrote it.
pub(super) fn header_name(field: &str, name: &str) -> Result<HeaderName, Invalid> {
    if name.len() > MAX_NAME {
        return Err(Invalid::new(field, format!("longer than {MAX_NAME} bytes; shorten it")));
    }
    HeaderName::from_bytes(name.as_bytes()).map_err(|_| {
        let message = format!("{name:?} is not a header field name; use letters, digits and `-`");
        Invalid::new(field, message)
    })
}

/// Removes a field, and its look-alikes.
pub(super) fn remove_with_look_alikes(headers: &mut HeaderMap, name: &HeaderName) {
    headers.remove(name);
    remove_look_alikes(headers, name);
}

/// Removes what a client wrote under names that CGI-like backends take for `name`: `x_user` for
/// `x-user`.
pub(super) fn remove_look_alikes(headers: &mut HeaderMap, name: &HeaderName) {
    let with_underscore = |name: &HeaderName| name.as_str().contains('_');
    if !with_underscore(name) && !headers.keys().any(with_underscore) {
        return;
    }
    let plain = name.as_str().replace('_', "-");
    let is_like = |other: &&HeaderName| *other != name && other.as_str().replace('_', "-") == plain;
    let found: Vec<HeaderName> = headers.keys().filter(is_like).cloned().collect();
    for other in found {
        headers.remove(other);
    }
}

fn value(field: &str, value: &str) -> Result<HeaderValue, Invalid> {
    if value.len() > MAX_VALUE {
        return Err(Invalid::new(field, format!("longer than {MAX_VALUE} bytes; shorten it")));
    }
    HeaderValue::from_str(value).map_err(|_| {
        Invalid::new(field, "not a header field value; remove line breaks and control characters")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(name: &str, value: &str) -> Header {
        Header { name: name.into(), value: value.into() }
    }

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn set_overwrites_add_appends_remove_ignores_case() {
        let spec = Spec {
            set: vec![header("X-Set", "new")],
            add: vec![header("x-add", "second")],
            remove: vec!["X-REMOVE".into()],
        };
        let mut headers =
            map(&[("x-set", "a"), ("x-set", "b"), ("x-add", "first"), ("x-remove", "gone")]);
        HeaderEdits::compile(&spec).unwrap().apply(&mut headers);
        assert_eq!(headers, map(&[("x-set", "new"), ("x-add", "first"), ("x-add", "second")]));
    }

    #[test]
    fn framing_and_connection_fields_and_host_are_refused() {
        for name in ["Content-Length", "transfer-encoding", "Connection", "Keep-Alive", "host"] {
            let remove = Spec { remove: vec![name.into()], ..Spec::default() };
            let set = Spec { set: vec![header(name, "x")], ..Spec::default() };
            assert_eq!(HeaderEdits::compile(&remove).unwrap_err().field, "remove[0]");
            assert_eq!(HeaderEdits::compile(&set).unwrap_err().field, "set[0].name");
        }
    }

    #[test]
    fn names_and_values_that_would_break_a_head_are_refused() {
        for (name, value) in [("a b", "x"), ("", "x"), ("a:b", "x"), ("a", "x\r\ny: z")] {
            let spec = Spec { add: vec![header(name, value)], ..Spec::default() };
            assert!(HeaderEdits::compile(&spec).is_err(), "{name:?}: {value:?}");
        }
    }
}
