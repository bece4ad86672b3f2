//! The filter that asks another server whether a request may pass (GEP-1494), of HTTPRoutes and
//! of listeners.

use serde::{Deserialize, Serialize};

use super::BackendObjectReference;
use super::common::open_enum;

open_enum! {
    /// `GRPC` is Envoy's `envoy.service.auth.v3.Authorization`; `HTTP` a request whose 200 means
    /// yes.
    ExternalAuthProtocol { Grpc = "GRPC", Http = "HTTP" }
}

/// `protocol` says which of `grpc` and `http` is read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExternalAuthFilter {
    pub protocol: ExternalAuthProtocol,
    #[serde(default)]
    pub backend_ref: BackendObjectReference,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc: Option<GrpcAuthConfig>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpAuthConfig>,
    /// None, or a size of 0: the body is not sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forward_body: Option<ForwardBodyConfig>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GrpcAuthConfig {
    /// Header fields of the client that are sent besides those that always are; empty: all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed_headers: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpAuthConfig {
    /// Set in front of the request's path; empty: the path as it is.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// Header fields of the client that are sent besides those that always are.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed_headers: Vec<String>,
    /// Header fields of a positive answer that are added to the request; empty: all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed_response_headers: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ForwardBodyConfig {
    /// Bytes.
    pub max_size: i32,
}
