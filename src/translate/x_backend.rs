//! XBackends (GEP-4894): hosts outside of the cluster, and pods by their labels, as backends.
//!
//! What an XBackend says about the connection holds for every route that leads to it. The pods
//! of an EndpointSelector are found by a Service that Tidegate makes: see `x_backend_service`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use super::ancestors::{XBACKEND, gateway_ref};
use super::backend_tls::precise;
use super::backends::{Traffic, Unresolved, Wire};
use super::endpoints::service_of;
use super::pass::Pass;
use super::references::From;
use super::status::{Problem, Said};
use super::x_backend_service::Made;
use super::{Key, ObjectKind, Objects, session};
use crate::api::gateway::{
    SecretObjectReference, X_GROUP, XBackend, XBackendProtocol, XBackendTls, XBackendTlsMode,
    XBackendType,
};
use crate::graph::{Alpn, Session, TlsSpec};
use crate::reason::Reason;

const KIND: ObjectKind = ObjectKind::XBackend;

/// Where the endpoints come from.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// The addresses of this name.
    Host(String),
    Pods,
}

/// What an XBackend asks for.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub place: Place,
    pub port: u16,
    protocol: Option<XBackendProtocol>,
    pub tls: Option<TlsSpec>,
    pub session: Option<Arc<Session>>,
}

/// An XBackend, and what is wrong with it.
#[derive(Debug)]
pub(super) struct XState<'s> {
    pub object: &'s XBackend,
    pub wanted: Result<Wanted, Problem>,
    /// The first reference of its TLS that leads nowhere.
    pub unresolved: Option<Problem>,
}

/// Every XBackend of the snapshot.
#[derive(Debug, Default)]
pub(super) struct XBackends<'s> {
    pub all: BTreeMap<&'s Key, XState<'s>>,
    /// The Services that were made for them.
    pub made: Made<'s>,
    /// Addresses inside of the cluster, where no external name may lead.
    pub inside: BTreeSet<IpAddr>,
}

impl<'s> Pass<'s> {
    pub fn collect_x_backends(&mut self) {
        let snapshot = self.snapshot;
        let mut all = BTreeMap::new();
        for (key, object) in snapshot.x_backends.iter() {
            let mut unresolved = None;
            let wanted = self.wanted(key, object, &mut unresolved);
            let problems = wanted.as_ref().err().into_iter().chain(&unresolved);
            for problem in problems.cloned().collect::<Vec<_>>() {
                self.warn(KIND, key, &object.metadata, &problem);
            }
            all.insert(key, XState { object, wanted, unresolved });
        }
        if all.is_empty() {
            return;
        }
        let services = snapshot.services.values().filter_map(|service| service.spec.as_ref());
        let ips = services.flat_map(|spec| spec.cluster_ips.iter().flatten());
        let mut inside: BTreeSet<IpAddr> = ips.filter_map(|ip| ip.parse().ok()).collect();
        inside.extend(snapshot.peers.iter().map(|peer| peer.ip));
        inside.extend(inner(&snapshot.endpoint_slices));
        self.x_backends = XBackends { all, made: Made::find(snapshot), inside };
    }

    fn wanted(
        &mut self,
        key: &Key,
        object: &XBackend,
        unresolved: &mut Option<Problem>,
    ) -> Result<Wanted, Problem> {
        let spec = &object.spec;
        let place = place(object, self.snapshot.settings.cluster)?;
        let port = u16::try_from(spec.port.number).ok().filter(|port| *port > 0);
        let port = port.ok_or_else(|| {
            let message = format!("{} is not a port; use 1 to 65535", spec.port.number);
            Problem::new("Invalid", "spec.port.number", message)
        })?;
        let tls = match &spec.tls {
            None => None,
            Some(tls) => self.x_tls(key, tls, unresolved)?,
        };
        if let Some(message) = impossible(spec.protocol.as_ref(), tls.is_some()) {
            return Err(Problem::new("Invalid", "spec.protocol", message));
        }
        let session = match &spec.session_persistence {
            None => None,
            Some(spec) => {
                let session = session::read(spec, &format!("XBackend {key}"), &object.metadata);
                Some(Arc::new(session.map_err(|(field, message)| {
                    Problem::new("Invalid", format!("spec.sessionPersistence.{field}"), message)
                })?))
            }
        };
        Ok(Wanted { place, port, protocol: spec.protocol.clone(), tls, session })
    }

    fn x_tls(
        &mut self,
        key: &Key,
        tls: &XBackendTls,
        unresolved: &mut Option<Problem>,
    ) -> Result<Option<TlsSpec>, Problem> {
        let shown = match tls.mode.as_ref().unwrap_or(&XBackendTlsMode::None) {
            XBackendTlsMode::None => return Ok(None),
            XBackendTlsMode::ServerOnly => false,
            XBackendTlsMode::ClientAndServer => true,
            XBackendTlsMode::Other(other) => {
                let message =
                    format!("{other:?} is not supported; use None, ServerOnly or ClientAndServer");
                return Err(Problem::new("Invalid", "spec.tls.mode", message));
            }
        };
        let Some(validation) = &tls.validation else {
            let message = "whom to believe is not said; set it";
            return Err(Problem::new("Invalid", "spec.tls.validation", message));
        };
        let from = From { group: X_GROUP, kind: "XBackend", namespace: &key.namespace };
        let validated = self.validated(from, "spec.tls.validation", validation);
        *unresolved = validated.unresolved;
        let mut spec = validated.spec?;
        if shown {
            let at = "spec.tls.clientCertificateRef";
            let Some(reference) = &tls.client_certificate_ref else {
                let message = "ClientAndServer needs it; name a Secret with tls.crt and tls.key";
                return Err(Problem::new("Invalid", at, message));
            };
            spec.client = Some(self.x_client(from, reference).map_err(|message| {
                unresolved.get_or_insert_with(|| {
                    Problem::new("InvalidClientCertificateRef", at, message.clone())
                });
                Problem::new("Invalid", at, message)
            })?);
        }
        let wrong = |message: String| Problem::new("Invalid", "spec.tls.validation", message);
        self.memo.backend_tls(&spec).map_err(wrong)?;
        Ok(Some(spec))
    }

    fn x_client(
        &mut self,
        from: From<'_>,
        reference: &SecretObjectReference,
    ) -> Result<Arc<rustls::sign::CertifiedKey>, String> {
        let group = reference.group.as_deref().unwrap_or_default();
        let kind = reference.kind.as_deref().unwrap_or("Secret");
        if !group.is_empty() || kind != "Secret" {
            return Err(format!("{kind} of group {group:?} is not supported; use a Secret"));
        }
        // GEP-4894: what an XBackend uses stands in its own namespace.
        let namespace = reference.namespace.as_deref().unwrap_or(from.namespace);
        let secret = Key::new(namespace, &*reference.name);
        if namespace != from.namespace {
            return Err(format!("Secret {secret} is in another namespace; use one beside it"));
        }
        let certificate = self.certificates.of(self.snapshot, &mut self.memo, &secret);
        match &certificate.shown {
            Some(shown) => Ok(Arc::clone(&shown.key)),
            None => Err(certificate.problem.clone().unwrap_or_default()),
        }
    }

    /// Says of every XBackend what became of it, for each Gateway that reaches it.
    pub fn x_backend_statuses(&mut self) {
        let backends = std::mem::take(&mut self.x_backends);
        for (key, state) in &backends.all {
            let gateways = self.backends.reached.gateways("XBackend", key, |_| true);
            let said = gateways.into_iter().map(|gateway| {
                let said = vec![
                    Said::of("Accepted", "Accepted", state.wanted.as_ref().err()),
                    Said::of("ResolvedRefs", "ResolvedRefs", state.unresolved.as_ref()),
                ];
                (gateway_ref(gateway), said)
            });
            let meta = &state.object.metadata;
            let old = state.object.status.as_ref();
            let new = self.ancestor_status(old, meta.generation, &XBACKEND, said.collect());
            self.status(KIND, key, meta, old, new);
        }
        self.x_backends = backends;
    }
}

impl Wanted {
    /// What is spoken to it.
    ///
    /// # Errors
    /// That kind of traffic cannot go there.
    pub fn wire(&self, key: &Key, traffic: Traffic) -> Result<Wire, Unresolved> {
        use XBackendProtocol as P;
        let cannot = |message: &str| {
            let protocol = self.protocol.as_ref().map_or("none", P::as_str);
            let message = format!("XBackend {key} (protocol {protocol}): {message}");
            Err(Unresolved::new(Reason::UnsupportedProtocol, message))
        };
        let (tls, protocol) = (self.tls.is_some(), self.protocol.as_ref());
        let pick = |clear, alpn| if tls { Ok(Wire::Tls(alpn)) } else { Ok(clear) };
        match (traffic, protocol) {
            (Traffic::Udp, _) => cannot("it takes no datagrams; name a Service"),
            (Traffic::Passthrough, _) if tls => {
                cannot("it would put TLS around TLS; set spec.tls.mode to None")
            }
            (Traffic::Stream | Traffic::Passthrough, _) => pick(Wire::Tcp, Alpn::None),
            (_, Some(P::Tcp)) => cannot("HTTP cannot go there; name it in a TCPRoute"),
            (Traffic::Http, Some(P::Http11 | P::Wss)) => pick(Wire::Http1, Alpn::Http1),
            (Traffic::Http, Some(P::H2c | P::Http2 | P::Grpc)) => pick(Wire::H2c, Alpn::Http2),
            (Traffic::Http, _) => pick(Wire::Http1, Alpn::Http),
            (Traffic::Grpc, Some(P::Http11 | P::Wss | P::Mcp)) => {
                cannot("gRPC needs HTTP/2; use protocol GRPC")
            }
            (Traffic::Grpc, _) => pick(Wire::H2c, Alpn::Http2),
        }
    }
}

/// The addresses of pods and of the API server.
fn inner(slices: &Objects<EndpointSlice>) -> impl Iterator<Item = IpAddr> {
    let endpoints = slices.iter().flat_map(|(key, slice)| {
        let is_api = key.namespace == "default" && service_of(slice) == Some("kubernetes");
        let of_pod = |endpoint: &Endpoint| {
            endpoint.target_ref.as_ref().is_some_and(|to| to.kind.as_deref() == Some("Pod"))
        };
        slice.endpoints.iter().flatten().filter(move |endpoint| is_api || of_pod(endpoint))
    });
    let addresses = endpoints.flat_map(|endpoint| &endpoint.addresses);
    addresses.filter_map(|address| Some(address.parse::<IpAddr>().ok()?.to_canonical()))
}

fn place(object: &XBackend, cluster: bool) -> Result<Place, Problem> {
    let spec = &object.spec;
    let wrong = |field: &str, message: String| Err(Problem::new("Invalid", field, message));
    match &spec.r#type {
        Some(XBackendType::ExternalHostname) => {
            if spec.session_persistence.is_some() {
                let message = "is for EndpointSelector only; remove it".to_owned();
                return wrong("spec.sessionPersistence", message);
            }
            let host = spec.external_hostname.as_ref().map_or("", |host| &host.hostname);
            match external(host, cluster) {
                Ok(host) => Ok(Place::Host(host)),
                Err(message) => wrong("spec.externalHostname.hostname", message),
            }
        }
        Some(XBackendType::EndpointSelector) => {
            let labels = spec.endpoint_selector.as_ref().map(|selector| &selector.match_labels);
            match labels.is_none_or(BTreeMap::is_empty) {
                true => wrong("spec.endpointSelector.matchLabels", "no label; set one".to_owned()),
                false => Ok(Place::Pods),
            }
        }
        Some(XBackendType::Other(other)) => {
            let message =
                format!("{other:?} is not supported; use ExternalHostname or EndpointSelector");
            wrong("spec.type", message)
        }
        None => wrong("spec.type", "set ExternalHostname or EndpointSelector".to_owned()),
    }
}

/// A name outside of the cluster: with a dot, so that no search domain is tried, and not below
/// the cluster's own.
fn external(text: &str, cluster: bool) -> Result<String, String> {
    let host = precise(text)?;
    let inside = host == "cluster.local" || host.ends_with(".cluster.local");
    if inside || (cluster && !host.contains('.')) {
        return Err(format!("{text:?} is inside of the cluster; use an EndpointSelector"));
    }
    Ok(host)
}

/// Why a protocol and TLS do not go together.
fn impossible(protocol: Option<&XBackendProtocol>, tls: bool) -> Option<String> {
    use XBackendProtocol as P;
    match (protocol?, tls) {
        (P::H2c, true) => Some("H2C is in clear text; use HTTP2 with TLS".to_owned()),
        (P::Http2, false) => Some("HTTP2 needs spec.tls; use H2C for clear text".to_owned()),
        (P::Wss, false) => Some("WSS needs spec.tls; set it, or use HTTP".to_owned()),
        (P::Other(other), _) => Some(format!(
            "{other:?} is not supported; use HTTP, HTTP11, HTTP2, H2C, GRPC, WSS, MCP or TCP"
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn external_names_lead_outside() {
        assert_eq!(external("API.example.com", true).as_deref(), Ok("api.example.com"));
        for bad in ["a.b.svc.cluster.local", "cluster.local", "web", "localhost", "10.0.0.1", ""] {
            assert!(external(bad, true).is_err(), "{bad}");
        }
        assert!(external("*.example.com", true).is_err());
        assert_eq!(external("localhost", false).as_deref(), Ok("localhost"));
    }

    #[test]
    fn the_protocol_the_route_and_tls_decide_what_is_spoken() {
        use Alpn::{Http, Http1, Http2, None as Bytes};
        use Traffic::{Grpc, Passthrough, Stream, Udp};
        let wire = |protocol: &str, tls: bool, traffic| {
            let wanted = Wanted {
                place: Place::Pods,
                port: 80,
                protocol: (!protocol.is_empty()).then(|| protocol.to_owned().into()),
                tls: tls.then(|| TlsSpec::new("a.example", crate::graph::Roots::System)),
                session: None,
            };
            wanted.wire(&Key::new("ns", "x"), traffic).ok()
        };
        for (protocol, tls, traffic, expected) in [
            ("", false, Traffic::Http, Some(Wire::Http1)),
            ("", true, Traffic::Http, Some(Wire::Tls(Http))),
            ("MCP", true, Traffic::Http, Some(Wire::Tls(Http))),
            ("HTTP11", true, Traffic::Http, Some(Wire::Tls(Http1))),
            ("WSS", true, Traffic::Http, Some(Wire::Tls(Http1))),
            ("HTTP2", true, Traffic::Http, Some(Wire::Tls(Http2))),
            ("H2C", false, Traffic::Http, Some(Wire::H2c)),
            ("GRPC", false, Traffic::Http, Some(Wire::H2c)),
            ("", false, Grpc, Some(Wire::H2c)),
            ("GRPC", true, Grpc, Some(Wire::Tls(Http2))),
            ("HTTP11", false, Grpc, None),
            ("TCP", false, Traffic::Http, None),
            ("TCP", true, Stream, Some(Wire::Tls(Bytes))),
            ("", false, Passthrough, Some(Wire::Tcp)),
            ("", true, Passthrough, None),
            ("", false, Udp, None),
        ] {
            assert_eq!(wire(protocol, tls, traffic), expected, "{protocol} {tls} {traffic:?}");
        }
    }

    #[test]
    fn clear_and_encrypted_protocols_do_not_mix() {
        let bad =
            |protocol: &str, tls| impossible(Some(&protocol.to_owned().into()), tls).is_some();
        assert!(bad("H2C", true) && bad("HTTP2", false) && bad("WSS", false) && bad("QUIC", true));
        assert!(!bad("H2C", false) && !bad("HTTP2", true) && !bad("TCP", true));
    }
}
