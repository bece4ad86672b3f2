//! As much of WebSocket (RFC 6455) as an echo of small messages needs.

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Any key will do: it only shows that the answer is one to this request.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// `Sec-WebSocket-Accept` for this `Sec-WebSocket-Key`.
pub fn accept(key: &str) -> String {
    let text = format!("{key}{GUID}");
    STANDARD.encode(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()))
}

/// A masked text message of this many bytes, at most 65,535.
pub fn message(length: u16) -> Vec<u8> {
    const MASK: [u8; 4] = [1, 2, 3, 4];
    let mut frame = vec![0x81];
    match length {
        0..126 => frame.push(0x80 | length as u8),
        _ => {
            frame.push(0x80 | 126);
            frame.extend(length.to_be_bytes());
        }
    }
    frame.extend(MASK);
    frame.extend((0..usize::from(length)).map(|i| b'x' ^ MASK[i % 4]));
    frame
}

/// How long the echo of `message` is: it comes without the mask.
pub fn echo_bytes(length: u16) -> usize {
    message(length).len() - 4
}

/// Appends the echo of the first message in `input`; returns how many bytes that took.
pub fn echo(input: &[u8], out: &mut Vec<u8>) -> Option<usize> {
    let short = input.get(1)? & 0x7f;
    let (length, at) = match short {
        126 => (usize::from(u16::from_be_bytes([*input.get(2)?, *input.get(3)?])), 4),
        127 => return None, // longer than any that the client sends
        _ => (usize::from(short), 2),
    };
    let mask = input.get(at..at + 4)?;
    let data = input.get(at + 4..at + 4 + length)?;
    out.push(input[0]);
    out.push(short);
    out.extend(&input[2..at]);
    out.extend(data.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    Some(at + 4 + length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accept_value_is_that_of_the_rfc() {
        assert_eq!(accept(KEY), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn an_echo_is_the_message_without_its_mask() {
        for length in [0, 5, 125, 126, 1_000] {
            let message = message(length);
            let mut out = Vec::new();
            assert_eq!(echo(&message, &mut out), Some(message.len()));
            assert_eq!(out.len(), echo_bytes(length));
            assert!(out[out.len() - usize::from(length)..].iter().all(|b| *b == b'x'));
            assert_eq!(echo(&message[..message.len() - 1], &mut Vec::new()), None);
        }
    }
}
