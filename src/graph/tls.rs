//! The TLS of a listener: which certificate is shown for which server name.

use std::sync::{Arc, OnceLock};

use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::{ClientAuth, HostMap};

/// A listener's side of TLS, prebuilt: exact server names first, then wildcards.
#[derive(Debug)]
pub struct ListenerTls {
    pub config: Arc<rustls::ServerConfig>,
    /// The same for streams: no protocol is agreed on.
    pub stream_config: Arc<rustls::ServerConfig>,
    /// The same map that `config` resolves by: to learn which name a connection came in under.
    pub certificates: Arc<HostMap<Arc<CertifiedKey>>>,
    /// Every client has shown a certificate that an authority of the port signed.
    pub verifies_clients: bool,
}

impl ListenerTls {
    /// TLS 1.2 and 1.3, HTTP/2 or HTTP/1.1 by ALPN. `certificates` by server name; the one for
    /// every name (the empty pattern) is shown for names that have none of their own, and where
    /// there is no such, their handshakes fail. A client that sends no server name gets that
    /// one too, or else `first`. `clients` says which certificates the clients must have. Sessions
    /// can be taken up again on the same `port`, the one that is bound, only.
    pub fn new(
        port: u16,
        certificates: HostMap<Arc<CertifiedKey>>,
        first: Option<Arc<CertifiedKey>>,
        clients: &ClientAuth,
    ) -> Self {
        let certificates = Arc::new(certificates);
        let nameless = certificates.get_exact("").cloned().or(first);
        let resolver = Resolver { certificates: Arc::clone(&certificates), nameless };
        let mut config = rustls::ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("aws-lc-rs has cipher suites for TLS 1.2 and 1.3")
            .with_client_cert_verifier(clients.verifier())
            .with_cert_resolver(Arc::new(resolver));
        config.alpn_protocols = alpn();
        resumption(&mut config, port, clients);
        let mut stream_config = config.clone();
        stream_config.alpn_protocols = Vec::new();
        let (config, stream_config) = (Arc::new(config), Arc::new(stream_config));
        let verifies_clients = matches!(clients, ClientAuth::Require(_));
        ListenerTls { config, stream_config, certificates, verifies_clients }
    }
}

/// How sessions are taken up again. A resumed session skips the verification of the client, so
/// a port that asks for certificates resumes none: neither one of another port, nor its own
/// whose certificate has expired or whose authority is believed no more.
fn resumption(config: &mut rustls::ServerConfig, port: u16, clients: &ClientAuth) {
    if !matches!(clients, ClientAuth::None) {
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        return;
    }
    if let Some(all) = ticketer() {
        config.ticketer = Arc::new(PortTickets { port, all });
    }
}

/// Tickets of one port. In a resumed session no certificate is shown: taken up on another port,
/// it would let a Gateway pass for any other whose clients somebody leads to it.
#[derive(Debug)]
struct PortTickets {
    port: u16,
    all: Arc<dyn ProducesTickets>,
}

impl ProducesTickets for PortTickets {
    fn enabled(&self) -> bool {
        self.all.enabled()
    }

    fn lifetime(&self) -> u32 {
        self.all.lifetime()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.all.encrypt(&[&self.port.to_be_bytes(), plain].concat())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        let plain = self.all.decrypt(cipher)?;
        plain.strip_prefix(&self.port.to_be_bytes()).map(<[u8]>::to_vec)
    }
}

/// The one crypto library of the process.
pub(super) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider())))
}

pub(super) fn alpn() -> Vec<Vec<u8>> {
    vec![b"h2".to_vec(), b"http/1.1".to_vec()]
}

/// One ticketer for the process, so that a session can be resumed on every worker and under
/// every later graph. Without randomness there are no tickets.
fn ticketer() -> Option<Arc<dyn ProducesTickets>> {
    static TICKETER: OnceLock<Option<Arc<dyn ProducesTickets>>> = OnceLock::new();
    TICKETER.get_or_init(|| rustls::crypto::aws_lc_rs::Ticketer::new().ok()).clone()
}

#[derive(Debug)]
struct Resolver {
    certificates: Arc<HostMap<Arc<CertifiedKey>>>,
    /// For clients that send no server name.
    nameless: Option<Arc<CertifiedKey>>,
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        match hello.server_name() {
            None => self.nameless.clone(),
            Some(name) => self.named(name),
        }
    }
}

impl Resolver {
    fn named(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let name = name.trim_end_matches('.');
        if name.bytes().any(|b| b.is_ascii_uppercase()) {
            return self.certificates.matching(&name.to_ascii_lowercase()).next().cloned();
        }
        self.certificates.matching(name).next().cloned()
    }
}

/// Reads a certificate chain (leaf first) and its private key (PKCS#8, PKCS#1 or SEC1), PEM.
///
/// # Errors
/// A message for the user, without anything of the key: what is missing or unreadable, or that
/// the key is another certificate's.
pub fn certified_key(cert_pem: &[u8], key_pem: &[u8]) -> Result<CertifiedKey, String> {
    let chain = CertificateDer::pem_slice_iter(cert_pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("the certificate is not PEM: {error}"))?;
    if chain.is_empty() {
        return Err("there is no certificate; expected a PEM block `BEGIN CERTIFICATE`".into());
    }
    let key = PrivateKeyDer::from_pem_slice(key_pem).map_err(|error| match error {
        rustls_pki_types::pem::Error::NoItemsFound => {
            "there is no private key; expected a PEM block `BEGIN PRIVATE KEY`".to_owned()
        }
        _ => "the private key is not PEM".to_owned(),
    })?;
    let key = provider()
        .key_provider
        .load_private_key(key)
        .map_err(|_| "the private key cannot be used; use RSA, ECDSA or Ed25519".to_owned())?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {
            Ok(certified)
        }
        Err(rustls::Error::InconsistentKeys(_)) => {
            Err("the private key does not belong to the certificate; put a pair there".into())
        }
        Err(error) => Err(format!("the certificate cannot be read: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use rustls_pki_types::ServerName;

    use super::*;
    use crate::graph::testing::{certified, pem};
    use crate::graph::{BackendTls, Roots};

    /// The certificate that a client is shown, or that its handshake failed.
    fn shown(tls: &ListenerTls, sni: Option<&str>) -> Result<Vec<u8>, rustls::Error> {
        let client = BackendTls::new("unused.example", &Roots::System, false);
        let mut config = (*client.unwrap().config).clone();
        config.enable_sni = sni.is_some();
        let name = ServerName::try_from(sni.unwrap_or("unused.example").to_owned()).unwrap();
        let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        let mut server = rustls::ServerConnection::new(Arc::clone(&tls.config)).unwrap();
        while client.is_handshaking() {
            let mut wire = Vec::new();
            client.write_tls(&mut wire).unwrap();
            server.read_tls(&mut &*wire).unwrap();
            server.process_new_packets()?;
            let mut wire = Vec::new();
            server.write_tls(&mut wire).unwrap();
            client.read_tls(&mut &*wire).unwrap();
            client.process_new_packets()?;
        }
        assert_eq!(client.alpn_protocol(), Some(&b"h2"[..]));
        Ok(client.peer_certificates().unwrap()[0].to_vec())
    }

    #[test]
    fn the_most_specific_certificate_is_shown() {
        let mut map = HostMap::default();
        for name in ["a.example.com", "*.example.com"] {
            map.insert(name, certified(name));
        }
        let der = |pattern: &str| map.get_exact(pattern).unwrap().cert[0].to_vec();
        let (exact, wildcard) = (der("a.example.com"), der("*.example.com"));
        let tls = ListenerTls::new(443, map, None, &ClientAuth::None);
        assert_eq!(shown(&tls, Some("a.example.com")).unwrap(), exact);
        assert_eq!(shown(&tls, Some("A.Example.COM")).unwrap(), exact);
        assert_eq!(shown(&tls, Some("b.c.example.com")).unwrap(), wildcard);
        assert!(shown(&tls, Some("example.com")).is_err());
        assert!(shown(&tls, None).is_err());
    }

    #[test]
    fn a_client_without_server_name_gets_the_default_or_the_first() {
        let (first, default) = (certified("first.example"), certified("default.example"));
        let mut map = HostMap::default();
        map.insert("first.example", Arc::clone(&first));
        let tls = ListenerTls::new(443, map.clone(), Some(Arc::clone(&first)), &ClientAuth::None);
        assert_eq!(shown(&tls, None).unwrap(), first.cert[0].to_vec());
        assert!(shown(&tls, Some("other.example")).is_err());
        map.insert("", Arc::clone(&default));
        let tls = ListenerTls::new(443, map, Some(first), &ClientAuth::None);
        for sni in [None, Some("other.example")] {
            assert_eq!(shown(&tls, sni).unwrap(), default.cert[0].to_vec());
        }
    }

    #[test]
    fn sessions_can_be_resumed_under_a_later_graph_but_not_on_another_port() {
        let tickets = |port| {
            let first = Some(certified("a.example"));
            let tls = ListenerTls::new(port, HostMap::default(), first, &ClientAuth::None);
            Arc::clone(&tls.config.ticketer)
        };
        let ticket = tickets(443).encrypt(b"session").unwrap();
        assert_eq!(tickets(443).decrypt(&ticket).as_deref(), Some(&b"session"[..]));
        assert_eq!(tickets(8443).decrypt(&ticket), None);
    }

    #[test]
    fn a_pair_that_does_not_fit_is_refused() {
        let ((cert, key), (_, other)) = (pem("a.example"), pem("a.example"));
        assert!(certified_key(cert.as_bytes(), key.as_bytes()).is_ok());
        for (cert, key, message) in [
            (&*cert, &*other, "does not belong"),
            ("", &*key, "no certificate"),
            (&*cert, "", "no private key"),
            (&*cert, &*cert, "no private key"),
            (
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
                &*key,
                "certificate",
            ),
            ("-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n", &*key, "not PEM"),
        ] {
            let error = certified_key(cert.as_bytes(), key.as_bytes()).unwrap_err();
            assert!(error.contains(message), "{message}: {error}");
        }
    }
}
