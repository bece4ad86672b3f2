//! What the tests of the data plane share: a proxy in this process with a graph of its own,
//! backends that say exactly the bytes that a test wants, and a client that sees raw bytes.

#![allow(dead_code, reason = "each test file uses a part of this")]
#![allow(clippy::unwrap_used, reason = "a panic here is a failed test")]

pub mod http2;
#[path = "../ports/mod.rs"]
pub mod ports;
pub mod streams;

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tidegate::graph::{
    Action, Backend, BackendId, BackendKey, BackendProtocol, ClientAuth, Entry, GraphBuilder,
    HostMap, ListenerTls, Matcher, PathMatch, Protocol, RouteGraph, Rule, RuleName, Shared, Split,
    Target, certified_key,
};
use tidegate::lifecycle::{Lifecycle, Phase};
use tidegate::proxy::{self, Config, ProxyHandle};
use tidegate::telemetry::Telemetry;

/// A limit for everything that should happen soon.
pub const SOON: Duration = Duration::from_secs(10);

/// A port that nobody else has, for a Tidegate.
pub fn free_port() -> u16 {
    ports::free_port(ports::OF_PROXIES)
}

/// A graph with one listener, on which everything goes to one backend unless told otherwise.
pub struct Graph {
    pub builder: GraphBuilder,
    pub port: u16,
}

impl Graph {
    pub fn http(port: u16) -> Self {
        Graph::with(port, Protocol::Http)
    }

    pub fn with(port: u16, protocol: Protocol) -> Self {
        let mut builder = GraphBuilder::new();
        builder.listener(port, port, protocol);
        Graph { builder, port }
    }

    pub fn backend(
        &mut self,
        name: &str,
        protocol: BackendProtocol,
        to: &[SocketAddr],
    ) -> BackendId {
        let key = BackendKey {
            kind: "Service",
            namespace: "test".into(),
            service: name.into(),
            port: 80,
            protocol: "test",
            context: None,
        };
        self.builder.backend(&key, || Backend {
            connect_timeout: Duration::from_secs(1),
            ..Backend::new(key.clone(), protocol, to)
        })
    }

    /// A rule for the prefix `path` of every host.
    pub fn rule(&mut self, path: &str, rule: Rule) {
        self.rule_of("", path, rule);
    }

    /// The same in a section that claims `host` only.
    pub fn rule_of(&mut self, host: &str, path: &str, rule: Rule) {
        let id = self.builder.rule(rule);
        let section = self.builder.section(self.port, host, format!("test/{path}").into());
        let entry = Entry {
            path: PathMatch::Prefix(path.trim_end_matches('/').into()),
            matcher: Matcher::default(),
            created: 0,
            object: "test/test".into(),
            order: (0, 0),
            rule: id,
        };
        self.builder.route(section, "", entry);
    }

    /// Sends every request to these endpoints by HTTP/1.1.
    pub fn all_to(mut self, to: &[SocketAddr]) -> RouteGraph {
        let backend = self.backend("all", BackendProtocol::Http1, to);
        self.rule("/", forward(backend));
        self.builder.build()
    }
}

/// A rule that forwards, with no policies and no timeouts of its own.
pub fn forward(to: BackendId) -> Rule {
    let name = RuleName {
        kind: "HTTPRoute",
        namespace: "test".into(),
        name: "test".into(),
        rule: "0".into(),
    };
    let targets = vec![Target { weight: 1, to: Ok(to), transforms: Vec::new() }];
    Rule::new(name, Action::Forward(Split { targets, total: 1 }))
}

/// A running data plane.
pub struct Proxy {
    pub shared: Arc<Shared>,
    pub lifecycle: Lifecycle,
    pub telemetry: Arc<Telemetry>,
    pub handle: Option<ProxyHandle>,
    pub port: u16,
}

impl Proxy {
    pub fn start(graph: RouteGraph) -> Self {
        Proxy::start_with(graph, |_| {})
    }

    /// Starts with two workers and waits until the graph's ports are bound.
    pub fn start_with(graph: RouteGraph, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config { workers: 2, ..Config::default() };
        change(&mut config);
        let ports = graph.ports();
        let (_, port) = *ports.first().unwrap();
        let shared = Arc::new(Shared::default());
        let lifecycle = Lifecycle::default();
        let telemetry = Telemetry::new(Arc::clone(&shared), None);
        shared.publish(graph);
        lifecycle.advance(Phase::Ready);
        let handle =
            proxy::start(config, Arc::clone(&shared), lifecycle.clone(), Arc::clone(&telemetry))
                .unwrap();
        let proxy = Proxy { shared, lifecycle, telemetry, handle: Some(handle), port };
        proxy.wait("the ports are bound", |proxy| {
            let listening = proxy.handle.as_ref().unwrap().listening();
            let listening = listening.borrow();
            ports.iter().all(|port| listening.get(port) == Some(&Ok(())))
        });
        proxy
    }

    pub fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    pub fn connect(&self) -> Raw {
        Raw::connect(self.addr())
    }

    /// Sends one request on a connection of its own and reads until it is closed.
    pub fn exchange(&self, request: &str) -> String {
        let mut raw = self.connect();
        raw.send(request);
        raw.rest()
    }

    /// A GET of `path` that asks for the connection to be closed; the whole response.
    pub fn get(&self, path: &str) -> String {
        self.exchange(&format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n"))
    }

    pub fn wait(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        eventually(what, || holds(self));
    }

    /// The value of a metric without labels, or the sum over its labels.
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.telemetry.render();
        let lines = text.lines().filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']))
        });
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.lifecycle.advance(Phase::Stopped);
        if let Some(handle) = self.handle.take() {
            handle.join();
        }
    }
}

/// Waits until `holds`, and fails after a while.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < SOON, "not in time: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A client or backend connection as raw bytes.
pub struct Raw {
    pub stream: TcpStream,
    read: Vec<u8>,
}

impl Raw {
    pub fn connect(addr: SocketAddr) -> Self {
        Raw::of(TcpStream::connect(addr).unwrap())
    }

    pub fn of(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.set_nodelay(true).unwrap();
        Raw { stream, read: Vec::new() }
    }

    pub fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).unwrap();
    }

    /// Everything up to and including `end`; what is there if the connection ends before.
    pub fn until(&mut self, end: &str) -> String {
        loop {
            let found = self.read.windows(end.len()).position(|window| window == end.as_bytes());
            if let Some(at) = found {
                let text = self.read.drain(..at + end.len()).collect();
                return String::from_utf8(text).unwrap();
            }
            if !self.fill() {
                return String::from_utf8(std::mem::take(&mut self.read)).unwrap();
            }
        }
    }

    /// A head, up to and including its empty line.
    pub fn head(&mut self) -> String {
        self.until("\r\n\r\n")
    }

    pub fn exactly(&mut self, bytes: usize) -> String {
        while self.read.len() < bytes && self.fill() {}
        let text = self.read.drain(..bytes.min(self.read.len())).collect();
        String::from_utf8(text).unwrap()
    }

    /// A head and its body: what its Content-Length tells, or all chunks as they came.
    pub fn message(&mut self) -> String {
        let mut text = self.head();
        if field(&text, "transfer-encoding").is_some_and(|coding| coding == "chunked") {
            self.chunks(&mut text);
            return text;
        }
        let length = field(&text, "content-length").map_or(0, |v| v.parse().unwrap());
        text + &self.exactly(length)
    }

    fn chunks(&mut self, text: &mut String) {
        loop {
            let line = self.until("\r\n");
            *text += &line;
            let digits = line.split([';', '\r']).next().unwrap_or_default();
            match usize::from_str_radix(digits, 16) {
                Ok(size) if size > 0 => *text += &self.exactly(size + 2),
                _ => break,
            }
        }
        // Trailers, and an empty line in any case.
        loop {
            let line = self.until("\r\n");
            *text += &line;
            if matches!(line.as_str(), "" | "\r\n") {
                return;
            }
        }
    }

    /// Everything until the connection ends.
    pub fn rest(&mut self) -> String {
        while self.fill() {}
        String::from_utf8_lossy(&std::mem::take(&mut self.read)).into_owned()
    }

    /// Whether the other side closes, before it sends anything, within `time`.
    pub fn closes_within(&mut self, time: Duration) -> bool {
        self.stream.set_read_timeout(Some(time)).unwrap();
        let mut byte = [0];
        let closed = match self.stream.read(&mut byte) {
            Ok(read) => read == 0,
            Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        };
        self.stream.set_read_timeout(Some(SOON)).unwrap();
        closed
    }

    fn fill(&mut self) -> bool {
        let mut chunk = [0; 16 * 1024];
        match self.stream.read(&mut chunk) {
            Ok(read) => {
                self.read.extend_from_slice(&chunk[..read]);
                read > 0
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            Err(error) => panic!("reading failed: {error}; so far {:?}", self.read.len()),
        }
    }
}

/// The value of a field in a head.
pub fn field<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    head.lines().skip(1).take_while(|line| !line.is_empty()).find_map(|line| {
        let (field, value) = line.split_once(':')?;
        field.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

pub fn status(response: &str) -> u16 {
    let code = response.split(' ').nth(1).unwrap_or_else(|| panic!("no response: {response:?}"));
    code.parse().unwrap()
}

pub fn body(response: &str) -> &str {
    response.split_once("\r\n\r\n").unwrap().1
}

/// A backend that speaks raw bytes: `serve` gets each connection, with its number from 0.
pub struct RawBackend {
    pub addr: SocketAddr,
    pub connections: Arc<AtomicUsize>,
}

impl RawBackend {
    pub fn start(serve: impl Fn(Raw, usize) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        let serve = Arc::new(serve);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let number = counted.fetch_add(1, Ordering::SeqCst);
                let serve = Arc::clone(&serve);
                thread::spawn(move || serve(Raw::of(stream.unwrap()), number));
            }
        });
        RawBackend { addr, connections }
    }

    /// Answers every request of a connection with 200 and what it got, as text.
    pub fn echo() -> Self {
        RawBackend::start(|mut raw, _| {
            loop {
                let request = raw.message();
                if request.is_empty() {
                    return;
                }
                raw.send(&ok(&request));
            }
        })
    }

    /// Answers every request with 200 and `name`.
    pub fn named(name: &'static str) -> Self {
        RawBackend::start(move |mut raw, _| {
            while !raw.message().is_empty() {
                raw.send(&ok(name));
            }
        })
    }
}

/// A 200 with this body.
pub fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// A port that refuses connections.
pub fn dead_endpoint() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, free_port()).into()
}

/// A self-signed certificate for `names`, as PEM: certificate and key.
pub fn certificate(names: &[&str]) -> (String, String) {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

/// The TLS of a listener that shows these certificates, by pattern.
pub fn tls(certificates: &[(&str, &(String, String))]) -> Protocol {
    tls_on(443, certificates)
}

/// The same, where sessions are those of `port`.
pub fn tls_on(port: u16, certificates: &[(&str, &(String, String))]) -> Protocol {
    let mut map = HostMap::default();
    for (pattern, (cert, key)) in certificates {
        let certified = certified_key(cert.as_bytes(), key.as_bytes()).unwrap();
        map.insert(*pattern, Arc::new(certified));
    }
    Protocol::Tls(Arc::new(ListenerTls::new(port, map, None, &ClientAuth::None)))
}

impl Raw {
    /// How many bytes after the last head were read already; they are thrown away.
    pub fn rest_of_head(&mut self) -> usize {
        std::mem::take(&mut self.read).len()
    }
}
