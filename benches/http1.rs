//! What reading and writing a head costs: `cargo bench --bench http1`.

use std::hint::black_box;

use bytes::BytesMut;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use http::{Method, Version};
use tidegate::proxy::http1::encode;
use tidegate::proxy::http1::framing::{Decoded, Decoder, Framing};
use tidegate::proxy::http1::head::{self, Limits};

const LIMITS: Limits = Limits { head_bytes: 48 * 1024, fields: 100, target_bytes: 16 * 1024 };

const SMALL: &[u8] = b"GET / HTTP/1.1\r\nHost: bench.example:8080\r\nUser-Agent: wrk/4.2\r\n\
    Accept: */*\r\nAccept-Encoding: gzip\r\nX-Client: bench-1\r\n\r\n";

const BROWSER: &[u8] = b"GET /assets/app.js?v=12 HTTP/1.1\r\nHost: shop.example\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
    Accept: */*\r\nAccept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br\r\n\
    Referer: https://shop.example/\r\nCookie: session=0123456789abcdef; theme=dark\r\n\
    Sec-Fetch-Dest: script\r\nSec-Fetch-Mode: no-cors\r\nSec-Fetch-Site: same-origin\r\n\
    If-None-Match: \"abcdef-1234\"\r\nPriority: u=2\r\n\r\n";

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nServer: nginx\r\nContent-Type: text/plain\r\n\
    Date: Sat, 21 Nov 2026 18:00:00 GMT\r\nContent-Length: 12\r\nConnection: keep-alive\r\n\
    ETag: \"abcdef-12\"\r\n\r\n";

fn heads(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("http1");
    let mut buf = BytesMut::new();
    for (name, text) in [("small request", SMALL), ("browser's request", BROWSER)] {
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(format!("read a {name}"), |bencher| {
            bencher.iter(|| {
                buf.reserve(8 * 1024);
                buf.extend_from_slice(text);
                head::request(&mut buf, &LIMITS).expect("a good head")
            });
        });
        let head = head::request(&mut BytesMut::from(text), &LIMITS);
        let head = head.expect("a good head").expect("a whole head");
        group.bench_function(format!("write a {name}"), |bencher| {
            bencher.iter(|| {
                buf.clear();
                let (target, headers) = (head.parts.uri.path(), &head.parts.headers);
                encode::request_head(&mut buf, &Method::GET, target, headers, Framing::Empty);
                black_box(&buf);
            });
        });
    }
    group.throughput(Throughput::Bytes(RESPONSE.len() as u64));
    group.bench_function("read a response", |bencher| {
        bencher.iter(|| {
            buf.reserve(8 * 1024);
            buf.extend_from_slice(RESPONSE);
            head::response(&mut buf, &Method::GET, &LIMITS).expect("a good head")
        });
    });
    let head = head::response(&mut BytesMut::from(RESPONSE), &Method::GET, &LIMITS);
    let head = head.expect("a good head").expect("a whole head");
    group.bench_function("write a response", |bencher| {
        bencher.iter(|| {
            buf.clear();
            let (status, headers) = (head.parts.status, &head.parts.headers);
            let (version, length) = (Version::HTTP_11, Framing::Length(12));
            encode::response_head(&mut buf, version, status, headers, length, false);
            black_box(&buf);
        });
    });
    group.finish();
}

fn chunks(criterion: &mut Criterion) {
    let mut body = Vec::new();
    for _ in 0..16 {
        body.extend_from_slice(b"1000\r\n");
        body.resize(body.len() + 0x1000, b'x');
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"0\r\n\r\n");
    let mut group = criterion.benchmark_group("http1");
    group.throughput(Throughput::Bytes(body.len() as u64));
    let mut buf = BytesMut::new();
    group.bench_function("read 16 chunks of 4 KiB", |bencher| {
        bencher.iter(|| {
            buf.extend_from_slice(&body);
            let mut decoder = Decoder::new(Framing::Chunked);
            while let Decoded::Data(data) = decoder.decode(&mut buf).expect("good chunks") {
                black_box(data);
            }
        });
    });
    group.finish();
}

criterion_group!(benches, heads, chunks);
criterion_main!(benches);
