//! A service for tests of what asks one.

#![allow(clippy::unwrap_used, reason = "a panic here is a failed test")]

use std::cell::RefCell;
use std::future::ready;

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use prost::Message;

use super::BACKEND_REF;
use super::judge::LIMITS;
use crate::policy::{Lent, Refs};
use crate::reason::Reason;
use crate::services::ext_authz::{CheckRequest, CheckResponse, Header, HeaderOption, HttpRequest};
use crate::services::{Answer, Limits, ServiceId, Services};

/// A service that gives one answer and remembers what it was asked.
pub struct Fake {
    pub answer: Result<Answer, Reason>,
    pub body: &'static [u8],
    pub asked: RefCell<Vec<Request<Bytes>>>,
}

impl Fake {
    pub fn new(answer: Result<Answer, Reason>) -> Self {
        Fake { answer, body: b"", asked: RefCell::default() }
    }

    pub fn answers(
        status: u16,
        headers: &[(&'static str, &'static str)],
        body: &'static str,
    ) -> Self {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_static(value));
        }
        Fake::new(Ok(Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: map,
            body: Bytes::from_static(body.as_bytes()),
            is_whole: true,
            trailers: HeaderMap::new(),
        }))
    }

    pub fn checks(response: &CheckResponse) -> Self {
        let mut body = vec![0];
        body.extend(u32::try_from(response.encoded_len()).unwrap().to_be_bytes());
        body.extend(response.encode_to_vec());
        let mut fake = Fake::answers(200, &[], "");
        let answer = fake.answer.as_mut().unwrap();
        answer.body = body.into();
        answer.trailers.insert("grpc-status", HeaderValue::from_static("0"));
        fake
    }

    pub fn asked(&self) -> Request<Bytes> {
        self.asked.take().pop().unwrap()
    }

    /// What was asked by gRPC.
    pub fn checked(&self) -> HttpRequest {
        let asked = self.asked();
        assert_eq!(asked.uri(), "/envoy.service.auth.v3.Authorization/Check");
        let check = CheckRequest::decode(asked.body().slice(5..)).unwrap();
        check.attributes.unwrap().request.unwrap().http.unwrap()
    }
}

impl Services for Fake {
    fn call(
        &self,
        to: ServiceId,
        request: Request<Bytes>,
        limits: Limits,
    ) -> LocalBoxFuture<'_, Result<Answer, Reason>> {
        assert_eq!((to, limits.max_body), (ServiceId(7), LIMITS.max_body));
        self.asked.borrow_mut().push(request);
        Box::pin(ready(self.answer.clone()))
    }
}

impl Lent for Fake {
    fn body(&self, most: usize) -> LocalBoxFuture<'_, Result<Bytes, Reason>> {
        let fits = self.body.len() <= most;
        let body = if fits { Ok(Bytes::from_static(self.body)) } else { Err(Reason::BodyTooLarge) };
        Box::pin(ready(body))
    }
}

/// Refers to it.
pub fn refs() -> Refs {
    Refs { services: [(BACKEND_REF, ServiceId(7))].into(), ..Refs::default() }
}

/// A field that a gRPC service writes.
pub fn set(key: &str, value: &str) -> HeaderOption {
    let header = Header { key: key.into(), value: value.into(), ..Header::default() };
    HeaderOption { header: Some(header), ..HeaderOption::default() }
}
