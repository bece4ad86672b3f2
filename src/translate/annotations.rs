//! The `tidegate.dev/*` annotations of an Ingress.

use std::collections::BTreeMap;

use super::ObjectKind;
use super::backends::Wire;
use super::status::Problem;
use crate::graph::Alpn;
use crate::reason::Reason;

/// Names of Middlewares beside the Ingress, with commas between them.
pub const MIDDLEWARES: &str = "tidegate.dev/middlewares";
/// Names of RateLimits beside the Ingress, with commas between them.
pub const RATE_LIMITS: &str = "tidegate.dev/rate-limits";
/// `HTTP`, `HTTPS` or `H2C`: stands above what the Service says.
pub const BACKEND_PROTOCOL: &str = "tidegate.dev/backend-protocol";
/// `"true"`: the clear port answers with a redirect to the one with TLS.
pub const SSL_REDIRECT: &str = "tidegate.dev/ssl-redirect";

/// Most names in one list.
const MAX_NAMES: usize = 16;

/// What the annotations of one Ingress say.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Annotations {
    /// In the order in which they are named; with the field that names them.
    pub policies: Vec<(String, ObjectKind, String)>,
    pub speaks: Option<Wire>,
    pub ssl_redirect: bool,
    /// A value is not understood: the rules answer with this.
    pub refused: Option<Reason>,
}

impl Annotations {
    /// What is said, and what is wrong with it.
    pub fn read(annotations: &BTreeMap<String, String>) -> (Self, Vec<Problem>) {
        let mut read = Annotations::default();
        let mut problems = Vec::new();
        for (name, value) in
            annotations.iter().filter(|(name, _)| name.starts_with("tidegate.dev/"))
        {
            let field = format!("metadata.annotations[{name}]");
            if let Err((reason, message)) = read.one(name, &field, value.trim()) {
                read.refused = read.refused.or(reason);
                problems.push(Problem::new("UnsupportedValue", field, message));
            }
        }
        (read, problems)
    }

    /// # Errors
    /// What is wrong, and what the rules answer for it; None: it changes nothing.
    fn one(
        &mut self,
        name: &str,
        field: &str,
        value: &str,
    ) -> Result<(), (Option<Reason>, String)> {
        let unsupported = |message: String| Err((Some(Reason::UnsupportedValue), message));
        match name {
            MIDDLEWARES => self.names(ObjectKind::Middleware, field, value),
            RATE_LIMITS => self.names(ObjectKind::RateLimit, field, value),
            BACKEND_PROTOCOL => {
                self.speaks = Some(match value.to_ascii_uppercase().as_str() {
                    "HTTP" => Wire::Http1,
                    "HTTPS" => Wire::Tls(Alpn::Http),
                    "H2C" => Wire::H2c,
                    _ => {
                        let hint = "is not supported; use HTTP, HTTPS or H2C";
                        return unsupported(format!("{value:?} {hint}"));
                    }
                });
                Ok(())
            }
            SSL_REDIRECT => {
                match value {
                    "true" => self.ssl_redirect = true,
                    "false" => self.ssl_redirect = false,
                    _ => return unsupported(format!("{value:?}: use \"true\" or \"false\"")),
                }
                Ok(())
            }
            _ => Err((None, "not an annotation that Tidegate knows; see its documentation".into())),
        }
    }

    fn names(
        &mut self,
        kind: ObjectKind,
        field: &str,
        value: &str,
    ) -> Result<(), (Option<Reason>, String)> {
        let names: Vec<&str> = value.split(',').map(str::trim).filter(|n| !n.is_empty()).collect();
        if names.len() > MAX_NAMES {
            let message =
                format!("{} names; at most {MAX_NAMES} are read, join Middlewares", names.len());
            return Err((Some(Reason::UnsupportedValue), message));
        }
        self.policies.extend(names.into_iter().map(|n| (field.to_owned(), kind, n.to_owned())));
        Ok(())
    }
}
