//! Gateway API v1.7, as far as Tidegate reads and writes it: own types, tolerant of fields and
//! values that are newer than this program.

#[derive(Clone, Debug, Default, serde::Deserialize)]
pub struct GatewayClass {}
#[derive(Clone, Debug, Default, serde::Deserialize)]
pub struct Gateway {}
#[derive(Clone, Debug, Default, serde::Deserialize)]
pub struct HttpRoute {}
#[derive(Clone, Debug, Default, serde::Deserialize)]
pub struct ReferenceGrant {}
