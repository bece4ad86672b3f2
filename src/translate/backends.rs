//! References to Services, resolved to the graph's backends.
//!
//! How a backend is spoken to is said by the Service: `appProtocol` of the port, and, for TLS,
//! the annotations below. An Ingress may say the protocol by an annotation of its own.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service, ServicePort};

use super::endpoints::{SliceIndex, addresses, external_name, index, port_of};
use super::pass::{Pass, map_of};
use super::references::{From, To};
use super::status::Problem;
use super::{Key, ObjectKind, Snapshot};
use crate::api::gateway::BackendObjectReference;
use crate::graph::{Backend, BackendId, BackendKey, BackendProtocol, BackendTls, Balance, Roots};
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

/// How a backend is spoken to, before its TLS is prepared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Speaks {
    Http1,
    H2c,
    Tls,
}

impl Speaks {
    /// By `appProtocol` (KEP-3726, GEP-1911); None: a protocol that we do not speak.
    fn by_app_protocol(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "" | "http" | "ws" | "kubernetes.io/ws" => Some(Speaks::Http1),
            "h2c" | "http2" | "grpc" | "kubernetes.io/h2c" => Some(Speaks::H2c),
            "https" | "kubernetes.io/https" | "kubernetes.io/wss" => Some(Speaks::Tls),
            _ => None,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Speaks::Http1 => "http1",
            Speaks::H2c => "h2c",
            Speaks::Tls => "tls",
        }
    }
}

/// Why a reference leads nowhere. `reason` is also the condition's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unresolved {
    pub reason: Reason,
    pub message: String,
}

impl Unresolved {
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Unresolved { reason, message: message.into() }
    }
}

/// A Service port by number or by name.
#[derive(Clone, Copy, Debug)]
pub(super) enum Port<'a> {
    Number(i32),
    Name(&'a str),
}

/// What every reference to a Service needs.
#[derive(Debug)]
pub(super) struct Backends<'s> {
    slices: SliceIndex<'s>,
    known: HashMap<(Key, u16, Option<Speaks>), Result<BackendId, Unresolved>>,
}

impl<'s> Backends<'s> {
    pub fn new(snapshot: &'s Snapshot) -> Self {
        Backends { slices: index(&snapshot.endpoint_slices), known: HashMap::new() }
    }
}

impl Pass<'_> {
    /// The backend that a route's reference names.
    pub fn backend_of(
        &mut self,
        from: From<'_>,
        reference: &BackendObjectReference,
    ) -> Result<BackendId, Unresolved> {
        let group = reference.group.as_deref().unwrap_or_default();
        let kind = reference.kind.as_deref().unwrap_or("Service");
        if !group.is_empty() || kind != "Service" {
            let of = if group.is_empty() { "the core group" } else { group };
            let message = format!("kind {kind} of {of} cannot be a backend; use a Service");
            return Err(Unresolved::new(Reason::InvalidKind, message));
        }
        let namespace = reference.namespace.as_deref().unwrap_or(from.namespace);
        let name = reference.name.as_str();
        if !self.grants.permit(from, To { group, kind, namespace, name }) {
            let message = format!(
                "Service {namespace}/{name} is in another namespace and no ReferenceGrant there \
                 allows {} of {}; ask its owner for one",
                from.kind, from.namespace
            );
            return Err(Unresolved::new(Reason::RefNotPermitted, message));
        }
        let Some(port) = reference.port else {
            let message = format!("Service {namespace}/{name} is named without a port; set it");
            return Err(Unresolved::new(Reason::BackendNotFound, message));
        };
        self.service_port(&Key::new(namespace, name), Port::Number(port), None)
    }

    /// The backend of a Service port; `speaks` stands above what the Service says.
    pub fn service_port(
        &mut self,
        key: &Key,
        port: Port<'_>,
        speaks: Option<Speaks>,
    ) -> Result<BackendId, Unresolved> {
        let snapshot = self.snapshot;
        let Some(service) = snapshot.services.get(key) else {
            let message = format!("Service {key} does not exist; create it");
            return Err(Unresolved::new(Reason::BackendNotFound, message));
        };
        let number = number_of(key, service, port)?;
        let id = (key.clone(), number, speaks);
        if let Some(known) = self.backends.known.get(&id) {
            return known.clone();
        }
        let resolved = self.resolve(key, service, number, speaks);
        self.backends.known.insert(id, resolved.clone());
        resolved
    }

    fn resolve(
        &mut self,
        key: &Key,
        service: &Service,
        port: u16,
        speaks: Option<Speaks>,
    ) -> Result<BackendId, Unresolved> {
        if external_name(service).is_some() && !self.snapshot.settings.external_names {
            let message = format!(
                "Service {key} is of type ExternalName, which is not allowed here; start \
                 Tidegate with ExternalName Services allowed, or name another Service"
            );
            return Err(Unresolved::new(Reason::UnsupportedValue, message));
        }
        let speaks = match speaks {
            Some(speaks) => speaks,
            None => spoken(key, port_of(service, port))?,
        };
        let protocol = match speaks {
            Speaks::Http1 => BackendProtocol::Http1,
            Speaks::H2c => BackendProtocol::H2c,
            Speaks::Tls => BackendProtocol::Tls(self.backend_tls(key, service)?),
        };
        let id = BackendKey {
            kind: "Service",
            namespace: key.namespace.as_str().into(),
            service: key.name.as_str().into(),
            port,
            protocol: speaks.as_str(),
            context: None,
        };
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

    fn backend_tls(&self, key: &Key, service: &Service) -> Result<Arc<BackendTls>, Unresolved> {
        let annotations = map_of(service.metadata.annotations.as_ref());
        let invalid = |annotation: &str, message: String| {
            let message = format!("Service {key}: annotation {annotation}: {message}");
            Unresolved::new(Reason::InvalidPolicy, message)
        };
        let verify = match annotations.get(TLS_VERIFY).map(String::as_str) {
            None | Some("true") => true,
            Some("false") => false,
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
        let tls = BackendTls::new(hostname, &roots, verify).map_err(|message| {
            let annotation = match roots {
                Roots::Pem(_) => TLS_SECRET,
                Roots::System => TLS_HOSTNAME,
            };
            invalid(annotation, message)
        })?;
        Ok(Arc::new(tls))
    }
}

/// The number of a port that the Service has.
fn number_of(key: &Key, service: &Service, port: Port<'_>) -> Result<u16, Unresolved> {
    let declared = service.spec.as_ref().and_then(|spec| spec.ports.as_ref());
    let found = match port {
        Port::Number(number) => {
            let number = u16::try_from(number).ok().filter(|number| *number > 0);
            // ExternalName Services need not list ports.
            let any = external_name(service).is_some() && declared.is_none_or(Vec::is_empty);
            number.filter(|number| any || port_of(service, *number).is_some())
        }
        Port::Name(name) => declared
            .into_iter()
            .flatten()
            .find(|port| port.name.as_deref() == Some(name))
            .and_then(|port| u16::try_from(port.port).ok()),
    };
    found.ok_or_else(|| {
        let port = match port {
            Port::Number(number) => number.to_string(),
            Port::Name(name) => format!("{name:?}"),
        };
        let message = format!("Service {key} has no port {port}; name one that it has");
        Unresolved::new(Reason::BackendNotFound, message)
    })
}

/// What the Service says is spoken on its port.
fn spoken(key: &Key, port: Option<&ServicePort>) -> Result<Speaks, Unresolved> {
    let unsupported = |what: &str, hint: &str| {
        let message = format!("Service {key}: {what} is not supported; {hint}");
        Unresolved::new(Reason::UnsupportedProtocol, message)
    };
    let Some(port) = port else { return Ok(Speaks::Http1) };
    if let Some(transport) = port.protocol.as_deref().filter(|transport| *transport != "TCP") {
        return Err(unsupported(&format!("protocol {transport}"), "use a TCP port"));
    }
    let app = port.app_protocol.as_deref().unwrap_or_default();
    Speaks::by_app_protocol(app).ok_or_else(|| {
        let hint = "leave it out for HTTP/1.1, or use kubernetes.io/h2c, kubernetes.io/ws, \
                    kubernetes.io/wss or https";
        unsupported(&format!("appProtocol {app:?}"), hint)
    })
}
