use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;
use crate::policy::Exchange;
use crate::policy::testing::{alice, exchange};

fn asked() -> Exchange<'static> {
    let fields = [("x-tier", "gold"), ("x-many", "a"), ("x-many", "b"), ("X-Odd", "\u{e9}")];
    let mut ex = exchange("POST", "https://api.example/v1/items?page=2&tag=a&tag=b%20c", &fields);
    ex.identity = Some(Arc::new(alice()));
    ex
}

fn holds(text: &str, ex: &Exchange<'_>) -> Result<bool, Failed> {
    Expression::compile("expression", text, Gives::Bool).unwrap().holds(&Input::of(ex))
}

fn refusal(text: &str) -> String {
    let error = Expression::compile("rules[0].expression", text, Gives::Bool).unwrap_err();
    assert_eq!(error.field, "rules[0].expression");
    error.message
}

#[test]
fn every_part_of_the_request_and_of_the_identity_can_be_asked_for() {
    let ex = asked();
    for text in [
        "request.method == 'POST'",
        "request.path == '/v1/items' && request.path.startsWith('/v1/')",
        "request.host == 'api.example'",
        "request.scheme == 'https'",
        "request.ip == '192.0.2.1'",
        "request.query.page == '2' && request.query['tag'] == 'a,b c'",
        "request.headers['x-tier'] == 'gold' && request.headers['X-TIER'] == 'gold'",
        "request.headers['x-many'] == 'a,b'",
        "'x-tier' in request.headers && !('x-none' in request.headers)",
        "has(request.query.page) && !has(request.query.none)",
        "identity.name == 'alice' && identity.consumer == 'alice'",
        "identity.subject == 'sub-1' && identity.method == 'jwt' && identity.plan == 'gold'",
        "'staff' in identity.groups && 'apps' in identity.groups && !('x' in identity.groups)",
        "size(identity.scopes) == 2 && identity.scopes[0] == 'read'",
        "identity.claims.tenant == 'acme' && identity.claims['age'] >= 18 && identity.claims.vip",
        "identity.claims.score > 1.0 && identity.claims.none == null",
        "'writer' in identity.claims.roles && 'deep' in identity.claims.realm.roles",
        "has(identity.claims.realm) && !has(identity.claims.other)",
        "request.path.matches('^/v[0-9]+/') && matches(request.host, '^api')",
        "request.method in ['GET', 'POST'] ? true : false",
        "int(request.query.page) + 1 == 3 && size(request.path) == 9",
    ] {
        assert_eq!(holds(text, &ex), Ok(true), "{text}");
    }
}

#[test]
fn what_is_missing_or_of_another_type_or_no_text_has_no_result() {
    let ex = asked();
    for text in [
        "request.headers['x-none'] == 'a'",
        "request.headers['x-none'] != 'a'",
        "request.headers['x-odd'] == 'a'",
        "identity.claims.other == 'a'",
        "identity.claims.tenant > 1",
        "identity.claims.tenant",
        "int(request.host) == 1",
        "identity.scopes[7] == 'a'",
        "1 / (size(request.host) - 11) == 1",
    ] {
        assert_eq!(holds(text, &ex), Err(Failed), "{text}");
    }
}

#[test]
fn without_an_identity_nothing_about_it_has_a_result() {
    let mut ex = asked();
    ex.identity = None;
    for text in ["identity.name == 'alice'", "identity.name != 'alice'", "has(identity.claims.a)"] {
        assert_eq!(holds(text, &ex), Err(Failed), "{text}");
        let compiled = Expression::compile("e", text, Gives::Bool).unwrap();
        assert!(compiled.needs_identity());
    }
    let compiled = Expression::compile("e", "request.method == 'GET'", Gives::Bool).unwrap();
    assert!(!compiled.needs_identity());
    assert_eq!(holds("request.method == 'POST' || identity.name == 'a'", &ex), Ok(true));
}

#[test]
fn what_is_longer_than_the_limit_has_no_result() {
    let long = "a".repeat(input::MAX_VALUE + 1);
    let mut ex = exchange("GET", &format!("http://a.example/?q={long}"), &[("x-long", &long)]);
    for text in [
        "request.headers['x-long'] != ''",
        "request.headers['x-long'].contains('b')",
        "request.query.q != ''",
        "has(request.query.other)",
    ] {
        assert_eq!(holds(text, &ex), Err(Failed), "{text}");
    }
    ex.request.path = format!("/{long}").into();
    assert_eq!(holds("request.path != '/admin'", &ex), Err(Failed));
}

#[test]
fn what_is_not_bounded_or_not_known_is_refused_with_the_reason() {
    for (text, reason) in [
        ("identity.groups.all(g, g != 'x')", "all, exists"),
        ("identity.groups.exists(g, g == 'x')", "all, exists"),
        ("identity.groups.exists_one(g, g == 'x')", "all, exists"),
        ("identity.groups.map(g, g + 'x') == []", "all, exists"),
        ("identity.groups.filter(g, true) == []", "all, exists"),
        ("{'a': 1}.a == 1", "maps and messages"),
        ("Thing{a: 1} == 1", "maps and messages"),
        ("user.name == 'a'", "user.name is not known"),
        ("request.body == 'a'", "request.body is not known"),
        ("request == 'a'", "request is not known"),
        ("request['path'] == 'a'", "request is not known"),
        ("has(request.path)", "is always there"),
        ("request.path.x == 'a'", "has no fields"),
        ("request.path.lowerAscii() == 'a'", "lowerAscii() or its arguments are not known"),
        ("timestamp('2026-01-01T00:00:00Z') == 1", "timestamp()"),
        ("dyn(1) == 1", "dyn()"),
        ("type(1) == 1", "type()"),
        ("request.path.matches(request.host)", "must be written out"),
        ("request.path.matches('a' + 'b')", "must be written out"),
        ("request.path.matches()", "one pattern"),
        ("request.path.matches('(')", "cannot be used"),
        ("request.path.matches('(a{1000}){1000}')", "cannot be used"),
        ("b'abc' == b'abc'", "bytes"),
        ("request.?path == 'a'", "not a CEL expression"),
        ("request.path ==", "not a CEL expression"),
        ("", "not a CEL expression"),
        ("request.path", "must give true or false"),
        ("1 + 1", "must give true or false"),
        ("request.path && true", "arguments are not known"),
        ("@pattern0", "not a CEL expression"),
    ] {
        let message = refusal(text);
        assert!(message.contains(reason), "{text}: {message}");
    }
    let one = Expression::compile("cost", "request.path", Gives::Integer).unwrap_err();
    assert!(one.message.contains("must give a whole number"), "{}", one.message);
}

#[test]
fn a_number_is_bounded_and_never_negative() {
    let ex = asked();
    for (text, expected) in [
        ("1", Ok(1)),
        ("0", Ok(0)),
        ("2u", Ok(2)),
        ("int(request.query.page) * 5", Ok(10)),
        ("request.method == 'POST' ? 10 : 1", Ok(10)),
        ("1000000000000", Ok(MAX_INTEGER)),
        ("-1", Err(Failed)),
        ("identity.claims.age", Ok(30)),
        ("identity.claims.tenant", Err(Failed)),
        ("int(request.host)", Err(Failed)),
        ("9223372036854775807 + 1", Err(Failed)),
    ] {
        let compiled = Expression::compile("cost", text, Gives::Integer).unwrap();
        assert_eq!(compiled.integer(&Input::of(&ex)), expected, "{text}");
    }
}

/// Expressions that would cost much, if they were let in: each is one shape, many times.
fn bombs() -> Vec<String> {
    let many = |one: &str, between: &str, times| vec![one; times].join(between);
    let header = "request.headers['x-long']";
    let mut bombs = vec![
        "(".repeat(2_000),
        format!("{}true{}", "(".repeat(2_000), ")".repeat(2_000)),
        format!("{}true", "!".repeat(4_000)),
        format!("{}1 == 1", "-".repeat(4_000)),
        format!("{}1{}", "[".repeat(2_000), "]".repeat(2_000)),
        format!("{}1{}", "{1:".repeat(1_000), "}".repeat(1_000)),
        many("true", "&&", 680),
        many("true", "||false||", 300),
        format!("{} == 1", many("1", "+", 2_000)),
        format!("{} == ''", many(header, "+", 100)),
        format!("{} == ''", many(header, "+", 16)),
        format!("{}.contains('{}b')", header, "a".repeat(2_000)),
        many(&format!("{header}.contains('aaaaaaaaaaaaaaaab')"), "||", 60),
        many(&format!("{header} == {header}"), "&&", 60),
        format!("request.method in [{}]", many("'a'", ",", 400)),
        format!("{}true", "true ? true : ".repeat(200)),
        format!("{}true", "true ? ".repeat(400)),
        format!("request{}", ".path".repeat(800)),
        format!("identity.claims{} == 1", ".a".repeat(1_000)),
        format!("identity.claims{} == 1", "['a']".repeat(500)),
        format!("'{}' == ''", "a".repeat(4_000)),
        format!("'{}", "a".repeat(4_000)),
        format!("{}1{}", "f(".repeat(1_000), ")".repeat(1_000)),
        format!("{}true{}", "[1].all(x, ".repeat(300), ")".repeat(300)),
        format!("size({header}) > 0 && {}", many(&format!("size({header}) > 0"), "&&", 60)),
        "\u{0}".repeat(4_000),
        "/*".repeat(2_000),
        "a ".repeat(2_000),
        ", ".repeat(2_000),
        ". ".repeat(2_000),
        "? : ".repeat(1_000),
        "\"\\".repeat(2_000),
        "\u{10ffff}".repeat(1_000),
        format!("{} true", "// comment\n".repeat(300)),
        "9".repeat(4_000),
        format!("1e{}", "9".repeat(4_000)),
    ];
    for pattern in [
        "(a+)+$",
        "(a|a)*b",
        "(.*)(.*)(.*)(.*)(.*)b",
        "(a?){50}a{50}",
        "(a{1,50}){1,50}",
        "a{10000}",
        "((a{10}){10}){10}",
        "(\\\\pL{1,100}){1,100}",
        "(?i)[a-z]{1,200}\\\\d{1,200}$",
        "(x|y|a)*(x|y|a)*(x|y|a)*b{10}",
        "[^b]*[^b]*[^b]*[^b]*b",
        "(a*)*b",
        "^(([a-z])+.)+[A-Z]([a-z])+$",
        "(.{0,60}){0,60}b",
    ] {
        let one = format!("{header}.matches('{pattern}')");
        bombs.push(many(&one, "||", 8));
        bombs.push(many(&one, "||", 40));
        bombs.push(one);
    }
    bombs
}

/// How long an expression may take, as slow as an unoptimised build is.
const MOST: Duration = Duration::from_millis(if cfg!(debug_assertions) { 100 } else { 10 });

fn fastest<T>(mut what: impl FnMut() -> T) -> Duration {
    let once = |_| {
        let start = Instant::now();
        what();
        start.elapsed()
    };
    (0..3).map(once).min().unwrap_or_default()
}

#[test]
fn a_bomb_is_refused_or_costs_little() {
    let ex = exchange("GET", "http://a.example/", &[("x-long", &"a".repeat(8 * 1024))]);
    let bombs = bombs();
    assert!(bombs.len() >= 70, "{}", bombs.len());
    for text in bombs {
        let short: String = text.chars().take(60).collect();
        let compiling = fastest(|| Expression::compile("e", &text, Gives::Bool).is_ok());
        let Ok(compiled) = Expression::compile("e", &text, Gives::Bool) else {
            assert!(compiling <= MOST * 5, "{short}: refused after {compiling:?}");
            continue;
        };
        let took = fastest(|| compiled.holds(&Input::of(&ex)));
        assert!(compiling <= MOST * 5, "{short}: compiled in {compiling:?}");
        assert!(took <= MOST, "{short}: evaluated in {took:?}");
    }
}

#[test]
fn no_text_makes_the_parser_panic() {
    let seeds =
        ["request.path == '/a' && x[1].y(2, 'a') ? !b : {c: -1.5e3}", "has(a.b) || 1u in [r'']"];
    let mut random = fastrand::Rng::with_seed(7);
    for round in 0..400 {
        let mut bytes = seeds[round % 2].as_bytes().to_vec();
        for _ in 0..random.usize(1..6) {
            let at = random.usize(..bytes.len());
            match random.u8(..3) {
                0 => bytes[at] = random.u8(b' '..=b'~'),
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, random.u8(b' '..=b'~')),
            }
        }
        let text = String::from_utf8(bytes).unwrap();
        let _ = Expression::compile("e", &text, Gives::Bool);
    }
}

#[test]
fn an_address_is_written_in_its_canonical_form() {
    let mut ex = asked();
    ex.client.ip = "::ffff:192.0.2.9".parse::<IpAddr>().unwrap();
    assert_eq!(holds("request.ip == '192.0.2.9'", &ex), Ok(true));
}
