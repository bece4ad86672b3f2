//! What a policy may see and change: one request, and the head of its response.
//!
//! Policies touch heads only through these types, so that the HTTP engine and the form of a
//! head can change without them. What it takes more than that, the proxy lends: see [`Lent`].

use std::cell::RefCell;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::bandwidth::Pace;
use super::certificate::Names;
use super::concurrency::Slot;
use super::identity::Identity;
use super::mode::Shadowed;
use super::place::Places;
use super::told::Told;
use crate::reason::Reason;
use crate::services::Services;

/// One request on its way through gates and transforms. A policy in Shadow mode sees a clone.
#[derive(Clone, Debug)]
pub struct Exchange<'a> {
    pub request: RequestHead,
    pub client: Client,
    /// The path prefix that the matched rule was found by, without a trailing slash, or empty.
    /// `ReplacePrefixMatch` (HTTPRoute `urlRewrite.path`) replaces exactly this.
    pub matched_prefix: Box<str>,
    /// The route of the matched rule; empty before there is one.
    pub route: RouteRef<'a>,
    /// Milliseconds since the Unix epoch when the head was complete; the clock of limiters.
    pub now_ms: u64,
    /// Who asks, as far as an authentication policy found out.
    pub identity: Option<Arc<Identity>>,
    /// Its places in limits of concurrency, which it keeps to its end.
    pub slots: Vec<Arc<Slot>>,
    /// How fast its bodies pass.
    pub paces: Vec<Pace>,
    /// Where credentials stand that go no further. All gates may look at them: see
    /// [`Exchange::hide_credentials`].
    pub credentials: Vec<Arc<Places>>,
    /// Where nobody is recognised and need not be: what could be shown, as `WWW-Authenticate`
    /// asks for it. A policy that needs to know who it is puts them into its 401.
    pub challenges: Option<Arc<[HeaderValue]>>,
    /// What is left of the limits that the request was counted by, for the answer's fields.
    pub quotas: Vec<Quota>,
    /// The request's Origin where a CORS policy allows it: later policies may change the field.
    pub allowed_origin: Option<HeaderValue>,
    /// What a service wants to stand in the answer's head; whoever puts it there takes it.
    pub answer_edits: RefCell<Vec<HeaderEdit>>,
    /// A policy in Shadow mode sees this exchange: what it does has no effect and is not counted
    /// as if it had.
    pub is_shadow: bool,
    /// What policies in Shadow mode would have done, if there are any.
    pub shadowed: Option<Box<Shadowed>>,
    /// Services to ask, and the body.
    pub lent: &'a dyn Lent,
}

/// What the proxy lends to the policies of one request.
pub trait Lent: Services {
    /// The whole body of the request. It still goes to the backend afterwards; trailers are
    /// dropped.
    ///
    /// # Errors
    /// [`Reason::BodyTooLarge`] if it has more than `most` bytes, [`Reason::Overloaded`] if too
    /// much is kept already, or why the client did not send all of it.
    fn body(&self, most: usize) -> LocalBoxFuture<'_, Result<Bytes, Reason>>;

    /// The names in the client's certificate, if the listener asked for one and verified it.
    fn certificate(&self) -> Option<&Names> {
        None
    }
}

impl fmt::Debug for dyn Lent + '_ {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lent")
    }
}

/// A change to one field of a head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderEdit {
    pub name: HeaderName,
    pub value: HeaderValue,
    pub how: HeaderEditKind,
}

/// What becomes of a field that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderEditKind {
    /// It is replaced.
    Set,
    /// It stays, and another one follows.
    Append,
    /// It stays alone.
    SetIfAbsent,
    /// It is replaced; if there is none, none is set.
    SetIfPresent,
}

impl HeaderEdit {
    pub fn apply(self, headers: &mut HeaderMap) {
        let HeaderEdit { name, value, how } = self;
        let is_there = headers.contains_key(&name);
        match how {
            HeaderEditKind::Append => drop(headers.append(name, value)),
            HeaderEditKind::SetIfAbsent if is_there => {}
            HeaderEditKind::SetIfPresent if !is_there => {}
            _ => drop(headers.insert(name, value)),
        }
    }
}

impl<'a> Exchange<'a> {
    /// An exchange that no policy has seen yet, and that has met no rule.
    pub fn new(request: RequestHead, client: Client, lent: &'a dyn Lent, now_ms: u64) -> Self {
        Exchange {
            request,
            client,
            matched_prefix: Box::default(),
            route: RouteRef::default(),
            now_ms,
            identity: None,
            slots: Vec::new(),
            paces: Vec::new(),
            credentials: Vec::new(),
            challenges: None,
            quotas: Vec::new(),
            allowed_origin: None,
            answer_edits: RefCell::default(),
            is_shadow: false,
            shadowed: None,
            lent,
        }
    }
}

/// The route that a request met: its rule comes from there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RouteRef<'a> {
    /// `HTTPRoute`, `GRPCRoute` or `Ingress`.
    pub kind: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    /// The rule's own name, or its index.
    pub rule: &'a str,
}

impl Exchange<'_> {
    /// Puts into an answer's head what a service wants to stand there.
    pub fn edit_answer(&self, res: &mut ResponseHead) {
        for edit in self.answer_edits.take() {
            edit.apply(&mut res.headers);
        }
    }

    /// Takes away the credentials that are not for the backend, once every gate has seen the
    /// request.
    pub fn hide_credentials(&mut self) {
        for places in std::mem::take(&mut self.credentials) {
            places.strip(&mut self.request);
        }
    }
}

/// What is left of a limit that a request was counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// The policy that the limit is part of, the limit's place in it, and that of its numbers:
    /// only that policy reads them.
    pub by: usize,
    pub limit: usize,
    pub numbers: usize,
    /// Whether the request had room.
    pub admitted: bool,
    /// Cost that may come at once.
    pub most: u64,
    /// Of these, how much is left.
    pub remaining: u64,
    /// Seconds until all of `most` is left again.
    pub reset_s: u64,
}

/// The head of a request after the head checks: one Host, a normal path, no hop-by-hop fields.
#[derive(Clone, Debug)]
pub struct RequestHead {
    pub method: Method,
    pub scheme: Scheme,
    /// Lower-case host without port and without a trailing dot; IPv6 in brackets.
    pub host: Box<str>,
    /// The port that the client wrote in Host or `:authority`, if it wrote one.
    pub port: Option<u16>,
    /// The path in normal form: begins with `/`, no dot segments, no empty segments.
    pub path: Box<str>,
    /// What follows the first `?`, without it.
    pub query: Option<Box<str>>,
    /// End-to-end fields. `host` is not in here: `host` and `port` above are what counts.
    pub headers: HeaderMap,
    /// What is kept aside of them: nothing once a policy has seen the request.
    pub told: Option<Told>,
    /// What goes upstream as Host when a rewrite changed it; else the client's own authority.
    pub upstream_host: Option<Box<str>>,
}

impl RequestHead {
    /// Puts all fields together, for somebody who looks at them.
    pub fn tell(&mut self) {
        if let Some(told) = self.told.take() {
            told.put(&mut self.headers);
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub const fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }

    pub const fn default_port(self) -> u16 {
        match self {
            Scheme::Http => 80,
            Scheme::Https => 443,
        }
    }
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    /// The other end of the connection.
    pub peer: SocketAddr,
    /// The client's address: the peer's, or, when the peer is a trusted proxy, what
    /// X-Forwarded-For says. Limits and access lists go by this one.
    pub ip: IpAddr,
    /// The port that users connect to: the Gateway listener's own, not the container's.
    pub listener_port: u16,
}

/// An answer that a policy gives instead of the backend.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub reason: Reason,
}

impl Reply {
    /// An answer with the reason's own status and no body; the proxy adds its plain-text body
    /// to errors that have none.
    pub fn of(reason: Reason) -> Self {
        Reply { status: reason.status(), headers: HeaderMap::new(), body: Bytes::new(), reason }
    }
}

/// The head of a response, from the backend or from a policy.
#[derive(Debug)]
pub struct ResponseHead {
    pub status: StatusCode,
    pub headers: HeaderMap,
}
