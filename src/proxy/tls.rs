//! The server's side of TLS.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::{ProtocolVersion, ServerConfig};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::peeked::Peeked;
use super::timer::timeout;

/// What a handshake told.
#[derive(Debug)]
pub struct Tls {
    /// The server name that the client asked for, in lower case.
    pub sni: Option<Box<str>>,
    pub version: Option<&'static str>,
    pub is_http2: bool,
}

/// Does the handshake with the certificates of this moment.
pub async fn accept(
    stream: Peeked,
    config: &Arc<ServerConfig>,
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
    Ok((stream, Tls { sni, version, is_http2 }))
}
