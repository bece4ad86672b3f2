//! For the tests of streams: clients and backends that speak TLS, and rules that are not HTTP's.

use std::net::TcpStream;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls::{ClientConnection, ServerConnection, StreamOwned};
use tidegate::graph::{
    BackendProtocol, BackendTls, ClientAuth, HostMap, ListenerTls, Roots, RuleName, certified_key,
};

use super::{Raw, RawBackend};

/// The name of a rule of the route `test/test`.
pub fn rule_name(kind: &'static str) -> RuleName {
    RuleName { kind, namespace: "test".into(), name: "test".into(), rule: "0".into() }
}

/// TLS to backends, whatever certificate they show, without ALPN.
pub fn client_tls(name: &str) -> BackendProtocol {
    let tls = BackendTls::new(name, &Roots::System, false).unwrap();
    let mut config = rustls::ClientConfig::clone(&tls.config);
    config.alpn_protocols.clear();
    BackendProtocol::Tls(Arc::new(BackendTls { config: Arc::new(config), ..tls }))
}

/// A client that has done its handshake.
pub type Tls = StreamOwned<ClientConnection, TcpStream>;

/// Does a handshake on `raw`, for `name` or without a server name.
pub fn handshake(raw: Raw, name: Option<&str>) -> std::io::Result<Tls> {
    let mut tls = StreamOwned::new(client(name), raw.stream);
    tls.conn.complete_io(&mut tls.sock)?;
    Ok(tls)
}

/// A client's side of TLS that believes every certificate.
pub fn client(name: Option<&str>) -> ClientConnection {
    let BackendProtocol::Tls(tls) = client_tls("unused.example") else { unreachable!() };
    let mut config = rustls::ClientConfig::clone(&tls.config);
    config.enable_sni = name.is_some();
    let name = ServerName::try_from(name.unwrap_or("unused.example").to_owned()).unwrap();
    ClientConnection::new(Arc::new(config), name).unwrap()
}

/// The certificate that a client was shown.
pub fn shown(tls: &Tls) -> Vec<u8> {
    tls.conn.peer_certificates().unwrap()[0].to_vec()
}

pub fn der((cert, _): &(String, String)) -> Vec<u8> {
    CertificateDer::from_pem_slice(cert.as_bytes()).unwrap().to_vec()
}

/// A backend that ends TLS with this certificate.
pub fn tls_backend(
    (cert, key): &(String, String),
    serve: impl Fn(StreamOwned<ServerConnection, TcpStream>) + Send + Sync + 'static,
) -> RawBackend {
    let certified = certified_key(cert.as_bytes(), key.as_bytes()).unwrap();
    let mut map = HostMap::default();
    map.insert("", Arc::new(certified));
    let tls = ListenerTls::new(443, map, None, &ClientAuth::None);
    RawBackend::start(move |raw, _| {
        let connection = ServerConnection::new(Arc::clone(&tls.stream_config)).unwrap();
        serve(StreamOwned::new(connection, raw.stream));
    })
}
