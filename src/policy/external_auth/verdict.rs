//! What a service said, as it is carried out and kept: it can be applied to more than one
//! request.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::fields;
use crate::policy::exchange::HeaderEdit;
use crate::policy::identity::Identity;
use crate::policy::{Exchange, Reply};
use crate::reason::Reason;

/// A verdict that must not be kept.
pub(super) const NOT_KEPT: u64 = 0;
/// One that may be kept as long as the user wants.
pub(super) const KEPT: u64 = u64::MAX;

/// What stands as it is in a parameter of a query.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A verdict, and for how many milliseconds the service lets it be kept.
#[derive(Debug)]
pub(super) struct Said {
    pub verdict: Verdict,
    pub keep_ms: u64,
}

/// What a service decided. Shared: a verdict that is kept is carried out many times.
#[derive(Clone, Debug)]
pub enum Verdict {
    Allowed(Arc<Changes>),
    Denied(Arc<Refusal>),
}

/// What a yes changes.
#[derive(Debug, Default)]
pub struct Changes {
    /// Fields that the request loses.
    pub removed: Vec<HeaderName>,
    /// Fields that the request gets.
    pub request: Vec<HeaderEdit>,
    /// Fields that the answer gets.
    pub answer: Vec<HeaderEdit>,
    /// Parameters of the query, decoded.
    pub query_set: Vec<(String, String)>,
    pub query_removed: Vec<String>,
    /// Who the client is, if it says so.
    pub identity: Option<Arc<Identity>>,
}

/// The answer that a client gets.
#[derive(Debug)]
pub struct Refusal {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// The service said 401: it does not know who asks, whatever the client is answered.
    pub knows_nobody: bool,
}

impl Verdict {
    /// Refused without a word for the client.
    pub fn denied() -> Self {
        let (headers, body) = (HeaderMap::new(), Bytes::new());
        Refusal { status: Reason::AuthDenied.status(), headers, body, knows_nobody: false }.into()
    }

    /// Whether a client can be given this status as a refusal: of the others some would say
    /// that the request was served, and some that it was not the client's fault.
    pub fn is_refusal(status: StatusCode) -> bool {
        let is_elsewhere = status.is_redirection() && status != StatusCode::NOT_MODIFIED;
        is_elsewhere || status.is_client_error()
    }
}

impl From<Refusal> for Verdict {
    fn from(refusal: Refusal) -> Self {
        Verdict::Denied(Arc::new(refusal))
    }
}

impl From<Changes> for Verdict {
    fn from(changes: Changes) -> Self {
        Verdict::Allowed(Arc::new(changes))
    }
}

impl Refusal {
    /// The service's own answer.
    pub fn reply(&self) -> Reply {
        let Refusal { status, headers, body, knows_nobody: _ } = self;
        Reply {
            status: *status,
            headers: headers.clone(),
            body: body.clone(),
            reason: Reason::AuthDenied,
        }
    }
}

impl Changes {
    /// Makes them. What only the service may write is gone by then: see
    /// [`Judge::strip`](super::Judge::strip).
    pub fn apply(&self, ex: &mut Exchange<'_>) {
        let headers = &mut ex.request.headers;
        for name in self.removed.iter().filter(|name| !fields::is_of_proxy(name)) {
            headers.remove(name);
        }
        for edit in &self.request {
            fields::edit_request(headers, edit.clone());
        }
        if !self.answer.is_empty() {
            ex.answer_edits.borrow_mut().extend(self.answer.iter().cloned());
        }
        if !self.query_set.is_empty() || !self.query_removed.is_empty() {
            ex.request.query = self.query(ex.request.query.as_deref());
        }
        if let Some(identity) = &self.identity {
            ex.identity = Some(Arc::clone(identity));
        }
    }

    /// The query without what is removed or set anew, and then what is set.
    fn query(&self, before: Option<&str>) -> Option<Box<str>> {
        let is_gone = |name: &str| {
            self.query_removed.iter().any(|gone| gone == name)
                || self.query_set.iter().any(|(set, _)| set == name)
        };
        let parts = before.unwrap_or_default().split('&').filter(|part| !part.is_empty());
        let mut query: String = parts
            .filter(|part| {
                let name = part.split_once('=').map_or(*part, |(name, _)| name).replace('+', " ");
                !is_gone(&percent_decode_str(&name).decode_utf8_lossy())
            })
            .collect::<Vec<_>>()
            .join("&");
        for (name, value) in &self.query_set {
            if !query.is_empty() {
                query.push('&');
            }
            query.extend(utf8_percent_encode(name, PLAIN));
            query.push('=');
            query.extend(utf8_percent_encode(value, PLAIN));
        }
        (!query.is_empty()).then(|| query.into())
    }
}

/// `text` for a parameter of a query.
pub(super) fn encoded(text: &str) -> impl Iterator<Item = &str> {
    utf8_percent_encode(text, PLAIN)
}
