//! Names of fields, not made anew for each head.
//!
//! Making a name costs a search among the standard ones and, for any other, an allocation. The
//! same few names come again and again, so each thread remembers some of those that it saw.

use std::cell::RefCell;

use http::HeaderName;

use super::head::BadHead;

/// Bytes of the longest name that is remembered.
const LONGEST: usize = 32;
/// Names that a thread remembers: 18 KiB.
const SLOTS: usize = 256;

/// A name as it was written, filled up with zeros.
type Written = [u64; LONGEST / 8];

#[derive(Clone)]
struct Slot {
    written: Written,
    name: HeaderName,
}

thread_local! {
    static SLOTS_OF_THREAD: RefCell<Vec<Option<Slot>>> = RefCell::new(vec![None; SLOTS]);
}

/// The name that is written in `bytes`, in whatever case.
///
/// # Errors
/// [`BadHead::Syntax`] if it is no token (RFC 9110, 5.6.2).
pub fn name(bytes: &[u8]) -> Result<HeaderName, BadHead> {
    let Some(written) = written(bytes) else { return make(bytes) };
    SLOTS_OF_THREAD.with_borrow_mut(|slots| {
        let slot = &mut slots[place(&written)];
        match slot {
            Some(known) if known.written == written => Ok(known.name.clone()),
            _ => {
                let name = make(bytes)?;
                *slot = Some(Slot { written, name: name.clone() });
                Ok(name)
            }
        }
    })
}

fn make(bytes: &[u8]) -> Result<HeaderName, BadHead> {
    HeaderName::from_bytes(bytes).map_err(|_| BadHead::Syntax)
}

/// `None` for what is too long, or ends with a zero and would look like a shorter one.
fn written(bytes: &[u8]) -> Option<Written> {
    let mut padded = [0; LONGEST];
    padded.get_mut(..bytes.len())?.copy_from_slice(bytes);
    let mut written = [0; LONGEST / 8];
    for (word, bytes) in written.iter_mut().zip(padded.as_chunks().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    (bytes.last() != Some(&0)).then_some(written)
}

fn place([a, b, c, d]: &Written) -> usize {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let mixed = a ^ b.rotate_left(32) ^ c.rotate_left(16) ^ d.rotate_left(48);
    let mixed = mixed.wrapping_mul(ODD);
    // The upper half of a product depends on all bits, the lower one does not.
    let mixed = (mixed ^ mixed >> 32).wrapping_mul(ODD);
    (mixed >> 32) as usize % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_the_same_however_often_it_is_asked_for() {
        let long = "x-".repeat(40);
        for text in ["Host", "host", "HOST", "X-Mine", "x-mine", "a", &long] {
            for _ in 0..3 {
                let expected = HeaderName::from_bytes(text.as_bytes()).unwrap();
                assert_eq!(name(text.as_bytes()).unwrap(), expected);
            }
        }
    }

    #[test]
    fn a_slot_gives_only_the_name_that_it_is_asked_for() {
        for round in 0..2 {
            for n in 0..10 * SLOTS {
                let text = format!("x-{n}");
                assert_eq!(name(text.as_bytes()).unwrap(), *text, "round {round}");
            }
        }
    }

    #[test]
    fn what_is_no_token_is_no_name() {
        assert!(name(b"host").is_ok());
        for bytes in [&b""[..], b"host\0", b"ho st", b"host:", b"h\xc3\xb6st", b"\0"] {
            for _ in 0..2 {
                assert_eq!(name(bytes), Err(BadHead::Syntax), "{bytes:?}");
            }
        }
    }
}
