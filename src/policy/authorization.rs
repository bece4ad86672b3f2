//! What somebody may do: rules by identity, by parts of the request, and by expressions.
//!
//! A rule that denies wins over all that allow. Where there is a rule that allows, one must
//! match. What cannot be evaluated is decided on the side of safety: it does not allow, and it
//! does deny. Who it is, an authentication policy has found out before.

mod rule;

use std::ops::ControlFlow;

use http::header::WWW_AUTHENTICATE;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::rule::{Asked, Match, Rule};
use super::identity::Method;
use super::tally::Tally;
use super::{Exchange, Invalid, Policy, Refs, Reply};
use crate::reason::Reason;

/// Most rules of one policy.
const MAX_RULES: usize = 64;

/// Who may do what.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Authorization")]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    /// A rule with `effect: Deny` that matches answers 403, whatever others say. If there is a
    /// rule with `effect: Allow`, one of them must match; without an identity that it asks for,
    /// the answer is 401, else 403.
    #[schemars(length(min = 1, max = 64))]
    pub rules: Vec<RuleSpec>,
}

/// Conditions that must all hold; of the entries of one list, one is enough.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RuleSpec {
    /// `Allow` (the default) or `Deny`.
    #[serde(default, skip_serializing_if = "Effect::is_allow")]
    pub effect: Effect,
    /// Names of Consumers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253)))]
    pub consumers: Vec<String>,
    /// Groups of the Consumer, or that its credentials tell of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253)))]
    pub groups: Vec<String>,
    /// Scopes of the token: words of its claim `scope` or `scp`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253)))]
    pub scopes: Vec<String>,
    /// Claims of the token: every entry must hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub claims: Vec<ClaimSpec>,
    /// Methods, as they are written: `GET`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 32)))]
    pub methods: Vec<String>,
    /// Paths in their normal form, before any rewrite.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub paths: Vec<PathSpec>,
    /// Addresses and networks of clients: `10.0.0.0/8`, `2001:db8::/32`.
    #[serde(rename = "sourceIPs", default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 2, max = 49)))]
    pub source_ips: Vec<String>,
    /// A condition in CEL over `request` (method, path, host, scheme, ip, query, headers) and
    /// `identity` (name, subject, method, consumer, plan, groups, scopes, claims). One that cannot
    /// be evaluated does not allow, and does deny. See docs/expressions.md.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub expression: Option<String>,
}

/// What a rule that matches does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Effect {
    #[default]
    Allow,
    Deny,
}

impl Effect {
    pub fn is_allow(&self) -> bool {
        *self == Effect::Allow
    }
}

/// A claim and the values of which it must have one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClaimSpec {
    /// The claim's name, or a path of names with dots between them: `realm_access.roles`.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The claim is one of these, or a list that has one of them. Numbers and true or false are
    /// written as texts.
    #[schemars(length(min = 1, max = 64), inner(length(max = 253)))]
    pub values: Vec<String>,
}

/// A path, or all below it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PathSpec {
    /// `Exact`, or `Prefix` (the default): whole segments, so `/a` is not `/ab`.
    #[serde(default)]
    pub r#type: PathType,
    /// Upper and lower case differ.
    #[schemars(length(min = 1, max = 1024), regex(pattern = "^/"))]
    pub value: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PathType {
    Exact,
    #[default]
    Prefix,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Authorization {
    deny: Box<[Rule]>,
    /// None: everyone who is not denied.
    allow: Option<Box<[Rule]>>,
}

/// What an authorization policy decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Allowed,
    /// It is known who asks, and they may not.
    Denied,
    /// They may not, as long as it is not known who asks.
    Unauthenticated,
}

impl Decision {
    pub const ALL: [Decision; 3] = [Decision::Allowed, Decision::Denied, Decision::Unauthenticated];

    /// The word in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Decision::Allowed => "allowed",
            Decision::Denied => "denied",
            Decision::Unauthenticated => "unauthenticated",
        }
    }

    /// How often it was decided like this in this process, where it was enforced.
    pub fn total(self) -> u64 {
        DECISIONS.total(self as usize)
    }
}

static DECISIONS: Tally<{ Decision::ALL.len() }> = Tally::new();

impl Policy for Authorization {
    type Spec = Spec;

    fn compile(spec: &Spec, _refs: &Refs) -> Result<Self, Invalid> {
        let count = spec.rules.len();
        if count == 0 || count > MAX_RULES {
            return Err(Invalid::new("rules", format!("{count} rules; write 1 to {MAX_RULES}")));
        }
        let (mut allow, mut deny) = (Vec::new(), Vec::new());
        for (i, rule) in spec.rules.iter().enumerate() {
            let list = if rule.effect.is_allow() { &mut allow } else { &mut deny };
            list.push(Rule::compile(&format!("rules[{i}]"), rule)?);
        }
        let allow = (!allow.is_empty()).then(|| allow.into());
        Ok(Authorization { deny: deny.into(), allow })
    }

    async fn on_request(&self, ex: &mut Exchange<'_>) -> ControlFlow<Reply> {
        let decision = self.decide(ex);
        if !ex.is_shadow {
            DECISIONS.count(decision as usize);
        }
        match decision {
            Decision::Allowed => ControlFlow::Continue(()),
            Decision::Denied => ControlFlow::Break(Reply::of(Reason::AccessDenied)),
            Decision::Unauthenticated => {
                let mut reply = Reply::of(Reason::Unauthenticated);
                // What could be shown (RFC 9110, 15.5.2), as authentication policies say it.
                for challenge in ex.challenges.iter().flat_map(|challenges| challenges.iter()) {
                    reply.headers.append(WWW_AUTHENTICATE, challenge.clone());
                }
                ControlFlow::Break(reply)
            }
        }
    }
}

impl Authorization {
    fn decide(&self, ex: &Exchange<'_>) -> Decision {
        let asked = Asked::new(ex);
        let is_known = ex.identity.as_ref().is_some_and(|who| who.method != Method::Anonymous);
        let refused = || if is_known { Decision::Denied } else { Decision::Unauthenticated };
        for rule in &self.deny {
            match rule.matches(&asked) {
                Match::No | Match::NeedsIdentity => {}
                Match::Yes => return Decision::Denied,
                Match::Failed if rule.asks_identity_by_expression() => return refused(),
                Match::Failed => return Decision::Denied,
            }
        }
        let Some(allow) = &self.allow else { return Decision::Allowed };
        let mut may_become_allowed = false;
        for rule in allow {
            match rule.matches(&asked) {
                Match::Yes => return Decision::Allowed,
                Match::NeedsIdentity => may_become_allowed = true,
                Match::Failed => may_become_allowed |= rule.asks_identity_by_expression(),
                // An anonymous Consumer is somebody, but who it is may turn out otherwise. What
                // does not hold without anybody does not hold for anyone.
                Match::No => {
                    let is_anonymous = ex.identity.is_some() && !is_known;
                    may_become_allowed |= is_anonymous && rule.asks_identity() && rule.fits(&asked);
                }
            }
        }
        if may_become_allowed { refused() } else { Decision::Denied }
    }
}

#[cfg(test)]
mod tests;
