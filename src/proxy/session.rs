//! Where the token of a session stands in requests and responses (GEP-1619).
//!
//! A session belongs to one backend: the split of a rule is made first, and a client that its
//! weights send elsewhere has a session there too. So a cookie may hold several tokens, one for
//! each backend. A token can only choose among the endpoints of its backend that there are.

use std::fmt::Write as _;
use std::net::SocketAddr;

use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::graph::session::TOKEN_LENGTH;
use crate::graph::{BackendKey, Cookie, CookieLifetime, Session, SessionKind};
use crate::policy::Scheme;

/// Tokens of other backends that a cookie keeps.
const MOST_OTHERS: usize = 7;
/// Tokens of a request that are looked at: opening one takes time, and clients can send hundreds.
const MOST_TOKENS: usize = 16;
/// Stands between tokens; no token contains it.
const BETWEEN: char = '.';

/// What a request tells of its session.
#[derive(Debug)]
pub struct Stay<'a> {
    session: &'a Session,
    backend: &'a BackendKey,
    /// The endpoint that the client was given before.
    pub endpoint: Option<SocketAddr>,
    /// Tokens of other backends, or of nobody.
    others: Vec<Box<str>>,
}

impl<'a> Stay<'a> {
    /// Reads a request; `now` in seconds since the epoch.
    pub fn read(
        session: &'a Session,
        backend: &'a BackendKey,
        headers: &HeaderMap,
        now: u64,
    ) -> Self {
        let mut stay = Stay { session, backend, endpoint: None, others: Vec::new() };
        let tokens = values(&session.kind, headers).flat_map(|value| value.split(BETWEEN));
        for token in tokens.take(MOST_TOKENS) {
            match session.open(backend, token, now) {
                Some(endpoint) => stay.endpoint = stay.endpoint.or(Some(endpoint)),
                None if stay.others.len() < MOST_OTHERS && is_token(token) => {
                    stay.others.push(token.into());
                }
                None => {}
            }
        }
        stay
    }

    /// The field that tells the client of its session with `endpoint`; `None` if it knows.
    pub fn begin(
        &self,
        endpoint: SocketAddr,
        scheme: Scheme,
        now: u64,
    ) -> Option<(HeaderName, HeaderValue)> {
        if self.endpoint == Some(endpoint) {
            return None;
        }
        let nonce = *fastrand::u128(..).to_be_bytes().first_chunk()?;
        let mut token = self.session.seal(self.backend, endpoint, now, nonce);
        let (name, value) = match &self.session.kind {
            SessionKind::Header(name) => (name.clone(), token),
            SessionKind::Cookie(cookie) => {
                for other in &self.others {
                    token.push(BETWEEN);
                    token.push_str(other);
                }
                (SET_COOKIE, self.set_cookie(cookie, &token, scheme))
            }
        };
        Some((name, HeaderValue::try_from(value).ok()?))
    }

    fn set_cookie(&self, cookie: &Cookie, token: &str, scheme: Scheme) -> String {
        let mut text = format!("{}={token}; Path={}", cookie.name(), cookie.path());
        if let (CookieLifetime::Permanent, Some(age)) = (cookie.lifetime, self.session.absolute) {
            let _ = write!(text, "; Max-Age={}", age.as_secs());
        }
        text.push_str("; HttpOnly; SameSite=Strict");
        if scheme == Scheme::Https {
            text.push_str("; Secure");
        }
        text
    }
}

/// What a request gives under the session's name.
fn values<'h>(kind: &'h SessionKind, headers: &'h HeaderMap) -> impl Iterator<Item = &'h str> {
    let (field, cookie) = match kind {
        SessionKind::Header(name) => (name, None),
        SessionKind::Cookie(cookie) => (&COOKIE, Some(cookie.name())),
    };
    let fields = headers.get_all(field).iter().filter_map(|value| value.to_str().ok());
    fields.flat_map(move |value| {
        let pairs = value.split(if cookie.is_some() { ';' } else { ',' }).map(str::trim);
        pairs.filter_map(move |pair| match cookie {
            None => Some(pair),
            Some(name) => pair.strip_prefix(name)?.strip_prefix('='),
        })
    })
}

/// Whether a text could be a token: what a client made up is not sent back to it.
fn is_token(text: &str) -> bool {
    let in_token = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    text.len() == TOKEN_LENGTH && text.bytes().all(in_token)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const NOW: u64 = 1_700_000_000;

    fn key(service: &str) -> BackendKey {
        BackendKey {
            kind: "Service",
            namespace: "ns".into(),
            service: service.into(),
            port: 80,
            protocol: "http1",
            context: None,
        }
    }

    fn cookie(lifetime: CookieLifetime, absolute: Option<Duration>) -> Session {
        let cookie = Cookie::new("stay", "/shop", lifetime).unwrap();
        Session::new(SessionKind::Cookie(cookie), absolute, "uid")
    }

    fn read<'a>(session: &'a Session, key: &'a BackendKey, cookie: &str) -> Stay<'a> {
        let value = HeaderValue::from_str(cookie).unwrap();
        Stay::read(session, key, &HeaderMap::from_iter([(COOKIE, value)]), NOW)
    }

    fn set(stay: &Stay<'_>, to: &str, scheme: Scheme) -> Option<String> {
        let (name, value) = stay.begin(to.parse().unwrap(), scheme, NOW)?;
        assert_eq!(name, SET_COOKIE);
        Some(value.to_str().unwrap().to_owned())
    }

    #[test]
    fn the_cookie_of_a_new_session_leads_back_to_its_endpoint() {
        let (session, key) = (cookie(CookieLifetime::Session, None), key("web"));
        let first = read(&session, &key, "other=1");
        assert_eq!(first.endpoint, None);
        let set_cookie = set(&first, "192.0.2.1:80", Scheme::Https).unwrap();
        let (pair, attributes) = set_cookie.split_once(';').unwrap();
        assert_eq!(attributes, " Path=/shop; HttpOnly; SameSite=Strict; Secure");
        let again = read(&session, &key, &format!("other=1; {pair}; stay2=x"));
        assert_eq!(again.endpoint, Some("192.0.2.1:80".parse().unwrap()));
        assert_eq!(set(&again, "192.0.2.1:80", Scheme::Http), None, "the client knows");
        assert!(set(&again, "192.0.2.2:80", Scheme::Http).is_some(), "the endpoint is gone");
    }

    #[test]
    fn a_permanent_cookie_lives_as_long_as_the_session() {
        let session = cookie(CookieLifetime::Permanent, Some(Duration::from_secs(300)));
        let key = key("web");
        let text = set(&read(&session, &key, "a=1"), "192.0.2.1:80", Scheme::Http).unwrap();
        assert!(text.ends_with("; Path=/shop; Max-Age=300; HttpOnly; SameSite=Strict"), "{text}");
    }

    #[test]
    fn one_cookie_holds_the_sessions_of_all_backends_of_a_split() {
        let session = cookie(CookieLifetime::Session, None);
        let (blue, green) = (key("blue"), key("green"));
        let pair = |text: String| text.split(';').next().unwrap().to_owned();
        let of_blue =
            pair(set(&read(&session, &blue, "a=1"), "192.0.2.1:80", Scheme::Http).unwrap());
        let stay = read(&session, &green, &of_blue);
        assert_eq!(stay.endpoint, None);
        let of_both = pair(set(&stay, "192.0.2.9:80", Scheme::Http).unwrap());
        for (key, to) in [(&blue, "192.0.2.1:80"), (&green, "192.0.2.9:80")] {
            assert_eq!(read(&session, key, &of_both).endpoint, Some(to.parse().unwrap()));
        }
    }

    #[test]
    fn what_a_client_makes_up_chooses_nothing_and_does_not_come_back() {
        let (session, key) = (cookie(CookieLifetime::Session, None), key("web"));
        let stay = read(&session, &key, "stay=10.0.0.1:80.<script>.192.0.2.1");
        assert_eq!(stay.endpoint, None);
        let text = set(&stay, "192.0.2.1:80", Scheme::Http).unwrap();
        assert!(!text.contains("script") && !text.contains(":80"), "{text}");
    }

    #[test]
    fn a_header_carries_the_token_both_ways() {
        let name = HeaderName::from_static("x-session");
        let session = Session::new(SessionKind::Header(name.clone()), None, "uid");
        let key = key("web");
        let to = "192.0.2.1:80".parse().unwrap();
        let stay = Stay::read(&session, &key, &HeaderMap::new(), NOW);
        let field = stay.begin(to, Scheme::Http, NOW).unwrap();
        assert_eq!(field.0, name);
        let headers = HeaderMap::from_iter([field]);
        assert_eq!(Stay::read(&session, &key, &headers, NOW).endpoint, Some(to));
    }
}
