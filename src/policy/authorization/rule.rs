//! One rule: its conditions, compiled, and whether they hold for a request.

use std::collections::HashSet;

use http::Method;
use serde_json::Value;

use super::{ClaimSpec, PathSpec, PathType, RuleSpec};
use crate::policy::expression::{Expression, Gives, Input};
use crate::policy::identity::Identity;
use crate::policy::ip_access::Ranges;
use crate::policy::readings::readings;
use crate::policy::{Exchange, Invalid};

/// Most entries of the lists of a rule.
const MAX_NAMES: usize = 64;
const MAX_CLAIMS: usize = 16;
const MAX_METHODS: usize = 16;

/// What is looked at, for all rules of a policy.
pub struct Asked<'a> {
    ex: &'a Exchange<'a>,
    identity: Option<&'a Identity>,
    /// What backends may take the path for besides.
    readings: Vec<String>,
}

impl<'a> Asked<'a> {
    pub fn new(ex: &'a Exchange<'a>) -> Self {
        Asked { ex, identity: ex.identity.as_deref(), readings: readings(&ex.request.path) }
    }
}

/// Whether a rule holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    Yes,
    No,
    /// The request fits, but there is no identity that could.
    NeedsIdentity,
    /// All but its expression holds, and that cannot be evaluated.
    Failed,
}

type Names = HashSet<Box<str>>;
/// A claim's name, and its values.
type Claim = (Box<str>, Names);

/// See the module's documentation. What is `None` or empty is not asked for.
#[derive(Debug)]
pub struct Rule {
    consumers: Option<Names>,
    groups: Option<Names>,
    scopes: Option<Names>,
    claims: Box<[Claim]>,
    methods: Box<[Method]>,
    paths: Box<[Path]>,
    source_ips: Option<Ranges>,
    expression: Option<Expression>,
    denies: bool,
}

#[derive(Debug)]
enum Path {
    Exact(Box<str>),
    /// Without a slash at its end.
    Prefix(Box<str>),
}

impl Rule {
    /// Compiles the rule that stands in the field `at`.
    pub fn compile(at: &str, spec: &RuleSpec) -> Result<Self, Invalid> {
        let RuleSpec {
            effect,
            consumers,
            groups,
            scopes,
            claims,
            methods,
            paths,
            source_ips,
            expression,
        } = spec;
        let field = |name: &str| format!("{at}.{name}");
        let rule = Rule {
            consumers: names(field("consumers"), consumers)?,
            groups: names(field("groups"), groups)?,
            scopes: names(field("scopes"), scopes)?,
            claims: compile_claims(&field("claims"), claims)?,
            methods: compile_methods(&field("methods"), methods)?,
            paths: compile_paths(&field("paths"), paths)?,
            source_ips: match source_ips.as_slice() {
                [] => None,
                list => Some(Ranges::parse(&field("sourceIPs"), list)?),
            },
            expression: match expression {
                None => None,
                Some(text) => Some(Expression::compile(&field("expression"), text, Gives::Bool)?),
            },
            denies: !effect.is_allow(),
        };
        let is_empty = *spec == RuleSpec { effect: *effect, ..RuleSpec::default() };
        if is_empty {
            let message = "has no condition; to mean every request, write paths: [{value: /}]";
            return Err(Invalid::new(at, message));
        }
        Ok(rule)
    }

    pub fn matches(&self, asked: &Asked<'_>) -> Match {
        if !self.fits(asked) {
            return Match::No;
        }
        if self.asks_identity_by_lists() {
            let Some(identity) = asked.identity else { return Match::NeedsIdentity };
            if !self.is_about(identity) {
                return Match::No;
            }
        }
        let Some(expression) = &self.expression else { return Match::Yes };
        match expression.holds(&Input::of(asked.ex)) {
            Ok(true) => Match::Yes,
            Ok(false) => Match::No,
            Err(_) => Match::Failed,
        }
    }

    /// Whether the request is one that the rule is for, whoever sent it. Expressions apart.
    pub fn fits(&self, asked: &Asked<'_>) -> bool {
        let request = &asked.ex.request;
        (self.methods.is_empty() || self.methods.contains(&request.method))
            && (self.paths.is_empty() || self.is_at(&request.path, &asked.readings))
            && self.source_ips.as_ref().is_none_or(|ips| ips.contains(asked.ex.client.ip))
    }

    pub fn asks_identity(&self) -> bool {
        self.asks_identity_by_lists() || self.asks_identity_by_expression()
    }

    pub fn asks_identity_by_expression(&self) -> bool {
        self.expression.as_ref().is_some_and(Expression::needs_identity)
    }

    fn asks_identity_by_lists(&self) -> bool {
        let lists = [&self.consumers, &self.groups, &self.scopes];
        !self.claims.is_empty() || lists.iter().any(|list| list.is_some())
    }

    fn is_about(&self, who: &Identity) -> bool {
        let consumer = who.consumer.as_ref().map(|consumer| &*consumer.name);
        one_of(self.consumers.as_ref(), consumer)
            && one_of(self.groups.as_ref(), who.groups())
            && one_of(self.scopes.as_ref(), who.scopes.iter().map(|scope| &**scope))
            && self
                .claims
                .iter()
                .all(|(name, values)| who.claim(name).is_some_and(|value| has_one(value, values)))
    }

    /// What allows must allow every reading of the path, what denies denies any.
    fn is_at(&self, path: &str, readings: &[String]) -> bool {
        let is = |path: &str| self.paths.iter().any(|wanted| wanted.is(path));
        if self.denies {
            is(path) || readings.iter().any(|reading| is(reading))
        } else {
            is(path) && readings.iter().all(|reading| is(reading))
        }
    }
}

impl Path {
    fn is(&self, path: &str) -> bool {
        match self {
            Path::Exact(exact) => **exact == *path,
            Path::Prefix(prefix) => path
                .strip_prefix(&**prefix)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
        }
    }
}

fn one_of<'n>(list: Option<&Names>, names: impl IntoIterator<Item = &'n str>) -> bool {
    list.is_none_or(|list| names.into_iter().any(|name| list.contains(name)))
}

/// A claim may be one value or a list of values; objects are no values.
fn has_one(claim: &Value, values: &Names) -> bool {
    match claim {
        Value::String(text) => values.contains(&**text),
        Value::Bool(value) => values.contains(if *value { "true" } else { "false" }),
        Value::Number(number) => values.contains(number.to_string().as_str()),
        Value::Array(list) => list.iter().any(|one| !one.is_array() && has_one(one, values)),
        Value::Null | Value::Object(_) => false,
    }
}

fn too_many(field: impl Into<String>, count: usize, most: usize) -> Invalid {
    Invalid::new(field, format!("{count} entries, at most {most}; write several rules"))
}

fn names(field: String, list: &[String]) -> Result<Option<Names>, Invalid> {
    if list.len() > MAX_NAMES {
        return Err(too_many(field, list.len(), MAX_NAMES));
    }
    if let Some(i) = list.iter().position(String::is_empty) {
        return Err(Invalid::new(format!("{field}[{i}]"), "empty; write a name or leave it out"));
    }
    Ok((!list.is_empty()).then(|| list.iter().map(|name| name.as_str().into()).collect()))
}

fn compile_claims(field: &str, list: &[ClaimSpec]) -> Result<Box<[Claim]>, Invalid> {
    if list.len() > MAX_CLAIMS {
        return Err(too_many(field, list.len(), MAX_CLAIMS));
    }
    let compile = |(i, claim): (usize, &ClaimSpec)| {
        if claim.name.is_empty() {
            return Err(Invalid::new(format!("{field}[{i}].name"), "empty; name a claim"));
        }
        let (at, count) = (format!("{field}[{i}].values"), claim.values.len());
        if count == 0 || count > MAX_NAMES {
            return Err(Invalid::new(at, format!("{count} values; write 1 to {MAX_NAMES}")));
        }
        let values = claim.values.iter().map(|value| value.as_str().into());
        Ok((claim.name.as_str().into(), values.collect()))
    };
    list.iter().enumerate().map(compile).collect()
}

fn compile_methods(field: &str, list: &[String]) -> Result<Box<[Method]>, Invalid> {
    if list.len() > MAX_METHODS {
        return Err(too_many(field, list.len(), MAX_METHODS));
    }
    let compile = |(i, name): (usize, &String)| {
        let method = Method::from_bytes(name.as_bytes()).map_err(|_| {
            Invalid::new(format!("{field}[{i}]"), format!("{name:?} is no method; write GET"))
        })?;
        // Methods are case-sensitive (RFC 9110, 9.1): `get` would never match.
        if name.bytes().any(|byte| byte.is_ascii_lowercase()) {
            let upper = name.to_ascii_uppercase();
            let message = format!("{name:?} differs from {upper:?}; write upper case");
            return Err(Invalid::new(format!("{field}[{i}]"), message));
        }
        Ok(method)
    };
    list.iter().enumerate().map(compile).collect()
}

/// Whether what follows a percent sign is encoded in the normal form as well (RFC 3986, 6.2.2):
/// upper-case digits of a byte that needs to be.
fn stays_encoded(after: &str) -> bool {
    let Some(digits) = after.get(..2) else { return false };
    let is_upper = digits.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b));
    let byte = u8::from_str_radix(digits, 16).ok().filter(|_| is_upper);
    byte.is_some_and(|byte| {
        !byte.is_ascii_alphanumeric() && !matches!(byte, 0 | b'\\' | b'-' | b'.' | b'_' | b'~')
    })
}

fn compile_paths(field: &str, list: &[PathSpec]) -> Result<Box<[Path]>, Invalid> {
    if list.len() > MAX_NAMES {
        return Err(too_many(field, list.len(), MAX_NAMES));
    }
    let compile = |(i, path): (usize, &PathSpec)| {
        let value = path.value.as_str();
        // What is no normal form is never the path of a request.
        let is_normal = value.starts_with('/')
            && !value.contains("//")
            && !value.contains(['?', '#', '\\'])
            && !value.split('/').any(|segment| segment == "." || segment == "..")
            && value.split('%').skip(1).all(stays_encoded);
        if !is_normal {
            let message = format!("{value:?} is no path in normal form; write /a/b");
            return Err(Invalid::new(format!("{field}[{i}].value"), message));
        }
        Ok(match path.r#type {
            PathType::Exact => Path::Exact(value.into()),
            PathType::Prefix => Path::Prefix(value.trim_end_matches('/').into()),
        })
    };
    list.iter().enumerate().map(compile).collect()
}
