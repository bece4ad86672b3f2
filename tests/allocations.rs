//! How often the proxy allocates for a plain request, over connections that are kept on both
//! sides. What a request costs grows with this number, and it grows unseen.

#![allow(clippy::unwrap_used, reason = "a panic here is a failed test")]
#![allow(unsafe_code, reason = "an allocator that counts has to be one")]

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;

use support::{Graph, Proxy, forward, free_port};
use tidegate::graph::{BackendProtocol, RouteGraph, Rule};
use tidegate::policy::authentication::{self, method};
use tidegate::policy::consumer::{Consumer, Consumers, KeyDigest};
use tidegate::policy::{AnySpec, Mode, Refs, ip_access, rate_limit};

/// What a request may allocate: it is 19 today. Lower it when it becomes less.
const MOST: f64 = 21.0;
/// What an API key may add to that of another gate: it is 2 today.
const MOST_OF_KEY: f64 = 3.0;
/// What a limit that counts in this pod may add to that of another gate: it is 10 today, nearly
/// all for the five header fields that tell of it.
const MOST_OF_LIMIT: f64 = 11.0;
const REQUESTS: u32 = 2_000;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// The test's own threads are not counted.
    static IS_COUNTED: Cell<bool> = const { Cell::new(true) };
}

struct Counting;

impl Counting {
    fn count(bytes: usize) {
        if IS_COUNTED.try_with(Cell::get).unwrap_or(false) {
            ALLOCATIONS.fetch_add(1, Relaxed);
            BYTES.fetch_add(bytes as u64, Relaxed);
        }
    }
}

// SAFETY: every call is the system allocator's own; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Counting::count(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        Counting::count(size);
        // SAFETY: as the caller promises.
        unsafe { System.realloc(ptr, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Reads heads and answers each with the same bytes.
fn backend() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        IS_COUNTED.set(false);
        for stream in listener.incoming() {
            thread::spawn(move || {
                IS_COUNTED.set(false);
                serve(stream.unwrap());
            });
        }
    });
    addr
}

fn serve(mut stream: TcpStream) {
    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\
                            date: Sat, 21 Nov 2026 18:00:00 GMT\r\nserver: test\r\n\r\nhello";
    while ends_with(&mut stream, b"\r\n\r\n") {
        stream.write_all(ANSWER).unwrap();
    }
}

/// Reads until the last bytes are these; false at the end of the connection.
fn ends_with(stream: &mut TcpStream, end: &[u8]) -> bool {
    let (mut bytes, mut length) = ([0; 4096], 0);
    while !bytes[..length].ends_with(end) {
        match stream.read(&mut bytes[length..]) {
            Ok(0) | Err(_) => return false,
            Ok(read) => length += read,
        }
    }
    true
}

/// Asks with one more field, if `key` says so; `\r\n` ends it.
fn ask(stream: &mut TcpStream, key: &str, requests: u32) {
    let request = format!(
        "GET /some/path?x=1 HTTP/1.1\r\nhost: a.example\r\nuser-agent: test\r\n\
         accept: */*\r\naccept-encoding: gzip\r\n{key}\r\n"
    );
    for _ in 0..requests {
        stream.write_all(request.as_bytes()).unwrap();
        assert!(ends_with(stream, b"hello"));
    }
}

/// Allocations of each request, and their bytes.
fn measure(graph: RouteGraph, key: &str) -> (f64, f64) {
    let proxy = Proxy::start_with(graph, |config| config.workers = 1);
    let mut client = TcpStream::connect(proxy.addr()).unwrap();
    ask(&mut client, key, 100);
    let before = (ALLOCATIONS.load(Relaxed), BYTES.load(Relaxed));
    ask(&mut client, key, REQUESTS);
    let each = |now: u64, before: u64| (now - before) as f64 / f64::from(REQUESTS);
    (each(ALLOCATIONS.load(Relaxed), before.0), each(BYTES.load(Relaxed), before.1))
}

/// Everything goes to the backend, past this policy.
fn past(spec: &AnySpec, refs: &Refs) -> RouteGraph {
    let mut graph = Graph::http(free_port());
    let to = graph.backend("all", BackendProtocol::Http1, &[backend()]);
    let policy = graph.builder.policy("p", spec, Mode::Enforce, refs).unwrap();
    graph.rule("/", Rule { gates: vec![policy], ..forward(to) });
    graph.builder.build()
}

fn with_key() -> RouteGraph {
    let mut consumers = Consumers::default();
    let app = consumers.add(Consumer {
        namespace: "ns".into(),
        name: "app".into(),
        groups: Box::default(),
        plan: None,
    });
    consumers.add_key(&app, KeyDigest::of(b"the-key-of-the-app"), None).unwrap();
    let keys = method::Spec { api_key: Some(Default::default()), ..Default::default() };
    let spec = authentication::Spec { methods: vec![keys], ..Default::default() };
    let refs = Refs { consumers: Some(Arc::new(consumers)), ..Refs::default() };
    past(&AnySpec::Authentication(spec), &refs)
}

/// One that lets everything through.
fn with_limit() -> RouteGraph {
    let limit = rate_limit::spec::Limit {
        name: "clients".into(),
        requests: 1_000_000_000,
        window: "1s".into(),
        ..Default::default()
    };
    let spec = rate_limit::Spec { limits: vec![limit], ..Default::default() };
    past(&AnySpec::RateLimit(spec), &Refs::default())
}

/// One test, because all threads of the process are counted.
#[test]
fn a_request_allocates_only_so_much() {
    IS_COUNTED.set(false);
    let (plain, bytes) = measure(Graph::http(free_port()).all_to(&[backend()]), "");
    assert!(plain <= MOST, "{plain:.1} allocations and {bytes:.0} bytes a request");
    assert!(plain > 1.0, "the allocator counts");
    eprintln!("{plain:.1} allocations and {bytes:.0} bytes a request");
    let everybody = ip_access::Spec { deny: vec!["192.0.2.0/24".into()], ..Default::default() };
    let (gate, _) = measure(past(&AnySpec::IpAccess(everybody), &Refs::default()), "");
    let (key, _) = measure(with_key(), "x-api-key: the-key-of-the-app\r\n");
    let (limit, _) = measure(with_limit(), "");
    eprintln!("{gate:.1} with a gate, {key:.1} with an API key, {limit:.1} with a limit");
    assert!(key - gate <= MOST_OF_KEY, "{key:.1} with an API key, {gate:.1} with another gate");
    assert!(limit - gate <= MOST_OF_LIMIT, "{limit:.1} with a limit, {gate:.1} with another gate");
}
