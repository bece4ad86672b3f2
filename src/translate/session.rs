//! `sessionPersistence` of rules and of XBackends (GEP-1619): what carries a client's session.

use http::{HeaderName, header};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::api::gateway::{
    CookieConfig, CookieLifetimeType, SessionPersistence, SessionPersistenceType,
};
use crate::graph::session::Cookie;
use crate::graph::{CookieLifetime, Session, SessionKind};
use crate::policy::duration;

/// Longest name of a cookie or header field, and longest path of a cookie, as the CRD has them.
const MAX_NAME: usize = 256;
const MAX_PATH: usize = 1024;

/// Fields that mean something to the proxy or to those before and behind it.
const RESERVED: [HeaderName; 8] = [
    header::HOST,
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::TRANSFER_ENCODING,
    header::COOKIE,
    header::SET_COOKIE,
    header::AUTHORIZATION,
];

/// Reads the field of `owner`: the part of the object of `meta` that it stands in, which says by
/// what name its cookie goes if it has none of its own.
///
/// # Errors
/// The field below, and a message for the user.
pub(super) fn read(
    spec: &SessionPersistence,
    owner: &str,
    meta: &ObjectMeta,
) -> Result<Session, (&'static str, String)> {
    let absolute = spec.absolute_timeout.as_deref().map(duration::parse).transpose();
    let absolute = absolute.map_err(|message| ("absoluteTimeout", message))?;
    let absolute = absolute.filter(|timeout| !timeout.is_zero());
    let kind = match spec.r#type.as_ref().unwrap_or(&SessionPersistenceType::Cookie) {
        SessionPersistenceType::Cookie => {
            let cookie = cookie(&spec.cookie.clone().unwrap_or_default(), owner)?;
            if cookie.lifetime == CookieLifetime::Permanent && absolute.is_none() {
                let message = "a Permanent cookie needs to know how long it lives; set it";
                return Err(("absoluteTimeout", message.to_owned()));
            }
            SessionKind::Cookie(cookie)
        }
        SessionPersistenceType::Header => {
            let name = spec.header.as_ref().map_or("", |header| &header.name);
            SessionKind::Header(field(name).map_err(|message| ("header.name", message))?)
        }
        SessionPersistenceType::Other(other) => {
            let message = format!("{other:?} is not supported; use Cookie or Header");
            return Err(("type", message));
        }
    };
    // Files have no uid; their names are known to as many as the files are.
    let uid = meta.uid.as_deref().unwrap_or(owner);
    Ok(Session::new(kind, absolute, uid))
}

fn cookie(spec: &CookieConfig, owner: &str) -> Result<Cookie, (&'static str, String)> {
    let lifetime = match spec.lifetime_type.as_ref().unwrap_or(&CookieLifetimeType::Session) {
        CookieLifetimeType::Session => CookieLifetime::Session,
        CookieLifetimeType::Permanent => CookieLifetime::Permanent,
        CookieLifetimeType::Other(other) => {
            let message = format!("{other:?} is not supported; use Session or Permanent");
            return Err(("cookie.lifetimeType", message));
        }
    };
    let own = format!("tidegate-session-{:08x}", hash(owner));
    let name = spec.name.as_deref().unwrap_or(&own);
    let path = spec.path.as_deref().unwrap_or("/");
    if path.len() > MAX_PATH {
        let message = format!("is longer than {MAX_PATH} bytes; shorten it");
        return Err(("cookie.path", message));
    }
    if name.len() > MAX_NAME {
        let message = format!("is longer than {MAX_NAME} bytes; shorten it");
        return Err(("cookie.name", message));
    }
    Cookie::new(name, path, lifetime).map_err(|message| ("cookie", message))
}

fn field(name: &str) -> Result<HeaderName, String> {
    let parsed = HeaderName::from_bytes(name.as_bytes()).ok();
    let known = parsed.filter(|_| name.len() <= MAX_NAME);
    let known = known.ok_or_else(|| {
        format!("{name:?} is not the name of a header field; write it like X-Session")
    })?;
    if RESERVED.contains(&known) {
        return Err(format!("{name:?} has a meaning of its own; use another, such as X-Session"));
    }
    Ok(known)
}

/// FNV-1a: the same in every replica and release, so that clients keep their sessions.
fn hash(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, b| (hash ^ u32::from(b)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::gateway::HeaderConfig;

    fn of(spec: &SessionPersistence) -> Result<Session, &'static str> {
        let owner = "HTTPRoute ns/r spec.rules[0]";
        read(spec, owner, &ObjectMeta::default()).map_err(|(field, _)| field)
    }

    fn with_cookie(name: &str, path: &str, lifetime: CookieLifetimeType) -> SessionPersistence {
        let cookie = CookieConfig {
            name: Some(name.into()),
            path: Some(path.into()),
            lifetime_type: Some(lifetime),
        };
        SessionPersistence { cookie: Some(cookie), ..Default::default() }
    }

    fn with_header(name: &str) -> SessionPersistence {
        SessionPersistence {
            r#type: Some(SessionPersistenceType::Header),
            header: Some(HeaderConfig { name: name.into() }),
            ..Default::default()
        }
    }

    #[test]
    fn a_cookie_of_its_own_for_the_whole_host_is_the_default() {
        let SessionKind::Cookie(cookie) = of(&Default::default()).unwrap().kind else { panic!() };
        assert!(cookie.name().starts_with("tidegate-session-"), "{}", cookie.name());
        assert_eq!((cookie.path(), cookie.lifetime), ("/", CookieLifetime::Session));
        assert_ne!(hash("HTTPRoute ns/r spec.rules[0]"), hash("HTTPRoute ns/r spec.rules[1]"));
    }

    #[test]
    fn a_header_field_may_carry_it() {
        let kind = of(&with_header("X-Session")).unwrap().kind;
        assert_eq!(kind, SessionKind::Header(HeaderName::from_static("x-session")));
    }

    #[test]
    fn a_permanent_cookie_needs_an_end() {
        let spec = with_cookie("a", "/", CookieLifetimeType::Permanent);
        assert_eq!(of(&spec).err(), Some("absoluteTimeout"));
        let spec = SessionPersistence { absolute_timeout: Some("1h".into()), ..spec };
        assert_eq!(of(&spec).unwrap().absolute, Some(std::time::Duration::from_secs(3600)));
    }

    #[test]
    fn what_cannot_be_is_told_with_its_field() {
        let session = CookieLifetimeType::Session;
        let other = SessionPersistenceType::Other("Ip".into());
        for (spec, field) in [
            (with_cookie("a b", "/", session.clone()), "cookie"),
            (with_cookie(&"a".repeat(257), "/", session.clone()), "cookie.name"),
            (with_cookie("a", "app", session), "cookie"),
            (
                with_cookie("a", "/", CookieLifetimeType::Other("Long".into())),
                "cookie.lifetimeType",
            ),
            (with_header("a b"), "header.name"),
            (with_header(""), "header.name"),
            (with_header("Authorization"), "header.name"),
            (SessionPersistence { r#type: Some(other), ..Default::default() }, "type"),
            (
                SessionPersistence { absolute_timeout: Some("1d".into()), ..Default::default() },
                "absoluteTimeout",
            ),
        ] {
            assert_eq!(of(&spec).err(), Some(field), "{spec:?}");
        }
    }
}
