//! Answers with a redirection (HTTPRoute `requestRedirect`). The query is kept.

use std::fmt::Write;
use std::ops::ControlFlow;

use http::{HeaderValue, StatusCode, header::LOCATION};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::path_modifier::{PathChange, PathModifier};
use super::rewrite::hostname;
use super::{Exchange, Invalid, Policy, Refs, Reply, Scheme};
use crate::reason::Reason;

/// Where to redirect to; what is not set stays as it was in the request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Redirect")]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    /// The scheme of the new location; its well-known port is used unless `port` is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<RedirectScheme>,
    /// The host name of the new location.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub hostname: Option<String>,
    /// How the path changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathModifier>,
    /// The port of the new location. Without it and without `scheme`, the listener's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
    /// 301, 302 (the default), 303, 307 or 308.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = [301, 302, 303, 307, 308]))]
    pub status_code: Option<i32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RedirectScheme {
    Http,
    Https,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Redirect {
    scheme: Option<Scheme>,
    hostname: Option<Box<str>>,
    path: Option<PathChange>,
    port: Option<u16>,
    status: StatusCode,
}

impl Policy for Redirect {
    type Spec = Spec;

    fn compile(spec: &Spec, _refs: &Refs) -> Result<Self, Invalid> {
        let status = spec.status_code.unwrap_or(302);
        let port = spec.port.map(|port| match u16::try_from(port) {
            Ok(port) if port > 0 => Ok(port),
            _ => Err(Invalid::new("port", format!("{port} is not a port; use 1 to 65535"))),
        });
        Ok(Redirect {
            scheme: spec.scheme.map(|scheme| match scheme {
                RedirectScheme::Http => Scheme::Http,
                RedirectScheme::Https => Scheme::Https,
            }),
            hostname: spec.hostname.as_deref().map(hostname).transpose()?,
            path: spec.path.as_ref().map(|p| PathChange::compile("path", p)).transpose()?,
            port: port.transpose()?,
            status: match status {
                301 => StatusCode::MOVED_PERMANENTLY,
                302 => StatusCode::FOUND,
                303 => StatusCode::SEE_OTHER,
                307 => StatusCode::TEMPORARY_REDIRECT,
                308 => StatusCode::PERMANENT_REDIRECT,
                _ => {
                    let message =
                        format!("{status} does not redirect; use 301, 302, 303, 307 or 308");
                    return Err(Invalid::new("statusCode", message));
                }
            },
        })
    }

    async fn on_request(&self, ex: &mut Exchange<'_>) -> ControlFlow<Reply> {
        ControlFlow::Break(match HeaderValue::try_from(self.location(ex)) {
            Ok(location) => {
                let mut reply = Reply::of(Reason::Redirected);
                reply.status = self.status;
                reply.headers.insert(LOCATION, location);
                reply
            }
            // The head checks let nothing through that cannot stand in a header field.
            Err(_) => Reply::of(Reason::Internal),
        })
    }
}

impl Redirect {
    fn location(&self, ex: &Exchange<'_>) -> String {
        let request = &ex.request;
        let scheme = self.scheme.unwrap_or(request.scheme);
        let port = match (self.port, self.scheme) {
            (Some(port), _) => port,
            (None, Some(scheme)) => scheme.default_port(),
            (None, None) => ex.client.listener_port,
        };
        let host = self.hostname.as_deref().unwrap_or(&request.host);
        let mut location = format!("{}://{host}", scheme.as_str());
        if port != scheme.default_port() {
            // Writing to a String cannot fail.
            let _ = write!(location, ":{port}");
        }
        match &self.path {
            Some(change) => location.push_str(&change.apply(&request.path, &ex.matched_prefix)),
            None => location.push_str(&request.path),
        }
        if let Some(query) = &request.query {
            location.push('?');
            location.push_str(query);
        }
        location
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::path_modifier::PathModifierType;
    use crate::policy::testing::{answer, exchange};

    fn redirect(spec: Spec, url: &str, listener_port: u16) -> (u16, String) {
        let mut ex = exchange("GET", url, &[]);
        ex.client.listener_port = listener_port;
        ex.matched_prefix = "/old".into();
        let policy = Redirect::compile(&spec, &Refs::default()).unwrap();
        let reply = answer(&policy, &mut ex).unwrap();
        (reply.status.as_u16(), reply.headers[LOCATION].to_str().unwrap().to_owned())
    }

    #[test]
    fn the_port_follows_the_rules_of_gateway_api() {
        let (http, https) = (Some(RedirectScheme::Http), Some(RedirectScheme::Https));
        for (scheme, port, url, listener, location) in [
            // Scheme and port are the listener's.
            (None, None, "http://a.example/x", 80, "http://a.example/x"),
            (None, None, "http://a.example/x", 8080, "http://a.example:8080/x"),
            (None, None, "https://a.example/x", 443, "https://a.example/x"),
            (None, None, "https://a.example/x", 8443, "https://a.example:8443/x"),
            // A scheme brings its well-known port.
            (https, None, "http://a.example/x", 80, "https://a.example/x"),
            (https, None, "http://a.example/x", 8080, "https://a.example/x"),
            (http, None, "https://a.example/x", 8443, "http://a.example/x"),
            // A port is written unless it is the scheme's own.
            (None, Some(8080), "http://a.example/x", 80, "http://a.example:8080/x"),
            (None, Some(80), "http://a.example/x", 8080, "http://a.example/x"),
            (None, Some(443), "http://a.example/x", 80, "http://a.example:443/x"),
            (https, Some(443), "http://a.example/x", 80, "https://a.example/x"),
            (https, Some(80), "http://a.example/x", 80, "https://a.example:80/x"),
            // What the client wrote after the host does not count.
            (None, None, "http://a.example:1234/x", 80, "http://a.example/x"),
        ] {
            let spec = Spec { scheme, port, ..Spec::default() };
            let result = redirect(spec, url, listener);
            assert_eq!(result, (302, location.into()), "{scheme:?} {port:?} {url} {listener}");
        }
    }

    #[test]
    fn host_path_and_status_are_replaced_and_the_query_is_kept() {
        let path = PathModifier {
            r#type: PathModifierType::ReplacePrefixMatch,
            replace_prefix_match: Some("/new".into()),
            ..PathModifier::default()
        };
        let spec = Spec {
            hostname: Some("B.example".into()),
            path: Some(path),
            status_code: Some(308),
            ..Spec::default()
        };
        let expected = (308, "http://b.example/new/x?q=1&r=%20".to_owned());
        assert_eq!(redirect(spec, "http://a.example/old/x?q=1&r=%20", 80), expected);
    }

    #[test]
    fn specs_that_cannot_redirect_are_refused_by_field() {
        for (spec, field) in [
            (Spec { status_code: Some(304), ..Spec::default() }, "statusCode"),
            (Spec { port: Some(0), ..Spec::default() }, "port"),
            (Spec { port: Some(65536), ..Spec::default() }, "port"),
            (Spec { hostname: Some("*.example".into()), ..Spec::default() }, "hostname"),
            (Spec { hostname: Some("a.example:80".into()), ..Spec::default() }, "hostname"),
        ] {
            assert_eq!(Redirect::compile(&spec, &Refs::default()).unwrap_err().field, field);
        }
    }
}
