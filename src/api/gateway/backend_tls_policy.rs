//! BackendTLSPolicy: connections to a Service are TLS, and whom they must lead to.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::common::open_enum;
use super::{LocalObjectReference, PolicyStatus, PolicyTargetReference};

/// See the module's documentation.
#[derive(kube::CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "gateway.networking.k8s.io",
    version = "v1",
    kind = "BackendTLSPolicy",
    plural = "backendtlspolicies",
    root = "BackendTlsPolicy",
    namespaced,
    status = "PolicyStatus",
    derive = "Default",
    derive = "PartialEq",
    schema = "disabled"
)]
#[serde(rename_all = "camelCase", default)]
pub struct BackendTlsPolicySpec {
    /// Services, or ports of them by `sectionName`, in the policy's own namespace.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub target_refs: Vec<PolicyTargetReference>,
    pub validation: BackendTlsValidation,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
}

open_enum! {
    /// Certificates that come with the platform.
    WellKnownCaCertificates { System = "System" }
    SubjectAltNameType { Hostname = "Hostname", Uri = "URI" }
}

/// Whom a backend must prove to be; also of an XBackend.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BackendTlsValidation {
    /// Whose signatures are believed: ConfigMaps with `ca.crt`, or what else is supported. Either
    /// these or `well_known_ca_certificates`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ca_certificate_refs: Vec<LocalObjectReference>,
    #[serde(rename = "wellKnownCACertificates", skip_serializing_if = "Option::is_none")]
    pub well_known_ca_certificates: Option<WellKnownCaCertificates>,
    /// The server name that is sent, and without `subject_alt_names` the one in the certificate.
    pub hostname: String,
    /// One of them must be in the certificate.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub subject_alt_names: Vec<SubjectAltName>,
}

/// A union: `type` says which field is set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SubjectAltName {
    pub r#type: SubjectAltNameType,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hostname: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uri: String,
}
