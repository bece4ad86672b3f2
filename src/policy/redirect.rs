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

    async fn on_request(&self, ex: &mut Exchange) -> ControlFlow<Reply> {
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
    fn location(&self, ex: &Exchange) -> String {
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
