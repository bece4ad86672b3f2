//! GatewayClasses that are ours: accepted or not, and what Tidegate can do.

use std::collections::HashMap;

use super::ObjectKind;
use super::pass::Pass;
use super::status::{Problem, Said, conditions};
use crate::api::gateway::{GatewayClassStatus, SupportedFeature};

/// The features of Gateway API v1.7 that Tidegate has, by the names of the conformance suite,
/// in alphabetical order (`GatewayClass.status.supportedFeatures`).
pub(super) const FEATURES: &[&str] = &[
    "BackendTLSPolicy",
    "BackendTLSPolicySANValidation",
    "ClusterTrustBundle",
    "GRPCRoute",
    "GRPCRouteNamedRouteRule",
    "GRPCRouteRequestHeaderModifier",
    "Gateway",
    "GatewayAddressEmpty",
    "GatewayAddressRoutability",
    "GatewayAddressRoutabilityCluster",
    "GatewayBackendClientCertificate",
    "GatewayFrontendClientCertificateValidation",
    "GatewayFrontendClientCertificateValidationInsecureFallback",
    "GatewayHTTPListenerIsolation",
    "GatewayHTTPSListenerDetectMisdirectedRequests",
    "GatewayInfrastructure",
    "GatewayListenerFilters",
    "GatewayPort8080",
    "GatewayRouteHostnameIntersectionPrecedence",
    "GatewayStaticAddresses",
    "HTTPRoute",
    "HTTPRoute303RedirectStatusCode",
    "HTTPRoute307RedirectStatusCode",
    "HTTPRoute308RedirectStatusCode",
    "HTTPRouteBackendProtocolH2C",
    "HTTPRouteBackendProtocolWebSocket",
    "HTTPRouteBackendRequestHeaderModification",
    "HTTPRouteBackendTimeout",
    "HTTPRouteBackendURLRewrite",
    "HTTPRouteCORS",
    "HTTPRouteDestinationPortMatching",
    "HTTPRouteHostRewrite",
    "HTTPRouteMethodMatching",
    "HTTPRouteNamedRouteRule",
    "HTTPRouteParentRefPort",
    "HTTPRoutePathRedirect",
    "HTTPRoutePathRewrite",
    "HTTPRoutePortRedirect",
    "HTTPRouteQueryParamMatching",
    "HTTPRouteRequestMirror",
    "HTTPRouteRequestMultipleMirrors",
    "HTTPRouteRequestPercentageMirror",
    "HTTPRouteRequestTimeout",
    "HTTPRouteResponseHeaderModification",
    "HTTPRouteRetryCodes",
    "HTTPRouteRetryConnectionError",
    "HTTPRouteSchemeRedirect",
    "ListenerSet",
    "ReferenceGrant",
    "TCPRoute",
    "TLSRoute",
    "TLSRouteModeMixed",
    "TLSRouteModeTerminate",
    "UDPRoute",
];

/// Our classes by name, and why those that are not accepted are not.
pub(super) type Classes<'s> = HashMap<&'s str, Option<Problem>>;

impl<'s> Pass<'s> {
    pub fn gateway_classes(&mut self) -> Classes<'s> {
        let snapshot = self.snapshot;
        let mut ours = Classes::new();
        for (key, class) in snapshot.gateway_classes.iter() {
            if class.spec.controller_name != snapshot.settings.controller_name {
                continue;
            }
            let problem = class.spec.parameters_ref.as_ref().map(|reference| {
                let message =
                    format!("{} is not supported as parameters; remove them", reference.kind);
                Problem::new("InvalidParameters", "spec.parametersRef", message)
            });
            let old = class.status.as_ref();
            let said = [Said::of("Accepted", "Accepted", problem.as_ref())];
            let before = old.map_or(&[][..], |status| &status.conditions);
            let generation = class.metadata.generation;
            let name = |feature: &&str| SupportedFeature { name: (*feature).to_owned() };
            let new = GatewayClassStatus {
                conditions: conditions(before, &["Accepted"], &said, generation, &self.now),
                supported_features: FEATURES.iter().map(name).collect(),
                other: old.map(|status| status.other.clone()).unwrap_or_default(),
            };
            if let Some(problem) = &problem {
                self.warn(ObjectKind::GatewayClass, key, &class.metadata, problem);
            }
            self.status(ObjectKind::GatewayClass, key, &class.metadata, old, new);
            ours.insert(key.name.as_str(), problem);
        }
        ours
    }
}
