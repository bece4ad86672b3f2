//! Ports of Services as backends.
//!
//! How a port is spoken to is said by the Service: its `appProtocol`, and, for TLS, the
//! annotations below. An Ingress may say the protocol by an annotation of its own.

use k8s_openapi::api::core::v1::{Service, ServicePort};

use super::backends::{Client, Port, Traffic, Unresolved, Wire, backend_key};
use super::endpoints::{Transport, addresses, external_name, port_of};
use super::gateway::GatewayState;
use super::memo::Recall;
use super::pass::{Pass, map_of};
use super::status::Problem;
use super::{Key, ObjectKind, Snapshot};
use crate::graph::{Backend, BackendId, Balance, Roots, TlsSpec, Verify};
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
    /// The backend of a Service port, through a Gateway; `wire` stands above what the Service
    /// says, and a BackendTLSPolicy above both.
    ///
    /// # Errors
    /// Why there is none.
    pub fn service_port(
        &mut self,
        key: &Key,
        port: Port<'_>,
        wire: Option<Wire>,
        traffic: Traffic,
        gateway: Option<&GatewayState<'s>>,
    ) -> Result<BackendId, Unresolved> {
        let snapshot = self.snapshot;
        let Some(service) = snapshot.services.get(key) else {
            let message = format!("Service {key} does not exist; create it");
            return Err(Unresolved::new(Reason::BackendNotFound, message));
        };
        let number = number_of(key, service, port, traffic)?;
        let declared = port_of(service, number, traffic.transport());
        let policy = match traffic.obeys_policies() {
            true => self.tls_policies.spec(key, declared.and_then(|port| port.name.as_deref()))?,
            false => None,
        };
        let wire = match (policy, wire) {
            (Some(_), _) => Wire::Tls(traffic.alpn()),
            (None, Some(wire)) => wire,
            (None, None) => spoken(key, declared, traffic)?,
        };
        let client = Client::of(gateway, wire);
        let context = client.as_ref().map(|client| client.gateway.clone());
        let id = ("Service", key.clone(), number, wire, context);
        let resolved = match self.backends.known.get(&id) {
            Some(known) => known.clone(),
            None => {
                let policy = policy.cloned();
                let resolved = self.resolve(key, service, (number, wire), policy, client);
                self.backends.known.insert(id, resolved.clone());
                resolved
            }
        };
        // What is noted about it is noted for the first who comes.
        if self.noted_services.contains(key) {
            self.carrying.trace.lose();
        }
        if let Ok(id) = resolved {
            self.graph.uses(id);
        }
        resolved
    }

    fn resolve(
        &mut self,
        key: &Key,
        service: &Service,
        (port, wire): (u16, Wire),
        policy: Option<TlsSpec>,
        client: Option<Client>,
    ) -> Result<BackendId, Unresolved> {
        if external_name(service).is_some() && !self.snapshot.settings.external_names {
            let message = format!(
                "Service {key} is of type ExternalName, which is not allowed here; start \
                 Tidegate with ExternalName Services allowed, or name another Service"
            );
            return Err(Unresolved::new(Reason::UnsupportedValue, message));
        }
        let tls = match policy {
            Some(tls) => tls,
            None if matches!(wire, Wire::Tls(_)) => {
                annotated(self.snapshot, &mut self.memo, key, service)?
            }
            None => TlsSpec::new("", Roots::System),
        };
        let protocol = self.protocol(wire, &client, tls).map_err(|message| {
            let message = format!("Service {key}: annotation {TLS_HOSTNAME}: {message}");
            Unresolved::new(Reason::InvalidPolicy, message)
        })?;
        let id = backend_key("Service", key, port, wire, &client);
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
        let asked = self.traffic_policies.of("Service", key);
        let made = || Backend {
            balance,
            session: asked.session,
            retry_budget: asked.budget,
            ..Backend::new(id.clone(), protocol, &endpoints)
        };
        Ok(self.graph.backend(&id, made))
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
}

/// TLS as the annotations of a Service say it.
fn annotated(
    snapshot: &Snapshot,
    memo: &mut Recall<'_>,
    key: &Key,
    service: &Service,
) -> Result<TlsSpec, Unresolved> {
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
            let data = snapshot.secrets.get(&secret).and_then(|s| s.data.as_ref());
            let ca = data.and_then(|data| data.get("ca.crt"));
            let missing =
                || format!("Secret {secret} with the key ca.crt does not exist; create it");
            let ca = ca.ok_or_else(|| invalid(TLS_SECRET, missing()))?;
            let bundle = memo.bundle(&ca.0);
            Roots::Own(bundle.map_err(|message| invalid(TLS_SECRET, message))?)
        }
    };
    let own = format!("{}.{}.svc", key.name, key.namespace);
    let hostname = annotations.get(TLS_HOSTNAME).unwrap_or(&own);
    Ok(TlsSpec { verify, ..TlsSpec::new(hostname, roots) })
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
