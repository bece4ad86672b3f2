//! What users write of external authorization. The bounds are those of the CRD; what they cannot
//! say is checked where a Spec is compiled.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::policy::limit_key::Part;

/// A service that decides whether requests go on. Without an answer in time the request is
/// refused with 503.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ExternalAuth")]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    /// The service that is asked.
    pub backend_ref: BackendRef,
    /// How it is asked: HTTP, where 200 (or with `forwardOriginal` any 2xx) lets the request go
    /// on and every other answer goes to the client; or GRPC, by Envoy's
    /// `envoy.service.auth.v3.Authorization`.
    pub protocol: Protocol,
    /// What is sent and taken over with protocol HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<Box<HttpSpec>>,
    /// What is sent with protocol GRPC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc: Option<GrpcSpec>,
    /// Sends the body of the request too; it is read to its end before anything goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forward_body: Option<ForwardBody>,
    /// How long the service may take, connecting included: `500ms` by default, 1ms to 1m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    pub timeout: Option<String>,
    /// Lets requests go on when the service gives no answer, instead of refusing them with 503.
    /// Each is counted in `tidegate_external_auth_total`; what it would have said of the client
    /// is removed all the same. A refusal stays one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fail_open: bool,
    /// Who the client is, as the service's yes says it: for limits by subject or group and for
    /// the access log. For authorization, which comes before `externalAuth`, let the service be a
    /// method of `authentication`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<IdentitySpec>,
    /// Keeps what the service said, so that the same question is not asked again for a while.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheSpec>,
}

/// A port of a Service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackendRef {
    /// The API group; empty (the core group) by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub group: Option<String>,
    /// The kind; `Service` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub kind: Option<String>,
    /// The name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The namespace, if it is another one; a ReferenceGrant there must allow it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
    /// The Service's port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Protocol {
    #[default]
    #[serde(rename = "HTTP")]
    Http,
    #[serde(rename = "GRPC")]
    Grpc,
}

/// The service gets the method, Host, the path and query, Content-Length and Authorization of
/// the request, and what is listed here; or, with `forwardOriginal`, what forward auth is known
/// for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpSpec {
    /// Put before the path of the request; nothing by default. With `forwardOriginal` the whole
    /// path that is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub path: Option<String>,
    /// Fields of the request that the service gets too. Empty: with `forwardOriginal` all but
    /// conditions and ranges, otherwise none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 256)))]
    pub allowed_headers: Vec<String>,
    /// Fields of the answer that the request to the backend gets; what the client wrote in
    /// them is removed. Empty: with `forwardOriginal` and in a method of authentication none,
    /// otherwise all but those that describe the answer itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 256)))]
    pub allowed_response_headers: Vec<String>,
    /// More of them, by a regular expression over lower-case names, such as `^x-auth-`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub allowed_response_headers_regex: Option<String>,
    /// Asks as Traefik's `forwardAuth` and ingress-nginx's `auth-url` do: at `path` alone, by
    /// GET, with the service's own name as Host. The request is told in X-Forwarded-Method,
    /// X-Forwarded-Proto, X-Forwarded-Host, X-Forwarded-Uri and X-Forwarded-For, and in
    /// X-Original-Method and X-Original-URL. Any 2xx lets the request go on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forward_original: bool,
    /// The method of the question. By default GET with `forwardOriginal`, otherwise that of the
    /// request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<AskMethod>,
    /// Cookies that the service sets with its yes, which the client gets with the backend's
    /// answer. With a refusal it gets all of them anyway.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 256)))]
    pub response_cookies: Vec<String>,
    /// Where a client is sent that the service answered 401.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sign_in: Option<SignIn>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum AskMethod {
    Get,
    Head,
    Post,
}

/// A page that asks people to sign in, and sends them back.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SignIn {
    /// An `https://` or `http://` URL, or a path of the same host.
    #[schemars(length(min = 1, max = 2048))]
    pub url: String,
    /// The parameter of its query that tells the URL of the request; `rd` by default. It is not
    /// added if `url` has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), regex(pattern = "^[A-Za-z0-9._~-]+$"))]
    pub parameter: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GrpcSpec {
    /// Fields of the request that the service gets; empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 256)))]
    pub allowed_headers: Vec<String>,
    /// Fields that the service may write into the request to the backend; what the client wrote
    /// in them is removed. Empty: in a method of authentication none, otherwise all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 256)))]
    pub allowed_response_headers: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ForwardBody {
    /// Longest body in bytes; a longer one is refused with 413. 0: the body is not sent.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1_048_576))]
    pub max_size: i32,
}

/// Fields of the service's yes that say who the client is. What the client wrote in them is
/// removed before the service is asked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IdentitySpec {
    /// The field with the subject, such as X-User-Id. A yes without it changes nothing; of a
    /// method of authentication it is refused.
    #[schemars(length(min = 1, max = 256))]
    pub header: String,
    /// The field with the groups, with commas between them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub groups_header: Option<String>,
}

/// What the service said is kept in memory: a bounded number of answers, by a hash with a secret
/// seed. An answer that sets cookies, is longer than 8 KiB or says `Cache-Control: no-store` or
/// `no-cache` is not kept, one with `max-age` no longer than that. Of refusals only 401 and 403
/// are kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CacheSpec {
    /// How long a yes holds: 1s to 1h. As long a client may go on whom the service would refuse
    /// by now.
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    pub duration: String,
    /// How long a refusal holds; `10s` by default, `duration` at most, `0s` for not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    pub refusal_duration: Option<String>,
    /// What makes two questions the same: parts of the request as limits have them. Name
    /// everything that the service decides by, because requests that differ in nothing else get
    /// the same verdict. Empty: all that is sent to the service, but for X-Request-Id and the
    /// fields of traces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub key: Vec<Part>,
}
