//! Where credentials stand in a request (a field, a cookie, a parameter of the query), and
//! taking them away without touching what stands beside them.

use std::borrow::Cow;

use http::header::COOKIE;
use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::header_edits::header_name;
use super::{Invalid, RequestHead};

/// A place that credentials come in: one of `header`, `cookie` and `query`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Place")]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    /// A field of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub header: Option<String>,
    /// What stands before it in the field, and a space. By default nothing, but `Bearer` before
    /// tokens in Authorization.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub scheme: Option<String>,
    /// A cookie.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub cookie: Option<String>,
    /// A parameter of the query. URLs end up in logs and histories: better use a field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub query: Option<String>,
}

/// One place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Header {
        name: HeaderName,
        /// What stands before the credential, without the space.
        scheme: Option<Box<str>>,
    },
    Cookie(Box<str>),
    Query(Box<str>),
}

/// The places of one method.
#[derive(Clone, Debug)]
pub struct Places(Box<[Place]>);

/// The credential of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found<'r> {
    Nothing,
    One(Cow<'r, [u8]>),
    /// Wherever they are: who reads another one than we do would believe somebody else
    /// (RFC 6750, 2).
    Several,
}

impl Places {
    /// `default`, if none is written. In Authorization `scheme` is what stands before it, unless
    /// something else is written.
    ///
    /// # Errors
    /// The place in `field`, the list of them.
    pub fn compile(
        field: &str,
        specs: &[Spec],
        scheme: Option<&str>,
        default: Place,
    ) -> Result<Self, Invalid> {
        let mut places = Vec::with_capacity(specs.len().max(1));
        for (i, spec) in specs.iter().enumerate() {
            let place = Place::compile(&format!("{field}[{i}]"), spec, scheme)?;
            if places.contains(&place) {
                return Err(Invalid::new(format!("{field}[{i}]"), "is there twice; remove one"));
            }
            places.push(place);
        }
        if places.is_empty() {
            places.push(default);
        }
        Ok(Places(places.into()))
    }

    /// The one credential of a request, if there is any.
    pub fn find<'r>(&self, head: &'r RequestHead) -> Found<'r> {
        let mut found = Found::Nothing;
        for place in &self.0 {
            place.look(head, &mut found);
        }
        found
    }

    /// The places of several methods together.
    pub fn join<'p>(all: impl Iterator<Item = &'p Places>) -> Self {
        let mut places: Vec<Place> = Vec::new();
        for place in all.flat_map(|one| &one.0) {
            if !places.contains(place) {
                places.push(place.clone());
            }
        }
        Places(places.into())
    }

    /// This one place.
    pub fn one(place: Place) -> Self {
        Places(Box::new([place]))
    }

    /// Takes every credential away.
    pub fn strip(&self, head: &mut RequestHead) {
        self.0.iter().for_each(|place| place.strip(head));
    }
}

impl Place {
    fn compile(at: &str, spec: &Spec, scheme: Option<&str>) -> Result<Self, Invalid> {
        let Spec { header, scheme: written, cookie, query } = spec;
        if written.is_some() && header.is_none() {
            return Err(Invalid::new(format!("{at}.scheme"), "is only for header; remove it"));
        }
        match (header, cookie, query) {
            (Some(header), None, None) => {
                let name = header_name(&format!("{at}.header"), header)?;
                if name == COOKIE {
                    let message = "a cookie is named by `cookie`; use that";
                    return Err(Invalid::new(format!("{at}.header"), message));
                }
                let default = scheme.filter(|_| name == http::header::AUTHORIZATION);
                let scheme = written.as_deref().or(default).map(Into::into);
                Ok(Place::Header { name, scheme })
            }
            (None, Some(cookie), None) => Ok(Place::Cookie(cookie.as_str().into())),
            (None, None, Some(query)) => Ok(Place::Query(query.as_str().into())),
            _ => Err(Invalid::new(at, "set exactly one of header, cookie and query")),
        }
    }

    /// Adds every credential that stands here.
    fn look<'r>(&self, head: &'r RequestHead, found: &mut Found<'r>) {
        match self {
            Place::Header { name, scheme } => {
                let values = head.headers.get_all(name).iter();
                values
                    .filter_map(|value| in_field(value, scheme.as_deref()))
                    .for_each(|credential| found.add(credential.into()));
            }
            Place::Cookie(cookie) => {
                let pairs = head.headers.get_all(COOKIE).into_iter().flat_map(pairs).map(named);
                pairs
                    .filter(|(name, _)| *name == cookie.as_bytes())
                    .for_each(|(_, value)| found.add(value.into()));
            }
            Place::Query(parameter) => {
                let pairs = head.query.as_deref().unwrap_or_default().split('&');
                pairs
                    .filter(|pair| is_parameter(pair, parameter))
                    .map(|pair| pair.split_once('=').map_or("", |(_, value)| value))
                    .for_each(|value| found.add(percent_decode_str(value).into()));
            }
        }
    }

    fn strip(&self, head: &mut RequestHead) {
        match self {
            Place::Header { name, scheme } => {
                keep_values(&mut head.headers, name, |value| {
                    in_field(value, scheme.as_deref()).is_none().then(|| value.clone())
                });
            }
            Place::Cookie(cookie) => {
                keep_values(&mut head.headers, &COOKIE, |field| without(field, cookie.as_bytes()));
            }
            Place::Query(parameter) => {
                let Some(query) = &head.query else { return };
                if !query.split('&').any(|pair| is_parameter(pair, parameter)) {
                    return;
                }
                let pairs = query.split('&').filter(|pair| !is_parameter(pair, parameter));
                let kept = pairs.collect::<Vec<_>>().join("&");
                head.query = Some(kept).filter(|kept| !kept.is_empty()).map(Into::into);
            }
        }
    }
}

impl<'r> Found<'r> {
    fn add(&mut self, credential: Cow<'r, [u8]>) {
        *self = match self {
            Found::Nothing => Found::One(credential),
            _ => Found::Several,
        };
    }
}

/// The credential in a field, if what is before it is what should be (RFC 9110, 11.4: in any
/// case).
fn in_field<'v>(value: &'v HeaderValue, scheme: Option<&str>) -> Option<&'v [u8]> {
    let value = value.as_bytes().trim_ascii();
    let Some(scheme) = scheme else { return Some(value) };
    let (before, rest) = value.split_at_checked(scheme.len())?;
    let alike = before.eq_ignore_ascii_case(scheme.as_bytes());
    match rest.first() {
        _ if !alike => None,
        None => Some(rest),
        Some(b' ' | b'\t') => Some(rest.trim_ascii()),
        Some(_) => None,
    }
}

/// Replaces the values of a field by what `keep` says of each.
fn keep_values(
    headers: &mut HeaderMap,
    name: &HeaderName,
    keep: impl Fn(&HeaderValue) -> Option<HeaderValue>,
) {
    if !headers.contains_key(name) {
        return;
    }
    let kept: Vec<HeaderValue> = headers.get_all(name).iter().filter_map(keep).collect();
    headers.remove(name);
    for value in kept {
        headers.append(name.clone(), value);
    }
}

/// A Cookie field without the cookie; None, if there is no other in it.
fn without(field: &HeaderValue, cookie: &[u8]) -> Option<HeaderValue> {
    if !pairs(field).any(|pair| named(pair).0 == cookie) {
        return Some(field.clone());
    }
    let mut kept: Vec<u8> = Vec::with_capacity(field.len());
    for pair in pairs(field).filter(|pair| named(pair).0 != cookie) {
        if !kept.is_empty() {
            kept.extend_from_slice(b"; ");
        }
        kept.extend_from_slice(pair);
    }
    // A part of a value that was one is one.
    HeaderValue::from_bytes(&kept).ok().filter(|value| !value.is_empty())
}

/// The `name=value` pairs of a Cookie field (RFC 6265, 5.4), with or without a space between.
fn pairs(field: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    field.as_bytes().split(|byte| *byte == b';').map(<[u8]>::trim_ascii).filter(|p| !p.is_empty())
}

fn named(pair: &[u8]) -> (&[u8], &[u8]) {
    match pair.iter().position(|byte| *byte == b'=') {
        Some(at) => {
            let value = pair[at + 1..].trim_ascii_start();
            let quoted = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
            (pair[..at].trim_ascii_end(), quoted.unwrap_or(value))
        }
        None => (pair, b""),
    }
}

/// Whether a pair of a query is of the parameter, however its name is written: `+` is a space.
/// In values it is itself: no credential has spaces.
fn is_parameter(pair: &str, parameter: &str) -> bool {
    let name = pair.split('=').next().unwrap_or_default();
    if name == parameter {
        return true;
    }
    name.contains(['%', '+'])
        && *Cow::from(percent_decode_str(&name.replace('+', " "))) == *parameter.as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::testing::head;

    fn spec(place: &str) -> Spec {
        serde_saphyr::from_str(place).unwrap()
    }

    fn places(list: &[&str]) -> Places {
        let specs: Vec<Spec> = list.iter().map(|place| spec(place)).collect();
        let default = Place::Cookie("default".into());
        Places::compile("from", &specs, Some("Bearer"), default).unwrap()
    }

    #[test]
    fn one_credential_is_found_wherever_it_is_and_two_are_never_one() {
        let places = places(&["{header: X-Key}", "{cookie: key}", "{query: api key}"]);
        for (url, fields, expected) in [
            ("http://a/", &[][..], Found::Nothing),
            ("http://a/", &[("x-key", " k1 ")], Found::One(b"k1".into())),
            ("http://a/", &[("x-key", "")], Found::One(b"".into())),
            ("http://a/", &[("x-key", "a"), ("x-key", "a")], Found::Several),
            ("http://a/", &[("cookie", "a=b; key=k2")], Found::One(b"k2".into())),
            ("http://a/", &[("cookie", "key=\"k2\"")], Found::One(b"k2".into())),
            ("http://a/", &[("cookie", "keys=k2;Key=k2")], Found::Nothing),
            ("http://a/", &[("cookie", "key=a"), ("cookie", "key=b")], Found::Several),
            ("http://a/?x=1&api+key=k%2B3+", &[], Found::One(b"k+3+".into())),
            ("http://a/?api%20key", &[], Found::One(b"".into())),
            ("http://a/?api+key=a&a%70i+key=a", &[], Found::Several),
            ("http://a/?api+key=a", &[("x-key", "a")], Found::Several),
        ] {
            assert_eq!(places.find(&head("GET", url, fields)), expected, "{url} {fields:?}");
        }
    }

    #[test]
    fn a_scheme_is_part_of_the_place() {
        let places = places(&["{header: authorization}"]);
        for (field, expected) in [
            ("Bearer abc", Found::One(b"abc".into())),
            ("bEARER\t abc ", Found::One(b"abc".into())),
            ("Bearer", Found::One(b"".into())),
            ("Bearerabc", Found::Nothing),
            ("Basic abc", Found::Nothing),
            ("", Found::Nothing),
        ] {
            let head = head("GET", "http://a/", &[("authorization", field)]);
            assert_eq!(places.find(&head), expected, "{field}");
        }
    }

    #[test]
    fn what_stands_beside_a_credential_stays_as_it_is() {
        let places = places(&["{header: authorization}", "{cookie: key}", "{query: key}"]);
        let fields = [
            ("authorization", "Bearer abc"),
            ("authorization", "Basic abc"),
            ("cookie", "a=\"1\";key=2; b= 3"),
            ("cookie", "c=4;d=5"),
            ("cookie", "key=6"),
        ];
        let mut request = head("GET", "http://a/?%6Bey=1&b=%2F&&key&c", &fields);
        places.strip(&mut request);
        let all = |name: &str| -> Vec<String> {
            let values = request.headers.get_all(name).iter();
            values.map(|value| value.to_str().unwrap().to_owned()).collect()
        };
        assert_eq!(all("authorization"), ["Basic abc"]);
        assert_eq!(all("cookie"), ["a=\"1\"; b= 3", "c=4;d=5"]);
        assert_eq!(request.query.as_deref(), Some("b=%2F&&c"));
        let mut request = head("GET", "http://a/?key=1", &[("cookie", "key=1")]);
        places.strip(&mut request);
        assert_eq!((request.query, request.headers.len()), (None, 0));
    }

    #[test]
    fn a_place_is_one_thing() {
        for (place, expected) in [
            ("{}", "exactly one"),
            ("{header: a, cookie: b}", "exactly one"),
            ("{cookie: a, scheme: b}", "only for header"),
            ("{header: Cookie}", "named by `cookie`"),
            ("{header: 'a b'}", "a b"),
        ] {
            let default = Place::Cookie("default".into());
            let error = Places::compile("from", &[spec(place)], None, default).unwrap_err();
            assert!(error.message.contains(expected), "{place}: {error}");
        }
        assert_eq!(places(&[]).0[0], Place::Cookie("default".into()));
    }
}
