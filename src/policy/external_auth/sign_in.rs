//! The way to a page where people sign in, and back to what they asked for.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, LOCATION, SET_COOKIE};
use http::{HeaderMap, HeaderValue, StatusCode, Uri};

use super::original;
use super::spec::SignIn as Spec;
use super::verdict::{Refusal, encoded};
use crate::policy::{Invalid, RequestHead};
use crate::reason::Reason;

/// The parameter that pages of ingress-nginx's world look for.
const PARAMETER: &str = "rd";
const MAX_URL: usize = 2048;

/// Where a client is sent.
#[derive(Debug)]
pub(super) struct SignIn {
    /// The URL up to where the request's own stands.
    url: String,
    /// Whether it stands there.
    tells: bool,
}

impl SignIn {
    pub fn compile(spec: &Spec) -> Result<Self, Invalid> {
        let wrong = |message: &str| Invalid::new("http.signIn.url", message);
        let url = &spec.url;
        if url.len() > MAX_URL {
            return Err(wrong("longer than 2048 bytes; shorten it"));
        }
        let parsed: Uri = url.parse().map_err(|_| wrong("not a URL; write https://host/path"))?;
        let is_path = url.starts_with('/') && !url.starts_with("//");
        let is_web = matches!(parsed.scheme_str(), Some("http" | "https"));
        if !(is_path || is_web && parsed.host().is_some()) || url.contains(['#', '\\']) {
            let message = "use an http:// or https:// URL or a path, without a fragment";
            return Err(wrong(message));
        }
        let name = spec.parameter.as_deref().unwrap_or(PARAMETER);
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "._~-".contains(c);
        if name.is_empty() || !name.chars().all(is_plain) {
            let message = "use letters, digits and . _ ~ -";
            return Err(Invalid::new("http.signIn.parameter", message));
        }
        let query = parsed.query();
        let names = query.unwrap_or_default().split('&').map(|pair| pair.split('=').next());
        let tells = !names.into_iter().any(|known| known == Some(name));
        let url = match (tells, query) {
            (false, _) => url.clone(),
            (true, None) => format!("{}?{name}=", url.trim_end_matches('?')),
            (true, Some("")) => format!("{url}{name}="),
            (true, Some(_)) => format!("{url}&{name}="),
        };
        Ok(SignIn { url, tells })
    }

    /// The answer for a client whom the service answered 401 with these fields.
    pub fn redirect(&self, head: &RequestHead, said: &HeaderMap) -> Result<Refusal, Reason> {
        let mut url = self.url.clone();
        if self.tells {
            url.extend(encoded(&original::url(head)));
        }
        let mut headers = HeaderMap::new();
        headers.insert(LOCATION, HeaderValue::try_from(url).map_err(|_| Reason::Internal)?);
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        for cookie in said.get_all(SET_COOKIE) {
            headers.append(SET_COOKIE, cookie.clone());
        }
        Ok(Refusal { status: StatusCode::FOUND, headers, body: Bytes::new(), knows_nobody: true })
    }
}
