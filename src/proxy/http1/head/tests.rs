#![allow(clippy::unwrap_used, reason = "a panic here is a failed test")]

use super::*;

const LIMITS: Limits = Limits { head_bytes: 32 * 1024, fields: 100, target_bytes: 1024 };

fn read(text: impl AsRef<[u8]>) -> Result<Option<RequestHead>, BadHead> {
    request(&mut BytesMut::from(text.as_ref()), &LIMITS)
}

fn good(text: impl AsRef<[u8]>) -> RequestHead {
    read(text).unwrap().unwrap()
}

fn answer(method: &Method, text: &str) -> Result<Option<ResponseHead>, BadHead> {
    response(&mut BytesMut::from(text), method, &LIMITS)
}

fn get(text: &str) -> ResponseHead {
    answer(&Method::GET, text).unwrap().unwrap()
}

/// A request that is good but for these lines.
fn with(lines: &str) -> String {
    format!("POST / HTTP/1.1\r\nhost: a\r\n{lines}\r\n")
}

#[test]
fn a_request_is_taken_off_and_what_follows_stays() {
    let mut buf = BytesMut::from(
        "POST /a?b=c HTTP/1.1\r\nHost: Example.com\r\nX-One:1\r\nx-one: \t2 \t\r\nX-Empty:\r\n\
         Content-Length: 3\r\n\r\nabcGET",
    );
    let head = request(&mut buf, &LIMITS).unwrap().unwrap();
    assert_eq!(head.parts.method, Method::POST);
    assert_eq!(head.parts.uri, "/a?b=c");
    assert_eq!(head.parts.version, Version::HTTP_11);
    assert_eq!(head.parts.headers["host"], "Example.com");
    assert_eq!(head.parts.headers.get_all("x-one").iter().collect::<Vec<_>>(), ["1", "2"]);
    assert_eq!(head.parts.headers["x-empty"], "");
    assert_eq!(head.framing, Framing::Length(3));
    assert!(head.keep_alive && !head.expects_continue);
    assert_eq!(&buf[..], b"abcGET");
}

#[test]
fn values_are_slices_of_what_was_read() {
    let mut buf = BytesMut::from("GET / HTTP/1.1\r\nhost: a\r\nx: value\r\n\r\n");
    let at = buf.as_ptr() as usize;
    let length = buf.len();
    let head = request(&mut buf, &LIMITS).unwrap().unwrap();
    let value = head.parts.headers["x"].as_bytes().as_ptr() as usize;
    assert!((at..at + length).contains(&value));
}

#[test]
fn what_is_kept_of_a_head_does_not_keep_a_large_read() {
    let mut buf = BytesMut::from(with("x: value\r\nContent-Length: 9000\r\n").as_str());
    buf.extend_from_slice(&[b'b'; 9000]);
    let (at, length) = (buf.as_ptr() as usize, buf.len());
    let head = request(&mut buf, &LIMITS).unwrap().unwrap();
    assert_eq!(buf.len(), 9000);
    let value = head.parts.headers["x"].as_bytes().as_ptr() as usize;
    assert!(!(at..at + length).contains(&value));
}

#[test]
fn heads_that_break_the_grammar_are_refused() {
    for text in [
        "GET / HTTP/1.1\nhost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\n\n",
        "GET / HTTP/1.1\r\nhost: a\r\nx: 1\nhost: b\r\n\r\n",
        "GET / HTTP/1.1\n\n",
        "\nGET / HTTP/1.1\r\nhost: a\r\n\r\n",
        "\r\n\nGET / HTTP/1.1\r\nhost: a\r\n\r\n",
        "\rGET / HTTP/1.1\r\nhost: a\r\n\r\n",
        "\r\n\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.1\rhost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\rx: 1\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nx: a\rb\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nx: 1\r\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nx: a\0b\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nx\0: b\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nx: \x7f\r\n\r\n",
        "GET /\0 HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nx: 1\r\n folded\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nx: 1\r\n\tfolded\r\n\r\n",
        "GET / HTTP/1.1\r\n host: a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nx : 1\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nx\t: 1\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\n: 1\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nno colon\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nx(y): 1\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nx\u{e9}: 1\r\n\r\n",
        "GET  / HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET /  HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET\t/ HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.1 \r\nhost: a\r\n\r\n",
        " GET / HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET /a b HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET / http/1.1\r\nhost: a\r\n\r\n",
        "GET / HTTPS/1.1\r\nhost: a\r\n\r\n",
        "G(T / HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nx: 1\r\n\u{b}\r\n\r\n",
    ] {
        let refused = read(text).map(|_| ()).unwrap_err();
        assert_eq!(refused.reason(), Reason::BadRequest, "{text:?}");
    }
    let long = format!("{} / HTTP/1.1\r\nhost: a\r\n\r\n", "A".repeat(MAX_METHOD + 1));
    assert_eq!(read(long).unwrap_err(), BadHead::Syntax);
}

#[test]
fn http_0_9_is_no_request_and_other_versions_are_told() {
    assert_eq!(read("GET /\r\n").unwrap_err(), BadHead::Syntax);
    for version in ["HTTP/2.0", "HTTP/1.2", "HTTP/0.9", "HTTP/3"] {
        let refused = read(format!("GET / {version}\r\nhost: a\r\n\r\n")).unwrap_err();
        assert_eq!(refused, BadHead::Version, "{version}");
        assert_eq!(refused.reason().status(), StatusCode::HTTP_VERSION_NOT_SUPPORTED);
    }
}

#[test]
fn empty_lines_before_a_request_are_passed_over() {
    let mut buf = BytesMut::from("\r\n\r\n");
    assert!(request(&mut buf, &LIMITS).unwrap().is_none());
    assert_eq!(buf.len(), 4, "a part of a head was taken");
    buf.extend_from_slice(b"GET /x HTTP/1.1\r\nhost: a\r\n\r\n");
    let head = request(&mut buf, &LIMITS).unwrap().unwrap();
    assert_eq!((head.parts.uri.path(), &head.parts.headers["host"]), ("/x", &"a".parse().unwrap()));
    assert!(buf.is_empty());
}

#[test]
fn a_target_has_the_form_of_its_method() {
    for (line, uri) in [
        ("GET /a/b?c", Some("/a/b?c")),
        ("GET //a", Some("//a")),
        ("OPTIONS *", Some("*")),
        ("OPTIONS /x", Some("/x")),
        ("GET http://a.example:80/x?y", Some("http://a.example:80/x?y")),
        ("GET HTTPS://a.example", Some("https://a.example/")),
        ("CONNECT a.example:443", Some("a.example:443")),
        ("GET *", None),
        ("GET a.example:443", None),
        ("GET a", None),
        ("GET ?x", None),
        ("GET /a#b", None),
        ("GET http://a/#b", None),
        ("GET http://", None),
        ("GET http:///x", None),
        ("GET ftp://a/", None),
        ("GET mailto:a@b", None),
        ("CONNECT /", None),
        ("CONNECT *", None),
        ("CONNECT http://a/", None),
    ] {
        let head = read(format!("{line} HTTP/1.1\r\nhost: a.example\r\n\r\n"));
        match uri {
            Some(uri) => assert_eq!(head.unwrap().unwrap().parts.uri, uri, "{line}"),
            None => assert_eq!(head.unwrap_err(), BadHead::Target, "{line}"),
        }
    }
}

#[test]
fn a_body_has_one_length_told_one_way() {
    for (lines, framing) in [
        ("", Ok(Framing::Empty)),
        ("content-length: 0\r\n", Ok(Framing::Length(0))),
        ("content-length: 007\r\n", Ok(Framing::Length(7))),
        ("content-length: 18446744073709551615\r\n", Ok(Framing::Length(u64::MAX))),
        ("transfer-encoding: chunked\r\n", Ok(Framing::Chunked)),
        ("Transfer-Encoding:\t Chunked \r\n", Ok(Framing::Chunked)),
        ("content-length: 18446744073709551616\r\n", Err(BadHead::Framing)),
        ("content-length: 99999999999999999999999\r\n", Err(BadHead::Framing)),
        ("content-length:\r\n", Err(BadHead::Framing)),
        ("content-length: +1\r\n", Err(BadHead::Framing)),
        ("content-length: -1\r\n", Err(BadHead::Framing)),
        ("content-length: 1 \t2\r\n", Err(BadHead::Framing)),
        ("content-length: 0x1\r\n", Err(BadHead::Framing)),
        ("content-length: 1.0\r\n", Err(BadHead::Framing)),
        ("content-length: 1e1\r\n", Err(BadHead::Framing)),
        ("content-length: 5, 5\r\n", Err(BadHead::Framing)),
        ("content-length: 5,\r\n", Err(BadHead::Framing)),
        ("content-length: 5\r\ncontent-length: 5\r\n", Err(BadHead::Framing)),
        ("content-length: 5\r\ncontent-length: 6\r\n", Err(BadHead::Framing)),
        ("content-length: 5\r\ntransfer-encoding: chunked\r\n", Err(BadHead::Framing)),
        ("transfer-encoding: chunked\r\ncontent-length: 5\r\n", Err(BadHead::Framing)),
        ("transfer-encoding: chunked\r\ncontent-length: 0\r\n", Err(BadHead::Framing)),
        ("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n", Err(BadHead::Framing)),
        ("transfer-encoding: chunked, chunked\r\n", Err(BadHead::Framing)),
        ("transfer-encoding: gzip, chunked\r\n", Err(BadHead::Framing)),
        ("transfer-encoding: chunked, gzip\r\n", Err(BadHead::Framing)),
        ("transfer-encoding: ,chunked\r\n", Err(BadHead::Framing)),
        ("transfer-encoding: chunked,\r\n", Err(BadHead::Framing)),
        ("transfer-encoding: chunked;q=1\r\n", Err(BadHead::Framing)),
        ("transfer-encoding: \"chunked\"\r\n", Err(BadHead::Framing)),
        ("transfer-encoding: xchunked\r\n", Err(BadHead::Framing)),
        ("transfer-encoding: identity\r\n", Err(BadHead::Framing)),
        ("transfer-encoding:\r\n", Err(BadHead::Framing)),
        ("transfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n", Err(BadHead::Framing)),
    ] {
        let found = read(with(lines)).map(|head| head.unwrap().framing);
        assert_eq!(found, framing, "{lines:?}");
    }
    let in_10 = read("POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n");
    assert_eq!(in_10.unwrap_err().reason(), Reason::InvalidFraming);
    let in_10 = good("POST / HTTP/1.0\r\ncontent-length: 2\r\n\r\n");
    assert_eq!(in_10.framing, Framing::Length(2));
}

#[test]
fn only_http_1_1_without_close_is_kept() {
    for (lines, is_kept) in [
        ("", true),
        ("connection: keep-alive\r\n", true),
        ("connection: close\r\n", false),
        ("connection: x ,\tCLOSE\r\n", false),
        ("connection: x\r\nconnection: close\r\n", false),
        ("connection: closed\r\n", true),
    ] {
        assert_eq!(good(with(lines)).keep_alive, is_kept, "{lines:?}");
    }
    assert!(!good("GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n").keep_alive);
}

#[test]
fn continue_is_expected_only_in_http_1_1() {
    assert!(good(with("expect: 100-Continue\r\n")).expects_continue);
    assert!(!good(with("expect: 200\r\n")).expects_continue);
    assert!(!good("PUT / HTTP/1.0\r\nexpect: 100-continue\r\n\r\n").expects_continue);
}

#[test]
fn limits_hold_for_whole_heads_and_for_those_that_never_end() {
    let target =
        |length: usize| format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "x".repeat(length - 1));
    assert!(read(target(1024)).is_ok());
    assert_eq!(read(target(1025)).unwrap_err(), BadHead::TargetTooLong);
    let endless = format!("GET /{}", "x".repeat(2000));
    assert_eq!(read(endless).unwrap_err().reason(), Reason::UriTooLong);

    let fields = |count| (0..count).map(|n| format!("x-{n}: 1\r\n")).collect::<String>();
    assert_eq!(good(with(&fields(99))).parts.headers.len(), 100);
    assert_eq!(read(with(&fields(100))).unwrap_err(), BadHead::TooLarge);
    let few = Limits { fields: 2, ..LIMITS };
    let mut buf = BytesMut::from(&*with("x: 1\r\ny: 1\r\n"));
    assert_eq!(request(&mut buf, &few).unwrap_err().reason(), Reason::HeadTooLarge);

    let field = |length| with(&format!("x: {}\r\n", "x".repeat(length)));
    let around = field(0).len();
    assert!(read(field(LIMITS.head_bytes - around)).is_ok());
    assert_eq!(read(field(LIMITS.head_bytes - around + 1)).unwrap_err(), BadHead::TooLarge);
    let endless = field(LIMITS.head_bytes);
    assert_eq!(read(endless.trim_end()).unwrap_err(), BadHead::TooLarge);
    let wide = Limits { head_bytes: usize::MAX, target_bytes: usize::MAX, fields: usize::MAX };
    let mut buf = BytesMut::from(&*field(MAX_HEAD));
    assert_eq!(request(&mut buf, &wide).unwrap_err(), BadHead::TooLarge);
}

#[test]
fn a_request_is_the_same_wherever_it_is_cut() {
    let long = with(&format!("x: {}\r\n", "x".repeat(2 * LONG)));
    let texts = [
        "\r\nPOST /a?b HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\nx: 1\r\n\r\nabc",
        "GET / HTTP/1.0\r\n\r\n",
        &long,
        "GET / HTTP/1.1\nhost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\n\n",
        "GET / HTTP/1.1\r\nhost: a\r\nx : 1\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nx: 1\r\n folded\r\n\r\n",
        "GET / HTTP/2.0\r\nhost: a\r\n\r\n",
        "GET /a#b HTTP/1.1\r\nhost: a\r\n\r\n",
        "POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\n",
        "\r\n\r\n\r\nGET / HTTP/1.1\r\n\r\n",
    ];
    for text in texts {
        let whole = format!("{:?}", read(text));
        for at in (0..text.len()).step_by(text.len().div_ceil(200)) {
            let (first, second) = text.as_bytes().split_at(at);
            assert_eq!(in_parts(&[first, second]), whole, "{text:?} cut at {at}");
        }
        let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
        assert_eq!(in_parts(&bytes), whole, "{text:?} byte by byte");
    }
}

/// What becomes of a request that comes in parts. Nothing is taken before all is there.
fn in_parts(parts: &[&[u8]]) -> String {
    let mut buf = BytesMut::new();
    for part in parts {
        buf.extend_from_slice(part);
        let before = buf.len();
        let found = request(&mut buf, &LIMITS);
        if !matches!(found, Ok(None)) {
            return format!("{found:?}");
        }
        assert_eq!(buf.len(), before, "a part was taken");
    }
    "nothing".into()
}

#[test]
fn a_response_has_the_body_that_its_request_and_status_give_it() {
    let (head, get, kept) = (Method::HEAD, Method::GET, true);
    for (method, text, framing, is_kept) in [
        (&get, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n", Framing::Length(5), kept),
        (&get, "HTTP/1.1 200\r\ncontent-length: 5\r\n", Framing::Length(5), kept),
        (&get, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n", Framing::Chunked, kept),
        (&get, "HTTP/1.1 200 OK\r\n", Framing::UntilClose, !kept),
        (&get, "HTTP/1.0 200 OK\r\n", Framing::UntilClose, !kept),
        (
            &get,
            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 1\r\n",
            Framing::Length(1),
            !kept,
        ),
        (&get, "HTTP/1.0 200 OK\r\ncontent-length: 1\r\n", Framing::Length(1), !kept),
        (
            &get,
            "HTTP/1.0 200 OK\r\nconnection: Keep-Alive\r\ncontent-length: 1\r\n",
            Framing::Length(1),
            kept,
        ),
        (&head, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n", Framing::Empty, kept),
        (&head, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n", Framing::Empty, kept),
        (&head, "HTTP/1.1 200 OK\r\n", Framing::Empty, kept),
        (&get, "HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n", Framing::Empty, kept),
        (&get, "HTTP/1.1 204 No Content\r\n", Framing::Empty, kept),
        (&get, "HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n", Framing::Empty, kept),
        (&get, "HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n", Framing::Empty, !kept),
        (&get, "HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n", Framing::Empty, !kept),
        (&get, "HTTP/1.1 100 Continue\r\n", Framing::Empty, kept),
        (&get, "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n", Framing::Empty, kept),
        (&get, "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n", Framing::Empty, kept),
        (&get, "HTTP/1.1 999 \u{e9}\r\ncontent-length: 0\r\n", Framing::Length(0), kept),
    ] {
        let found = answer(method, &format!("{text}\r\n")).unwrap().unwrap();
        assert_eq!((found.framing, found.keep_alive), (framing, is_kept), "{method} {text:?}");
    }
}

#[test]
fn responses_are_held_to_the_same_rules() {
    for text in [
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1, 1\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
        "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\ncontent-length: 1\r\n\r\n",
        "HTTP/1.1 100 Continue\r\ntransfer-encoding: chunked\r\n\r\n",
    ] {
        assert_eq!(answer(&Method::GET, text).unwrap_err(), BadHead::Framing, "{text:?}");
        assert_eq!(answer(&Method::HEAD, text).unwrap_err(), BadHead::Framing, "{text:?}");
    }
    for text in [
        "\r\nHTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\n\r\n",
        "HTTP/1.1 200 OK\r\nx: 1\n\r\n",
        "HTTP/1.1 200 OK\r\n\n",
        "HTTP/1.1 200 OK\r\nx: 1\r\n folded\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx : 1\r\n\r\n",
        "HTTP/1.1 200 O\0K\r\n\r\n",
        "HTTP/1.1 200 O\rK\r\n\r\n",
        "HTTP/1.1 099 X\r\n\r\n",
        "HTTP/1.1 20 X\r\n\r\n",
        "HTTP/1.1 2000 X\r\n\r\n",
        "HTTP/1.1  200 X\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "ICY 200 OK\r\n\r\n",
    ] {
        let refused = answer(&Method::GET, text).map(|_| ()).unwrap_err();
        assert_eq!(refused.reason(), Reason::BadRequest, "{text:?}");
    }
    let endless = format!("HTTP/1.1 200 OK\r\nx: {}", "x".repeat(LIMITS.head_bytes));
    assert_eq!(answer(&Method::GET, &endless).unwrap_err(), BadHead::TooLarge);
    let many: String = (0..101).map(|n| format!("x-{n}: 1\r\n")).collect();
    let many = format!("HTTP/1.1 200 OK\r\n{many}\r\n");
    assert_eq!(answer(&Method::GET, &many).unwrap_err(), BadHead::TooLarge);
}

#[test]
fn a_response_is_the_same_wherever_it_is_cut() {
    let text = "HTTP/1.1 200 Fine\r\ncontent-length: 3\r\nx: 1\r\n\r\nabc";
    let whole = format!("{:?}", get(text).parts);
    for at in 0..text.len() {
        let mut cut = BytesMut::from(&text[..at]);
        let found = match response(&mut cut, &Method::GET, &LIMITS).unwrap() {
            Some(found) => found,
            None => {
                assert_eq!(cut.len(), at);
                cut.extend_from_slice(&text.as_bytes()[at..]);
                response(&mut cut, &Method::GET, &LIMITS).unwrap().unwrap()
            }
        };
        assert_eq!(format!("{:?}", found.parts), whole, "cut at {at}");
    }
}
