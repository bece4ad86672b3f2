//! Ports for what a test starts by number, and nobody else has.
//!
//! They are not those that the system gives away by itself (32768 and up on Linux): between
//! asking it for one and binding it, the same number could become the near end of a connection.

#![allow(dead_code, reason = "each test file uses a part of this")]

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::ops::Range;
use std::sync::atomic::{AtomicU16, Ordering};

/// For Tidegates.
pub const OF_PROXIES: Range<u16> = 22_000..32_000;
/// For Redis servers.
pub const OF_SERVERS: Range<u16> = 12_000..20_000;

/// A port of `range` that nobody has, each time another one. Processes begin at different ones.
pub fn free_port(range: Range<u16>) -> u16 {
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    let begin = std::process::id().wrapping_mul(7919) as u16;
    let count = range.end - range.start;
    for _ in 0..count {
        let next = begin.wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed));
        let at = (Ipv4Addr::UNSPECIFIED, range.start + next % count);
        if TcpListener::bind(at).is_ok() && UdpSocket::bind(at).is_ok() {
            return at.1;
        }
    }
    panic!("no port from {} to {} is free", range.start, range.end);
}
