//! The values that an expression sees: parts of one request and of who sent it, looked up when
//! they are asked for. Texts are borrowed, and none is longer than [`MAX_VALUE`].

use std::any::Any;
use std::net::IpAddr;

use cel::common::traits::{Container, Indexer};
use cel::common::types::{
    CelBool, CelDouble, CelInt, CelList, CelNull, CelString, CelUInt, MAP_TYPE, STRING_TYPE, Type,
};
use cel::common::value::{CowVal, StaticVal, Val};
use cel::{Env, ExecutionError};
use http::HeaderMap;
use regex::{Regex, RegexBuilder};
use serde_json::Value;

use crate::policy::identity::{Claims, Identity};
use crate::policy::request_parts::query_values;
use crate::policy::{Exchange, RequestHead};

/// Longest text that an expression may see, in bytes: what is longer has no value.
pub const MAX_VALUE: usize = 8 * 1024;

/// What an expression is evaluated for.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    request: &'a RequestHead,
    ip: IpAddr,
    identity: Option<&'a Identity>,
}

impl<'a> Input<'a> {
    pub fn of(ex: &'a Exchange<'_>) -> Self {
        Input { request: &ex.request, ip: ex.client.ip, identity: ex.identity.as_deref() }
    }

    /// The value of a name of [`super::check`]'s list; nothing if it is too long, or if there is
    /// no identity that it could be of.
    pub fn value(&self, name: &str) -> Option<CowVal<'_, '_>> {
        let request = self.request;
        let of_identity = |read: fn(&Identity) -> &str| text(read(self.identity?));
        match name {
            "request.method" => text(request.method.as_str()),
            "request.path" => text(&request.path),
            "request.host" => text(&request.host),
            "request.scheme" => text(request.scheme.as_str()),
            "request.ip" => Some(owned(self.ip.to_canonical().to_string())),
            "request.query" => Some(CowVal::owned(Query(request.query.as_deref()))),
            "request.headers" => Some(CowVal::owned(Headers(&request.headers))),
            "identity.name" => of_identity(Identity::name),
            "identity.subject" => of_identity(|who| &who.subject),
            "identity.method" => of_identity(|who| who.method.as_str()),
            "identity.plan" => of_identity(|who| who.plan().unwrap_or_default()),
            "identity.consumer" => {
                of_identity(|who| who.consumer.as_ref().map_or("", |consumer| &consumer.name))
            }
            "identity.groups" => list(self.identity?.groups()),
            "identity.scopes" => list(self.identity?.scopes.iter().map(|scope| &**scope)),
            "identity.claims" => Some(CowVal::owned(ClaimsOf(&self.identity?.claims))),
            _ => None,
        }
    }
}

fn text(text: &str) -> Option<CowVal<'_, '_>> {
    (text.len() <= MAX_VALUE).then(|| CowVal::owned(CelString::from(text)))
}

fn owned<'a>(text: String) -> CowVal<'a, 'a> {
    CowVal::owned(CelString::from(text))
}

fn list<'a>(texts: impl Iterator<Item = &'a str>) -> Option<CowVal<'a, 'a>> {
    let mut all: Vec<Box<dyn Val + 'a>> = Vec::new();
    for one in texts {
        all.push(text(one)?.into_owned());
    }
    Some(CowVal::owned(CelList::from(all)))
}

fn too_long() -> ExecutionError {
    ExecutionError::function_error("value", "longer than an expression may see")
}

/// A value as an expression has it. Objects within it are looked up in turn.
fn json(value: &Value) -> Result<CowVal<'_, '_>, ExecutionError> {
    Ok(match value {
        Value::Null => CowVal::owned(CelNull),
        Value::Bool(value) => CowVal::owned(CelBool::from(*value)),
        Value::String(value) => text(value).ok_or_else(too_long)?,
        Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(number), _, _) => CowVal::owned(CelInt::from(number)),
            (None, Some(number), _) => CowVal::owned(CelUInt::from(number)),
            (None, None, number) => CowVal::owned(CelDouble::from(number.unwrap_or(f64::NAN))),
        },
        Value::Array(values) => {
            let values = values.iter().map(|value| Ok(json(value)?.into_owned()));
            let values: Result<Vec<_>, ExecutionError> = values.collect();
            CowVal::owned(CelList::from(values?))
        }
        Value::Object(claims) => CowVal::owned(ClaimsOf(claims)),
    })
}

/// A map whose values are looked up by name.
trait Lookup<'a> {
    /// # Errors
    /// There is a value, but no expression may see it.
    fn lookup(&self, name: &str) -> Result<Option<CowVal<'a, 'a>>, ExecutionError>;
}

/// The header fields, by names in any case; several values of a name with commas between them.
#[derive(Clone, Copy, Debug)]
struct Headers<'a>(&'a HeaderMap);

impl<'a> Lookup<'a> for Headers<'a> {
    fn lookup(&self, name: &str) -> Result<Option<CowVal<'a, 'a>>, ExecutionError> {
        let opaque = || ExecutionError::function_error("headers", "a value that is no text");
        let mut values = self.0.get_all(name).iter();
        let Some(first) = values.next() else { return Ok(None) };
        let first = first.to_str().map_err(|_| opaque())?;
        let Some(second) = values.next() else {
            return text(first).ok_or_else(too_long).map(Some);
        };
        let mut joined = first.to_owned();
        for value in std::iter::once(second).chain(values) {
            joined.push(',');
            joined.push_str(value.to_str().map_err(|_| opaque())?);
            if joined.len() > MAX_VALUE {
                return Err(too_long());
            }
        }
        Ok(Some(owned(joined)))
    }
}

/// The parameters of the query, decoded; several values of a name with commas between them.
#[derive(Clone, Copy, Debug)]
struct Query<'a>(Option<&'a str>);

impl<'a> Lookup<'a> for Query<'a> {
    fn lookup(&self, name: &str) -> Result<Option<CowVal<'a, 'a>>, ExecutionError> {
        if self.0.is_some_and(|query| query.len() > MAX_VALUE) {
            return Err(too_long());
        }
        let mut joined: Option<Vec<u8>> = None;
        for value in query_values(self.0, name) {
            match &mut joined {
                None => joined = Some(value.into_owned()),
                Some(joined) => joined.extend([&b","[..], &*value].concat()),
            }
        }
        let opaque = || ExecutionError::function_error("query", "a value that is no text");
        let text = joined.map(|bytes| String::from_utf8(bytes).map_err(|_| opaque()));
        Ok(text.transpose()?.map(owned))
    }
}

/// Claims, or an object within one.
#[derive(Clone, Copy, Debug)]
struct ClaimsOf<'a>(&'a Claims);

impl<'a> Lookup<'a> for ClaimsOf<'a> {
    fn lookup(&self, name: &str) -> Result<Option<CowVal<'a, 'a>>, ExecutionError> {
        self.0.get(name).map(json).transpose()
    }
}

macro_rules! maps {
    ($($map:ident),*) => {$(
        impl Val for $map<'_> {
            fn get_type(&self) -> &Type {
                &MAP_TYPE
            }

            fn cel_type() -> &'static Type {
                &MAP_TYPE
            }

            fn as_container(&self) -> Option<&dyn Container> {
                Some(self)
            }

            fn as_indexer<'b, 'v>(&'b self) -> Option<&'b (dyn Indexer + 'v)>
            where
                Self: 'v,
            {
                Some(self)
            }

            fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v>
            where
                Self: 'v,
            {
                Box::new(*self)
            }
        }

        impl Container for $map<'_> {
            fn contains(&self, key: &dyn Val) -> Result<bool, ExecutionError> {
                Ok(self.lookup(name_of(key)?)?.is_some())
            }
        }

        impl Indexer for $map<'_> {
            fn get<'b, 'v>(&'b self, key: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError>
            where
                Self: 'v,
            {
                let name = name_of(key)?;
                self.lookup(name)?.ok_or_else(|| ExecutionError::no_such_key(name))
            }

            fn steal<'v>(self: Box<Self>, key: &dyn Val) -> Result<Box<dyn Val + 'v>, ExecutionError>
            where
                Self: 'v,
            {
                let name = name_of(key)?;
                let value = self.lookup(name)?.ok_or_else(|| ExecutionError::no_such_key(name))?;
                Ok(value.into_owned())
            }
        }
    )*};
}

maps!(Headers, Query, ClaimsOf);

fn name_of(key: &dyn Val) -> Result<&str, ExecutionError> {
    let wrong = || ExecutionError::function_error("[]", "names are texts");
    key.downcast_ref::<CelString>().map(CelString::inner).ok_or_else(wrong)
}

/// A compiled pattern, as a value.
#[derive(Clone, Debug)]
pub struct Pattern(Regex);

/// The type of [`Pattern`]; expressions have no name for it.
const fn pattern_type() -> Type {
    Type::new_unspecified_type("@pattern")
}

static PATTERN_TYPE: Type = pattern_type();

impl Pattern {
    /// Most bytes of a compiled program, so that matching against [`MAX_VALUE`] bytes is quick.
    pub const MAX_SIZE: usize = 32 * 1024;

    /// # Errors
    /// What is wrong with it.
    pub fn compile(pattern: &str) -> Result<Self, String> {
        let mut builder = RegexBuilder::new(pattern);
        builder.size_limit(Self::MAX_SIZE).dfa_size_limit(1 << 18).nest_limit(32);
        builder.build().map(Pattern).map_err(|error| {
            let text = error.to_string();
            let last = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
            format!("the pattern {pattern:?} cannot be used: {last}")
        })
    }
}

impl Val for Pattern {
    fn get_type(&self) -> &Type {
        &PATTERN_TYPE
    }

    fn cel_type() -> &'static Type {
        &PATTERN_TYPE
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(self.clone())
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl StaticVal for Pattern {}

/// Lets `matches` take compiled patterns.
pub fn add_matches(env: &mut Env) {
    let takes = vec![pattern_type()];
    env.add_member_overload("matches", "matches_pattern", STRING_TYPE, takes, matches)
        .expect("no other overload takes a pattern");
}

fn matches<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let text = args.first().and_then(|text| text.downcast_ref::<CelString>());
    let pattern = args.get(1).and_then(|pattern| pattern.downcast_ref::<Pattern>());
    let (Some(text), Some(pattern)) = (text, pattern) else {
        return Err(ExecutionError::missing_argument_or_target());
    };
    Ok(CowVal::owned(CelBool::from(pattern.0.is_match(text.inner()))))
}
