//! How often the proxy allocates for a plain request, over connections that are kept on both
//! sides. What a request costs grows with this number, and it grows unseen.

#![allow(clippy::unwrap_used, reason = "a panic here is a failed test")]
#![allow(unsafe_code, reason = "an allocator that counts has to be one")]

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;

use support::{Graph, Proxy, free_port};

/// What a request may allocate: it is 20 today. Lower it when it becomes less.
const MOST: f64 = 22.0;
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

fn ask(stream: &mut TcpStream, requests: u32) {
    const REQUEST: &[u8] = b"GET /some/path?x=1 HTTP/1.1\r\nhost: a.example\r\n\
                             user-agent: test\r\naccept: */*\r\naccept-encoding: gzip\r\n\r\n";
    for _ in 0..requests {
        stream.write_all(REQUEST).unwrap();
        assert!(ends_with(stream, b"hello"));
    }
}

#[test]
fn a_plain_request_allocates_only_so_much() {
    IS_COUNTED.set(false);
    let graph = Graph::http(free_port()).all_to(&[backend()]);
    let proxy = Proxy::start_with(graph, |config| config.workers = 1);
    let mut client = TcpStream::connect(proxy.addr()).unwrap();
    ask(&mut client, 100);
    let before = (ALLOCATIONS.load(Relaxed), BYTES.load(Relaxed));
    ask(&mut client, REQUESTS);
    let each = |now: u64, before: u64| (now - before) as f64 / f64::from(REQUESTS);
    let allocations = each(ALLOCATIONS.load(Relaxed), before.0);
    let bytes = each(BYTES.load(Relaxed), before.1);
    assert!(allocations <= MOST, "{allocations:.1} allocations and {bytes:.0} bytes a request");
    assert!(allocations > 1.0, "the allocator counts");
    eprintln!("{allocations:.1} allocations and {bytes:.0} bytes a request");
}
