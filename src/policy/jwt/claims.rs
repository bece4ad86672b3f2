//! What claims must be (RFC 7519, 4.1) and what is taken from them.
//!
//! A claim that is there and is not of its type is refused, never overlooked.

use http::{HeaderName, HeaderValue};
use serde_json::Value;

use super::refusal::Refusal;
use super::spec::RequiredClaim;
use crate::policy::identity::{Claims, claim};

/// The last second of the year 9999: a NumericDate beyond is a mistake.
const LATEST: f64 = 253_402_300_799.0;
/// Groups and scopes that are taken of one token.
const MOST_WORDS: usize = 256;
/// Longest text of a claim that becomes a header field.
const LONGEST_FIELD: usize = 4096;

/// What every token must fulfil. Times are in milliseconds.
#[derive(Debug)]
pub(super) struct Checks {
    pub issuer: Box<str>,
    pub audiences: Box<[Box<str>]>,
    pub leeway_ms: u64,
    pub max_lifetime_ms: Option<u64>,
    pub required: Box<[RequiredClaim]>,
}

/// When a token may be used, leeway included: from the first to before the second, in
/// milliseconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Validity {
    pub from_ms: u64,
    pub until_ms: u64,
}

impl Validity {
    pub fn check(self, now_ms: u64) -> Result<(), Refusal> {
        match now_ms {
            now if now >= self.until_ms => Err(Refusal::Expired),
            now if now < self.from_ms => Err(Refusal::NotYetValid),
            _ => Ok(()),
        }
    }
}

impl Checks {
    /// `iss` alone: it says whether the token is meant for this policy at all.
    pub fn issuer(&self, claims: &Claims) -> Result<(), Refusal> {
        match claims.get("iss") {
            Some(Value::String(issuer)) if **issuer == *self.issuer => Ok(()),
            Some(Value::String(_)) | None => Err(Refusal::WrongIssuer),
            Some(_) => Err(Refusal::Malformed),
        }
    }

    /// All the others.
    pub fn all(&self, claims: &Claims, now_ms: u64) -> Result<Validity, Refusal> {
        let validity = self.validity(claims)?;
        validity.check(now_ms)?;
        if claims.get("sub").is_some_and(|subject| !subject.is_string()) {
            return Err(Refusal::Malformed);
        }
        self.audience(claims)?;
        match self.required.iter().all(|required| fulfils(claims, required)) {
            true => Ok(validity),
            false => Err(Refusal::WrongClaim),
        }
    }

    fn validity(&self, claims: &Claims) -> Result<Validity, Refusal> {
        // Tokens that never end cannot be taken back.
        let expires = date(claims, "exp")?.ok_or(Refusal::WrongClaim)?;
        let not_before = date(claims, "nbf")?;
        let issued = date(claims, "iat")?;
        if let Some(longest) = self.max_lifetime_ms {
            let issued = issued.ok_or(Refusal::LivesTooLong)?;
            if expires.saturating_sub(issued) > longest {
                return Err(Refusal::LivesTooLong);
            }
        }
        // One that was issued in the future was issued by a wrong clock.
        let from = not_before.max(issued).unwrap_or(0);
        Ok(Validity {
            from_ms: from.saturating_sub(self.leeway_ms),
            until_ms: expires.saturating_add(self.leeway_ms),
        })
    }

    fn audience(&self, claims: &Claims) -> Result<(), Refusal> {
        let is_ours = |audience: &str| self.audiences.iter().any(|ours| **ours == *audience);
        let found = match claims.get("aud") {
            None => false,
            Some(Value::String(audience)) => is_ours(audience),
            Some(Value::Array(list)) if list.iter().all(Value::is_string) => {
                list.iter().filter_map(Value::as_str).any(is_ours)
            }
            Some(_) => return Err(Refusal::Malformed),
        };
        match found || self.audiences.is_empty() {
            true => Ok(()),
            false => Err(Refusal::WrongAudience),
        }
    }
}

/// A NumericDate (RFC 7519, 2) in milliseconds: a number, perhaps with a fraction.
fn date(claims: &Claims, name: &str) -> Result<Option<u64>, Refusal> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    match value.as_f64() {
        Some(seconds) if (0.0..=LATEST).contains(&seconds) => {
            Ok(Some((seconds * 1000.0).floor() as u64))
        }
        _ => Err(Refusal::Malformed),
    }
}

fn fulfils(claims: &Claims, required: &RequiredClaim) -> bool {
    let Some(value) = claim(claims, &required.name) else { return false };
    let wanted = |value: &Value| scalar(value).is_some_and(|text| required.values.contains(&text));
    match value {
        Value::Null => false,
        _ if required.values.is_empty() => true,
        Value::Array(list) => list.iter().any(wanted),
        one => wanted(one),
    }
}

/// Text, a number or a truth value as text.
pub(super) fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        _ => None,
    }
}

/// The names in a claim: a list of them, or one.
pub(super) fn names(value: Option<&Value>) -> Box<[Box<str>]> {
    match value {
        Some(Value::String(one)) if !one.is_empty() => [one.as_str().into()].into(),
        Some(Value::Array(list)) => {
            let names = list.iter().filter_map(Value::as_str).filter(|name| !name.is_empty());
            names.take(MOST_WORDS).map(Into::into).collect()
        }
        _ => Box::default(),
    }
}

/// `scope` (RFC 8693, 4.2), words with spaces between them, or `scp`, which some issuers write
/// instead, also as a list.
pub(super) fn scopes(claims: &Claims) -> Box<[Box<str>]> {
    match claims.get("scope").or_else(|| claims.get("scp")) {
        Some(Value::String(text)) => text
            .split(' ')
            .filter(|word| !word.is_empty())
            .take(MOST_WORDS)
            .map(Into::into)
            .collect(),
        list => names(list),
    }
}

/// The field with a claim's value, if it can be written as one.
pub(super) fn field(name: &HeaderName, value: &Value) -> Option<(HeaderName, HeaderValue)> {
    let text = match value {
        Value::Array(list) => {
            let parts: Option<Vec<String>> = list.iter().map(scalar).collect();
            parts?.join(",")
        }
        one => scalar(one)?,
    };
    if text.is_empty() || text.len() > LONGEST_FIELD || text.trim() != text {
        return None;
    }
    Some((name.clone(), HeaderValue::from_bytes(text.as_bytes()).ok()?))
}
