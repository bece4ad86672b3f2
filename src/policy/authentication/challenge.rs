//! `WWW-Authenticate`: what a client that is refused could show instead (RFC 9110, 11.6.1).
//!
//! Every method of the policy has its challenge in every refusal, each in a field line of its
//! own. That of a method whose credentials were looked at says what is wrong with them, as far
//! as it helps honest clients (RFC 6750, 3).

use http::header::WWW_AUTHENTICATE;
use http::{HeaderMap, HeaderValue};

use crate::policy::{Invalid, jwt};

/// The longest realm.
const MAX_REALM: usize = 128;

/// The realm, as it stands between the quotes.
#[derive(Debug)]
pub struct Realm(Box<str>);

/// What one method asks for.
#[derive(Debug)]
pub struct Challenge {
    plain: HeaderValue,
    /// `error` can be told.
    is_bearer: bool,
}

impl Realm {
    /// # Errors
    /// It is not printable or too long.
    pub fn parse(realm: &str) -> Result<Self, Invalid> {
        let printable = realm.bytes().all(|b| (b' '..=b'~').contains(&b));
        if !printable || realm.len() > MAX_REALM {
            let message = "not printable ASCII of at most 128 characters; change it";
            return Err(Invalid::new("realm", message));
        }
        Ok(Realm(realm.replace('\\', "\\\\").replace('"', "\\\"").into()))
    }

    /// `scheme realm="…"`, and what follows.
    pub fn challenge(&self, scheme: &str, rest: &str) -> Challenge {
        let text = format!("{scheme} realm=\"{}\"{rest}", self.0);
        let plain = HeaderValue::from_str(&text).expect("a realm is printable");
        Challenge { plain, is_bearer: scheme == "Bearer" }
    }
}

impl Challenge {
    /// Adds it, with what is wrong with a token that was shown.
    pub fn tell(&self, wrong: Option<jwt::Refusal>, headers: &mut HeaderMap) {
        let mut value = self.plain.clone();
        if let Some(wrong) = wrong.filter(|_| self.is_bearer) {
            let plain = self.plain.to_str().unwrap_or_default();
            let (error, about) = (wrong.error(), wrong.description());
            let text = format!("{plain}, error=\"{error}\", error_description=\"{about}\"");
            value = HeaderValue::from_str(&text).expect("descriptions are printable");
        } else if headers.get_all(WWW_AUTHENTICATE).iter().any(|other| *other == value) {
            // Two issuers ask for the same.
            return;
        }
        headers.append(WWW_AUTHENTICATE, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_s_fault_is_told_and_quotes_are_quoted() {
        let realm = Realm::parse(r#"a "b""#).unwrap();
        let bearer = realm.challenge("Bearer", "");
        let mut headers = HeaderMap::new();
        bearer.tell(Some(jwt::Refusal::Expired), &mut headers);
        assert_eq!(
            headers[WWW_AUTHENTICATE],
            r#"Bearer realm="a \"b\"", error="invalid_token", error_description="The token has expired""#
        );
    }

    #[test]
    fn the_same_is_asked_for_once() {
        let realm = Realm::parse("api").unwrap();
        let mut headers = HeaderMap::new();
        for scheme in ["Bearer", "ApiKey", "Bearer"] {
            realm.challenge(scheme, "").tell(None, &mut headers);
        }
        let told: Vec<_> = headers.get_all(WWW_AUTHENTICATE).iter().collect();
        assert_eq!(told, [r#"Bearer realm="api""#, r#"ApiKey realm="api""#]);
    }

    #[test]
    fn a_realm_that_could_not_be_sent_is_refused() {
        assert!(Realm::parse("a\nb").is_err());
        assert!(Realm::parse(&"x".repeat(129)).is_err());
        assert!(Realm::parse("").is_ok());
    }
}
