//! The server's side of TLS.

use std::cell::OnceCell;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::{ProtocolVersion, ServerConfig};
use rustls_pki_types::CertificateDer;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::peeked::Peeked;
use super::timer::timeout;
use crate::policy::certificate::Names;

/// What a handshake told.
#[derive(Debug)]
pub struct Tls {
    /// The server name that the client asked for, in lower case.
    pub sni: Option<Box<str>>,
    pub version: Option<&'static str>,
    pub is_http2: bool,
    /// The certificate that the client has shown, only if it was verified; and its names, once
    /// somebody asks.
    client: Option<CertificateDer<'static>>,
    names: OnceCell<Option<Names>>,
}

impl Tls {
    /// The names in the client's certificate, if it was verified.
    pub fn client_names(&self) -> Option<&Names> {
        let der = self.client.as_ref()?;
        self.names.get_or_init(|| Names::read(der)).as_ref()
    }
}

/// Does the handshake with the certificates of this moment. Whose `config` verifies no clients,
/// believes nothing that they show.
pub async fn accept(
    stream: Peeked,
    config: &Arc<ServerConfig>,
    verifies_clients: bool,
    limit: Duration,
) -> io::Result<(TlsStream<Peeked>, Tls)> {
    let accepting = TlsAcceptor::from(Arc::clone(config)).accept(stream);
    let stream = timeout(limit, accepting).await.map_err(|_| io::ErrorKind::TimedOut)??;
    let session = stream.get_ref().1;
    let sni = session
        .server_name()
        .map(|name| name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase().into());
    let version = match session.protocol_version() {
        Some(ProtocolVersion::TLSv1_3) => Some("TLSv1.3"),
        Some(ProtocolVersion::TLSv1_2) => Some("TLSv1.2"),
        _ => None,
    };
    let is_http2 = session.alpn_protocol() == Some(b"h2");
    let shown = session.peer_certificates().and_then(<[_]>::first);
    let client = shown.filter(|_| verifies_clients).map(|der| der.clone().into_owned());
    let names = OnceCell::new();
    Ok((stream, Tls { sni, version, is_http2, client, names }))
}
