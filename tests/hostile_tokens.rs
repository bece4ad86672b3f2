//! Tokens that must not be accepted, and none is: the list of `issuer::hostile`, mutations of
//! good ones, key sets with keys that nobody may use, and requests with more than one token.

#![allow(clippy::unwrap_used, reason = "a panic here is a failed test")]

mod issuer;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock};

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Method};
use issuer::hostile::{AUDIENCE, ISSUER, Keys, claims, tokens};
use issuer::{ALGORITHMS, SigningKey, jwks};
use serde_json::{Value, json};
use tidegate::policy::jwt::{self, Jwt, Refusal, Remote, RemoteKeys, Spec, Verdict};
use tidegate::policy::{Refs, RequestHead, Scheme};

/// In seconds.
const NOW: u64 = 1_800_000_000;

static KEYS: LazyLock<Keys> = LazyLock::new(Keys::new);

fn spec(keys: Value) -> Spec {
    let spec = json!({"issuer": ISSUER, "audiences": [AUDIENCE], "keys": keys});
    serde_json::from_value(spec).unwrap()
}

fn compile(spec: &Spec, refs: &Refs) -> Jwt {
    Jwt::compile(spec, refs, Box::new(|_| None)).unwrap()
}

/// The keys that the issuer publishes.
fn public() -> Jwt {
    compile(&spec(json!({"inline": KEYS.public()})), &Refs::default())
}

/// The secret that it shares, for the algorithm.
fn shared(algorithm: &str, jwks: &str) -> Jwt {
    let mut spec = spec(json!({"secretRef": {"name": "keys", "key": "jwks"}}));
    spec.algorithms = vec![jwt::Algorithm::parse(algorithm).unwrap()];
    let secret = BTreeMap::from([("jwks".to_owned(), jwks.as_bytes().to_vec())]);
    let secrets = BTreeMap::from([("keys".to_owned(), secret)]);
    compile(&spec, &Refs { secrets, ..Refs::default() })
}

fn head() -> RequestHead {
    RequestHead {
        method: Method::GET,
        scheme: Scheme::Http,
        host: "api.test".into(),
        port: None,
        path: "/".into(),
        query: None,
        headers: HeaderMap::new(),
        told: None,
        upstream_host: None,
    }
}

/// None: it cannot be written as a field at all.
fn bearer(token: &[u8]) -> Option<RequestHead> {
    let mut head = head();
    let value = HeaderValue::from_bytes(&[b"Bearer ", token].concat()).ok()?;
    head.headers.insert(AUTHORIZATION, value);
    Some(head)
}

fn is_accepted(jwt: &Jwt, token: &[u8]) -> bool {
    let verdict = |head| jwt.authenticate(&head, NOW * 1000);
    bearer(token).is_some_and(|head| matches!(verdict(head), Verdict::Accepted(_)))
}

fn refusal(jwt: &Jwt, token: &str) -> Refusal {
    match jwt.authenticate(&bearer(token.as_bytes()).unwrap(), NOW * 1000) {
        Verdict::Refused(refusal) => refusal,
        other => panic!("{other:?}"),
    }
}

/// One policy for each algorithm, and a token that it accepts.
fn accepted() -> Vec<(Jwt, &'static str, String)> {
    let secret = jwks([&KEYS.mac]);
    let mut accepted = Vec::new();
    for algorithm in ALGORITHMS {
        let jwt = if algorithm.starts_with("HS") { shared(algorithm, &secret) } else { public() };
        accepted.push((jwt, *algorithm, KEYS.of(algorithm).token(algorithm, &claims(NOW))));
    }
    accepted
}

#[test]
fn a_token_of_each_algorithm_is_accepted() {
    for (jwt, algorithm, token) in accepted() {
        assert!(is_accepted(&jwt, token.as_bytes()), "{algorithm}");
        assert!(is_accepted(&jwt, token.as_bytes()), "{algorithm} again");
    }
}

#[test]
fn tokens_of_another_library_are_accepted() {
    use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
    let secret = [7; 64];
    for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
        let name = format!("{algorithm:?}");
        let jwt = shared(&name, &jwks([&SigningKey::mac("k", &secret)]));
        let key = EncodingKey::from_secret(&secret);
        let token = encode(&Header::new(algorithm), &claims(NOW), &key).unwrap();
        assert!(is_accepted(&jwt, token.as_bytes()), "{name}");
    }
}

#[test]
fn none_of_the_hostile_tokens_is_accepted() {
    let list = tokens(&KEYS, NOW);
    assert!(list.len() >= 300, "{}", list.len());
    let policies: Vec<Jwt> = accepted().into_iter().map(|(jwt, ..)| jwt).collect();
    for (name, token) in &list {
        for jwt in &policies {
            assert!(!is_accepted(jwt, token), "{name}: {}", String::from_utf8_lossy(token));
        }
    }
    eprintln!("{} hostile tokens against {} policies: 0 accepted", list.len(), policies.len());
}

#[test]
fn none_of_ten_thousand_mutated_tokens_is_accepted() {
    const OF_EACH: usize = 1000;
    const ALPHABET: &[u8] = b"ABCabcXYZxyz0123456789-_.=+/ %\"\\{}\x7f\xff";
    let mut random = fastrand::Rng::with_seed(20_261_122);
    let mut tried = 0;
    for (jwt, algorithm, token) in accepted() {
        for _ in 0..OF_EACH {
            let mut bytes = token.clone().into_bytes();
            for _ in 0..random.usize(1..4) {
                let at = random.usize(..bytes.len());
                let byte = ALPHABET[random.usize(..ALPHABET.len())];
                match random.u8(..7) {
                    0 => bytes[at] ^= 1 << random.u8(..8),
                    1 => bytes[at] = byte,
                    2 => bytes.insert(at, byte),
                    3 => drop(bytes.remove(at)),
                    4 => bytes.truncate(at.max(1)),
                    5 => bytes.swap(at, 0),
                    _ => bytes.extend_from_within(at..),
                }
            }
            // White space around a token is not part of it.
            if bytes.trim_ascii() == token.as_bytes() {
                continue;
            }
            tried += 1;
            let accepted = catch_unwind(AssertUnwindSafe(|| is_accepted(&jwt, &bytes)));
            let text = String::from_utf8_lossy(&bytes);
            assert!(
                !accepted.unwrap_or_else(|_| panic!("panicked: {text}")),
                "{algorithm}: {text}"
            );
        }
    }
    assert!(tried >= 10_000, "{tried}");
    eprintln!("{tried} mutated tokens: 0 accepted, 0 panics");
}

#[test]
fn a_request_with_more_than_one_token_is_refused() {
    let mut spec = spec(json!({"inline": KEYS.public()}));
    let from = json!([{"header": "Authorization"}, {"cookie": "jwt"}, {"query": "jwt"}]);
    spec.from = serde_json::from_value(from).unwrap();
    let jwt = compile(&spec, &Refs::default());
    let token = KEYS.rsa.token("RS256", &claims(NOW));
    let verdict = |fields: &[(&'static str, String)], query: Option<String>| {
        let mut head = head();
        for (name, value) in fields {
            head.headers.append(*name, value.parse().unwrap());
        }
        head.query = query.map(Into::into);
        jwt.authenticate(&head, NOW * 1000)
    };
    let field = || ("authorization", format!("Bearer {token}"));
    let cookie = || ("cookie", format!("a=b; jwt={token}"));
    let query = || Some(format!("a=b&jwt={token}"));
    for one in [verdict(&[field()], None), verdict(&[cookie()], None), verdict(&[], query())] {
        assert!(matches!(one, Verdict::Accepted(_)), "{one:?}");
    }
    for several in [
        verdict(&[field(), field()], None),
        verdict(&[field(), cookie()], None),
        verdict(&[cookie(), cookie()], None),
        verdict(&[("cookie", format!("jwt={token}; jwt={token}"))], None),
        verdict(&[field()], query()),
        verdict(&[], Some(format!("jwt={token}&%6awt={token}"))),
        verdict(&[("authorization", "Bearer x".into()), field()], None),
    ] {
        assert!(matches!(several, Verdict::Refused(Refusal::Several)), "{several:?}");
    }
}

#[test]
fn clocks_may_differ_by_the_leeway_and_no_more() {
    let jwt = public();
    let token = |name: &str, value: Value| {
        let mut claims = claims(NOW);
        claims[name] = value;
        KEYS.rsa.token("RS256", &claims)
    };
    for (name, value) in [
        ("exp", json!(NOW - 59)),
        ("exp", json!(NOW as f64 - 59.5)),
        ("nbf", json!(NOW + 60)),
        ("iat", json!(NOW + 60)),
        ("nbf", json!(0)),
    ] {
        assert!(is_accepted(&jwt, token(name, value.clone()).as_bytes()), "{name} {value}");
    }
    assert_eq!(refusal(&jwt, &token("exp", json!(NOW - 60))), Refusal::Expired);
    assert_eq!(refusal(&jwt, &token("nbf", json!(NOW + 61))), Refusal::NotYetValid);
    assert_eq!(refusal(&jwt, &token("iat", json!(NOW + 61))), Refusal::NotYetValid);
}

#[test]
fn a_token_that_was_accepted_is_refused_when_it_has_expired() {
    let jwt = public();
    let head = bearer(KEYS.rsa.token("RS256", &claims(NOW)).as_bytes()).unwrap();
    let at = |seconds: u64| jwt.authenticate(&head, seconds * 1000);
    assert!(matches!(at(NOW), Verdict::Accepted(_)));
    assert!(matches!(at(NOW + 659), Verdict::Accepted(_)));
    assert!(matches!(at(NOW + 660), Verdict::Refused(Refusal::Expired)));
    assert!(matches!(at(NOW - 61), Verdict::Refused(Refusal::NotYetValid)));
}

#[test]
fn one_policy_never_takes_the_word_of_another() {
    let (first, second) = (public(), public());
    let token = KEYS.rsa.token("RS256", &claims(NOW));
    assert!(is_accepted(&first, token.as_bytes()));
    let mut elsewhere = spec(json!({"inline": KEYS.public()}));
    elsewhere.audiences = vec!["another".into()];
    let elsewhere = compile(&elsewhere, &Refs::default());
    assert_eq!(refusal(&elsewhere, &token), Refusal::WrongAudience);
    let mut others = spec(json!({"inline": jwks([&KEYS.attacker])}));
    others.audiences.clear();
    let mut others = compile(&others, &Refs::default());
    assert_eq!(refusal(&others, &token), Refusal::WrongSignature);
    // Not even by adoption: its keys are others.
    others.adopt(&first);
    assert_eq!(refusal(&others, &token), Refusal::WrongSignature);
    assert!(is_accepted(&second, token.as_bytes()));
}

#[test]
fn a_longer_life_than_allowed_and_missing_claims_are_refused() {
    let mut spec = spec(json!({"inline": KEYS.public()}));
    spec.max_lifetime = Some("10m".into());
    let required = json!([{"name": "tenant.id", "values": ["a", "7"]}, {"name": "roles"}]);
    spec.required_claims = serde_json::from_value(required).unwrap();
    let jwt = compile(&spec, &Refs::default());
    let token = |change: Value| {
        let mut claims = claims(NOW);
        claims["tenant"] = json!({"id": 7});
        claims["roles"] = json!([]);
        for (name, value) in change.as_object().unwrap() {
            claims[name] = value.clone();
        }
        KEYS.rsa.token("RS256", &claims)
    };
    assert!(is_accepted(&jwt, token(json!({})).as_bytes()));
    assert!(is_accepted(&jwt, token(json!({"tenant": {"id": ["x", "a"]}})).as_bytes()));
    let longer = token(json!({"exp": NOW + 601}));
    assert_eq!(refusal(&jwt, &longer), Refusal::LivesTooLong);
    for wrong in [json!({"tenant": 7}), json!({"tenant": {"id": "b"}}), json!({"roles": null})] {
        assert_eq!(refusal(&jwt, &token(wrong.clone())), Refusal::WrongClaim, "{wrong}");
    }
}

#[test]
fn keys_that_nobody_may_use_are_passed_over() {
    let good = KEYS.p256.jwk();
    let change = |key: &SigningKey, changes: Value| {
        let mut jwk = key.jwk();
        for (name, value) in changes.as_object().unwrap() {
            jwk[name] = value.clone();
        }
        jwk
    };
    let weak = json!({"kty": "RSA", "kid": "w", "n": issuer::b64([0xc3; 128]), "e": "AQAB"});
    let p256 = &KEYS.p256;
    for (name, jwk) in [
        ("for encryption", change(p256, json!({"use": "enc"}))),
        ("for signing", change(p256, json!({"key_ops": ["sign"]}))),
        ("another alg", change(p256, json!({"alg": "RS256"}))),
        ("alg none", change(p256, json!({"alg": "none"}))),
        ("alg of encryption", change(&KEYS.rsa, json!({"alg": "RSA-OAEP"}))),
        ("a point off the curve", change(p256, json!({"x": issuer::b64([1; 32])}))),
        ("a short coordinate", change(p256, json!({"x": issuer::b64([1; 31])}))),
        ("another curve", change(p256, json!({"crv": "secp256k1"}))),
        ("a private key", change(p256, json!({"d": issuer::b64([1; 32])}))),
        ("a shared secret", KEYS.mac.jwk()),
        ("1024 bits", weak),
        ("exponent 1", change(&KEYS.rsa, json!({"e": "AQ"}))),
        ("exponent 2", change(&KEYS.rsa, json!({"e": "Ag"}))),
        ("exponent long", change(&KEYS.rsa, json!({"e": issuer::b64([1; 64])}))),
        ("modulus zero", change(&KEYS.rsa, json!({"n": issuer::b64([0; 256])}))),
        ("modulus even", change(&KEYS.rsa, json!({"n": issuer::b64([0xc2; 256])}))),
        ("unknown kty", json!({"kty": "AKP", "alg": "ML-DSA-44", "pub": "AA"})),
        ("no kty", json!({"kid": "x"})),
        ("no object", json!("key")),
        ("kid a number", change(p256, json!({"kid": 1}))),
    ] {
        let alone = json!({"keys": [jwk]}).to_string();
        let read = jwt::read_key_set(alone.as_bytes(), jwt::Publicity::Public);
        assert!(read.is_err(), "{name}");
        let both = json!({"keys": [jwk, good]}).to_string();
        let read = jwt::read_key_set(both.as_bytes(), jwt::Publicity::Public).unwrap();
        assert_eq!(read.len(), 1, "{name}");
    }
}

#[test]
fn what_is_no_key_set_is_refused() {
    let many = vec![KEYS.ed.jwk(); 1001];
    for (name, text) in [
        ("HTML", "<!doctype html><html></html>".to_owned()),
        ("nothing", String::new()),
        ("empty", "{\"keys\":[]}".to_owned()),
        ("no list", "{\"keys\":{}}".to_owned()),
        ("a list", json!([KEYS.ed.jwk()]).to_string()),
        ("one key", KEYS.ed.jwk().to_string()),
        ("keys twice", format!("{{\"keys\":[],\"keys\":[{}]}}", KEYS.ed.jwk())),
        ("too many", json!({"keys": many}).to_string()),
        ("too long", format!("{}{}", KEYS.public(), " ".repeat(1024 * 1024))),
        ("cut", KEYS.public()[..400].to_owned()),
    ] {
        assert!(jwt::read_key_set(text.as_bytes(), jwt::Publicity::Public).is_err(), "{name}");
    }
}

#[test]
fn keys_of_one_name_are_all_tried_and_of_many_only_some() {
    let (old, new) = (SigningKey::new("k", "ES256"), SigningKey::new("k", "ES256"));
    let jwt = compile(&spec(json!({"inline": jwks([&old, &new])})), &Refs::default());
    for key in [&old, &new] {
        assert!(is_accepted(&jwt, key.token("ES256", &claims(NOW)).as_bytes()));
    }
    let many: Vec<SigningKey> = (0..20).map(|_| SigningKey::new("k", "ES256")).collect();
    let jwt = compile(&spec(json!({"inline": jwks(&many)})), &Refs::default());
    assert!(is_accepted(&jwt, many[0].token("ES256", &claims(NOW)).as_bytes()));
    assert_eq!(refusal(&jwt, &many[19].token("ES256", &claims(NOW))), Refusal::UnknownKey);
}

#[test]
fn pem_keys_and_shared_secrets_come_from_a_secret() {
    let refs = |value: &[u8]| {
        let secret = BTreeMap::from([("k".to_owned(), value.to_vec())]);
        Refs { secrets: [("keys".to_owned(), secret)].into(), ..Refs::default() }
    };
    let keys = json!({"secretRef": {"name": "keys", "key": "k"}});
    for algorithm in ["RS256", "PS512", "ES256", "ES384", "ES512", "EdDSA"] {
        let pem = KEYS.of(algorithm).pem();
        let jwt = compile(&spec(keys.clone()), &refs(pem.as_bytes()));
        let token = KEYS.of(algorithm).token(algorithm, &claims(NOW));
        assert!(is_accepted(&jwt, token.as_bytes()), "{algorithm}");
        let confused = SigningKey::mac("x", pem.as_bytes()).token("HS256", &claims(NOW));
        assert_eq!(refusal(&jwt, &confused), Refusal::WrongAlgorithm, "{algorithm}");
    }
    let mut hmac = spec(keys.clone());
    hmac.keys.hmac = Some(jwt::Hmac::HS256);
    let jwt = compile(&hmac, &refs(&[7; 32]));
    let token = SigningKey::mac("any", &[7; 32]).token("HS256", &claims(NOW));
    assert!(is_accepted(&jwt, token.as_bytes()));
    let short = Jwt::compile(&hmac, &refs(&[7; 31]), Box::new(|_| None)).unwrap_err();
    assert!(short.message.contains("shorter"), "{short}");
    let private =
        "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIA==\n-----END PRIVATE KEY-----";
    for wrong in ["", "secret", private] {
        assert!(
            Jwt::compile(&spec(keys.clone()), &refs(wrong.as_bytes()), Box::new(|_| None)).is_err()
        );
    }
}

#[tokio::test]
async fn an_unknown_key_asks_once_for_newer_ones_whatever_comes() {
    let remote = Remote { uri: Some("https://issuer.test/jwks".into()), ..Remote::default() };
    let set = jwt::read_key_set(KEYS.public().as_bytes(), jwt::Publicity::Public).unwrap();
    let keys = RemoteKeys { keys: Some(Arc::new(set)), ..RemoteKeys::default() };
    let refs = Refs { keys: [(remote.clone(), keys.clone())].into(), ..Refs::default() };
    let jwt = compile(&spec(json!({"remote": remote})), &refs);
    let foreign = json!({"iss": "https://other.test", "exp": NOW + 60});
    let foreign = SigningKey::mac("unknown", b"x").token("RS256", &foreign);
    assert_eq!(refusal(&jwt, &foreign), Refusal::WrongIssuer);
    assert!(is_accepted(&jwt, KEYS.ed.token("EdDSA", &claims(NOW)).as_bytes()));
    let mut asked = Box::pin(keys.refetch.asked());
    assert!(futures_util::poll!(&mut asked).is_pending(), "nobody has asked");
    for n in 0..1000 {
        let token = SigningKey::mac(&format!("kid{n}"), b"x").token("RS256", &claims(NOW));
        assert_eq!(refusal(&jwt, &token), Refusal::UnknownKey);
    }
    asked.await;
    let mut again = Box::pin(keys.refetch.asked());
    assert!(futures_util::poll!(&mut again).is_pending(), "asked once");
}

/// Issuers that name no keys rotate them as well.
#[tokio::test]
async fn a_wrong_signature_of_a_key_without_name_asks_for_newer_keys() {
    let remote = Remote { uri: Some("https://issuer.test/jwks".into()), ..Remote::default() };
    let set = jwt::read_key_set(KEYS.public().as_bytes(), jwt::Publicity::Public).unwrap();
    let keys = RemoteKeys { keys: Some(Arc::new(set)), ..RemoteKeys::default() };
    let refs = Refs { keys: [(remote.clone(), keys.clone())].into(), ..Refs::default() };
    let jwt = compile(&spec(json!({"remote": remote})), &refs);
    let mut asked = Box::pin(keys.refetch.asked());
    assert!(futures_util::poll!(&mut asked).is_pending(), "nobody has asked");
    let newer = SigningKey::new("newer", "ES256");
    let unnamed = newer.token_of("ES256", r#"{"alg": "ES256"}"#, claims(NOW).to_string());
    assert_eq!(refusal(&jwt, &unnamed), Refusal::WrongSignature);
    assert!(futures_util::poll!(&mut asked).is_ready());
}

#[test]
fn without_keys_nobody_is_accepted_and_nobody_is_accused() {
    let remote = Remote { uri: Some("https://issuer.test/jwks".into()), ..Remote::default() };
    let refs = Refs { keys: [(remote.clone(), RemoteKeys::default())].into(), ..Refs::default() };
    let jwt = compile(&spec(json!({"remote": remote})), &refs);
    let token = KEYS.rsa.token("RS256", &claims(NOW));
    let verdict = |head: &RequestHead| jwt.authenticate(head, NOW * 1000);
    assert!(matches!(verdict(&bearer(token.as_bytes()).unwrap()), Verdict::Unavailable));
    assert!(matches!(verdict(&bearer(b"x").unwrap()), Verdict::Refused(Refusal::Malformed)));
    assert!(matches!(verdict(&head()), Verdict::NoCredentials));
}
