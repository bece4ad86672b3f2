//! What a limit counts requests by: the client's address, a header field, who asks, and any
//! combination of such parts.
//!
//! A key becomes a number for tables of this process, with a random seed so that nobody can
//! choose keys that share a place, and a digest that is the same in every pod for stores. What a
//! request does not have is replaced by the client's address: leaving a header field out is no
//! way around a limit, and does not make all who leave it out one client.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::IpAddr;

use aws_lc_rs::digest::{Context, SHA256};
use http::HeaderName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::header_edits::header_name;
use super::identity::Identity;
use super::request_parts::{cookies, query_values};
use super::{Exchange, Invalid};

/// Most parts of a key.
pub const MOST_PARTS: usize = 8;
/// Bytes of a digest that stores know a key by: 128 bits, so that nobody finds two keys of one.
pub const DIGEST: usize = 16;

/// One part of what requests are counted by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "LimitKeyPart")]
#[serde(rename_all = "camelCase")]
pub struct Part {
    /// `ClientIP` (IPv6 by /64); `Header`, `Cookie`, `Query` and `Claim` by name, with all their
    /// values; `Consumer` (its name, else the subject), `Group` (the first one), `Plan` and
    /// `Subject` of who asks; `Method`, `Host`, `Path`; `Route`; or `All`, alone, for one count
    /// that everybody shares. Where a request has no such part, the client's address stands for it.
    pub r#type: PartType,
    /// The name of the header field, cookie, query parameter or claim; of a claim in a claim,
    /// with a dot between the names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub name: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "LimitKeyPartType")]
pub enum PartType {
    #[default]
    ClientIP,
    Header,
    Cookie,
    Query,
    Consumer,
    Group,
    Plan,
    Claim,
    Subject,
    Method,
    Host,
    Path,
    Route,
    All,
}

/// See the module's documentation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitKey {
    /// Empty: all requests are one.
    parts: Box<[Compiled]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Compiled {
    ClientIP,
    Header(HeaderName),
    Cookie(Box<str>),
    Query(Box<str>),
    Consumer,
    Group,
    Plan,
    Claim(Box<str>),
    Subject,
    Method,
    Host,
    Path,
    Route,
}

impl LimitKey {
    /// Without parts, the client's address. Errors name fields below `field`.
    pub fn compile(field: &str, parts: &[Part]) -> Result<Self, Invalid> {
        if parts.len() > MOST_PARTS {
            let message = format!("{} parts are too many; use at most {MOST_PARTS}", parts.len());
            return Err(Invalid::new(field, message));
        }
        if parts.is_empty() {
            return Ok(LimitKey { parts: [Compiled::ClientIP].into() });
        }
        if parts.iter().any(|part| part.r#type == PartType::All) {
            if parts.len() > 1 || parts[0].name.is_some() {
                let message = "`All` stands alone and has no name; remove the rest";
                return Err(Invalid::new(field, message));
            }
            return Ok(LimitKey { parts: Box::default() });
        }
        let parts = parts.iter().enumerate();
        let parts = parts.map(|(n, part)| compile(&format!("{field}[{n}]"), part));
        Ok(LimitKey { parts: parts.collect::<Result<_, _>>()? })
    }

    /// Whether all requests are counted as one.
    pub fn is_all(&self) -> bool {
        self.parts.is_empty()
    }

    /// Whether it takes somebody who was recognised to tell requests apart.
    pub fn needs_identity(&self) -> bool {
        self.parts.iter().any(|part| {
            use Compiled::{Claim, Consumer, Group, Plan, Subject};
            matches!(part, Consumer | Group | Plan | Claim(_) | Subject)
        })
    }

    /// The number of a request's key, for tables of this process.
    pub fn local(&self, ex: &Exchange<'_>, seed: &RandomState) -> u64 {
        let mut hasher = seed.build_hasher();
        self.feed(ex, &mut |bytes| hasher.write(bytes));
        hasher.finish()
    }

    /// The digest of a request's key, the same in every pod.
    pub fn shared(&self, ex: &Exchange<'_>) -> [u8; DIGEST] {
        let mut context = Context::new(&SHA256);
        self.feed(ex, &mut |bytes| context.update(bytes));
        let digest = context.finish();
        *digest.as_ref().first_chunk().expect("SHA-256 has 32 bytes")
    }

    /// Gives all parts to `put`, such that different keys give different bytes.
    fn feed(&self, ex: &Exchange<'_>, put: &mut dyn FnMut(&[u8])) {
        for part in &self.parts {
            let mut values = 0_u32;
            part.values(ex, &mut |kind, value| {
                values += 1;
                put(&[kind as u8]);
                put(&(value.len() as u64).to_le_bytes());
                put(value);
            });
            if values == 0 {
                put(&[ValueKind::Address as u8]);
                put(&network(ex.client.ip));
            }
            put(&[ValueKind::End as u8]);
        }
    }
}

/// What a value is: equal bytes of different kinds are not the same.
#[derive(Clone, Copy)]
enum ValueKind {
    End,
    Address,
    Plain,
    Consumer,
    Subject,
}

impl Compiled {
    /// Gives all values of this part to `put`; none if the request has none.
    fn values(&self, ex: &Exchange<'_>, put: &mut dyn FnMut(ValueKind, &[u8])) {
        use ValueKind::Plain;
        let request = &ex.request;
        let identity = ex.identity.as_deref();
        match self {
            Compiled::ClientIP => put(ValueKind::Address, &network(ex.client.ip)),
            Compiled::Header(name) => {
                let all = request.headers.get_all(name);
                all.iter().for_each(|value| put(Plain, value.as_bytes()));
            }
            Compiled::Cookie(name) => {
                cookies(&request.headers, name).for_each(|value| put(Plain, value));
            }
            Compiled::Query(name) => {
                query_values(request.query.as_deref(), name).for_each(|value| put(Plain, &value));
            }
            Compiled::Consumer => consumer(identity, put),
            Compiled::Group => {
                let first = identity.and_then(|identity| identity.groups().next());
                first.into_iter().for_each(|group| put(Plain, group.as_bytes()));
            }
            Compiled::Plan => {
                let plan = identity.and_then(Identity::plan);
                plan.into_iter().for_each(|plan| put(Plain, plan.as_bytes()));
            }
            Compiled::Claim(path) => match identity.and_then(|identity| identity.claim(path)) {
                None | Some(Value::Null) => {}
                Some(Value::String(text)) => put(Plain, text.as_bytes()),
                Some(value) => put(Plain, value.to_string().as_bytes()),
            },
            Compiled::Subject => {
                let subject = identity.map(|identity| &*identity.subject);
                subject.into_iter().for_each(|subject| put(Plain, subject.as_bytes()));
            }
            Compiled::Method => put(Plain, request.method.as_str().as_bytes()),
            Compiled::Host => put(Plain, request.host.as_bytes()),
            Compiled::Path => put(Plain, request.path.as_bytes()),
            Compiled::Route => {
                let route = ex.route;
                for text in [route.kind, route.namespace, route.name] {
                    put(Plain, text.as_bytes());
                }
            }
        }
    }
}

/// A Consumer, one of another namespace and somebody else of the same name are not the same.
fn consumer(identity: Option<&Identity>, put: &mut dyn FnMut(ValueKind, &[u8])) {
    let Some(identity) = identity else { return };
    match &identity.consumer {
        Some(consumer) => {
            put(ValueKind::Consumer, consumer.namespace.as_bytes());
            put(ValueKind::Consumer, consumer.name.as_bytes());
        }
        None => put(ValueKind::Subject, identity.subject.as_bytes()),
    }
}

/// An IPv4 address, or the /64 of an IPv6 address: what one customer usually has.
fn network(ip: IpAddr) -> [u8; 9] {
    let mut bytes = [0; 9];
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            bytes[0] = 4;
            bytes[1..5].copy_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            bytes[0] = 6;
            bytes[1..].copy_from_slice(&ip.octets()[..8]);
        }
    }
    bytes
}

fn compile(field: &str, part: &Part) -> Result<Compiled, Invalid> {
    let at = format!("{field}.name");
    let named = |what: &str| {
        let name = part.name.as_deref().filter(|name| !name.is_empty());
        name.ok_or_else(|| Invalid::new(at.clone(), format!("missing; name the {what}")))
    };
    let compiled = match part.r#type {
        PartType::Header => {
            let name = header_name(&at, named("header field")?)?;
            if name == http::header::HOST {
                return Err(Invalid::new(at, "Host is no header field here; use `type: Host`"));
            }
            return Ok(Compiled::Header(name));
        }
        PartType::Cookie => return Ok(Compiled::Cookie(named("cookie")?.into())),
        PartType::Query => return Ok(Compiled::Query(named("parameter")?.into())),
        PartType::Claim => return Ok(Compiled::Claim(named("claim")?.into())),
        PartType::ClientIP => Compiled::ClientIP,
        PartType::Consumer => Compiled::Consumer,
        PartType::Group => Compiled::Group,
        PartType::Plan => Compiled::Plan,
        PartType::Subject => Compiled::Subject,
        PartType::Method => Compiled::Method,
        PartType::Host => Compiled::Host,
        PartType::Path => Compiled::Path,
        PartType::Route => Compiled::Route,
        PartType::All => {
            return Err(Invalid::new(field, "`All` stands alone; remove the other parts"));
        }
    };
    if part.name.is_some() {
        let message = "only for Header, Cookie, Query and Claim; remove it or use one of these";
        return Err(Invalid::new(at, message));
    }
    Ok(compiled)
}

#[cfg(test)]
mod tests;
