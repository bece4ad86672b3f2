//! Session persistence (GEP-1619) as objects ask for it: of a rule, an XBackend or an
//! XBackendTrafficPolicy.

use http::HeaderName;

use super::infrastructure::digest;
use super::status::Problem;
use crate::api::gateway::{CookieLifetimeType, SessionPersistence, SessionPersistenceType};
use crate::graph::{Cookie, CookieLifetime, Session, SessionKind};
use crate::policy::duration;

/// The object that asks for a session, and where.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asker<'a> {
    /// Kind, namespace and name, and what tells several sessions of it apart: the name of the
    /// cookie is made of it where the user gives none.
    pub name: &'a str,
    pub uid: Option<&'a str>,
    /// The path of the field.
    pub field: &'a str,
}

/// What is asked for, ready for use.
///
/// # Errors
/// What is wrong with it, by the reason `UnsupportedValue`.
pub(super) fn session(asker: Asker<'_>, spec: &SessionPersistence) -> Result<Session, Problem> {
    let Asker { name, uid, field } = asker;
    let wrong = |below: &str, message: String| {
        Problem::new("UnsupportedValue", format!("{field}.{below}"), message)
    };
    let absolute = spec.absolute_timeout.as_deref().map(duration::parse).transpose();
    let absolute = absolute.map_err(|message| wrong("absoluteTimeout", message))?;
    let kind = match spec.r#type.as_ref().unwrap_or(&SessionPersistenceType::Cookie) {
        SessionPersistenceType::Cookie => {
            let config = spec.cookie.clone().unwrap_or_default();
            let lifetime = match config.lifetime_type {
                None | Some(CookieLifetimeType::Session) => CookieLifetime::Session,
                Some(CookieLifetimeType::Permanent) if absolute.is_some() => {
                    CookieLifetime::Permanent
                }
                Some(CookieLifetimeType::Permanent) => {
                    let message = "a permanent cookie needs it; set it".to_owned();
                    return Err(wrong("absoluteTimeout", message));
                }
                Some(CookieLifetimeType::Other(other)) => {
                    let message = format!("{other:?} is not supported; use Session or Permanent");
                    return Err(wrong("cookie.lifetimeType", message));
                }
            };
            let made = format!("tidegate-{:08x}", digest(name));
            let name = config.name.as_deref().unwrap_or(&made);
            let path = config.path.as_deref().filter(|path| !path.is_empty()).unwrap_or("/");
            let cookie = Cookie::new(name, path, lifetime);
            SessionKind::Cookie(cookie.map_err(|message| wrong("cookie", message))?)
        }
        SessionPersistenceType::Header => {
            let name = spec.header.as_ref().map_or("", |header| &header.name);
            let header = HeaderName::from_bytes(name.as_bytes());
            let message = || format!("{name:?} is not the name of a header field; set one");
            SessionKind::Header(header.map_err(|_| wrong("header.name", message()))?)
        }
        SessionPersistenceType::Other(other) => {
            let message = format!("{other:?} is not supported; use Cookie or Header");
            return Err(wrong("type", message));
        }
    };
    // Files give no uid; their names are what all replicas know.
    Ok(Session::new(kind, absolute, uid.unwrap_or(name)))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(spec: Value) -> Result<Session, String> {
        let asker = Asker { name: "XBackend/ns/a", uid: Some("u"), field: "spec.s" };
        let spec = serde_json::from_value(spec).unwrap();
        session(asker, &spec).map_err(|problem| problem.field)
    }

    #[test]
    fn without_a_word_it_is_a_session_cookie_with_a_name_of_its_own() {
        let SessionKind::Cookie(cookie) = of(json!({})).unwrap().kind else { panic!() };
        assert!(cookie.name().starts_with("tidegate-"));
        assert_eq!((cookie.path(), cookie.lifetime), ("/", CookieLifetime::Session));
    }

    #[test]
    fn a_permanent_cookie_needs_an_end() {
        let permanent = json!({"cookie": {"name": "stay", "lifetimeType": "Permanent"}});
        assert_eq!(of(permanent.clone()).unwrap_err(), "spec.s.absoluteTimeout");
        let mut ends = permanent;
        ends["absoluteTimeout"] = json!("1h");
        assert_eq!(of(ends).unwrap().absolute.unwrap().as_secs(), 3600);
    }

    #[test]
    fn what_is_not_understood_is_told_by_its_field() {
        for (spec, field) in [
            (json!({"type": "Header"}), "spec.s.header.name"),
            (json!({"type": "Header", "header": {"name": "a b"}}), "spec.s.header.name"),
            (json!({"type": "Query"}), "spec.s.type"),
            (json!({"cookie": {"name": "a;b"}}), "spec.s.cookie"),
            (json!({"cookie": {"lifetimeType": "Long"}}), "spec.s.cookie.lifetimeType"),
            (json!({"absoluteTimeout": "soon"}), "spec.s.absoluteTimeout"),
        ] {
            assert_eq!(of(spec).unwrap_err(), field);
        }
        let header = of(json!({"type": "Header", "header": {"name": "X-Stay"}})).unwrap().kind;
        assert_eq!(header, SessionKind::Header(HeaderName::from_static("x-stay")));
    }
}
