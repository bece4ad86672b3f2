//! Tells browsers which other origins may use the answers (Fetch standard; HTTPRoute filter
//! `CORS`, GEP-1767). Preflights are answered here. Nobody else is refused: CORS protects
//! users of browsers, by what browsers do with the answer.

use std::ops::ControlFlow;

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Method};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::header_edits::header_name;
use super::{Exchange, Invalid, Policy, Refs, Reply, ResponseHead};
use crate::reason::Reason;

const STAR: HeaderValue = HeaderValue::from_static("*");

/// Which other origins may use the answers (HTTPRoute filter `CORS`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Cors")]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    /// Origins that are allowed: `https://app.example.com`, `https://*.example.com`, or `*`
    /// alone for all. A `*` stands for any number of labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253)))]
    pub allow_origins: Vec<String>,
    /// Whether requests may carry credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_credentials: Option<bool>,
    /// Methods that are allowed besides GET, HEAD and POST, or `*` alone for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 32)))]
    pub allow_methods: Vec<String>,
    /// Request header fields that are allowed, or `*` alone for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 256)))]
    pub allow_headers: Vec<String>,
    /// Response header fields that scripts may read, or `*` alone for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 256)))]
    pub expose_headers: Vec<String>,
    /// Seconds for which a browser may remember the answer to a preflight; 5 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_age: Option<i32>,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Cors {
    origins: Origins,
    credentials: bool,
    methods: List,
    headers: List,
    expose: Option<HeaderValue>,
    max_age: HeaderValue,
}

#[derive(Debug)]
enum Origins {
    Any,
    Listed(Vec<Entry>),
}

/// An entry of the list, as it stands there and as it is meant.
#[derive(Debug)]
struct Entry {
    text: Box<str>,
    origin: Origin,
}

#[derive(Debug, PartialEq)]
struct Origin {
    https: bool,
    host: Host,
    port: u16,
}

#[derive(Debug, PartialEq)]
enum Host {
    Any,
    Exact(Box<str>),
    /// With its leading dot: `.example.com`.
    Suffix(Box<str>),
}

/// What a preflight is told to be allowed.
#[derive(Debug)]
enum List {
    /// Nothing beyond what browsers take for granted.
    None,
    Any,
    Listed(HeaderValue),
}

impl Policy for Cors {
    type Spec = Spec;

    fn compile(spec: &Spec, _refs: &Refs) -> Result<Self, Invalid> {
        let credentials = spec.allow_credentials.unwrap_or(false);
        let max_age = spec.max_age.unwrap_or(5);
        if max_age < 1 {
            return Err(Invalid::new("maxAge", format!("{max_age} seconds; use 1 or more")));
        }
        let method = |field: &str, name: &str| match Method::from_bytes(name.as_bytes()) {
            Ok(_) => Ok(()),
            Err(_) => Err(Invalid::new(field, format!("{name:?} is not a method; use GET"))),
        };
        let header = |field: &str, name: &str| header_name(field, name).map(|_| ());
        let expose = match List::parse("exposeHeaders", &spec.expose_headers, header)? {
            List::None => None,
            // With credentials `*` would be the name of a header field.
            List::Any => (!credentials).then_some(STAR),
            List::Listed(names) => Some(names),
        };
        Ok(Cors {
            origins: Origins::parse(&spec.allow_origins)?,
            credentials,
            methods: List::parse("allowMethods", &spec.allow_methods, method)?,
            headers: List::parse("allowHeaders", &spec.allow_headers, header)?,
            expose,
            max_age: HeaderValue::from(max_age),
        })
    }

    async fn on_request(&self, ex: &mut Exchange<'_>) -> ControlFlow<Reply> {
        let request = &ex.request.headers;
        let origin = request.get(ORIGIN);
        ex.allowed_origin = origin.filter(|origin| self.origins.allow(origin)).cloned();
        let preflight = ex.request.method == Method::OPTIONS
            && origin.is_some()
            && request.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        if !preflight {
            return ControlFlow::Continue(());
        }
        let mut reply = Reply::of(Reason::CorsPreflight);
        self.allow_origin(ex.allowed_origin.as_ref(), &mut reply.headers);
        if ex.allowed_origin.is_some() {
            self.allow_request(request, &mut reply.headers);
        }
        ControlFlow::Break(reply)
    }

    fn on_response(&self, ex: &Exchange<'_>, res: &mut ResponseHead) {
        // The policy decides, not the backend.
        for name in [
            ACCESS_CONTROL_ALLOW_ORIGIN,
            ACCESS_CONTROL_ALLOW_CREDENTIALS,
            ACCESS_CONTROL_EXPOSE_HEADERS,
        ] {
            res.headers.remove(name);
        }
        self.allow_origin(ex.allowed_origin.as_ref(), &mut res.headers);
    }
}

impl Cors {
    /// What every answer says, preflight or not.
    fn allow_origin(&self, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
        let any = matches!(self.origins, Origins::Any) && !self.credentials;
        if !any {
            vary_by_origin(headers);
        }
        let Some(origin) = origin else { return };
        let allowed = if any { STAR } else { origin.clone() };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        if self.credentials {
            let yes = HeaderValue::from_static("true");
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
        }
        if let Some(names) = &self.expose {
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, names.clone());
        }
    }

    /// What the answer to a preflight says besides.
    fn allow_request(&self, request: &HeaderMap, headers: &mut HeaderMap) {
        for (list, asked, allowed) in [
            (&self.methods, ACCESS_CONTROL_REQUEST_METHOD, ACCESS_CONTROL_ALLOW_METHODS),
            (&self.headers, ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_ALLOW_HEADERS),
        ] {
            let value = match list {
                List::None => None,
                List::Listed(value) => Some(value.clone()),
                List::Any if !self.credentials => Some(STAR),
                List::Any => request.get(&asked).cloned(),
            };
            if let Some(value) = value {
                headers.insert(allowed, value);
            }
            if matches!(list, List::Any) && self.credentials {
                headers.append(VARY, HeaderValue::from(asked));
            }
        }
        headers.insert(ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
    }
}

/// Caches must not give one origin the answer that was made for another.
fn vary_by_origin(headers: &mut HeaderMap) {
    let varies =
        headers.get_all(VARY).iter().filter_map(|value| value.to_str().ok()).any(|value| {
            value
                .split(',')
                .map(str::trim)
                .any(|name| name == "*" || name.eq_ignore_ascii_case("origin"))
        });
    if !varies {
        headers.append(VARY, HeaderValue::from(ORIGIN));
    }
}

impl List {
    fn parse(
        field: &str,
        names: &[String],
        check: impl Fn(&str, &str) -> Result<(), Invalid>,
    ) -> Result<Self, Invalid> {
        match names {
            [] => return Ok(List::None),
            [star] if star == "*" => return Ok(List::Any),
            _ => {}
        }
        for (i, name) in names.iter().enumerate() {
            if name == "*" {
                let message = "`*` stands for all; remove the other entries or this one";
                return Err(Invalid::new(format!("{field}[{i}]"), message));
            }
            check(&format!("{field}[{i}]"), name)?;
        }
        HeaderValue::from_str(&names.join(", "))
            .map(List::Listed)
            .map_err(|_| Invalid::new(field, "cannot stand in a header field; use ASCII names"))
    }
}

impl Origins {
    fn parse(list: &[String]) -> Result<Self, Invalid> {
        if let [star] = list
            && star == "*"
        {
            return Ok(Origins::Any);
        }
        let one = |(i, text): (usize, &String)| {
            let entry = |origin| Entry { text: text.as_str().into(), origin };
            Origin::parse(text).map(entry).ok_or_else(|| {
                let message = format!(
                    "{text:?} is not an origin; write https://app.example.com, \
                     https://*.example.com, or `*` as the only entry"
                );
                Invalid::new(format!("allowOrigins[{i}]"), message)
            })
        };
        list.iter().enumerate().map(one).collect::<Result<_, _>>().map(Origins::Listed)
    }

    fn allow(&self, origin: &HeaderValue) -> bool {
        match self {
            Origins::Any => true,
            // Browsers mostly send what stands in the list: then there is nothing to parse.
            Origins::Listed(list) => {
                list.iter().any(|entry| entry.is(origin.as_bytes()))
                    || origin
                        .to_str()
                        .ok()
                        .and_then(Origin::parse)
                        .is_some_and(|sent| list.iter().any(|entry| entry.origin.covers(&sent)))
            }
        }
    }
}

impl Entry {
    /// Whether it names one host, and an origin is the same text.
    fn is(&self, origin: &[u8]) -> bool {
        self.text.as_bytes() == origin && matches!(self.origin.host, Host::Exact(_))
    }
}

impl Origin {
    /// `<scheme>://<host>(:<port>)`; a host of a pattern may be `*` or begin with `*.`.
    fn parse(text: &str) -> Option<Self> {
        let (scheme, authority) = text.split_once("://")?;
        let https = match scheme {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let default = if https { 443 } else { 80 };
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
            _ => (authority, default),
        };
        let plain = |host: &str| {
            let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.[]:".contains(&b);
            !host.is_empty() && host.bytes().all(allowed)
        };
        let name = host.to_ascii_lowercase();
        let host = match name.strip_prefix('*') {
            Some("") => Host::Any,
            Some(suffix) if suffix.starts_with('.') && plain(&suffix[1..]) => {
                Host::Suffix(suffix.into())
            }
            None if plain(&name) => Host::Exact(name.into()),
            _ => return None,
        };
        (port > 0).then_some(Origin { https, host, port })
    }

    fn covers(&self, origin: &Origin) -> bool {
        // An origin that was sent with a wildcard covers nothing and is covered by nothing.
        let Host::Exact(name) = &origin.host else { return false };
        let host = match &self.host {
            Host::Any => true,
            Host::Exact(exact) => exact == name,
            Host::Suffix(suffix) => name.len() > suffix.len() && name.ends_with(&**suffix),
        };
        host && self.https == origin.https && self.port == origin.port
    }
}

#[cfg(test)]
mod tests;
