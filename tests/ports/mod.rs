//! Ports for what a test starts by number, and nobody else has.
//!
//! They are not those that the system gives away by itself (32768 and up on Linux): between
//! asking it for one and binding it, the same number could become the near end of a connection.

#![allow(dead_code, reason = "each test file uses a part of this")]

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

/// For Tidegates.
pub const OF_PROXIES: Range<u16> = 22_000..32_000;
/// For Redis servers.
pub const OF_SERVERS: Range<u16> = 12_000..20_000;

/// Has no divisor in common with the length of a range.
const STRIDE: u32 = 3_571;

/// A port of `range` that nobody has, each time another one, and never the next one: a Tidegate
/// may take some that follow. Processes begin at different ones.
pub fn free_port(range: Range<u16>) -> u16 {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    let begin = std::process::id();
    let count = u32::from(range.end - range.start);
    for _ in 0..count {
        let next = begin.wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed)) % count;
        let at = (Ipv4Addr::UNSPECIFIED, range.start + (next * STRIDE % count) as u16);
        if TcpListener::bind(at).is_ok() && UdpSocket::bind(at).is_ok() {
            return at.1;
        }
    }
    panic!("no port from {} to {} is free", range.start, range.end);
}
