#![allow(clippy::unwrap_used, reason = "a panic here is a failed test")]

use super::*;

/// What a body came to: its data, its trailers, and the bytes behind it.
#[derive(Debug, PartialEq, Eq)]
struct Body {
    data: Vec<u8>,
    trailers: Option<HeaderMap>,
    rest: Vec<u8>,
}

/// Decodes `parts` one after the other; `None` if the body is not over after the last.
fn decode(framing: Framing, parts: &[&[u8]]) -> Result<Option<Body>, BadFraming> {
    let mut decoder = Decoder::new(framing);
    let mut buf = BytesMut::new();
    let mut parts = parts.iter();
    let (mut data, mut trailers) = (Vec::new(), None);
    loop {
        match decoder.decode(&mut buf)? {
            Decoded::Data(piece) => {
                assert!(!piece.is_empty());
                data.extend_from_slice(&piece);
            }
            Decoded::Trailers(found) => {
                assert!(decoder.is_done());
                trailers = Some(found);
            }
            Decoded::NeedMore => {
                let Some(part) = parts.next() else { return Ok(None) };
                buf.extend_from_slice(part);
            }
            Decoded::Done => {
                assert!(decoder.is_done() && decoder.at_eof().is_ok());
                parts.for_each(|part| buf.extend_from_slice(part));
                return Ok(Some(Body { data, trailers, rest: buf.to_vec() }));
            }
        }
    }
}

fn chunked(text: &[u8]) -> Result<Option<Body>, BadFraming> {
    decode(Framing::Chunked, &[text])
}

#[test]
fn a_length_ends_a_body_and_what_follows_stays() {
    let body = decode(Framing::Length(5), &[b"he", b"llo", b"GET"]).unwrap().unwrap();
    assert_eq!((&body.data[..], &body.rest[..]), (&b"hello"[..], &b"GET"[..]));
    for empty in [Framing::Empty, Framing::Length(0)] {
        let body = decode(empty, &[b"GET"]).unwrap().unwrap();
        assert_eq!((&body.data[..], &body.rest[..]), (&b""[..], &b"GET"[..]));
    }
    let mut decoder = Decoder::new(Framing::Length(u64::MAX));
    assert_eq!(decoder.remaining(), Some(u64::MAX));
    decoder.decode(&mut BytesMut::from("abc")).unwrap();
    assert_eq!(decoder.remaining(), Some(u64::MAX - 3));
    assert_eq!(decoder.at_eof(), Err(BadFraming::Truncated));
    assert_eq!(Decoder::new(Framing::Empty).remaining(), Some(0));
    assert_eq!(Decoder::new(Framing::Chunked).remaining(), None);
}

#[test]
fn only_a_body_without_a_length_may_end_with_the_connection() {
    let mut decoder = Decoder::new(Framing::UntilClose);
    let mut buf = BytesMut::from("all");
    assert_eq!(decoder.decode(&mut buf), Ok(Decoded::Data(Bytes::from_static(b"all"))));
    assert_eq!(decoder.decode(&mut buf), Ok(Decoded::NeedMore));
    assert!(!decoder.is_done());
    assert_eq!(decoder.at_eof(), Ok(()));
    assert_eq!(decoder.decode(&mut buf), Ok(Decoded::Done));

    for text in ["", "5", "5\r\n", "5\r\nhello", "5\r\nhello\r\n", "0\r\n", "0\r\nx: 1\r\n"] {
        let mut decoder = Decoder::new(Framing::Chunked);
        let mut buf = BytesMut::from(text);
        while !matches!(decoder.decode(&mut buf).unwrap(), Decoded::NeedMore) {}
        assert_eq!(decoder.at_eof(), Err(BadFraming::Truncated), "{text:?}");
    }
}

#[test]
fn data_is_not_copied() {
    let mut buf = BytesMut::from("5\r\nhello\r\n0\r\n\r\n");
    let at = buf[3..].as_ptr();
    let Decoded::Data(data) = Decoder::new(Framing::Chunked).decode(&mut buf).unwrap() else {
        panic!("no data");
    };
    assert_eq!(data.as_ptr(), at);
}

#[test]
fn chunks_become_their_data() {
    for (text, data) in [
        ("0\r\n\r\n", ""),
        ("000\r\n\r\n", ""),
        ("5\r\nhello\r\n0\r\n\r\n", "hello"),
        ("1\r\nh\r\n4\r\nello\r\n0\r\n\r\n", "hello"),
        ("00000000000000A\r\n0123456789\r\n0\r\n\r\n", "0123456789"),
        ("a\r\n0123456789\r\n0\r\n\r\n", "0123456789"),
        ("2;x\r\nab\r\n0;y=\"z; \t\"\r\n\r\n", "ab"),
        ("2\r\n\r\n\r\n0\r\n\r\n", "\r\n"),
    ] {
        let body = chunked(format!("{text}GET").as_bytes()).unwrap().unwrap();
        assert_eq!((&body.data[..], body.trailers), (data.as_bytes(), None), "{text:?}");
        assert_eq!(body.rest, b"GET", "{text:?}");
    }
}

#[test]
fn chunks_that_two_parsers_could_read_differently_are_refused() {
    for (text, error) in [
        ("\r\n", BadFraming::Size),
        (";x\r\n", BadFraming::Size),
        ("x\r\n", BadFraming::Size),
        ("0x5\r\nhello\r\n", BadFraming::Size),
        ("+5\r\nhello\r\n", BadFraming::Size),
        ("-5\r\nhello\r\n", BadFraming::Size),
        (" 5\r\nhello\r\n", BadFraming::Size),
        ("5 \r\nhello\r\n", BadFraming::Size),
        ("5\t;x\r\nhello\r\n", BadFraming::Size),
        ("5,\r\nhello\r\n", BadFraming::Size),
        ("5\0\r\nhello\r\n", BadFraming::Size),
        ("00000000000000005\r\nhello\r\n", BadFraming::Size),
        ("10000000000000000\r\n", BadFraming::Size),
        ("5\nhello\r\n", BadFraming::LineEnd),
        ("5\rhello\r\n", BadFraming::LineEnd),
        ("5\r\rhello\r\n", BadFraming::LineEnd),
        ("5;x\nhello\r\n", BadFraming::LineEnd),
        ("5;x\r\rhello\r\n", BadFraming::LineEnd),
        ("5;\0\r\nhello\r\n", BadFraming::Extensions),
        ("5;\x7f\r\nhello\r\n", BadFraming::Extensions),
        ("5\r\nhello0\r\n\r\n", BadFraming::LineEnd),
        ("5\r\nhello\n0\r\n\r\n", BadFraming::LineEnd),
        ("5\r\nhello\r0\r\n\r\n", BadFraming::LineEnd),
        ("5\r\nhelloxx\r\n0\r\n\r\n", BadFraming::LineEnd),
        ("0\r\n\n", BadFraming::LineEnd),
        ("0\r\n\rx", BadFraming::LineEnd),
        ("0\r\nx\r\n\r\n", BadFraming::Trailers),
        ("0\r\nx: 1\n\r\n", BadFraming::Trailers),
        ("0\r\nx: 1\r\n\n", BadFraming::Trailers),
        ("0\r\nx : 1\r\n\r\n", BadFraming::Trailers),
        ("0\r\n x: 1\r\n\r\n", BadFraming::Trailers),
        ("0\r\nx: 1\r\n y\r\n\r\n", BadFraming::Trailers),
        ("0\r\nx: \0\r\n\r\n", BadFraming::Trailers),
        ("0\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n", BadFraming::Trailers),
        ("0\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\n", BadFraming::Trailers),
    ] {
        assert_eq!(chunked(text.as_bytes()).unwrap_err(), error, "{text:?}");
        let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
        assert_eq!(decode(Framing::Chunked, &bytes).unwrap_err(), error, "{text:?} in bytes");
    }
}

#[test]
fn the_largest_size_is_that_of_64_bits() {
    let mut decoder = Decoder::new(Framing::Chunked);
    let mut buf = BytesMut::from("FFFFFFFFFFFFFFFF\r\nab");
    assert!(matches!(decoder.decode(&mut buf), Ok(Decoded::Data(_))));
    assert_eq!(decoder.decode(&mut buf), Ok(Decoded::NeedMore));
}

#[test]
fn extensions_are_bounded_for_the_whole_body() {
    let many = "1;0123456789\r\nx\r\n".repeat(MAX_EXTENSIONS / 11 + 1);
    assert_eq!(chunked(many.as_bytes()).unwrap_err(), BadFraming::Extensions);
    let endless = format!("1;{}", "x".repeat(MAX_EXTENSIONS));
    assert_eq!(chunked(endless.as_bytes()).unwrap_err(), BadFraming::Extensions);
    let some = "1;0123456789\r\nx\r\n".repeat(MAX_EXTENSIONS / 11 - 40);
    assert_eq!(chunked(some.as_bytes()), Ok(None));
}

#[test]
fn trailers_follow_the_last_chunk() {
    let body = chunked(b"1\r\na\r\n0\r\nX-Sum: 7\r\nx-sum: 8\r\n\r\nGET").unwrap().unwrap();
    let trailers = body.trailers.unwrap();
    assert_eq!(trailers.get_all("x-sum").iter().collect::<Vec<_>>(), ["7", "8"]);
    assert_eq!(body.rest, b"GET");
}

#[test]
fn trailers_are_bounded() {
    let many = |n: usize| (0..n).map(|n| format!("x-{n}: 1\r\n")).collect::<String>();
    assert!(chunked(format!("0\r\n{}\r\n", many(100)).as_bytes()).unwrap().is_some());
    let too_many = format!("0\r\n{}\r\n", many(101));
    assert_eq!(chunked(too_many.as_bytes()).unwrap_err(), BadFraming::Trailers);
    for end in ["", "\r\n\r\n"] {
        let long = format!("0\r\nx: {}{end}", "x".repeat(MAX_TRAILERS));
        assert_eq!(chunked(long.as_bytes()).unwrap_err(), BadFraming::Trailers);
    }
}

#[test]
fn a_body_is_the_same_wherever_it_is_cut() {
    let text = b"5;a=b\r\nhello\r\n0A\r\n0123456789\r\n0\r\nx: 1\r\ny: 2\r\n\r\nGET /";
    let whole = chunked(text).unwrap().unwrap();
    assert_eq!((&whole.data[..], &whole.rest[..]), (&b"hello0123456789"[..], &b"GET /"[..]));
    for first in 0..text.len() {
        for second in first..text.len() {
            let parts = [&text[..first], &text[first..second], &text[second..]];
            let cut = decode(Framing::Chunked, &parts).unwrap().unwrap();
            assert_eq!(cut, whole, "cut at {first} and {second}");
        }
    }
    let bytes: Vec<&[u8]> = text.chunks(1).collect();
    assert_eq!(decode(Framing::Chunked, &bytes).unwrap().unwrap(), whole);
}
