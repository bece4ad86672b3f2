//! What the data plane can be told when it starts. What objects say is in the graph.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

/// See [`super::start`].
#[derive(Clone, Debug)]
pub struct Config {
    /// Threads that serve, each with its own sockets, connections and pools. At least 1.
    pub workers: usize,
    /// Where listeners bind. `None`: every address, IPv6 and IPv4, or IPv4 alone where the
    /// machine has no IPv6.
    pub bind: Option<IpAddr>,
    /// Peers whose X-Forwarded-* fields are believed. Empty: nobody's.
    pub trusted_proxies: Vec<IpNet>,
    pub limits: Limits,
}

impl Default for Config {
    fn default() -> Self {
        Config { workers: 1, bind: None, trusted_proxies: Vec::new(), limits: Limits::default() }
    }
}

/// Every bound that holds for all routes. The defaults are what an edge needs: each of them
/// stops an attack that a default of another proxy lets through.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Client connections of the process; 0 stands for 50,000 or half of the file descriptors,
    /// whichever is less.
    pub connections: usize,
    /// From the accepted connection to the end of its TLS handshake.
    pub handshake_timeout: Duration,
    /// From the first byte of a head to its last; also from a new connection to its first byte.
    pub header_timeout: Duration,
    /// Silence between two requests of a connection.
    pub keep_alive_idle: Duration,
    /// Requests of one connection.
    pub keep_alive_requests: u64,
    /// Age after which a connection is asked to move, so that load spreads to new pods.
    pub keep_alive_age: Duration,
    /// Fields of a request's head, cookie crumbs included; more is 431. At most 100 over
    /// HTTP/1.1, where the parser has room for no more.
    pub header_fields: usize,
    /// Bytes of all fields of a request's head, names and values; more is 431.
    pub header_bytes: usize,
    /// Bytes of a request's target; more is 414.
    pub uri_bytes: usize,
    /// What is read of an HTTP/1.1 connection before it is used, in bytes; at least 8192.
    pub read_buffer: usize,
    /// Silence of a request's body while the backend wants more of it.
    pub request_body_idle: Duration,
    /// Silence of a response's body and of a tunnel, where the rule has no idle timeout.
    pub response_idle: Duration,
    /// Silence of a TCP or TLS stream, both ways; zero: any.
    pub stream_idle: Duration,
    /// UDP sessions of the process, spread evenly over its workers; 0 stands for 16,384 or an
    /// eighth of the file descriptors, whichever is less.
    pub udp_sessions: usize,
    /// Silence that ends a UDP session.
    pub udp_idle: Duration,
    /// Time in which a client takes no byte of a response that is ready.
    pub write_stall: Duration,
    /// From the sent request to the head of the answer, where the rule sets no timeout.
    pub response_timeout: Duration,
    /// Idle connections kept to one endpoint, for each worker.
    pub pool_idle: usize,
    /// How long an idle connection to an endpoint is kept: less than the 60 s after which
    /// common servers close it, so that closing seldom meets a request.
    pub pool_idle_timeout: Duration,
    /// Requests at once on one HTTP/2 connection to an endpoint.
    pub pool_streams: usize,
    /// Bytes of a request's body that are kept so that it can be sent again.
    pub retry_bytes: usize,
    /// Bytes of a request's body that are kept for a mirror; longer ones are not mirrored.
    pub mirror_bytes: usize,
    /// Bytes of all bodies that policies may have kept at once, in the whole process; a request
    /// that finds no room is answered 503.
    pub kept_bytes: usize,
    pub http2: Http2Limits,
    /// After the process left the load balancers' lists: how long until connections are asked
    /// to move. Before that they would come back to this pod.
    pub move_after: Duration,
    /// While draining: how long an idle connection is still kept, so that a request that is
    /// on its way is answered.
    pub drain_idle: Duration,
}

/// Bounds of an HTTP/2 connection with a client.
#[derive(Clone, Debug)]
pub struct Http2Limits {
    /// Requests at once (SETTINGS_MAX_CONCURRENT_STREAMS).
    pub streams: u32,
    /// Bytes that a client may send on a stream before we take them.
    pub stream_window: u32,
    /// The same for the connection. Half of it is also the budget for DATA frames below 256
    /// bytes: when these are spent the connection ends, so it must not be small.
    pub connection_window: u32,
    /// Bytes of decoded fields, 32 more for each (SETTINGS_MAX_HEADER_LIST_SIZE).
    pub header_list: u32,
    /// Bytes of response that wait for a stream's window.
    pub send_buffer: usize,
    /// Streams that were reset before we saw them; more end the connection.
    pub early_resets: usize,
    /// Streams that we had to reset for a client's errors; more end the connection.
    pub error_resets: usize,
    /// Streams that the client reset before they had an answer, if these are more than half of
    /// all; more end the connection.
    pub rapid_resets: u64,
    /// Silence after which a client is asked for a sign of life, and how long it may take.
    pub ping_interval: Duration,
    pub ping_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Limits {
            connections: 0,
            handshake_timeout: seconds(10),
            header_timeout: seconds(10),
            keep_alive_idle: seconds(60),
            keep_alive_requests: 10_000,
            keep_alive_age: seconds(3600),
            header_fields: 100,
            header_bytes: 32 * 1024,
            uri_bytes: 16 * 1024,
            read_buffer: 64 * 1024,
            request_body_idle: seconds(30),
            response_idle: seconds(300),
            stream_idle: seconds(3600),
            udp_sessions: 0,
            udp_idle: seconds(60),
            write_stall: seconds(30),
            response_timeout: seconds(30),
            pool_idle: 1024,
            pool_idle_timeout: seconds(55),
            pool_streams: 100,
            retry_bytes: 64 * 1024,
            mirror_bytes: 64 * 1024,
            kept_bytes: 64 * 1024 * 1024,
            http2: Http2Limits::default(),
            move_after: seconds(2),
            drain_idle: seconds(3),
        }
    }
}

impl Default for Http2Limits {
    fn default() -> Self {
        Http2Limits {
            streams: 100,
            stream_window: 64 * 1024,
            connection_window: 1024 * 1024,
            header_list: 32 * 1024,
            send_buffer: 64 * 1024,
            early_resets: 20,
            error_resets: 100,
            rapid_resets: 200,
            ping_interval: Duration::from_secs(60),
            ping_timeout: Duration::from_secs(20),
        }
    }
}

impl Limits {
    /// How many client connections the process takes.
    pub(super) fn connection_cap(&self) -> usize {
        const MOST: usize = 50_000;
        if self.connections > 0 {
            return self.connections;
        }
        open_files().map_or(MOST, |files| MOST.min((files / 2).max(1)))
    }

    /// How many UDP sessions the process keeps: each has a file descriptor of its own.
    pub(super) fn session_cap(&self) -> usize {
        const MOST: usize = 16_384;
        if self.udp_sessions > 0 {
            return self.udp_sessions;
        }
        open_files().map_or(MOST, |files| MOST.min((files / 8).max(1)))
    }
}

/// The soft limit of open files, where the system tells.
fn open_files() -> Option<usize> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find(|line| line.starts_with("Max open files"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}
