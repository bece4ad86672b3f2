//! Making a connection: TCP, TLS with the one crypto library of the process, login, database.

use std::sync::{Arc, OnceLock};

use futures_util::future::{BoxFuture, FutureExt as _};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisConnectionInfo};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::config::{Address, ConfigError, Credentials, Tls};
use super::failure::Failure;

/// Questions that may wait for the connection to take them; more wait in turn.
const QUEUE: usize = 1024;

/// A connection, and what must be polled for it to do anything; that ends when it breaks.
pub type Connected = (MultiplexedConnection, BoxFuture<'static, ()>);

/// The client's side of TLS, prebuilt.
pub struct TlsClient {
    connector: TlsConnector,
    /// Instead of the host that is connected to.
    server_name: Option<ServerName<'static>>,
}

impl TlsClient {
    pub fn new(tls: &Tls) -> Result<Self, ConfigError> {
        let server_name = tls.server_name.as_ref().map(|name| {
            let wrong = |_| ConfigError::ServerName(name.chars().take(253).collect());
            ServerName::try_from(name.clone()).map_err(wrong)
        });
        let roots = match &tls.ca {
            Some(pem) => Arc::new(own_roots(pem)?),
            None => system_roots(),
        };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("aws-lc-rs has cipher suites for TLS 1.2 and 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = TlsConnector::from(Arc::new(config));
        Ok(TlsClient { connector, server_name: server_name.transpose()? })
    }
}

fn own_roots(pem: &[u8]) -> Result<RootCertStore, ConfigError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|e| ConfigError::Ca(format!("not PEM: {e}")))?;
        let wrong = |e| ConfigError::Ca(format!("not a CA certificate: {e}"));
        roots.add(certificate).map_err(wrong)?;
    }
    if roots.is_empty() {
        let remedy = "there is no certificate; put PEM blocks `BEGIN CERTIFICATE` there";
        return Err(ConfigError::Ca(remedy.into()));
    }
    Ok(roots)
}

/// Those of the machine or image, read once.
fn system_roots() -> Arc<RootCertStore> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let read = || {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Arc::new(roots)
    };
    Arc::clone(ROOTS.get_or_init(read))
}

/// How to log in.
pub fn login(credentials: &Credentials, database: u32) -> RedisConnectionInfo {
    let mut login =
        RedisConnectionInfo::default().set_db(i64::from(database)).set_skip_set_lib_name();
    if let Some(username) = &credentials.username {
        login = login.set_username(username);
    }
    if let Some(password) = &credentials.password {
        login = login.set_password(password);
    }
    login
}

/// Connects; whoever calls it bounds the time.
pub async fn connect(
    address: &Address,
    tls: Option<&TlsClient>,
    login: &RedisConnectionInfo,
) -> Result<Connected, Failure> {
    let broken = |_| Failure::Broken;
    let stream = TcpStream::connect((&*address.host, address.port)).await.map_err(broken)?;
    stream.set_nodelay(true).map_err(broken)?;
    let Some(tls) = tls else { return greet(stream, login).await };
    let name = match &tls.server_name {
        Some(name) => name.clone(),
        None => ServerName::try_from(address.host.clone()).map_err(|_| Failure::Tls)?,
    };
    let stream = tls.connector.connect(name, stream).await.map_err(|_| Failure::Tls)?;
    greet(stream, login).await
}

async fn greet(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    login: &RedisConnectionInfo,
) -> Result<Connected, Failure> {
    let config = AsyncConnectionConfig::new()
        .set_response_timeout(None)
        .set_connection_timeout(None)
        .set_pipeline_buffer_size(QUEUE);
    let greeted = MultiplexedConnection::new_with_config(login, stream, config).await;
    let (connection, driver) = greeted.map_err(|error| Failure::of(&error))?;
    Ok((connection, driver.boxed()))
}
