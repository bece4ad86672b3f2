//! The parts that lines of the access log are put together from: moments, numbers, addresses and
//! texts in which nothing can end or forge a line.
//!
//! Everything is appended to the worker's page in place: no part is a string of its own. Which
//! parts a line has is [`super::json`]'s and [`super::text`]'s.

use std::cell::Cell;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Memory that is filled with lines, written, and filled again.
#[derive(Debug, Default)]
pub struct Page(Vec<u8>);

impl Page {
    pub fn new(size: usize) -> Self {
        Page(Vec::with_capacity(size))
    }

    /// How much there is room for; it grows if that is not enough.
    pub fn size(&self) -> usize {
        self.0.capacity()
    }

    pub fn filled(&self) -> &[u8] {
        &self.0
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Appends what needs no care. Of a constant the compiler knows the length, and writes it by
    /// a few stores.
    #[inline(always)]
    pub fn push(&mut self, part: impl AsRef<[u8]>) {
        self.0.extend_from_slice(part.as_ref());
    }

    /// Appends a whole number, two digits at a time: most have no more than three.
    pub fn number(&mut self, number: u64) {
        let last = PAIRS[(number % 100) as usize];
        match number {
            0..10 => self.push([last[1]]),
            10..100 => self.push(last),
            100..1_000 => self.push([digit(number / 100), last[0], last[1]]),
            _ => {
                self.number(number / 100);
                self.push(last);
            }
        }
    }

    /// Appends milliseconds with three decimals.
    pub fn ms(&mut self, duration: Duration) {
        let of_second = (duration.subsec_nanos() + 500) / 1000;
        let us = duration.as_secs().saturating_mul(1_000_000).saturating_add(of_second.into());
        self.number(us / 1000);
        let [a, b, c] = thousandths(us % 1000);
        self.push([b'.', a, b, c]);
    }

    /// Appends an address; the formatter of the standard library is left to the rarer kind.
    pub fn ip(&mut self, ip: IpAddr) {
        let IpAddr::V4(ip) = ip else { return self.display(ip) };
        let (mut text, mut end) = ([0; 16], 0);
        for octet in ip.octets() {
            let (digits, len) = OCTETS[usize::from(octet)];
            text[end..end + 4].copy_from_slice(&digits);
            end += len;
        }
        self.push(&text[..end - 1]);
    }

    /// Appends an address and a port.
    pub fn socket(&mut self, addr: SocketAddr) {
        match addr {
            SocketAddr::V4(addr) => {
                self.ip(IpAddr::V4(*addr.ip()));
                self.push(":");
                self.number(addr.port().into());
            }
            SocketAddr::V6(addr) => self.display(addr),
        }
    }

    fn display(&mut self, value: impl std::fmt::Display) {
        write!(self, "{value}").unwrap_or_default(); // it does not fail
    }

    /// Appends a text for a string of JSON, with the escapes of RFC 8259, 7. What is not UTF-8
    /// becomes U+FFFD.
    pub fn json(&mut self, text: &[u8]) {
        if is_plain(text) {
            return self.push(text);
        }
        let needs = |c: char| c.is_control() || matches!(c, '"' | '\\');
        self.escape(text, needs, |page, c| match c {
            '"' => page.push("\\\""),
            '\\' => page.push("\\\\"),
            c => page.display(format_args!("\\u{:04x}", u32::from(c))),
        });
    }

    /// Appends a text for a line of text, with escapes for what could end or forge it.
    pub fn text(&mut self, text: &[u8]) {
        if is_plain(text) {
            return self.push(text);
        }
        let needs = |c: char| c != '\'' && c.escape_debug().len() > 1;
        self.escape(text, needs, |page, c| page.display(c.escape_debug()));
    }

    /// Appends whole runs of a text, and what `needs` it by `escape`.
    #[cold]
    fn escape(
        &mut self,
        text: &[u8],
        needs: impl Fn(char) -> bool,
        escape: impl Fn(&mut Page, char),
    ) {
        let text = String::from_utf8_lossy(text);
        let mut rest = &*text;
        while let Some((at, c)) = rest.char_indices().find(|(_, c)| needs(*c)) {
            self.push(&rest[..at]);
            escape(self, c);
            rest = &rest[at + c.len_utf8()..];
        }
        self.push(rest);
    }
}

/// Never fails.
impl Write for Page {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The numbers below 100 as two digits.
static PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[0; 2]; 100];
    let mut number = 0;
    while number < pairs.len() {
        pairs[number] = [digit(number as u64 / 10), digit(number as u64 % 10)];
        number += 1;
    }
    pairs
};

/// The numbers below 256 with a dot, and how long that is.
static OCTETS: [([u8; 4], usize); 256] = {
    let mut octets = [([0; 4], 0); 256];
    let mut number = 0;
    while number < octets.len() {
        let n = number as u64;
        octets[number] = match number {
            0..10 => ([digit(n), b'.', 0, 0], 2),
            10..100 => ([digit(n / 10), digit(n % 10), b'.', 0], 3),
            _ => ([digit(n / 100), digit(n / 10 % 10), digit(n % 10), b'.'], 4),
        };
        number += 1;
    }
    octets
};

/// Of a number below 10.
const fn digit(number: u64) -> u8 {
    b'0' + number as u8
}

/// A number below 1,000 as three digits.
fn thousandths(number: u64) -> [u8; 3] {
    let [b, c] = PAIRS[(number % 100) as usize];
    [digit(number / 100), b, c]
}

/// Whether a text can stand in a line as it is, whatever the format: it has neither control
/// characters nor quotes, backslashes or what is not ASCII.
fn is_plain(text: &[u8]) -> bool {
    if let Some(last) = text.last_chunk() {
        let (pieces, _) = text.as_chunks();
        // The last piece may look at some bytes once more.
        let odd = pieces.iter().fold(odd(*last), |all, piece| all | odd(*piece));
        return odd == 0;
    }
    if let (Some([a, b, c, d]), Some([e, f, g, h])) = (text.first_chunk(), text.last_chunk()) {
        return odd([*a, *b, *c, *d, *e, *f, *g, *h]) == 0;
    }
    text.iter().all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\'))
}

/// Not 0 if one of eight bytes needs care. They are looked at together, in one number: the
/// highest bit of a byte says what is found there (and of bytes before one that is odd, it may be
/// wrong, which does no harm).
#[inline(always)]
fn odd(piece: [u8; 8]) -> u64 {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGHEST: u64 = ONES << 7;
    let bytes = u64::from_le_bytes(piece);
    let below = |limit: u64, bytes: u64| bytes.wrapping_sub(ONES * limit) & !bytes;
    let is = |byte: u8| below(1, bytes ^ (ONES * u64::from(byte)));
    (bytes | below(0x20, bytes) | is(b'"') | is(b'\\') | is(0x7f)) & HIGHEST
}

/// Writes moments as RFC 3339 does, and the date only once a second.
#[derive(Debug)]
pub struct Clock {
    second: Cell<u64>,
    /// Up to the dot after the seconds of `second`.
    text: Cell<[u8; 20]>,
}

impl Default for Clock {
    fn default() -> Self {
        Clock { second: Cell::new(0), text: Cell::new(*b"1970-01-01T00:00:00.") }
    }
}

impl Clock {
    /// Appends a moment, in milliseconds since the Unix epoch.
    pub fn write(&self, out: &mut Page, ms: u64) {
        let second = ms / 1000;
        if self.second.get() != second {
            self.turn(second);
        }
        out.push(self.text.get());
        let [a, b, c] = thousandths(ms % 1000);
        out.push([a, b, c, b'Z']);
    }

    #[cold]
    fn turn(&self, second: u64) {
        let moment = i64::try_from(second).map(jiff::Timestamp::from_second);
        let moment = moment.ok().and_then(Result::ok).unwrap_or_default();
        let mut text = [0; 20];
        // With a dot where RFC 3339 has its `Z`: the milliseconds follow.
        let date = format!("{moment:.0}").replace('Z', ".");
        if let Some(date) = date.as_bytes().first_chunk() {
            text = *date;
        }
        self.second.set(second);
        self.text.set(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(write: impl FnOnce(&mut Page)) -> String {
        let mut out = Page::default();
        write(&mut out);
        str::from_utf8(out.filled()).unwrap().to_owned()
    }

    #[test]
    fn what_could_forge_a_line_is_escaped_and_nothing_else() {
        let escaped = |text: &str| told(|out| out.text(text.as_bytes()));
        assert_eq!(escaped(" /a~?%20"), " /a~?%20");
        assert_eq!(escaped("\u{7f}\"\\'\n\u{e9}"), "\\u{7f}\\\"\\\\'\\n\u{e9}");
        assert_eq!(told(|out| out.json(b"a\xffb")), "a\u{fffd}b");
        let json = |text: &str| told(|out| out.json(text.as_bytes()));
        assert_eq!(json("it's \u{e9}\u{7f}\\\n\"."), "it's \u{e9}\\u007f\\\\\\u000a\\\".");
    }

    #[test]
    fn a_byte_that_needs_care_is_found_wherever_it_stands() {
        for len in 0..90 {
            let plain: String = (' '..'~').filter(|c| !matches!(c, '"' | '\\')).take(len).collect();
            assert!(is_plain(plain.as_bytes()));
            for at in 0..len {
                for byte in ["\0", "\n", "\u{1f}", "\"", "\\", "\u{7f}"] {
                    let mut text = plain.clone();
                    text.replace_range(at..=at, byte);
                    assert!(!is_plain(text.as_bytes()), "{text:?}");
                }
            }
        }
        assert!(!is_plain("\u{e9}".as_bytes()));
    }

    #[test]
    fn addresses_look_as_the_standard_library_writes_them() {
        for text in ["0.0.0.0:0", "255.10.9.100:65535", "[::1]:80", "[::ffff:192.0.2.1]:443"] {
            let addr: SocketAddr = text.parse().unwrap();
            assert_eq!(told(|out| out.socket(addr)), addr.to_string());
            assert_eq!(told(|out| out.ip(addr.ip())), addr.ip().to_string());
        }
    }

    #[test]
    fn numbers_have_their_digits() {
        for number in [0, 9, 10, 99, 100, 999, 1_000, 65_535, 100_000, 70_000_001, u64::MAX] {
            assert_eq!(told(|out| out.number(number)), number.to_string());
        }
        let ms = |ns| told(|out| out.ms(Duration::from_nanos(ns)));
        assert_eq!(ms(61_000_001_400), "61000.001");
        assert_eq!(ms(1_999_999_600), "2000.000");
        assert_eq!(told(|out| out.ms(Duration::MAX)), "18446744073709551.615");
    }

    #[test]
    fn moments_are_those_of_the_calendar() {
        let clock = Clock::default();
        for (ms, moment) in [
            (7, "1970-01-01T00:00:00.007Z"),
            (1_700_000_000_007, "2023-11-14T22:13:20.007Z"),
            (1_700_000_001_100, "2023-11-14T22:13:21.100Z"),
            (1_700_000_000_999, "2023-11-14T22:13:20.999Z"),
        ] {
            assert_eq!(told(|out| clock.write(out, ms)), moment);
        }
        assert_eq!(told(|out| clock.write(out, u64::MAX)).len(), "2023-11-14T22:13:20.007Z".len());
    }
}
