//! Backends, their endpoints, and the client's side of TLS to them.
//!
//! A backend is compiled; its endpoints are live: they are swapped inside the handle that every
//! graph's backend of the same key shares, so endpoint changes need no new graph. How one
//! endpoint is chosen is `proxy::balance`, how it is connected to is `proxy::pool`.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use aws_lc_rs::digest;
use rustc_hash::FxHashMap;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::tls::provider;
use super::{RetryBudget, RetryCounts, Session};

/// [`Backend::connect_timeout`] where nobody says another.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// What identifies a backend over generations: a port of a Service or XBackend, as one protocol.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendKey {
    /// `Service` or `XBackend`.
    pub kind: &'static str,
    pub namespace: Arc<str>,
    pub service: Arc<str>,
    pub port: u16,
    /// Two users of one port may speak different protocols to it (Ingress annotation).
    pub protocol: &'static str,
    /// Tells users apart who speak to one port in different ways: the Gateway whose client
    /// certificate is shown.
    pub context: Option<Arc<str>>,
}

#[derive(Debug)]
pub struct Backend {
    pub key: BackendKey,
    pub protocol: BackendProtocol,
    pub balance: Balance,
    /// From the first SYN to an established connection, TLS included; 3 s by default.
    pub connect_timeout: Duration,
    pub session: Option<Arc<Session>>,
    pub retry_budget: Option<RetryBudget>,
    pub endpoints: Arc<EndpointSet>,
}

impl Backend {
    /// A backend with the defaults for all that nobody has said.
    pub fn new(key: BackendKey, protocol: BackendProtocol, endpoints: &[SocketAddr]) -> Self {
        Backend {
            key,
            protocol,
            balance: Balance::default(),
            connect_timeout: CONNECT_TIMEOUT,
            session: None,
            retry_budget: None,
            endpoints: Arc::new(EndpointSet::of(endpoints)),
        }
    }
}

#[derive(Clone, Debug)]
pub enum BackendProtocol {
    Http1,
    /// HTTP/2 with prior knowledge in clear text (`appProtocol: kubernetes.io/h2c`).
    H2c,
    /// TLS: HTTP/2 or HTTP/1.1 by ALPN, or a stream without ALPN.
    Tls(Arc<BackendTls>),
    /// A stream in clear text.
    Tcp,
    Udp,
}

/// A TLS client's side, prebuilt.
#[derive(Debug)]
pub struct BackendTls {
    pub config: Arc<rustls::ClientConfig>,
    pub server_name: ServerName<'static>,
    /// Equal identities may share connections: a digest of everything in `config`.
    pub identity: u64,
}

/// Whose certificates a TLS client believes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Roots {
    /// The certificate authorities of the machine or image.
    System,
    /// These certificates, PEM.
    Pem(Vec<u8>),
}

impl BackendTls {
    /// The client's side of TLS to `server_name` (a host name or an address): TLS 1.2 and 1.3,
    /// HTTP/2 or HTTP/1.1 by ALPN. Without `verify` every certificate is taken.
    ///
    /// # Errors
    /// A message for the user: the name is none, or there is no usable certificate in `roots`.
    pub fn new(server_name: &str, roots: &Roots, verify: bool) -> Result<Self, String> {
        let name = ServerName::try_from(server_name.to_owned())
            .map_err(|_| format!("{server_name:?} is not a host name or an IP address"))?;
        let builder = rustls::ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let builder = if verify {
            builder.with_root_certificates(trusted(roots)?)
        } else {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(TakeAll))
        };
        let mut config = builder.with_no_client_auth();
        config.alpn_protocols = super::tls::alpn();
        let identity = identity(server_name, roots, verify);
        Ok(BackendTls { config: Arc::new(config), server_name: name, identity })
    }
}

/// A cryptographic digest: nobody may build a configuration that shares the connections of
/// another one.
fn identity(server_name: &str, roots: &Roots, verify: bool) -> u64 {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(server_name.as_bytes());
    // No name contains a line break, so that nothing of the name can look like what follows.
    context.update(if verify { b"\nverify\n" } else { b"\nbelieve\n" });
    if let Roots::Pem(pem) = roots {
        context.update(b"pem\n");
        context.update(pem);
    }
    let start = context.finish().as_ref().first_chunk().copied();
    u64::from_le_bytes(start.expect("SHA-256 has more than 8 bytes"))
}

pub(super) fn trusted(roots: &Roots) -> Result<Arc<RootCertStore>, String> {
    let pem = match roots {
        Roots::System => return system_roots(),
        Roots::Pem(pem) => pem,
    };
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| format!("not PEM: {error}"))?;
        store.add(certificate).map_err(|error| format!("not a CA certificate: {error}"))?;
    }
    if store.is_empty() {
        return Err("there is no certificate; put PEM blocks `BEGIN CERTIFICATE` there".into());
    }
    Ok(Arc::new(store))
}

/// Read once: the files of an image do not change.
fn system_roots() -> Result<Arc<RootCertStore>, String> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let store = ROOTS.get_or_init(|| {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Arc::new(store)
    });
    if store.is_empty() {
        return Err("this machine has no CA certificates; name a CA bundle instead".into());
    }
    Ok(Arc::clone(store))
}

/// Believes every certificate, but still asks for proof of its key.
#[derive(Debug)]
struct TakeAll;

impl ServerCertVerifier for TakeAll {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let supported = &provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, supported)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let supported = &provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, supported)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// Of two random endpoints the one with fewer requests in flight.
    #[default]
    PowerOfTwo,
    RoundRobin,
}

/// The endpoints of one backend, shared by all graphs that know its key.
#[derive(Debug, Default)]
pub struct EndpointSet {
    list: ArcSwap<Vec<Arc<Endpoint>>>,
    /// Where round robin stands; all workers count it together.
    pub next: AtomicU32,
    /// What counts against the budget for retries.
    pub retries: RetryCounts,
}

/// One address, with what is known of it.
#[derive(Debug)]
pub struct Endpoint {
    pub addr: SocketAddr,
    /// Requests sent whose answers are not complete.
    pub in_flight: AtomicU32,
    /// Milliseconds since the epoch until which connecting is not tried, because it failed
    /// lately; 0: healthy.
    pub avoid_until_ms: AtomicU64,
}

impl Endpoint {
    fn new(addr: SocketAddr) -> Arc<Self> {
        let (in_flight, avoid_until_ms) = (AtomicU32::new(0), AtomicU64::new(0));
        Arc::new(Endpoint { addr, in_flight, avoid_until_ms })
    }
}

impl EndpointSet {
    /// The endpoints of this moment.
    pub fn load(&self) -> arc_swap::Guard<Arc<Vec<Arc<Endpoint>>>> {
        self.list.load()
    }

    /// Replaces the addresses; an address that stays keeps its state.
    pub fn replace(&self, addrs: &[SocketAddr]) {
        let old = self.list.load();
        let same = old.len() == addrs.len() && old.iter().zip(addrs).all(|(e, a)| e.addr == *a);
        if same {
            return;
        }
        let known: FxHashMap<SocketAddr, &Arc<Endpoint>> =
            old.iter().map(|e| (e.addr, e)).collect();
        let kept = |addr: &SocketAddr| known.get(addr).map(|endpoint| Arc::clone(endpoint));
        let new = addrs.iter().map(|addr| kept(addr).unwrap_or_else(|| Endpoint::new(*addr)));
        self.list.store(Arc::new(new.collect()));
    }

    /// A set that holds `addrs`.
    pub fn of(addrs: &[SocketAddr]) -> Self {
        let set = EndpointSet::default();
        set.replace(addrs);
        set
    }

    pub fn addrs(&self) -> Vec<SocketAddr> {
        self.list.load().iter().map(|e| e.addr).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;
    use crate::graph::testing::pem;

    fn addr(last: u8) -> SocketAddr {
        ([192, 0, 2, last], 80).into()
    }

    #[test]
    fn an_endpoint_that_stays_keeps_its_state() {
        let set = EndpointSet::of(&[addr(1), addr(2)]);
        set.load()[1].in_flight.store(7, Relaxed);
        set.replace(&[addr(3), addr(2)]);
        assert_eq!(set.addrs(), [addr(3), addr(2)]);
        let counts: Vec<_> = set.load().iter().map(|e| e.in_flight.load(Relaxed)).collect();
        assert_eq!(counts, [0, 7]);
    }

    #[test]
    fn equal_tls_has_one_identity_and_any_difference_another() {
        let (ca, _) = pem("ca.example");
        let of = |name: &str, roots: &Roots, verify| {
            BackendTls::new(name, roots, verify).unwrap().identity
        };
        let roots = Roots::Pem(ca.into_bytes());
        let one = of("a.example", &roots, true);
        assert_eq!(one, of("a.example", &roots, true));
        assert_ne!(one, of("b.example", &roots, true));
        assert_ne!(one, of("a.example", &roots, false));
        assert_ne!(one, of("a.example", &Roots::Pem(pem("ca.example").0.into_bytes()), true));
    }

    #[test]
    fn names_and_roots_that_cannot_be_used_are_refused() {
        let empty = Roots::Pem(Vec::new());
        let message = |name, roots| BackendTls::new(name, roots, true).unwrap_err();
        assert!(message("a.example", &empty).contains("no certificate"));
        assert!(
            message("not a name", &Roots::Pem(pem("a.example").0.into())).contains("host name")
        );
    }
}
