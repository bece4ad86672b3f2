//! Ports of Services as backends.
//!
//! How a port is spoken to is said by the Service: its `appProtocol`, and, for TLS, the
//! annotations below. An Ingress may say the protocol by an annotation of its own.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service, ServicePort};

use super::backends::{Port, Traffic, Unresolved, Wire};
use super::endpoints::{Transport, addresses, external_name, port_of};
use super::pass::{Pass, map_of};
use super::status::Problem;
use super::{Key, ObjectKind, Snapshot};
use crate::graph::{
    Alpn, Backend, BackendId, BackendKey, BackendProtocol, BackendTls, Balance, Roots, TlsSpec,
    Verify,
};
use crate::reason::Reason;

/// `"false"`: any certificate of the backends is taken. On a Service; verified by default.
pub const TLS_VERIFY: &str = "tidegate.dev/backend-tls-verify";
/// The host name that the backends' certificate must have and that is sent as SNI. On a
/// Service; `NAME.NAMESPACE.svc` by default.
pub const TLS_HOSTNAME: &str = "tidegate.dev/backend-tls-hostname";
/// A Secret beside the Service whose `ca.crt` signs the backends' certificates; by default the
/// certificate authorities of the image do.
pub const TLS_SECRET: &str = "tidegate.dev/backend-tls-secret";

/// `RoundRobin`, or `PowerOfTwoChoices` (the default). On a Service.
pub const LOAD_BALANCING: &str = "tidegate.dev/load-balancing";

impl<'s> Pass<'s> {
    /// The backend of a Service port; `wire` stands above what the Service says.
    ///
    /// # Errors
    /// Why there is none.
    pub fn service_port(
        &mut self,
        key: &Key,
        port: Port<'_>,
        wire: Option<Wire>,
        traffic: Traffic,
    ) -> Result<BackendId, Unresolved> {
        let snapshot = self.snapshot;
        let Some(service) = snapshot.services.get(key) else {
            let message = format!("Service {key} does not exist; create it");
            return Err(Unresolved::new(Reason::BackendNotFound, message));
        };
        let number = number_of(key, service, port, traffic)?;
        let declared = port_of(service, number, traffic.transport());
        let wire = match wire {
            Some(wire) => wire,
            None => spoken(key, declared, traffic)?,
        };
        let id = ("Service", key.clone(), number, wire, None);
        if let Some(known) = self.backends.known.get(&id) {
            return known.clone();
        }
        let resolved = self.resolve(key, service, number, wire);
        self.backends.known.insert(id, resolved.clone());
        resolved
    }

    fn resolve(
        &mut self,
        key: &Key,
        service: &Service,
        port: u16,
        wire: Wire,
    ) -> Result<BackendId, Unresolved> {
        if external_name(service).is_some() && !self.snapshot.settings.external_names {
            let message = format!(
                "Service {key} is of type ExternalName, which is not allowed here; start \
                 Tidegate with ExternalName Services allowed, or name another Service"
            );
            return Err(Unresolved::new(Reason::UnsupportedValue, message));
        }
        let protocol = match wire {
            Wire::Http1 => BackendProtocol::Http1,
            Wire::H2c => BackendProtocol::H2c,
            Wire::Tcp => BackendProtocol::Tcp,
            Wire::Udp => BackendProtocol::Udp,
            Wire::Tls(alpn) => BackendProtocol::Tls(self.backend_tls(key, service, alpn)?),
        };
        let id = BackendKey {
            kind: "Service",
            namespace: key.namespace.as_str().into(),
            service: key.name.as_str().into(),
            port,
            protocol: wire.as_str(),
            context: None,
        };
        let port = (port, Transport::of(&protocol));
        let slices = self.backends.slices.get(&(&*key.namespace, &*key.name));
        let slices = slices.into_iter().flatten().copied();
        let Snapshot { resolved, settings, .. } = self.snapshot;
        let (endpoints, refused) = addresses(service, port, slices, resolved, settings);
        if let Some(ip) = refused {
            let message = format!(
                "endpoint {ip} is not used, because it is no pod's: a loopback, link-local, \
                 multicast or unspecified address; give the Service another"
            );
            let problem = Problem::new("AddressNotUsable", "", message);
            self.warn(ObjectKind::Service, key, &service.metadata, &problem);
        }
        let balance = self.balance(key, service);
        Ok(self
            .graph
            .backend(&id, || Backend { balance, ..Backend::new(id.clone(), protocol, &endpoints) }))
    }

    /// How its endpoints take turns. A value that we do not know harms nobody: it is told.
    fn balance(&mut self, key: &Key, service: &Service) -> Balance {
        let annotations = map_of(service.metadata.annotations.as_ref());
        match annotations.get(LOAD_BALANCING).map(String::as_str) {
            None | Some("PowerOfTwoChoices") => Balance::PowerOfTwo,
            Some("RoundRobin") => Balance::RoundRobin,
            Some(other) => {
                let message = format!(
                    "{other:?} is not known, and the default is used; write RoundRobin or \
                     PowerOfTwoChoices"
                );
                let field = format!("metadata.annotations[{LOAD_BALANCING}]");
                let problem = Problem::new("UnsupportedValue", field, message);
                self.warn(ObjectKind::Service, key, &service.metadata, &problem);
                Balance::default()
            }
        }
    }

    fn backend_tls(
        &self,
        key: &Key,
        service: &Service,
        alpn: Alpn,
    ) -> Result<Arc<BackendTls>, Unresolved> {
        let annotations = map_of(service.metadata.annotations.as_ref());
        let invalid = |annotation: &str, message: String| {
            let message = format!("Service {key}: annotation {annotation}: {message}");
            Unresolved::new(Reason::InvalidPolicy, message)
        };
        let verify = match annotations.get(TLS_VERIFY).map(String::as_str) {
            None | Some("true") => Verify::ServerName,
            Some("false") => Verify::Nothing,
            Some(other) => {
                let message = format!("{other:?} is neither \"true\" nor \"false\"");
                return Err(invalid(TLS_VERIFY, message));
            }
        };
        let roots = match annotations.get(TLS_SECRET) {
            None => Roots::System,
            Some(name) => {
                let secret = Key::new(&*key.namespace, name);
                let data = self.snapshot.secrets.get(&secret).and_then(|s| s.data.as_ref());
                let ca = data.and_then(|data| data.get("ca.crt"));
                let missing =
                    || format!("Secret {secret} with the key ca.crt does not exist; create it");
                Roots::Pem(ca.ok_or_else(|| invalid(TLS_SECRET, missing()))?.0.clone())
            }
        };
        let own = format!("{}.{}.svc", key.name, key.namespace);
        let hostname = annotations.get(TLS_HOSTNAME).unwrap_or(&own);
        let spec = TlsSpec { verify, alpn, ..TlsSpec::new(hostname, roots) };
        let tls = BackendTls::of(&spec).map_err(|message| {
            let annotation = match spec.roots {
                Roots::Pem(_) => TLS_SECRET,
                Roots::System => TLS_HOSTNAME,
            };
            invalid(annotation, message)
        })?;
        Ok(Arc::new(tls))
    }
}

/// The number of a port that the Service has.
fn number_of(
    key: &Key,
    service: &Service,
    port: Port<'_>,
    traffic: Traffic,
) -> Result<u16, Unresolved> {
    let declared = service.spec.as_ref().and_then(|spec| spec.ports.as_ref());
    let numbered = |number: i32| declared.into_iter().flatten().find(|port| port.port == number);
    let found = match port {
        Port::Number(number) => {
            let number = u16::try_from(number).ok().filter(|number| *number > 0);
            // ExternalName Services need not list ports.
            let any = external_name(service).is_some() && declared.is_none_or(Vec::is_empty);
            number.filter(|number| any || numbered(i32::from(*number)).is_some())
        }
        Port::Name(name) => declared
            .into_iter()
            .flatten()
            .find(|port| port.name.as_deref() == Some(name))
            .and_then(|port| u16::try_from(port.port).ok()),
    };
    let Some(number) = found else {
        let port = match port {
            Port::Number(number) => number.to_string(),
            Port::Name(name) => format!("{name:?}"),
        };
        let message = format!("Service {key} has no port {port}; name one that it has");
        return Err(Unresolved::new(Reason::BackendNotFound, message));
    };
    let other = numbered(i32::from(number))
        .filter(|_| port_of(service, number, traffic.transport()).is_none());
    if let Some(other) = other {
        let transport = other.protocol.as_deref().unwrap_or("TCP");
        let wanted = traffic.transport().as_str();
        let message = format!(
            "Service {key}: port {number} has protocol {transport}, which is not supported here; \
             use a {wanted} port"
        );
        return Err(Unresolved::new(Reason::UnsupportedProtocol, message));
    }
    Ok(number)
}

/// What the Service says is spoken on its port (KEP-3726, GEP-1911).
fn spoken(key: &Key, port: Option<&ServicePort>, traffic: Traffic) -> Result<Wire, Unresolved> {
    let grpc = match traffic {
        Traffic::Http => false,
        Traffic::Grpc => true,
        Traffic::Stream | Traffic::Passthrough => return Ok(Wire::Tcp),
        Traffic::Udp => return Ok(Wire::Udp),
    };
    let app = port.and_then(|port| port.app_protocol.as_deref()).unwrap_or_default();
    let hint = match (app.to_ascii_lowercase().as_str(), grpc) {
        ("" | "http", false) | ("ws" | "kubernetes.io/ws", false) => return Ok(Wire::Http1),
        ("" | "http", true) => return Ok(Wire::H2c),
        ("h2c" | "http2" | "grpc" | "kubernetes.io/h2c", _) => return Ok(Wire::H2c),
        ("https" | "kubernetes.io/https", _) | ("kubernetes.io/wss", false) => {
            return Ok(Wire::Tls(traffic.alpn()));
        }
        (_, false) => {
            "leave it out for HTTP/1.1, or use kubernetes.io/h2c, kubernetes.io/ws, \
             kubernetes.io/wss or https"
        }
        (_, true) => "gRPC needs HTTP/2: leave it out, or use kubernetes.io/h2c or https",
    };
    let message = format!("Service {key}: appProtocol {app:?} is not supported; {hint}");
    Err(Unresolved::new(Reason::UnsupportedProtocol, message))
}
