//! The client's side of TLS to backends: whom it believes, what it offers, and who it is.
//!
//! A [`TlsSpec`] says it in words, a [`BackendTls`] is what connections are made with. Equal
//! specs have equal identities, and only connections of one identity are shared.

use std::sync::{Arc, OnceLock};

use aws_lc_rs::digest;
use rustls::RootCertStore;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};

use super::tls::provider;
use super::verify::{TakeAll, ToNames};

/// A TLS client's side, prebuilt.
#[derive(Debug)]
pub struct BackendTls {
    pub config: Arc<rustls::ClientConfig>,
    pub server_name: ServerName<'static>,
    /// Equal identities may share connections: a digest of everything in `config`.
    pub identity: u64,
}

/// How TLS to a backend is to be spoken.
#[derive(Clone, Debug)]
pub struct TlsSpec {
    /// A host name or an address; a host name is sent as SNI (RFC 6066, 3).
    pub server_name: String,
    pub roots: Roots,
    pub verify: Verify,
    pub alpn: Alpn,
    /// TLS 1.2 is not offered.
    pub only_tls13: bool,
    /// Shown if the backend asks for a certificate.
    pub client: Option<Arc<CertifiedKey>>,
}

/// Whose certificates a TLS client believes.
#[derive(Clone, Debug)]
pub enum Roots {
    /// The certificate authorities of the machine or image.
    System,
    /// These, shared by all who believe them.
    Own(Arc<Bundle>),
}

impl Roots {
    /// The certificates of a bundle in PEM.
    ///
    /// # Errors
    /// Those of [`Bundle::new`].
    pub fn pem(pem: &[u8]) -> Result<Self, String> {
        Ok(Roots::Own(Arc::new(Bundle::new(pem)?)))
    }
}

/// Certificates of authorities, ready for use. They may be many, so they are kept once.
#[derive(Debug)]
pub struct Bundle {
    pub store: Arc<RootCertStore>,
    /// Of what they were made of.
    digest: [u8; 32],
}

impl Bundle {
    /// Reads PEM; there must be at least one certificate, and all must be good.
    ///
    /// # Errors
    /// A message for the user.
    pub fn new(pem: &[u8]) -> Result<Self, String> {
        let mut store = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| format!("not PEM: {error}"))?;
            store.add(certificate).map_err(|error| format!("not a CA certificate: {error}"))?;
        }
        if store.is_empty() {
            return Err("there is no certificate; put PEM blocks `BEGIN CERTIFICATE` there".into());
        }
        Ok(Bundle { store: Arc::new(store), digest: sha256(pem) })
    }

    /// The certificates of all of them.
    pub fn joined(bundles: &[Arc<Bundle>]) -> Arc<Self> {
        if let [one] = bundles {
            return Arc::clone(one);
        }
        let (mut store, mut digests) = (RootCertStore::empty(), Vec::new());
        for bundle in bundles {
            store.extend(bundle.store.roots.iter().cloned());
            digests.extend(bundle.digest);
        }
        Arc::new(Bundle { store: Arc::new(store), digest: sha256(&digests) })
    }
}

/// SHA-256.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = digest::digest(&digest::SHA256, bytes);
    *digest.as_ref().first_chunk().expect("SHA-256 has 32 bytes")
}

/// What a certificate must show besides a chain to one of the roots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verify {
    /// Nothing, not even the chain: every certificate is taken.
    Nothing,
    /// The server name.
    ServerName,
    /// At least one of these subject alternative names; the server name is only sent.
    Names(Vec<SubjectName>),
}

/// A subject alternative name (RFC 5280, 4.2.1.6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubjectName {
    /// A host name: a certificate for a wildcard that covers it is good, too (RFC 9525, 6.3).
    Dns(ServerName<'static>),
    /// `*.example.com` is written as `example.com` here: any name below it.
    Below(String),
    /// Compared byte by byte, as SPIFFE wants it.
    Uri(String),
}

/// What is agreed on in the handshake (RFC 7301).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Alpn {
    /// HTTP/2, or else HTTP/1.1.
    Http,
    Http1,
    Http2,
    /// Nothing: the bytes are somebody else's.
    None,
}

impl TlsSpec {
    /// Verified by its name, for HTTP.
    pub fn new(server_name: impl Into<String>, roots: Roots) -> Self {
        TlsSpec {
            server_name: server_name.into(),
            roots,
            verify: Verify::ServerName,
            alpn: Alpn::Http,
            only_tls13: false,
            client: None,
        }
    }

    /// A cryptographic digest: nobody may build a configuration that shares the connections of
    /// another one.
    pub fn identity(&self) -> u64 {
        let mut context = digest::Context::new(&digest::SHA256);
        // Each part with its length, so that no part can look like what follows it.
        let mut put = |part: &[u8]| {
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part);
        };
        put(self.server_name.as_bytes());
        put(&[self.alpn as u8, u8::from(self.only_tls13)]);
        match &self.verify {
            Verify::Nothing => put(b"nothing"),
            Verify::ServerName => put(b"server name"),
            Verify::Names(names) => {
                names.iter().for_each(|name| put(format!("{name:?}").as_bytes()))
            }
        }
        match &self.roots {
            Roots::System => put(b"system"),
            Roots::Own(bundle) => put(&bundle.digest),
        }
        // A certificate holds its public key, and so tells keys apart as well.
        for certificate in self.client.iter().flat_map(|client| &client.cert) {
            put(certificate);
        }
        let start = context.finish().as_ref().first_chunk().copied();
        u64::from_le_bytes(start.expect("SHA-256 has more than 8 bytes"))
    }
}

impl BackendTls {
    /// The client's side of TLS to `server_name` (a host name or an address): TLS 1.2 and 1.3,
    /// HTTP/2 or HTTP/1.1 by ALPN. Without `verify` every certificate is taken.
    ///
    /// # Errors
    /// Those of [`BackendTls::of`].
    pub fn new(server_name: &str, roots: &Roots, verify: bool) -> Result<Self, String> {
        let verify = if verify { Verify::ServerName } else { Verify::Nothing };
        BackendTls::of(&TlsSpec { verify, ..TlsSpec::new(server_name, roots.clone()) })
    }

    /// What the spec says, ready for use.
    ///
    /// # Errors
    /// A message for the user: the name is none, or there is no usable certificate in `roots`.
    pub fn of(spec: &TlsSpec) -> Result<Self, String> {
        let name = &spec.server_name;
        let server_name = ServerName::try_from(name.clone())
            .map_err(|_| format!("{name:?} is not a host name or an IP address"))?;
        let versions: &[_] = if spec.only_tls13 { &[&TLS13] } else { &[&TLS13, &TLS12] };
        let builder = rustls::ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .map_err(|error| error.to_string())?;
        let builder = match &spec.verify {
            Verify::Nothing => {
                builder.dangerous().with_custom_certificate_verifier(Arc::new(TakeAll))
            }
            Verify::ServerName => builder.with_root_certificates(trusted(&spec.roots)?),
            Verify::Names(names) => {
                let verifier = ToNames::new(trusted(&spec.roots)?, names.clone());
                builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
            }
        };
        let mut config = match &spec.client {
            None => builder.with_no_client_auth(),
            Some(client) => {
                let client = SingleCertAndKey::from(Arc::clone(client));
                builder.with_client_cert_resolver(Arc::new(client))
            }
        };
        config.alpn_protocols = match spec.alpn {
            Alpn::Http => super::tls::alpn(),
            Alpn::Http1 => vec![b"http/1.1".to_vec()],
            Alpn::Http2 => vec![b"h2".to_vec()],
            Alpn::None => Vec::new(),
        };
        Ok(BackendTls { config: Arc::new(config), server_name, identity: spec.identity() })
    }
}

fn trusted(roots: &Roots) -> Result<Arc<RootCertStore>, String> {
    match roots {
        Roots::System => system_roots(),
        Roots::Own(bundle) => Ok(Arc::clone(&bundle.store)),
    }
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

#[cfg(test)]
mod tests {
    use rustls::server::WebPkiClientVerifier;

    use super::*;
    use crate::graph::testing::{certified, pem};

    fn own(name: &str) -> Roots {
        Roots::pem(pem(name).0.as_bytes()).unwrap()
    }

    #[test]
    fn equal_tls_has_one_identity_and_any_difference_another() {
        let one = TlsSpec::new("a.example", own("ca.example"));
        assert_eq!(one.identity(), one.clone().identity());
        let uri = |uri: &str| Verify::Names(vec![SubjectName::Uri(uri.into())]);
        let others = [
            TlsSpec { server_name: "b.example".into(), ..one.clone() },
            TlsSpec { verify: Verify::Nothing, ..one.clone() },
            TlsSpec { verify: uri("a:b"), ..one.clone() },
            TlsSpec { verify: uri("a:c"), ..one.clone() },
            TlsSpec { roots: Roots::System, ..one.clone() },
            TlsSpec { roots: own("ca.example"), ..one.clone() },
            TlsSpec { alpn: Alpn::Http2, ..one.clone() },
            TlsSpec { only_tls13: true, ..one.clone() },
            TlsSpec { client: Some(certified("one.example")), ..one.clone() },
            TlsSpec { client: Some(certified("one.example")), ..one.clone() },
        ];
        let mut all: Vec<u64> = others.iter().map(TlsSpec::identity).collect();
        all.push(one.identity());
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), others.len() + 1);
    }

    #[test]
    fn names_and_bundles_that_cannot_be_used_are_refused() {
        assert!(Bundle::new(b"").unwrap_err().contains("no certificate"));
        let bad = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(Bundle::new(bad).unwrap_err().contains("not a CA certificate"));
        let message = BackendTls::new("not a name", &own("a.example"), true).unwrap_err();
        assert!(message.contains("host name"), "{message}");
    }

    #[test]
    fn joined_bundles_believe_whom_each_believes() {
        let new = || Arc::new(Bundle::new(pem("a.example").0.as_bytes()).unwrap());
        let (a, b) = (new(), new());
        let joined = Bundle::joined(&[Arc::clone(&a), b]);
        assert_eq!(joined.store.len(), 2);
        assert_ne!(joined.digest, a.digest);
        assert_eq!(Bundle::joined(&[Arc::clone(&a)]).digest, a.digest);
    }

    /// A handshake with a server for `a.example` that believes `clients`, if it is given; returns
    /// whether it saw a certificate.
    fn shake(spec: TlsSpec, clients: Option<&Arc<CertifiedKey>>) -> Result<bool, rustls::Error> {
        let verifier = clients.map(|client| {
            let mut store = RootCertStore::empty();
            store.add(client.cert[0].clone()).unwrap();
            WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider())
                .build()
                .unwrap()
        });
        let verifier = verifier.unwrap_or_else(WebPkiClientVerifier::no_client_auth);
        let config = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS12])
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified("a.example"))));
        let tls = BackendTls::of(&spec).unwrap();
        let mut client = rustls::ClientConnection::new(tls.config, tls.server_name).unwrap();
        let mut server = rustls::ServerConnection::new(Arc::new(config)).unwrap();
        while client.is_handshaking() || server.is_handshaking() {
            let mut wire = Vec::new();
            client.write_tls(&mut wire).unwrap();
            server.read_tls(&mut &*wire).unwrap();
            server.process_new_packets()?;
            let mut wire = Vec::new();
            server.write_tls(&mut wire).unwrap();
            client.read_tls(&mut &*wire).unwrap();
            client.process_new_packets()?;
        }
        Ok(server.peer_certificates().is_some())
    }

    #[test]
    fn the_client_certificate_is_shown_to_who_asks_for_one() {
        let spec = TlsSpec { verify: Verify::Nothing, ..TlsSpec::new("a.example", Roots::System) };
        let client = certified("client.example");
        assert!(shake(spec.clone(), Some(&client)).is_err());
        let shows = TlsSpec { client: Some(Arc::clone(&client)), ..spec };
        assert_eq!(shake(shows.clone(), Some(&client)), Ok(true));
        assert_eq!(shake(shows, None), Ok(false));
    }

    #[test]
    fn the_older_version_of_tls_can_be_left_out() {
        let spec = TlsSpec { verify: Verify::Nothing, ..TlsSpec::new("a.example", Roots::System) };
        assert!(shake(spec.clone(), None).is_ok());
        assert!(shake(TlsSpec { only_tls13: true, ..spec }, None).is_err());
    }
}
