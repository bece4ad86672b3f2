//! Answers by itself: a status code, and a body if there is one.

use std::ops::ControlFlow;

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header::CONTENT_TYPE};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Exchange, Invalid, Policy, Refs, Reply};
use crate::reason::Reason;

/// Longest body, in bytes.
const MAX_BODY: usize = 64 * 1024;

/// The answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "DirectResponse")]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    /// The status code of the answer.
    #[schemars(range(min = 200, max = 599))]
    pub status_code: i32,
    /// The body, at most 64 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65536))]
    pub body: Option<String>,
    /// The media type of the body; `text/plain; charset=utf-8` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub content_type: Option<String>,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct DirectResponse {
    status: StatusCode,
    body: Bytes,
    content_type: HeaderValue,
}

impl Policy for DirectResponse {
    type Spec = Spec;

    fn compile(spec: &Spec, _refs: &Refs) -> Result<Self, Invalid> {
        let status = u16::try_from(spec.status_code)
            .ok()
            .filter(|code| (200..600).contains(code))
            .and_then(|code| StatusCode::from_u16(code).ok())
            .ok_or_else(|| {
                let message = format!("{} cannot be answered; use 200 to 599", spec.status_code);
                Invalid::new("statusCode", message)
            })?;
        let body = spec.body.as_deref().unwrap_or_default();
        if body.len() > MAX_BODY {
            let message = format!("{} bytes, at most {MAX_BODY}; shorten it", body.len());
            return Err(Invalid::new("body", message));
        }
        if !body.is_empty() && matches!(status.as_u16(), 204 | 205 | 304) {
            let message = format!("an answer of {status} has no body; remove it");
            return Err(Invalid::new("body", message));
        }
        let content_type = match &spec.content_type {
            None => HeaderValue::from_static("text/plain; charset=utf-8"),
            Some(media) => HeaderValue::from_str(media).map_err(|_| {
                Invalid::new("contentType", "not a media type; write it like text/html")
            })?,
        };
        Ok(DirectResponse { status, body: Bytes::copy_from_slice(body.as_bytes()), content_type })
    }

    async fn on_request(&self, _ex: &mut Exchange<'_>) -> ControlFlow<Reply> {
        let mut reply = Reply::of(Reason::DirectResponse);
        reply.status = self.status;
        if !self.body.is_empty() {
            reply.headers.insert(CONTENT_TYPE, self.content_type.clone());
            reply.body = self.body.clone();
        }
        ControlFlow::Break(reply)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::testing::{answer, exchange};

    fn spec(status_code: i32, body: Option<&str>) -> Spec {
        Spec { status_code, body: body.map(Into::into), content_type: None }
    }

    #[test]
    fn the_answer_is_what_was_written() {
        let policy = DirectResponse::compile(&spec(418, Some("tea")), &Refs::default()).unwrap();
        let reply = answer(&policy, &mut exchange("GET", "http://a.example/", &[])).unwrap();
        assert_eq!((reply.status.as_u16(), &*reply.body), (418, &b"tea"[..]));
        assert_eq!(reply.headers[CONTENT_TYPE], "text/plain; charset=utf-8");
    }

    #[test]
    fn answers_that_cannot_be_sent_are_refused_by_field() {
        let long = "x".repeat(MAX_BODY + 1);
        let media = Spec { content_type: Some("a\nb".into()), ..spec(200, None) };
        for (spec, field) in [
            (spec(101, None), "statusCode"),
            (spec(600, None), "statusCode"),
            (spec(-1, None), "statusCode"),
            (spec(204, Some("x")), "body"),
            (spec(200, Some(&long)), "body"),
            (media, "contentType"),
        ] {
            assert_eq!(DirectResponse::compile(&spec, &Refs::default()).unwrap_err().field, field);
        }
    }
}
