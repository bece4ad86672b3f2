//! The compiled, immutable form of all objects: what the proxy serves from.
//!
//! `translate` builds a [`RouteGraph`], [`Shared::publish`] makes it live, and a request holds
//! one graph from its first byte to its last. Parts refer to each other by index into the
//! graph's own tables, so that nothing is looked up by name on the request path and state can
//! be carried over before the graph is shared. Tables share what stays with those of the graph before. No Kubernetes types and no sockets in here.

pub mod attempt;
pub mod backend;
pub mod backend_tls;
pub mod budget;
pub mod builder;
pub mod client_auth;
pub mod find;
pub mod host;
pub mod matcher;
pub mod normal;
pub mod path;
pub mod port;
pub mod session;
pub mod shared;
pub mod slots;
pub mod stats;
pub mod stream;
#[cfg(test)]
pub(crate) mod testing;
pub mod tls;
mod verify;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub use attempt::{Retry, RetryBudget};
pub use backend::{Backend, BackendKey, BackendProtocol, Balance, Endpoint, EndpointSet};
pub use backend_tls::{Alpn, BackendTls, Bundle, Roots, SubjectName, TlsSpec, Verify, sha256};
pub use budget::RetryCounts;
pub use builder::{GraphBuilder, Part, SectionId, StreamId};
pub use client_auth::ClientAuth;
pub use host::{HostMap, Pattern};
pub use matcher::{Entry, HeaderMatch, Matcher, PathMatch, QueryMatch, ValueMatch};
pub use path::PathTable;
pub use port::{Bound, Transport};
pub use session::{Cookie, CookieLifetime, Session, SessionKind};
pub use shared::Shared;
pub use slots::Slots;
pub use stats::RouteStats;
pub use stream::{Datagrams, Stream, TlsEnd, TlsUse};
pub use tls::{ListenerTls, certified_key};

use crate::policy::{AnyPolicy, AnySpec, Invalid, Mode, Refs, Services};
use crate::reason::Reason;

/// Everything that is served, at one generation.
#[derive(Debug, Default)]
pub struct RouteGraph {
    /// Counts up by one with each publish; 0 before the first.
    pub generation: u64,
    /// Which pass made it: a number that its memo gave; 0 without one.
    pub pass: u64,
    /// TCP, by the port that is bound.
    pub listeners: BTreeMap<u16, Arc<Listener>>,
    /// UDP, by the port that is bound.
    pub datagrams: BTreeMap<u16, Arc<Datagrams>>,
    pub rules: Slots<Rule>,
    pub backends: Slots<Backend>,
    pub policies: Slots<Installed>,
}

impl RouteGraph {
    /// The backends that the EndpointSlices of a Service feed, over all ports and protocols.
    pub fn backends_of<'g>(
        &'g self,
        namespace: &'g str,
        service: &'g str,
    ) -> impl Iterator<Item = &'g Backend> {
        self.backends.iter().filter(move |backend| {
            *backend.key.namespace == *namespace && backend.slices.as_deref() == Some(service)
        })
    }
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident => $field:ident: $of:ty),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub u32);

        impl std::ops::Index<$name> for RouteGraph {
            type Output = $of;
            fn index(&self, id: $name) -> &$of {
                &self.$field[id.0 as usize]
            }
        }
    )*};
}

ids! {
    /// A rule's place in [`RouteGraph::rules`].
    RuleId => rules: Rule,
    /// A backend's place in [`RouteGraph::backends`].
    BackendId => backends: Backend,
    /// A policy's place in [`RouteGraph::policies`].
    PolicyId => policies: Installed,
}

/// A port, its protocol and its TLS, with everything that can be reached through it.
#[derive(Debug)]
pub struct Listener {
    /// The port that is bound (a container port, or the listener's own plus the offset).
    pub port: u16,
    /// The port that users see: of the Gateway's listener or of the Ingress Service.
    pub public_port: u16,
    pub protocol: Protocol,
    /// The sections that share this port, by the host names they claim. For one host the
    /// first section that has a matching rule answers (a Gateway's before Ingress).
    pub sections: HostMap<Vec<Arc<Section>>>,
    /// What TLS connections are for, by the host names that listeners claim. Empty where all of
    /// them are for HTTP, so that nobody has to look.
    pub streams: HostMap<TlsUse>,
}

#[derive(Debug)]
pub enum Protocol {
    Http,
    /// HTTP over TLS, where the listener's `streams` say nothing else.
    Tls(Arc<ListenerTls>),
    Tcp(Arc<Stream>),
}

/// The name of the section that holds all Ingress rules of a port.
pub const INGRESS: &str = "ingress";

/// One listener of a Gateway (its `sectionName`), or the whole of Ingress on a port.
#[derive(Debug)]
pub struct Section {
    /// `gateway/NAMESPACE/NAME/SECTION`, the same with `listenerset`, or `ingress`: label of
    /// metrics and log lines.
    pub name: Arc<str>,
    /// The listener's own filters: they run before a route is looked for, in this order
    /// (GEP-5224).
    pub filters: Vec<PolicyId>,
    /// Routes by the host names under which they are attached here.
    pub hosts: HostMap<Arc<PathTable>>,
    /// GRPCRoutes, for gRPC requests alone: what these find here goes before `hosts`. They stand
    /// apart because rules of the two kinds must not be merged (GRPCRoute, `rules[].matches`).
    pub grpc: HostMap<Arc<PathTable>>,
}

/// Matches lead to a rule; a rule says what happens. Of a rule for streams and datagrams only
/// the name, the action and the counters are used.
#[derive(Debug)]
pub struct Rule {
    pub name: RuleName,
    /// In the order in which they are asked.
    pub gates: Vec<PolicyId>,
    /// In the order the user listed them; responses pass them in reverse.
    pub transforms: Vec<PolicyId>,
    pub action: Action,
    pub mirrors: Vec<Mirror>,
    pub timeouts: Timeouts,
    pub retry: Option<Retry>,
    /// Stands above the backend's own.
    pub session: Option<Arc<Session>>,
    /// The counters of the rule's route; `publish` puts those of the last graph here.
    pub stats: Arc<RouteStats>,
}

impl Rule {
    /// A rule that does nothing but `action`.
    pub fn new(name: RuleName, action: Action) -> Self {
        Rule {
            name,
            gates: Vec::new(),
            transforms: Vec::new(),
            action,
            mirrors: Vec::new(),
            timeouts: Timeouts::default(),
            retry: None,
            session: None,
            stats: Arc::default(),
        }
    }
}

/// Where a rule comes from: for log lines, metrics and messages.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleName {
    /// `HTTPRoute`, `GRPCRoute`, `TLSRoute`, `TCPRoute`, `UDPRoute` or `Ingress`.
    pub kind: &'static str,
    pub namespace: Arc<str>,
    pub name: Arc<str>,
    /// The rule's own name, or its index.
    pub rule: Arc<str>,
}

impl RuleName {
    /// The route that the rule is part of: kind, namespace and name.
    pub fn route(&self) -> (&'static str, &str, &str) {
        (self.kind, &self.namespace, &self.name)
    }
}

#[derive(Debug)]
pub enum Action {
    Forward(Split),
    /// Answer with the reason's status, after the rule's gates and transforms: a rule whose
    /// redirect answers needs no backend. A rule that cannot be resolved has none of both.
    Refuse(Reason),
}

/// Weighted targets; `total` is the sum of their weights and never 0.
#[derive(Debug)]
pub struct Split {
    pub targets: Vec<Target>,
    pub total: u32,
}

#[derive(Clone, Debug)]
pub struct Target {
    pub weight: u32,
    /// A reference that cannot be resolved takes its share of requests and answers 500.
    pub to: Result<BackendId, Reason>,
    /// Filters of this backendRef, after the rule's own.
    pub transforms: Vec<PolicyId>,
}

/// A copy of the request goes to `to`, its answer is thrown away (HTTPRoute `requestMirror`).
#[derive(Clone, Debug)]
pub struct Mirror {
    pub to: BackendId,
    /// Of each `denominator` requests `numerator` are copied.
    pub numerator: u32,
    pub denominator: u32,
}

/// GEP-1742. `None` means: no limit of the route's own, the proxy's default holds.
/// `Some(Duration::ZERO)` means: no limit at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// From the head of the request to the last byte of the answer.
    pub request: Option<Duration>,
    /// From the request being sent to the head of the backend's answer, each attempt anew.
    pub backend_request: Option<Duration>,
    /// Longest silence of a body in either direction; 5 minutes by default.
    pub idle: Option<Duration>,
}

/// A compiled policy and by what its state is found again in the next graph.
#[derive(Debug)]
pub struct Installed {
    /// The object and the place in it, such as `RateLimit/ns/name/limits`.
    pub key: Arc<str>,
    pub spec: AnySpec,
    /// Enforce or Shadow: what is Off is not in a graph. State does not go by it.
    pub mode: Mode,
    /// The services and the number of pods that it was compiled with.
    pub services: Services,
    pub replicas: u32,
    pub policy: AnyPolicy,
}

impl Installed {
    /// # Errors
    /// The Spec cannot be compiled.
    pub fn new(key: Arc<str>, spec: &AnySpec, mode: Mode, refs: &Refs) -> Result<Self, Invalid> {
        let policy = spec.compile(refs)?;
        Ok(Installed {
            key,
            spec: spec.clone(),
            mode,
            services: refs.services.clone(),
            replicas: refs.replicas,
            policy,
        })
    }
}

/// A request's place in the graph.
#[derive(Clone, Copy, Debug)]
pub struct Found<'g> {
    pub id: RuleId,
    pub rule: &'g Rule,
    pub section: &'g Section,
    /// The prefix that matched, without a trailing slash: empty for `/`, for exact and for
    /// regular-expression matches.
    pub prefix: &'g str,
}
