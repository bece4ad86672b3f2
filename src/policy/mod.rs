//! Policies: one file each, and the one table that names them all.
//!
//! A policy is compiled from its `Spec` (what the user writes) when the graph is built, and
//! called by the proxy through [`Exchange`]. Annotations, HTTPRoute filters and our own kinds
//! all become the same `Spec`. Gates run in the order of the table, from authentication on owner
//! by owner; transforms in the order that the user listed them; response transforms run in
//! reverse. Where policies attach and how they merge is `translate`'s work, not theirs.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::services::ServiceId;
use crate::services::store::Store;

pub mod authentication;
pub mod authorization;
pub mod bandwidth;
pub mod certificate;
pub mod concurrency;
pub mod consumer;
pub mod cors;
pub mod direct_response;
pub mod duration;
pub mod exchange;
pub mod expression;
pub mod external_auth;
pub mod header_edits;
pub mod identity;
pub mod identity_concurrency;
pub mod identity_limit;
pub mod ip_access;
pub mod jwt;
pub mod limit_key;
pub mod mode;
pub mod path_modifier;
pub mod place;
pub mod rate_limit;
pub mod readings;
pub mod redirect;
pub mod request_headers;
pub mod request_parts;
pub mod response_headers;
pub mod rewrite;
pub mod tally;
#[cfg(test)]
pub(crate) mod testing;
pub mod told;

pub use exchange::{
    Client, Exchange, Lent, Quota, Reply, RequestHead, ResponseHead, RouteRef, Scheme,
};
pub use mode::{Mode, Shadowed};

/// One behaviour that can be put on a rule.
pub trait Policy: Sized {
    /// What the user writes.
    type Spec: PartialEq;

    /// Pure: the same Spec and references give the same policy. The message of an error names
    /// the field, the cause and the remedy.
    fn compile(spec: &Self::Spec, refs: &Refs) -> Result<Self, Invalid>;

    /// Looks at the request, changes it, or answers it.
    fn on_request(&self, _ex: &mut Exchange<'_>) -> impl Future<Output = ControlFlow<Reply>> {
        std::future::ready(ControlFlow::Continue(()))
    }

    /// Changes the head of the response, whoever gave it. It runs only if `on_request` ran.
    fn on_response(&self, _ex: &Exchange<'_>, _res: &mut ResponseHead) {}

    /// Takes over the state of the same policy in the graph before this one. Called only when
    /// both have the same key and equal Specs.
    fn adopt(&mut self, _old: &Self) {}
}

/// What a Spec refers to outside itself, already resolved and permitted by `translate`.
#[derive(Debug, Default)]
pub struct Refs {
    /// The data of the Secrets that the Spec names, by Secret name.
    pub secrets: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    /// The services that the Spec names, by the field that does.
    pub services: Services,
    /// The Consumers of the namespace, for a Spec that asks who they are; None: there are none.
    pub consumers: Option<Arc<consumer::Consumers>>,
    /// The keys that issuers publish, by the part of the Spec that says where.
    pub keys: BTreeMap<jwt::Remote, jwt::RemoteKeys>,
    /// Where limits are counted, if the Spec names a store. The same store is the same `Arc`.
    pub store: Option<Arc<dyn Store>>,
    /// Tidegate pods that are ready; 0 where nobody counts them, which is as good as one.
    pub replicas: u32,
}

/// Services by the field that names them.
pub type Services = BTreeMap<&'static str, ServiceId>;

/// Why a Spec cannot be compiled: the field, the cause and the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct Invalid {
    /// The path of the field below the Spec, such as `rewrite.regex.pattern`.
    pub field: String,
    /// What is wrong with it and what would be right.
    pub message: String,
}

impl Invalid {
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Invalid { field: field.into(), message: message.into() }
    }
}

macro_rules! policies {
    (gates: $($gate:ident($gmod:ident)),* ; transforms: $($tr:ident($tmod:ident)),* $(;)?) => {
        /// What kind of policy: also the metric label and the order of gates.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Kind { $($gate,)* $($tr,)* }

        impl Kind {
            pub const ALL: &[Kind] = &[$(Kind::$gate,)* $(Kind::$tr,)*];

            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Kind::$gate => stringify!($gmod),)*
                    $(Kind::$tr => stringify!($tmod),)*
                }
            }

            /// Gates decide whether a request may go on, transforms change it.
            pub const fn is_gate(self) -> bool {
                match self { $(Kind::$gate => true,)* $(Kind::$tr => false,)* }
            }

            /// A gate that is asked before anybody is recognised.
            pub fn is_before_identity(self) -> bool {
                self < Kind::Authentication
            }
        }

        /// A Spec of any policy: what `translate` collects before it compiles.
        #[derive(Clone, Debug, PartialEq)]
        pub enum AnySpec {
            $($gate(<$gmod::$gate as Policy>::Spec),)*
            $($tr(<$tmod::$tr as Policy>::Spec),)*
        }

        impl AnySpec {
            pub const fn kind(&self) -> Kind {
                match self {
                    $(AnySpec::$gate(_) => Kind::$gate,)*
                    $(AnySpec::$tr(_) => Kind::$tr,)*
                }
            }

            /// See [`Policy::compile`].
            pub fn compile(&self, refs: &Refs) -> Result<AnyPolicy, Invalid> {
                Ok(match self {
                    $(AnySpec::$gate(s) => AnyPolicy::$gate($gmod::$gate::compile(s, refs)?),)*
                    $(AnySpec::$tr(s) => AnyPolicy::$tr($tmod::$tr::compile(s, refs)?),)*
                })
            }
        }

        /// A compiled policy: an enum and a match instead of trait objects, so that a call
        /// costs a jump and no allocation.
        #[derive(Debug)]
        pub enum AnyPolicy { $($gate($gmod::$gate),)* $($tr($tmod::$tr),)* }

        impl AnyPolicy {
            pub const fn kind(&self) -> Kind {
                match self {
                    $(AnyPolicy::$gate(_) => Kind::$gate,)*
                    $(AnyPolicy::$tr(_) => Kind::$tr,)*
                }
            }

            pub async fn on_request(&self, ex: &mut Exchange<'_>) -> ControlFlow<Reply> {
                match self {
                    $(AnyPolicy::$gate(p) => p.on_request(ex).await,)*
                    $(AnyPolicy::$tr(p) => p.on_request(ex).await,)*
                }
            }

            pub fn on_response(&self, ex: &Exchange<'_>, res: &mut ResponseHead) {
                match self {
                    $(AnyPolicy::$gate(p) => p.on_response(ex, res),)*
                    $(AnyPolicy::$tr(p) => p.on_response(ex, res),)*
                }
            }

            /// See [`Policy::adopt`]; policies of different kinds share nothing.
            pub fn adopt(&mut self, old: &Self) {
                match (self, old) {
                    $((AnyPolicy::$gate(new), AnyPolicy::$gate(old)) => new.adopt(old),)*
                    $((AnyPolicy::$tr(new), AnyPolicy::$tr(old)) => new.adopt(old),)*
                    _ => {}
                }
            }
        }
    };
}

policies! {
    gates: IpAccess(ip_access), Cors(cors), RateLimit(rate_limit), Concurrency(concurrency),
        Authentication(authentication), Authorization(authorization), ExternalAuth(external_auth),
        IdentityLimit(identity_limit), IdentityConcurrency(identity_concurrency),
        Bandwidth(bandwidth);
    transforms: RequestHeaders(request_headers), ResponseHeaders(response_headers),
        Rewrite(rewrite), Redirect(redirect), DirectResponse(direct_response);
}
