//! A client's connection: TCP, or TLS over it.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, HandshakeKind, SignatureScheme,
    StreamOwned,
};

/// What both kinds of sockets have: mio's for load, std's for holding.
pub trait Socket: Read + Write {}
impl<T: Read + Write> Socket for T {}

pub enum Io<S: Socket> {
    Plain(S),
    Tls(Box<StreamOwned<ClientConnection, S>>),
}

impl<S: Socket> Io<S> {
    pub fn new(socket: S, tls: Option<&Arc<ClientConfig>>) -> anyhow::Result<Self> {
        Ok(match tls {
            None => Io::Plain(socket),
            Some(config) => {
                let name = ServerName::try_from("bench.example")?;
                let connection = ClientConnection::new(Arc::clone(config), name)?;
                Io::Tls(Box::new(StreamOwned::new(connection, socket)))
            }
        })
    }

    /// Whether the handshake resumed an earlier session.
    pub fn resumed(&self) -> bool {
        match self {
            Io::Plain(_) => false,
            Io::Tls(stream) => stream.conn.handshake_kind() == Some(HandshakeKind::Resumed),
        }
    }

    /// None: nothing there yet. 0: the end.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let result = match self {
            Io::Plain(socket) => socket.read(buffer),
            Io::Tls(stream) => stream.read(buffer),
        };
        match result {
            // Many servers close without TLS's own goodbye.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(Some(0)),
            other => patient(other),
        }
    }

    /// None: no room yet.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<Option<usize>> {
        patient(match self {
            Io::Plain(socket) => socket.write(bytes),
            Io::Tls(stream) => stream.write(bytes),
        })
    }
}

fn patient(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(n) => Ok(Some(n)),
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::WouldBlock | ErrorKind::NotConnected | ErrorKind::Interrupted
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// TLS 1.3 with X25519, which every peer has; the server's certificate is not checked, because
/// the client must cost less than the proxy.
pub fn tls(resume: bool) -> anyhow::Result<Arc<ClientConfig>> {
    let provider = Arc::new(CryptoProvider {
        kx_groups: vec![aws_lc_rs::kx_group::X25519],
        cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256],
        ..aws_lc_rs::default_provider()
    });
    let schemes = provider.signature_verification_algorithms.supported_schemes();
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Unchecked(schemes)))
        .with_no_client_auth();
    config.resumption =
        if resume { Resumption::in_memory_sessions(16) } else { Resumption::disabled() };
    Ok(Arc::new(config))
}

#[derive(Debug)]
struct Unchecked(Vec<SignatureScheme>);

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.clone()
    }
}
