//! `Middleware`: a set of policies that is attached to routes as one.
//!
//! What each policy does is told beside its `Spec` in [`crate::policy`]; only how they stand
//! together in one object is decided here, as rules that the API server checks.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::gateway::PolicyStatus;
use super::mode::Moded;
use super::target::TargetRef;
use crate::policy::{
    authentication, authorization, cors, direct_response, external_auth, ip_access, redirect,
    request_headers, response_headers, rewrite,
};

/// Policies that are applied together: at least one, each at most once.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "tidegate.dev",
    version = "v1alpha1",
    kind = "Middleware",
    plural = "middlewares",
    shortname = "mw",
    category = "tidegate",
    namespaced,
    status = "PolicyStatus",
    derive = "Default",
    derive = "PartialEq",
    doc = "A set of policies, attached to routes by an ExtensionRef filter, by targetRefs or by an Ingress annotation.",
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.ancestors[0].conditions[?(@.type==\"Accepted\")].status"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.requestHeaders) || has(self.responseHeaders) || has(self.redirect) || has(self.rewrite) || has(self.cors) || has(self.ipAccess) || has(self.authentication) || has(self.authorization) || has(self.externalAuth) || has(self.directResponse)")
        .message("set at least one policy"),
    validation = Rule::new("[has(self.redirect), has(self.directResponse), has(self.rewrite)].filter(set, set).size() <= 1")
        .message("redirect, directResponse and rewrite exclude each other: set one of them"),
    validation = Rule::new("!has(self.rewrite) || has(self.rewrite.hostname) || has(self.rewrite.path) || has(self.rewrite.regex)")
        .message("rewrite: set hostname, path or regex"),
    validation = Rule::new("!has(self.rewrite) || !(has(self.rewrite.path) && has(self.rewrite.regex))")
        .message("rewrite: path and regex exclude each other: set one of them"),
    validation = Rule::new("!has(self.ipAccess) || (has(self.ipAccess.allow) && self.ipAccess.allow.size() > 0) || (has(self.ipAccess.deny) && self.ipAccess.deny.size() > 0)")
        .message("ipAccess: set allow or deny"),
    validation = Rule::new("!has(self.authentication) || self.authentication.methods.all(one, [has(one.jwt), has(one.apiKey), has(one.basic), has(one.clientCertificate), has(one.external)].filter(set, set).size() == 1)")
        .message("authentication: set exactly one of jwt, apiKey, basic, clientCertificate and external in each of methods"),
    validation = Rule::new("!has(self.authentication) || self.authentication.methods.filter(one, has(one.external)).size() <= 1")
        .message("authentication: a policy asks one external service; remove the others"),
    validation = Rule::new("!has(self.authentication) || self.authentication.methods.all(one, !has(one.external) || (has(one.external.identity) && !(has(one.external.failOpen) && one.external.failOpen)))")
        .message("authentication: an external method needs identity and cannot failOpen"),
    validation = Rule::new("!has(self.authentication) || !has(self.authentication.anonymousConsumer) || (has(self.authentication.presence) && self.authentication.presence == 'Optional')")
        .message("authentication: anonymousConsumer is only for presence Optional")
)]
pub struct MiddlewareSpec {
    /// What it applies to besides the routes that name it; in its own namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub target_refs: Vec<TargetRef>,
    /// Lets requests through by client address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_access: Option<Moded<ip_access::Spec>>,
    /// Answers CORS preflights and marks responses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cors: Option<Moded<cors::Spec>>,
    /// Recognises who asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authentication: Option<Moded<authentication::Spec>>,
    /// Says who may do what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization: Option<Moded<authorization::Spec>>,
    /// Asks a service whether the request may go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_auth: Option<Moded<external_auth::Spec>>,
    /// Edits the fields of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_headers: Option<Moded<request_headers::Spec>>,
    /// Edits the fields of the response.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_headers: Option<Moded<response_headers::Spec>>,
    /// Changes the host name or the path that the backend sees.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewrite: Option<Moded<rewrite::Spec>>,
    /// Answers with a redirect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect: Option<Moded<redirect::Spec>>,
    /// Answers with a fixed response.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direct_response: Option<Moded<direct_response::Spec>>,
}
