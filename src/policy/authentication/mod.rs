//! Who asks: one policy of one or more methods (tokens, API keys, passwords, certificates, a
//! service that says who it is) that gives the request its [`Identity`], or answers 401 with
//! every challenge.
//!
//! Each method says for itself whether a request has its credentials and whose they are
//! ([`method`]); what follows from all of them together is in [`decision`]. What identifies
//! somebody to us goes no further: credentials are removed from the request once all gates have
//! seen it, and the fields that tell the backend who it is are ours alone ([`headers`]). What
//! somebody may do is `authorization`'s work.

pub mod api_key;
pub mod basic;
mod challenge;
pub mod client_certificate;
pub mod counters;
mod decision;
mod external;
pub mod headers;
pub mod method;
#[cfg(test)]
mod tests;

use std::ops::ControlFlow;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::challenge::{Challenge, Realm};
use self::decision::{Decision, Found, Refused};
use self::headers::IdentityHeaders;
use self::method::{Method, Outcome};
use super::consumer::{Consumer, Consumers};
use super::identity::{self, Claims, Identity};
use super::place::Places;
use super::{Exchange, Invalid, Policy, Refs, Reply, ResponseHead};
use crate::reason::Reason;

/// Most methods of one policy.
const MAX_METHODS: usize = 8;

/// Recognises who asks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Authentication")]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    /// The ways to be recognised, tried in this order.
    #[schemars(length(min = 1, max = 8))]
    pub methods: Vec<method::Spec>,
    /// AnyOf: one method is enough, and wrong credentials of another do no harm. AllOf: every
    /// method must recognise the request, and all of them the same Consumer.
    #[serde(default)]
    pub require: Require,
    /// Required: a request without credentials is answered 401. Optional: it goes on, while one
    /// with wrong credentials and none that are right is answered 401 all the same.
    #[serde(default)]
    pub presence: Presence,
    /// With presence Optional: the Consumer that requests without credentials count as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub anonymous_consumer: Option<String>,
    /// The backend gets the credentials too. By default they are removed from the request, those
    /// of all methods, wherever these look for them.
    #[serde(default)]
    pub keep_credentials: bool,
    /// The realm of `WWW-Authenticate`; `Restricted` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub realm: Option<String>,
    /// Fields that tell the backend who it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers: Option<headers::Spec>,
}

/// How many methods have to recognise a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Require {
    #[default]
    AnyOf,
    AllOf,
}

/// Whether requests need credentials.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Presence {
    #[default]
    Required,
    Optional,
}

impl Presence {
    pub const fn is_optional(self) -> bool {
        matches!(self, Presence::Optional)
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Authentication {
    methods: Box<[Method]>,
    challenges: Box<[Challenge]>,
    /// What `challenges` say to a request without credentials.
    asked: Arc<[HeaderValue]>,
    require: Require,
    presence: Presence,
    anonymous: Option<Arc<Identity>>,
    /// What is taken away from the request, unless it is kept.
    credentials: Option<Arc<Places>>,
    headers: IdentityHeaders,
    consumers: Option<Arc<Consumers>>,
}

impl Policy for Authentication {
    type Spec = Spec;

    fn compile(spec: &Spec, refs: &Refs) -> Result<Self, Invalid> {
        if spec.methods.is_empty() || spec.methods.len() > MAX_METHODS {
            let message = format!("{} methods; set 1 to {MAX_METHODS}", spec.methods.len());
            return Err(Invalid::new("methods", message));
        }
        let mut methods = Vec::with_capacity(spec.methods.len());
        for (i, method) in spec.methods.iter().enumerate() {
            let below = |error: Invalid| {
                let field = format!("methods[{i}].{}", error.field);
                Invalid::new(field.trim_end_matches('.'), error.message)
            };
            methods.push(Method::compile(method, spec.presence, refs).map_err(below)?);
        }
        let mut external = (0..).zip(&spec.methods).filter(|(_, method)| method.external.is_some());
        if let Some((i, _)) = external.nth(1) {
            let message = "a policy asks one service; remove it, or move it to a policy of its own";
            return Err(Invalid::new(format!("methods[{i}].external"), message));
        }
        let realm = Realm::parse(spec.realm.as_deref().unwrap_or("Restricted"))?;
        let claims = methods.iter().flat_map(Method::claim_headers);
        let names = spec.headers.clone().unwrap_or_default();
        let headers = IdentityHeaders::compile(&names, claims)?;
        let challenges: Vec<_> = methods.iter().map(|method| method.challenge(&realm)).collect();
        let places = Arc::new(Places::join(methods.iter().filter_map(Method::places)));
        let mut asked = HeaderMap::new();
        challenges.iter().for_each(|challenge| challenge.tell(None, &mut asked));
        Ok(Authentication {
            challenges: challenges.into(),
            asked: asked.into_iter().map(|(_, value)| value).collect(),
            credentials: (!spec.keep_credentials).then_some(places),
            methods: methods.into(),
            require: spec.require,
            presence: spec.presence,
            anonymous: anonymous(spec, refs)?,
            headers,
            consumers: refs.consumers.clone(),
        })
    }

    async fn on_request(&self, ex: &mut Exchange<'_>) -> ControlFlow<Reply> {
        self.headers.remove(&mut ex.request.headers);
        let decision = match &*self.methods {
            // The usual case, without a list.
            [method] => {
                let outcome = self.ask(method, ex).await;
                decision::of(self.require, [Found { at: 0, outcome }])
            }
            // Boxed: the list is large, and every request has room for the future of any policy.
            _ => Box::pin(self.ask_all(ex)).await,
        };
        self.act(decision, ex)
    }

    fn on_response(&self, ex: &Exchange<'_>, res: &mut ResponseHead) {
        ex.edit_answer(res);
    }

    fn adopt(&mut self, old: &Self) {
        let same = match (&self.consumers, &old.consumers) {
            (Some(new), Some(old)) => Arc::ptr_eq(new, old),
            (new, old) => new.is_none() && old.is_none(),
        };
        for (new, old) in self.methods.iter_mut().zip(&old.methods) {
            new.adopt(old, same);
        }
    }
}

impl Authentication {
    async fn ask(&self, method: &Method, ex: &Exchange<'_>) -> Outcome {
        let outcome = method.check(ex).await;
        if let Some(counted) = outcome.counted().filter(|_| !ex.is_shadow) {
            counters::count(method.kind(), counted);
        }
        outcome
    }

    /// Asks one method after the other, as long as it matters.
    async fn ask_all(&self, ex: &Exchange<'_>) -> Decision {
        let mut found = Vec::with_capacity(self.methods.len());
        for (at, method) in self.methods.iter().enumerate() {
            let outcome = self.ask(method, ex).await;
            let enough = match self.require {
                Require::AnyOf => outcome.identity().is_some(),
                Require::AllOf => {
                    matches!(outcome, Outcome::Refused(_) | Outcome::Denied(_) | Outcome::Expired)
                }
            };
            found.push(Found { at, outcome });
            if enough {
                break;
            }
        }
        decision::of(self.require, found)
    }

    fn act(&self, decision: Decision, ex: &mut Exchange<'_>) -> ControlFlow<Reply> {
        match decision {
            Decision::Accepted { identity, tokens, changes } => {
                ex.credentials.extend(self.credentials.clone());
                self.strip(&mut ex.request.headers);
                changes.iter().for_each(|changes| changes.apply(ex));
                for (name, value) in tokens.iter().flat_map(|token| &token.headers) {
                    ex.request.headers.insert(name, value.clone());
                }
                self.headers.set(&identity, &mut ex.request.headers);
                ex.identity = Some(identity);
                ControlFlow::Continue(())
            }
            Decision::Nobody if self.presence.is_optional() => {
                self.strip(&mut ex.request.headers);
                ex.challenges = Some(Arc::clone(&self.asked));
                // A policy before this one may know who it is.
                if let Some(anonymous) = self.anonymous.as_ref().filter(|_| ex.identity.is_none()) {
                    count_nobody(counters::Outcome::Allowed, ex);
                    ex.identity = Some(Arc::clone(anonymous));
                }
                if let Some(identity) = &ex.identity {
                    self.headers.set(identity, &mut ex.request.headers);
                }
                ControlFlow::Continue(())
            }
            Decision::Nobody => {
                count_nobody(counters::Outcome::Missing, ex);
                ControlFlow::Break(self.refuse(&Refused::default()))
            }
            Decision::Refused(why) => ControlFlow::Break(self.refuse(&why)),
            Decision::Unavailable(reason) => ControlFlow::Break(Reply::of(reason)),
        }
    }

    /// Removes what only a method may write in the request.
    fn strip(&self, headers: &mut HeaderMap) {
        self.methods.iter().for_each(|method| method.strip(headers));
    }

    /// 401 with what is wrong with the tokens of some methods, or what a service said.
    fn refuse(&self, why: &Refused) -> Reply {
        let said = why.said.as_ref();
        let mut reply =
            said.map_or_else(|| Reply::of(Reason::Unauthenticated), |said| said.reply());
        if reply.status != StatusCode::UNAUTHORIZED {
            return reply;
        }
        for (at, challenge) in self.challenges.iter().enumerate() {
            // The service has said itself what it asks for.
            if said.is_some() && matches!(self.methods[at], Method::External(_)) {
                continue;
            }
            let wrong = why.wrong.iter().find(|(of, _)| *of == at).map(|(_, wrong)| *wrong);
            challenge.tell(wrong, &mut reply.headers);
        }
        reply
    }
}

/// Counts a request without credentials.
fn count_nobody(outcome: counters::Outcome, ex: &Exchange<'_>) {
    if !ex.is_shadow {
        counters::count(identity::Method::Anonymous, outcome);
    }
}

/// The identity of requests without credentials.
fn anonymous(spec: &Spec, refs: &Refs) -> Result<Option<Arc<Identity>>, Invalid> {
    let Some(name) = &spec.anonymous_consumer else { return Ok(None) };
    let wrong = |message: String| Invalid::new("anonymousConsumer", message);
    if !spec.presence.is_optional() {
        return Err(wrong("is only for presence Optional; set that, or remove it".to_owned()));
    }
    let consumer = refs.consumers.as_ref().and_then(|consumers| consumers.by_name(name));
    let consumer: &Arc<Consumer> =
        consumer.ok_or_else(|| wrong(format!("Consumer {name} does not exist; create it")))?;
    Ok(Some(Arc::new(Identity {
        method: identity::Method::Anonymous,
        subject: consumer.name.clone(),
        consumer: Some(Arc::clone(consumer)),
        groups: Box::default(),
        scopes: Box::default(),
        claims: Claims::default(),
    })))
}
