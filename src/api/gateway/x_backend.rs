//! XBackend (experimental): a backend that is no Service: a host outside, or pods by their labels.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::common::open_enum;
use super::{BackendTlsValidation, PolicyStatus, SecretObjectReference, SessionPersistence};

/// See the module's documentation.
#[derive(kube::CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "gateway.networking.x-k8s.io",
    version = "v1alpha1",
    kind = "XBackend",
    plural = "xbackends",
    namespaced,
    status = "PolicyStatus",
    derive = "Default",
    derive = "PartialEq",
    schema = "disabled"
)]
#[serde(rename_all = "camelCase", default)]
pub struct XBackendSpec {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r#type: Option<XBackendType>,
    pub port: XBackendPort,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_hostname: Option<ExternalHostname>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint_selector: Option<EndpointSelector>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_persistence: Option<SessionPersistence>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<XBackendProtocol>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<XBackendTls>,
}

open_enum! {
    /// Which field of the union is set.
    XBackendType { ExternalHostname = "ExternalHostname", EndpointSelector = "EndpointSelector" }
    /// What the backend speaks.
    XBackendProtocol {
        Mcp = "MCP",
        Tcp = "TCP",
        Http = "HTTP",
        Http2 = "HTTP2",
        Http11 = "HTTP11",
        H2c = "H2C",
        Grpc = "GRPC",
        Wss = "WSS",
    }
    /// Who shows a certificate.
    XBackendTlsMode { None = "None", ServerOnly = "ServerOnly", ClientAndServer = "ClientAndServer" }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct XBackendPort {
    /// Of the endpoints themselves.
    pub number: i32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ExternalHostname {
    pub hostname: String,
}

/// Pods in the XBackend's namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointSelector {
    pub match_labels: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct XBackendTls {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<XBackendTlsMode>,
    /// The certificate that is shown to the backend, with `ClientAndServer`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate_ref: Option<SecretObjectReference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation: Option<BackendTlsValidation>,
}
