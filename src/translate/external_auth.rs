//! ExternalAuth filters (GEP-1494), of routes and of listeners, as policies; and the services
//! that policies refer to, wherever they stand.

use super::Key;
use super::backends::{Traffic, Unresolved};
use super::gateway::GatewayState;
use super::middleware::Use;
use super::pass::Pass;
use super::references::From;
use crate::api::gateway::{BackendObjectReference, ExternalAuthFilter, ExternalAuthProtocol};
use crate::policy::external_auth::{
    BACKEND_REF, BackendRef, ForwardBody, GrpcSpec, HttpSpec, Protocol, Spec,
};
use crate::policy::{AnySpec, Mode, Refs};
use crate::services::ServiceId;

/// Why a filter is no policy.
#[derive(Debug)]
pub(super) enum NoPolicy {
    /// What it says cannot be done: a message for the user.
    Invalid(String),
    /// Whom it wants to ask cannot be found.
    Unresolved(Unresolved),
}

impl<'s> Pass<'s> {
    /// The policy of a filter that stands at `field` of the object that `from` and `key` name,
    /// for requests that come through `gateway`.
    pub fn external_auth(
        &mut self,
        from: From<'_>,
        gateway: Option<&GatewayState<'s>>,
        key: &Key,
        field: &str,
        filter: &ExternalAuthFilter,
    ) -> Result<Use, NoPolicy> {
        let spec = spec_of(filter).map_err(NoPolicy::Invalid)?;
        let service = self.service_of(from, gateway, &spec).map_err(NoPolicy::Unresolved)?;
        let refs = Refs { services: [(BACKEND_REF, service)].into(), ..Refs::default() };
        // Each Gateway may show the service a certificate of its own.
        let through = gateway.map(|gateway| format!("@{}", gateway.key)).unwrap_or_default();
        let name = format!("{}/{key}/{field}{through}", from.kind);
        let spec = AnySpec::ExternalAuth(spec);
        let made = self.graph.policy(&name, &spec, Mode::Enforce, &refs);
        let id = made.map_err(|error| NoPolicy::Invalid(error.to_string()))?;
        Ok(Use { id, kind: spec.kind(), mode: Mode::Enforce, object: None })
    }

    /// The service that a Spec names, of an object that `from` describes.
    pub fn service_of(
        &mut self,
        from: From<'_>,
        gateway: Option<&GatewayState<'s>>,
        spec: &Spec,
    ) -> Result<ServiceId, Unresolved> {
        let BackendRef { group, kind, name, namespace, port } = spec.backend_ref.clone();
        let reference = BackendObjectReference { group, kind, name, namespace, port };
        let traffic = match spec.protocol {
            Protocol::Http => Traffic::Http,
            Protocol::Grpc => Traffic::Grpc,
        };
        Ok(ServiceId(self.backend_of(from, gateway, &reference, traffic)?.0))
    }
}

/// # Errors
/// A message for the user: a value that we do not know.
fn spec_of(filter: &ExternalAuthFilter) -> Result<Spec, String> {
    let protocol = match &filter.protocol {
        ExternalAuthProtocol::Http => Protocol::Http,
        ExternalAuthProtocol::Grpc => Protocol::Grpc,
        ExternalAuthProtocol::Other(other) => {
            return Err(format!("protocol {other:?} is not supported; use HTTP or GRPC"));
        }
    };
    let BackendObjectReference { group, kind, name, namespace, port } = filter.backend_ref.clone();
    Ok(Spec {
        backend_ref: BackendRef { group, kind, name, namespace, port },
        protocol,
        http: filter.http.as_ref().map(|http| {
            Box::new(HttpSpec {
                path: Some(http.path.clone()),
                allowed_headers: http.allowed_headers.clone(),
                allowed_response_headers: http.allowed_response_headers.clone(),
                ..HttpSpec::default()
            })
        }),
        grpc: filter.grpc.as_ref().map(|grpc| GrpcSpec {
            allowed_headers: grpc.allowed_headers.clone(),
            ..GrpcSpec::default()
        }),
        forward_body: filter
            .forward_body
            .as_ref()
            .map(|body| ForwardBody { max_size: body.max_size }),
        ..Spec::default()
    })
}
