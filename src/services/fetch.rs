//! Fetches one small document over HTTP/1.1, such as the keys of an issuer: for the control
//! plane, never while a request waits.
//!
//! Whoever names the document is not trusted, and neither is who publishes it. So addresses are
//! decided by the caller before anything is connected to (see [`is_public`]), redirects are not
//! followed, nothing but the status 200 counts, and what is read is bounded. The time is
//! bounded by the caller, as a whole.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, HOST, USER_AGENT};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

/// Addresses that are tried, and how long each may take to connect.
const MOST_TRIED: usize = 3;
const CONNECT: Duration = Duration::from_millis(1500);
/// Bytes of a head.
const HEAD: usize = 64 * 1024;

/// A document and the way to it.
#[derive(Clone, Debug)]
pub struct Document<'a> {
    /// Where it is asked for, one after the other.
    pub addresses: &'a [SocketAddr],
    /// None: in clear text.
    pub tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    /// What is sent as Host.
    pub authority: &'a str,
    /// Path and query.
    pub path: &'a str,
    /// Most bytes of it.
    pub most: usize,
}

/// Why there is no document. No text of the other side is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    #[error("no connection can be made ({0})")]
    Connect(io::ErrorKind),
    #[error("the TLS handshake fails ({0})")]
    Tls(io::ErrorKind),
    #[error("the answer is no HTTP or breaks off")]
    Protocol,
    #[error("the answer is a redirect ({0}), which is not followed; name the place itself")]
    Redirect(u16),
    #[error("the answer has the status {0}")]
    Status(u16),
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
}

/// Gets the document.
///
/// # Errors
/// See [`FetchError`].
pub async fn get(document: &Document<'_>) -> Result<Bytes, FetchError> {
    let stream = connect(document.addresses).await.map_err(|e| FetchError::Connect(e.kind()))?;
    match &document.tls {
        None => ask(stream, document).await,
        Some((config, name)) => {
            let connector = TlsConnector::from(Arc::clone(config));
            let stream = connector.connect(name.clone(), stream).await;
            ask(stream.map_err(|e| FetchError::Tls(e.kind()))?, document).await
        }
    }
}

async fn connect(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses.iter().take(MOST_TRIED) {
        match timeout(CONNECT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

async fn ask<S>(stream: S, document: &Document<'_>) -> Result<Bytes, FetchError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let request = Request::builder()
        .method(Method::GET)
        .uri(document.path)
        .header(HOST, document.authority)
        .header(ACCEPT, "application/jwk-set+json, application/json")
        .header(USER_AGENT, "tidegate")
        .body(Empty::<Bytes>::new());
    let request = request.map_err(|_| FetchError::Protocol)?;
    let handshake = http1::Builder::new().max_buf_size(HEAD).handshake(TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.map_err(|_| FetchError::Protocol)?;
    let _driver = AbortOnDropHandle::new(tokio::spawn(connection));
    let answer = sender.send_request(request).await.map_err(|_| FetchError::Protocol)?;
    match answer.status() {
        StatusCode::OK => {}
        status if status.is_redirection() => return Err(FetchError::Redirect(status.as_u16())),
        status => return Err(FetchError::Status(status.as_u16())),
    }
    let body = Limited::new(answer.into_body(), document.most).collect().await;
    body.map(|body| body.to_bytes()).map_err(|error| {
        match error.is::<http_body_util::LengthLimitError>() {
            true => FetchError::TooLong(document.most),
            false => FetchError::Protocol,
        }
    })
}

/// Whether an address is everybody's: none of a private network, of this machine or of a cloud's
/// services for its machines (RFC 6890 and its registries).
pub fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => match embedded(ip) {
            Some(inside) => is_public_v4(inside),
            None => is_public_v6(ip),
        },
    }
}

/// Whether nobody means it, even where private networks may be asked: link-local addresses, at
/// which clouds tell machines their credentials, and those of no machine at all.
pub fn is_never_meant(ip: IpAddr) -> bool {
    let v4 = |ip: Ipv4Addr| {
        ip.is_link_local() || ip.is_multicast() || ip.is_broadcast() || ip.octets()[0] == 0
    };
    match ip {
        IpAddr::V4(ip) => v4(ip),
        IpAddr::V6(ip) => match embedded(ip) {
            Some(inside) => v4(inside),
            // AWS has its metadata at fd00:ec2::254 as well.
            None => {
                ip.is_unicast_link_local()
                    || ip.is_multicast()
                    || ip.is_unspecified()
                    || ip.segments() == [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254]
            }
        },
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let shared = a == 100 && (64..128).contains(&b);
    let protocol = (a, b, c) == (192, 0, 0);
    let benchmark = a == 198 && (b == 18 || b == 19);
    !(a == 0
        || a >= 224
        || shared
        || protocol
        || benchmark
        || ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_documentation())
}

/// Only what is given to networks (2000::/3), without documentation (RFC 3849, 9637).
fn is_public_v6(ip: Ipv6Addr) -> bool {
    let [a, b, ..] = ip.segments();
    let documentation = (a, b) == (0x2001, 0xdb8) || a == 0x3fff && b < 0x1000;
    // Teredo and other addresses of protocols (RFC 2928).
    let protocol = a == 0x2001 && b < 0x200;
    a & 0xe000 == 0x2000 && !documentation && !protocol
}

/// The IPv4 address that this one leads to: mapped (RFC 4291), translated (RFC 6052, 8215), 6to4
/// (RFC 3056).
fn embedded(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, g, h] = ip.segments();
    let of = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Some(Ipv4Addr::new(a, b, c, d))
    };
    match (a, b, c, d, e, f) {
        (0, 0, 0, 0, 0, 0xffff | 0) if !ip.is_loopback() && !ip.is_unspecified() => of(g, h),
        (0x64, 0xff9b, 0, 0, 0, 0) | (0x64, 0xff9b, 1, ..) => of(g, h),
        (0x2002, ..) => of(b, c),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_everybody_are_public() {
        for ip in ["1.1.1.1", "8.8.8.8", "100.63.0.1", "172.32.0.1", "2606:4700::1111"] {
            assert!(is_public(ip.parse().unwrap()), "{ip}");
        }
        for ip in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "172.16.0.1",
            "192.0.0.1",
            "192.168.1.1",
            "198.18.0.1",
            "192.0.2.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::a9fe:a9fe",
            "2002:7f00:1::",
            "2001:db8::1",
            "2001::1",
            "3fff::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!is_public(ip.parse().unwrap()), "{ip}");
        }
    }

    #[test]
    fn where_clouds_keep_credentials_nobody_is_asked() {
        for ip in ["169.254.169.254", "::ffff:169.254.169.254", "fd00:ec2::254", "fe80::1", "::"] {
            assert!(is_never_meant(ip.parse().unwrap()), "{ip}");
        }
        for ip in ["127.0.0.1", "10.0.0.1", "::1", "fd00::1", "1.1.1.1"] {
            assert!(!is_never_meant(ip.parse().unwrap()), "{ip}");
        }
    }
}
