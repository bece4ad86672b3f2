//! Where a body ends, and taking it out of a buffer piece by piece (RFC 9112, 6 and 7).
//!
//! Data is never copied: pieces are slices of the buffer that was read into. Chunks are read
//! strictly: what two parsers could end at different places is an error.

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;

use super::head::{self, Spans};

/// Bytes of chunk extensions in one body. They are passed over, so many of them are an attack.
const MAX_EXTENSIONS: usize = 4 * 1024;
/// Bytes of a trailer section.
const MAX_TRAILERS: usize = 32 * 1024;
/// Digits of a chunk's size: what fits into 64 bits.
const MAX_DIGITS: usize = 16;

/// What follows a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// No body.
    Empty,
    /// So many bytes.
    Length(u64),
    /// Chunks, then perhaps trailers.
    Chunked,
    /// All until the peer closes: responses only.
    UntilClose,
}

/// A body that cannot be told from what follows it, so the connection must be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadFraming {
    #[error("the size of a chunk is not 1 to 16 hexadecimal digits")]
    Size,
    #[error("a line of the chunked coding does not end with CR LF")]
    LineEnd,
    #[error("chunk extensions are invalid or longer than 4 KiB")]
    Extensions,
    #[error("the trailers are invalid, more than 100 or longer than 32 KiB")]
    Trailers,
    #[error("the connection ended before the body did")]
    Truncated,
}

/// What [`Decoder::decode`] found.
#[derive(Debug, PartialEq, Eq)]
pub enum Decoded {
    /// The next piece of the body, never empty.
    Data(Bytes),
    /// The fields after the last chunk; the body is over.
    Trailers(HeaderMap),
    /// The buffer has to be filled with more.
    NeedMore,
    /// The body is over; what the buffer still holds belongs to the next message.
    Done,
}

/// The state of one body.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    /// Bytes of chunk extensions that were passed over.
    extensions: usize,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Done,
    UntilClose,
    Length(u64),
    /// Before the line with a chunk's size.
    Size,
    /// So many bytes of a chunk are missing.
    Chunk(u64),
    /// Before the line end behind a chunk's data.
    ChunkEnd,
    Trailers,
}

impl Decoder {
    pub fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::Empty | Framing::Length(0) => State::Done,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Size,
            Framing::UntilClose => State::UntilClose,
        };
        Decoder { state, extensions: 0 }
    }

    /// Takes from `buf` what is there of the body: one piece a call.
    ///
    /// # Errors
    /// [`BadFraming`] if the chunked coding is broken. Every later call finds the same error.
    pub fn decode(&mut self, buf: &mut BytesMut) -> Result<Decoded, BadFraming> {
        loop {
            match self.state {
                State::Done => return Ok(Decoded::Done),
                State::UntilClose if buf.is_empty() => return Ok(Decoded::NeedMore),
                State::UntilClose => return Ok(Decoded::Data(take_all(buf))),
                State::Length(missing) => {
                    let (piece, missing) = take(buf, missing);
                    self.state = if missing == 0 { State::Done } else { State::Length(missing) };
                    return Ok(piece);
                }
                State::Chunk(missing) => {
                    let (piece, missing) = take(buf, missing);
                    self.state = if missing == 0 { State::ChunkEnd } else { State::Chunk(missing) };
                    return Ok(piece);
                }
                State::Size => match self.size(buf)? {
                    None => return Ok(Decoded::NeedMore),
                    Some(0) => self.state = State::Trailers,
                    Some(size) => self.state = State::Chunk(size),
                },
                State::ChunkEnd => {
                    if !skip_line_end(buf)? {
                        return Ok(Decoded::NeedMore);
                    }
                    self.state = State::Size;
                }
                State::Trailers => return self.trailers(buf),
            }
        }
    }

    /// The peer has closed: nothing will follow what was decoded.
    ///
    /// # Errors
    /// [`BadFraming::Truncated`] if that is not how this body ends.
    pub fn at_eof(&mut self) -> Result<(), BadFraming> {
        match self.state {
            State::Done => Ok(()),
            State::UntilClose => {
                self.state = State::Done;
                Ok(())
            }
            _ => Err(BadFraming::Truncated),
        }
    }

    /// Whether the whole body was taken.
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Bytes that are missing, where that is known.
    pub fn remaining(&self) -> Option<u64> {
        match self.state {
            State::Done => Some(0),
            State::Length(missing) => Some(missing),
            _ => None,
        }
    }

    /// Takes the line with a chunk's size: `chunk-size [ chunk-ext ] CRLF`. No white space
    /// before extensions: parsers differ in what they make of it.
    fn size(&mut self, buf: &mut BytesMut) -> Result<Option<u64>, BadFraming> {
        let mut size = 0_u64;
        let mut at = 0;
        let after = loop {
            let Some(&byte) = buf.get(at) else { return Ok(None) };
            let Some(digit) = char::from(byte).to_digit(16) else { break byte };
            if at == MAX_DIGITS {
                return Err(BadFraming::Size);
            }
            size = size << 4 | u64::from(digit);
            at += 1;
        };
        if at == 0 {
            return Err(BadFraming::Size);
        }
        if after == b';' {
            let Some(length) = self.extension(&buf[at..])? else { return Ok(None) };
            at += length;
        }
        match (buf.get(at), buf.get(at + 1)) {
            (Some(b'\r'), Some(b'\n')) => {}
            (Some(b'\r'), None) => return Ok(None),
            (Some(b'\r'), Some(_)) | (Some(b'\n'), _) => return Err(BadFraming::LineEnd),
            _ => return Err(BadFraming::Size),
        }
        buf.advance(at + 2);
        if after == b';' {
            self.extensions += at;
        }
        Ok(Some(size))
    }

    /// The length of the extensions that `line` begins with, once their end is there.
    fn extension(&self, line: &[u8]) -> Result<Option<usize>, BadFraming> {
        let is_text = |byte: &u8| matches!(byte, b'\t' | b' '..=b'~' | 0x80..);
        let end = line.iter().position(|byte| !is_text(byte));
        if self.extensions + end.unwrap_or(line.len()) > MAX_EXTENSIONS {
            return Err(BadFraming::Extensions);
        }
        match end.map(|end| line[end]) {
            None => Ok(None),
            Some(b'\r') => Ok(end),
            Some(b'\n') => Err(BadFraming::LineEnd),
            Some(_) => Err(BadFraming::Extensions),
        }
    }

    fn trailers(&mut self, buf: &mut BytesMut) -> Result<Decoded, BadFraming> {
        if matches!(buf.first(), None | Some(b'\r' | b'\n')) {
            if !skip_line_end(buf)? {
                return Ok(Decoded::NeedMore);
            }
            self.state = State::Done;
            return Ok(Decoded::Done);
        }
        let trailers = trailers(buf).map_err(|_| BadFraming::Trailers)?;
        let Some(trailers) = trailers else {
            if buf.len() > MAX_TRAILERS {
                return Err(BadFraming::Trailers);
            }
            return Ok(Decoded::NeedMore);
        };
        self.state = State::Done;
        Ok(Decoded::Trailers(trailers))
    }
}

/// Takes what is there of `missing` bytes, and says how many are missing still.
fn take(buf: &mut BytesMut, missing: u64) -> (Decoded, u64) {
    if buf.is_empty() {
        return (Decoded::NeedMore, missing);
    }
    let length = usize::try_from(missing).map_or(buf.len(), |missing| missing.min(buf.len()));
    let piece = if length == buf.len() { take_all(buf) } else { buf.split_to(length).freeze() };
    (Decoded::Data(piece), missing - length as u64)
}

/// Leaves nothing of the buffer that would keep its memory.
fn take_all(buf: &mut BytesMut) -> Bytes {
    std::mem::take(buf).freeze()
}

/// Takes CR LF; `false` if it is not all there.
fn skip_line_end(buf: &mut BytesMut) -> Result<bool, BadFraming> {
    match (buf.first(), buf.get(1)) {
        (None, _) | (Some(b'\r'), None) => Ok(false),
        (Some(b'\r'), Some(b'\n')) => {
            buf.advance(2);
            Ok(true)
        }
        _ => Err(BadFraming::LineEnd),
    }
}

/// Takes a trailer section with at least one field; `None` if it is not all there.
fn trailers(buf: &mut BytesMut) -> Result<Option<HeaderMap>, head::BadHead> {
    if head::is_far_from_complete(buf) {
        return Ok(None);
    }
    let mut fields = [httparse::EMPTY_HEADER; head::MAX_FIELDS];
    let httparse::Status::Complete((length, fields)) = httparse::parse_headers(buf, &mut fields)?
    else {
        return Ok(None);
    };
    if length > MAX_TRAILERS {
        return Err(head::BadHead::TooLarge);
    }
    let mut spans = Spans::none();
    spans.note(&buf[..length], fields)?;
    let section = buf.split_to(length).freeze();
    spans.fields(&section).map(|(fields, _)| Some(fields))
}

#[cfg(test)]
mod tests;
