#![allow(clippy::unwrap_used, reason = "a panic here is a failed test")]

use super::*;

fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(*name, HeaderValue::from_static(value));
    }
    headers
}

fn written(write: impl FnOnce(&mut BytesMut)) -> String {
    let mut out = BytesMut::new();
    write(&mut out);
    String::from_utf8(out.to_vec()).unwrap()
}

fn response(
    status: u16,
    fields: &[(&'static str, &'static str)],
    framing: Framing,
    is_last: bool,
) -> String {
    let status = StatusCode::from_u16(status).unwrap();
    let mut map = headers(fields);
    map.insert(DATE, HeaderValue::from_static("then"));
    let text = written(|out| {
        response_head(out, Version::HTTP_11, status, &map, framing, is_last);
    });
    text.replace("date: then\r\n", "")
}

#[test]
fn a_request_tells_its_length_once() {
    let map = headers(&[
        ("host", "a"),
        ("content-length", "99"),
        ("transfer-encoding", "gzip"),
        ("x", "1"),
        ("x", "2"),
    ]);
    for (framing, expected) in [
        (Framing::Empty, ""),
        (Framing::Length(0), "content-length: 0\r\n"),
        (Framing::Length(u64::MAX), "content-length: 18446744073709551615\r\n"),
        (Framing::Chunked, "transfer-encoding: chunked\r\n"),
    ] {
        let text = written(|out| request_head(out, &Method::POST, "/a?b", &map, framing));
        let expected = format!("POST /a?b HTTP/1.1\r\nhost: a\r\nx: 1\r\nx: 2\r\n{expected}\r\n");
        assert_eq!(text, expected);
    }
}

#[test]
fn a_response_tells_its_length_once() {
    let fields = &[("content-length", "9"), ("transfer-encoding", "gzip"), ("x", "1")];
    for (status, framing, expected) in [
        (200, Framing::Length(5), "HTTP/1.1 200 OK\r\nx: 1\r\ncontent-length: 5\r\n\r\n"),
        (
            404,
            Framing::Chunked,
            "HTTP/1.1 404 Not Found\r\nx: 1\r\ntransfer-encoding: chunked\r\n\r\n",
        ),
        (200, Framing::UntilClose, "HTTP/1.1 200 OK\r\nx: 1\r\n\r\n"),
        (304, Framing::Empty, "HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\nx: 1\r\n\r\n"),
        (204, Framing::Empty, "HTTP/1.1 204 No Content\r\nx: 1\r\n\r\n"),
        (799, Framing::Length(0), "HTTP/1.1 799 \r\nx: 1\r\ncontent-length: 0\r\n\r\n"),
    ] {
        assert_eq!(response(status, fields, framing, false), expected);
    }
}

#[test]
fn a_response_says_what_becomes_of_the_connection() {
    let of = |is_last| response(200, &[], Framing::Length(0), is_last);
    assert!(!of(false).contains("connection"));
    assert!(of(true).contains("\r\nconnection: close\r\n"));
    let text = written(|out| {
        let none = HeaderMap::new();
        response_head(out, Version::HTTP_10, StatusCode::OK, &none, Framing::UntilClose, false);
    });
    assert!(text.starts_with("HTTP/1.0 200 OK\r\n"));
}

#[test]
fn a_response_has_one_date() {
    let date = |map: &HeaderMap| {
        let text = written(|out| {
            response_head(out, Version::HTTP_11, StatusCode::OK, map, Framing::Empty, false);
        });
        let dates: Vec<&str> =
            text.lines().filter_map(|line| line.strip_prefix("date: ")).collect();
        assert_eq!(dates.len(), 1, "{text}");
        dates[0].to_owned()
    };
    assert_eq!(date(&headers(&[("date", "theirs")])), "theirs");
    let before = clock::unix_ms() / 1000;
    let ours = httpdate::parse_http_date(&date(&HeaderMap::new())).unwrap();
    let ours = ours.duration_since(UNIX_EPOCH).unwrap().as_secs();
    assert!((before..=clock::unix_ms() / 1000).contains(&ours));
}

#[test]
fn an_interim_head_has_neither_length_nor_date() {
    let map = headers(&[("link", "</a>"), ("content-length", "1")]);
    let text = written(|out| interim_head(out, StatusCode::from_u16(103).unwrap(), &map));
    assert_eq!(text, "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n");
}

#[test]
fn chunks_have_hexadecimal_sizes() {
    for (length, expected) in
        [(1, "1\r\n"), (10, "a\r\n"), (16, "10\r\n"), (0xfed_cba9, "fedcba9\r\n")]
    {
        assert_eq!(written(|out| chunk_head(out, length)), expected);
    }
    assert_eq!(written(|out| chunk_head(out, usize::MAX)), "ffffffffffffffff\r\n");
    assert_eq!(written(|out| last_chunk(out, None)), "0\r\n\r\n");
    let trailers = headers(&[("x-sum", "7"), ("content-length", "1")]);
    assert_eq!(written(|out| last_chunk(out, Some(&trailers))), "0\r\nx-sum: 7\r\n\r\n");
}
