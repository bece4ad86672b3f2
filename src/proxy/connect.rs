//! New connections to endpoints: TCP, TLS, and the start of HTTP.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::client::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ClientConfig;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::task::spawn_local;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::http1::client::Conn;
use super::http2::LocalExecutor;
use super::peeked::Peeked;
use super::request_body::RequestBody;
use super::timer::timed;
use super::wire::Wire;
use crate::graph::{BackendProtocol, BackendTls};

/// Bytes of all decoded fields of an answer over HTTP/2, 32 more for each.
const HEADER_LIST: u32 = 64 * 1024;
/// What a backend may send on a stream, and on a connection, before it is taken.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// When a new HTTP/2 connection is looked at for the endpoint's settings.
pub const SETTINGS_AFTER_MS: [u64; 4] = [1, 4, 20, 100];

/// The requesting side of a new connection.
#[derive(Debug)]
pub enum Dialed {
    Http1(Conn),
    Http2(http2::SendRequest<RequestBody>, Rc<Settings>),
}

/// What an HTTP/2 endpoint allows, as far as it has told.
#[derive(Debug)]
pub struct Settings {
    /// Streams at once (SETTINGS_MAX_CONCURRENT_STREAMS).
    pub streams: Cell<usize>,
    /// CONNECT with a protocol (RFC 8441).
    pub extended_connect: Cell<bool>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error(transparent)]
    Socket(#[from] io::Error),
    #[error(transparent)]
    Http(#[from] hyper::Error),
    #[error("the backend is one of streams or datagrams")]
    NotHttp,
}

/// Connects to `addr`. With `http1` TLS offers HTTP/1.1 only.
pub async fn dial(
    addr: SocketAddr,
    protocol: &BackendProtocol,
    http1: bool,
) -> Result<Dialed, DialError> {
    let tcp = TcpStream::connect(addr).await?;
    tune(&SockRef::from(&tcp))?;
    match protocol {
        BackendProtocol::Http1 => Ok(Dialed::Http1(Conn::new(Wire::plain(tcp)))),
        BackendProtocol::H2c => start_http2(Wire::plain(tcp)).await,
        BackendProtocol::Tcp | BackendProtocol::Udp => Err(DialError::NotHttp),
        BackendProtocol::Tls(tls) => {
            let stream = TlsConnector::from(client_config(tls, http1))
                .connect(tls.server_name.clone(), Peeked::from(tcp))
                .await?;
            let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            let io = Wire::tls(stream);
            if is_http2 { start_http2(io).await } else { Ok(Dialed::Http1(Conn::new(io))) }
        }
    }
}

/// Connects to `addr` for a stream: no protocol is agreed on above TCP or TLS.
///
/// # Errors
/// Nobody is there, TLS cannot be agreed on, or the backend is one of HTTP or datagrams.
pub async fn open(addr: SocketAddr, protocol: &BackendProtocol) -> io::Result<Wire> {
    let tls = match protocol {
        BackendProtocol::Tcp => None,
        BackendProtocol::Tls(tls) => Some(tls),
        BackendProtocol::Http1 | BackendProtocol::H2c | BackendProtocol::Udp => {
            return Err(io::Error::other("the backend is not one of streams"));
        }
    };
    let tcp = TcpStream::connect(addr).await?;
    tune(&SockRef::from(&tcp))?;
    let Some(tls) = tls else { return Ok(Wire::plain(tcp)) };
    let connector = TlsConnector::from(Arc::clone(&tls.config));
    let stream = connector.connect(tls.server_name.clone(), Peeked::from(tcp)).await?;
    Ok(Wire::tls(stream))
}

/// No waiting for more bytes to send; a dead peer is noticed within about a minute. Connections
/// that are accepted have it from their listening socket.
pub fn tune(tcp: &SockRef<'_>) -> io::Result<()> {
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(30))
        .with_interval(Duration::from_secs(10))
        .with_retries(3);
    tcp.set_tcp_nodelay(true)?;
    tcp.set_tcp_keepalive(&keepalive)
}

fn client_config(tls: &BackendTls, http1: bool) -> Arc<ClientConfig> {
    if !http1 {
        return Arc::clone(&tls.config);
    }
    let mut config = ClientConfig::clone(&tls.config);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

fn log_end(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to an endpoint ended");
    }
}

async fn start_http2(io: Wire) -> Result<Dialed, DialError> {
    let (sender, connection) = http2::Builder::new(LocalExecutor)
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(STREAM_WINDOW as usize)
        .max_header_list_size(HEADER_LIST)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10))
        .handshake(TokioIo::new(io))
        .await?;
    let settings = Rc::new(Settings {
        streams: Cell::new(connection.current_max_send_streams()),
        extended_connect: Cell::new(false),
    });
    let told = Rc::clone(&settings);
    spawn_local(timed(async move {
        let mut connection = std::pin::pin!(connection);
        let mut drive = poll_fn(|cx| {
            let ended = connection.as_mut().poll(cx);
            told.streams.set(connection.current_max_send_streams());
            told.extended_connect.set(connection.is_extended_connect_protocol_enabled());
            ended
        });
        // The endpoint's settings are news to us only when the connection is looked at.
        for ms in SETTINGS_AFTER_MS {
            if let Ok(ended) = timeout(Duration::from_millis(ms), &mut drive).await {
                return log_end(ended);
            }
        }
        log_end(drive.await);
    }));
    Ok(Dialed::Http2(sender, settings))
}
