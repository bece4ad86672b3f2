//! Our codec of HTTP/1.1 beside other parsers, on the same bytes.
//!
//! What we take for a message, the others must take for the same message with the same body,
//! or a request could be smuggled past one of them. Where one side refuses what the other
//! takes, a table says why; a line of it that is not true any more fails, too.

#![allow(clippy::unwrap_used, reason = "a panic here is a failed test")]

#[path = "http1/parsers.rs"]
mod parsers;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use http::Method;
use parsers::{Message, by_http_parser, by_hyper, by_hyper_client, by_us, response_by_us, written};

type Table = &'static [(&'static str, &'static str)];

const LF: &str = "a line has to end with CR LF (RFC 9112, 2.2 leaves it to us)";
const ONE_LENGTH: &str = "the length is told twice (RFC 9112, 6.3 asks to refuse or to close)";
const CODING: &str = "the last coding is chunked, but we know no other";
const CHUNK: &str = "the grammar of a chunk's line has no such byte (RFC 9112, 7.1)";
const DIGITS: &str = "sixteen digits are enough for every size";
const EMPTY_LINES: &str = "two empty lines before a request are enough (RFC 9112, 2.2)";
const FORM: &str = "a target has no fragment, and only OPTIONS has the asterisk (RFC 9112, 3.2)";
const FOLD: &str = "lines are not folded (RFC 9112, 5.2 asks to refuse or to replace)";
const CONTROL: &str = "a value has no control characters (RFC 9110, 5.5)";

/// What hyper takes and we refuse.
const WE_ARE_STRICTER: Table = &[
    ("chunked/end-lf", LF),
    ("chunked/extension-nul", CHUNK),
    ("chunked/space", CHUNK),
    ("chunked/too-long", DIGITS),
    ("chunked/trailer-end-lf", LF),
    ("chunked/trailer-lf", LF),
    ("cl-te", ONE_LENGTH),
    ("cl-twice", ONE_LENGTH),
    ("empty-line-lf", LF),
    ("empty-lines-many", EMPTY_LINES),
    ("fragment", FORM),
    ("get-asterisk", FORM),
    ("lf-all", LF),
    ("lf-end", LF),
    ("lf-field", LF),
    ("lf-line", LF),
    ("long-method", "nobody has a method of 40 bytes"),
    ("te-cl", ONE_LENGTH),
    ("te-gzip-chunked", CODING),
];

/// What hyper refuses and we take.
const HYPER_IS_STRICTER: Table = &[];

/// What the port of Node's former parser takes and we refuse.
const WE_ARE_STRICTER_THAN_NODE: Table = &[
    ("chunked/end-lf", LF),
    ("chunked/extension-nul", CHUNK),
    ("chunked/space", CHUNK),
    ("chunked/too-long", DIGITS),
    ("chunked/trailer-end-lf", LF),
    ("chunked/trailer-fold", FOLD),
    ("chunked/trailer-lf", LF),
    ("cl-differ", ONE_LENGTH),
    ("cl-te", ONE_LENGTH),
    ("cl-twice", ONE_LENGTH),
    ("empty-line-lf", LF),
    ("empty-lines-many", EMPTY_LINES),
    ("fold", FOLD),
    ("fragment", FORM),
    ("get-asterisk", FORM),
    ("http10-chunked", "HTTP/1.0 has no codings (RFC 9112, 6.1)"),
    ("lf-all", LF),
    ("lf-end", LF),
    ("lf-field", LF),
    ("lf-line", LF),
    ("many-fields", "101 fields are over our limit"),
    ("nul-value", CONTROL),
    ("te-cl", ONE_LENGTH),
    ("te-fold", FOLD),
    ("te-gzip-chunked", CODING),
    ("te-obfuscated", CONTROL),
    ("te-te", CODING),
    ("two-spaces", "one space stands between the words of the line (RFC 9112, 3)"),
    ("version-12", "we do not speak HTTP/1.2"),
];

/// What it refuses and we take.
const NODE_IS_STRICTER: Table = &[
    ("chunked/trailers", "the request behind the body has the method GETGET"),
    ("chunked/two", "the request behind the body has the method GETGET"),
    ("expect", "the port does not know PUT"),
    ("non-ascii-target", "targets beyond ASCII, which browsers may send"),
];

/// What hyper's client takes and we refuse.
const WE_ARE_STRICTER_WITH_BACKENDS: Table = &[
    ("cl-te", ONE_LENGTH),
    ("cl-twice", ONE_LENGTH),
    ("leading-line", "only clients may send empty lines first"),
    ("lf", LF),
    ("lf-field", LF),
];

/// The same after HEAD, where codings that nobody knows announce a body that does not come.
const WE_ARE_STRICTER_AFTER_HEAD: Table = &[
    ("cl-te", ONE_LENGTH),
    ("cl-twice", ONE_LENGTH),
    ("leading-line", "only clients may send empty lines first"),
    ("lf", LF),
    ("lf-field", LF),
    ("te-10", "HTTP/1.0 has no codings (RFC 9112, 6.1)"),
    ("te-gzip", CODING),
];

/// What hyper's client refuses and we take.
const HYPER_IS_STRICTER_WITH_BACKENDS: Table = &[];

fn corpus(name: &str) -> BTreeMap<String, Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let files = fs::read_dir(folder).unwrap().map(|entry| {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        (name, fs::read(path).unwrap())
    });
    files.collect()
}

/// Requests of the corpus, and each chunked body of it between two requests.
fn requests() -> BTreeMap<String, Vec<u8>> {
    let mut all = corpus("request");
    for (name, body) in corpus("chunked") {
        let head = b"POST /first HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
        let next = b"GET /next HTTP/1.1\r\nhost: a\r\n\r\n";
        all.insert(format!("chunked/{name}"), [&head[..], &body, next].concat());
    }
    all
}

/// Holds two readings of the same inputs against each other and against the tables.
fn compare<M: PartialEq + std::fmt::Debug>(
    inputs: &BTreeMap<String, Vec<u8>>,
    ours: impl Fn(&[u8]) -> Vec<M>,
    theirs: impl Fn(&[u8]) -> Vec<M>,
    [we_refuse, they_refuse]: [Table; 2],
) {
    let mut faults = Vec::new();
    for (name, input) in inputs {
        let (ours, theirs) = (ours(input), theirs(input));
        for (at, (one, other)) in ours.iter().zip(&theirs).enumerate() {
            if one != other {
                faults.push(format!("{name}: message {at} is {one:?} to us and {other:?} to them"));
            }
        }
        let listed = |table: Table| table.iter().any(|(listed, _)| listed == name);
        let is_less = ours.len() < theirs.len();
        let is_more = ours.len() > theirs.len();
        if is_less != listed(we_refuse) || is_more != listed(they_refuse) {
            faults.push(format!("{name}: {} messages to us, {} to them", ours.len(), theirs.len()));
        }
    }
    let names = we_refuse.iter().chain(they_refuse).map(|(name, _)| *name);
    faults.extend(names.filter(|name| !inputs.contains_key(*name)).map(str::to_owned));
    assert!(faults.is_empty(), "differences that no table explains:\n{}", faults.join("\n"));
}

#[test]
fn hyper_sees_the_requests_that_we_see() {
    compare(&requests(), by_us, by_hyper, [WE_ARE_STRICTER, HYPER_IS_STRICTER]);
}

#[test]
fn the_parser_of_node_sees_the_requests_that_we_see() {
    let tables = [WE_ARE_STRICTER_THAN_NODE, NODE_IS_STRICTER];
    compare(&requests(), by_us, by_http_parser, tables);
}

#[test]
fn what_we_send_on_is_one_request_to_everybody() {
    for (name, input) in requests() {
        for request in by_us(&input) {
            if request.method == "CONNECT" {
                continue; // refused before anything is sent on
            }
            let sent = written(&request);
            let expected = vec![request];
            assert_eq!(by_us(&sent), expected, "{name} to ourselves");
            assert_eq!(by_hyper(&sent), expected, "{name} to hyper");
            if request_is_known(&expected[0]) {
                assert_eq!(by_http_parser(&sent), expected, "{name} to Node's parser");
            }
        }
    }
}

/// Node's former parser has a list of methods (this port has lost PUT), and takes no target
/// beyond ASCII.
fn request_is_known(request: &Message) -> bool {
    let known = ["GET", "POST", "HEAD", "OPTIONS", "DELETE"];
    known.contains(&&*request.method) && request.target.is_ascii()
}

#[test]
fn hyper_sees_the_responses_that_we_see() {
    let responses = corpus("response");
    for (method, we_refuse) in
        [(Method::GET, WE_ARE_STRICTER_WITH_BACKENDS), (Method::HEAD, WE_ARE_STRICTER_AFTER_HEAD)]
    {
        let ours = |input: &[u8]| response_by_us(input, &method).into_iter().collect();
        let theirs = |input: &[u8]| by_hyper_client(input, &method).into_iter().collect();
        let tables = [we_refuse, HYPER_IS_STRICTER_WITH_BACKENDS];
        compare::<parsers::Answer>(&responses, ours, theirs, tables);
    }
}
