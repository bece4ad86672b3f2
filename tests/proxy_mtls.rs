//! Certificates of clients: who has to show one, and that nobody gets around it.

#![allow(clippy::unwrap_used, reason = "a panic here is a failed test")]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, ProtocolVersion, StreamOwned};
use support::*;
use tidegate::graph::{
    BackendTls, ClientAuth, HostMap, ListenerTls, Protocol, Roots, certified_key,
};

/// A certificate authority.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    /// A client's certificate and key.
    fn client(&self) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let mut params = CertificateParams::new(vec!["client.test".to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.0).unwrap();
        (cert.der().clone(), PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap())
    }
}

fn proxy(clients: &ClientAuth, backend: &RawBackend, shown: &(String, String)) -> Proxy {
    let certified = certified_key(shown.0.as_bytes(), shown.1.as_bytes()).unwrap();
    let mut map = HostMap::default();
    map.insert("a.test", Arc::new(certified));
    let port = free_port();
    let tls = Protocol::Tls(Arc::new(ListenerTls::new(port, map, None, clients)));
    Proxy::start(Graph::with(port, tls).all_to(&[backend.addr]))
}

/// A client that believes every server, with or without a certificate of its own.
fn client(own: Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>) -> Arc<ClientConfig> {
    let any = BackendTls::new("any.test", &Roots::System, false).unwrap();
    let mut config = ClientConfig::clone(&any.config);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    if let Some((cert, key)) = own {
        let builder = ClientConfig::builder_with_provider(Arc::clone(any.config.crypto_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty());
        let with_cert = builder.with_client_auth_cert(vec![cert], key).unwrap();
        config.client_auth_cert_resolver = with_cert.client_auth_cert_resolver;
    }
    config.resumption = rustls::client::Resumption::in_memory_sessions(8);
    Arc::new(config)
}

/// Asks once; the status, or that the server let nobody in.
fn ask(proxy: &Proxy, config: &Arc<ClientConfig>) -> Result<(u16, HandshakeKind), std::io::Error> {
    let name = ServerName::try_from("a.test").unwrap();
    let connection = ClientConnection::new(Arc::clone(config), name).unwrap();
    let stream = TcpStream::connect(proxy.addr()).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let mut tls = StreamOwned::new(connection, stream);
    tls.write_all(b"GET / HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n\r\n")?;
    let mut seen = Vec::new();
    // With TLS 1.3 the refusal comes only now.
    let ended = tls.read_to_end(&mut seen);
    let text = String::from_utf8_lossy(&seen).into_owned();
    if text.is_empty() {
        ended?;
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok((status(&text), tls.conn.handshake_kind().unwrap()))
}

#[test]
fn only_certificates_of_the_ports_authorities_are_let_in() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let both = format!("{}{}", ours.pem(), Authority::new().pem());
    let (backend, shown) = (RawBackend::named("in"), certificate(&["a.test"]));
    let required = ClientAuth::require(both.as_bytes()).unwrap();
    let proxy = proxy(&required, &backend, &shown);
    assert_eq!(ask(&proxy, &client(Some(ours.client()))).unwrap().0, 200);
    assert!(ask(&proxy, &client(Some(theirs.client()))).is_err());
    assert!(ask(&proxy, &client(None)).is_err());
    proxy.wait("both are counted", |proxy| proxy.metric("tidegate_handshakes_failed_total") > 1.0);
}

#[test]
fn where_certificates_are_only_asked_for_everybody_is_let_in() {
    let (backend, shown) = (RawBackend::named("in"), certificate(&["a.test"]));
    let proxy = proxy(&ClientAuth::Offer, &backend, &shown);
    for own in [None, Some(Authority::new().client())] {
        assert_eq!(ask(&proxy, &client(own)).unwrap().0, 200);
    }
}

#[test]
fn a_session_of_an_open_port_opens_no_other() {
    let (backend, shown) = (RawBackend::named("in"), certificate(&["a.test"]));
    let ours = Authority::new();
    let open = proxy(&ClientAuth::None, &backend, &shown);
    let required = ClientAuth::require(ours.pem().as_bytes()).unwrap();
    let closed = proxy(&required, &backend, &shown);
    for version in [ProtocolVersion::TLSv1_3, ProtocolVersion::TLSv1_2] {
        let config = with_version(&client(None), version);
        assert_eq!(ask(&open, &config).unwrap(), (200, HandshakeKind::Full));
        assert_eq!(ask(&open, &config).unwrap(), (200, HandshakeKind::Resumed), "{version:?}");
        assert!(ask(&closed, &config).is_err(), "{version:?}");
    }
    let config = client(Some(ours.client()));
    for _ in 0..2 {
        assert_eq!(ask(&closed, &config).unwrap(), (200, HandshakeKind::Full), "verified anew");
    }
}

fn with_version(config: &ClientConfig, version: ProtocolVersion) -> Arc<ClientConfig> {
    let only = if version == ProtocolVersion::TLSv1_3 {
        &rustls::version::TLS13
    } else {
        &rustls::version::TLS12
    };
    let any = BackendTls::new("any.test", &Roots::System, false).unwrap();
    let mut limited = ClientConfig::builder_with_provider(Arc::clone(any.config.crypto_provider()))
        .with_protocol_versions(&[only])
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    limited.alpn_protocols.clone_from(&config.alpn_protocols);
    limited.dangerous().set_certificate_verifier(Arc::new(Believing));
    Arc::new(limited)
}

/// Believes every server.
#[derive(Debug)]
struct Believing;

impl rustls::client::danger::ServerCertVerifier for Believing {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
