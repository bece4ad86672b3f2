//! What must hold for any bytes that are read as a token: no panic, and what is accepted means
//! the same to a reader that knows nothing but the grammar. The fuzz target `token` searches for
//! bytes that break it; a test of `policy::jwt` holds it for the committed corpus.

use serde_json::Value;

use super::Token;

/// The bytes as they are, and as a header and claims with a line end between them: few bytes
/// are base64url of JSON by chance.
pub fn token(data: &[u8]) {
    whole(data);
    let mut parts = data.splitn(2, |byte| *byte == b'\n');
    if let (Some(header), Some(claims)) = (parts.next(), parts.next()) {
        whole(format!("{}.{}.AAAA", encode(header), encode(claims)).as_bytes());
    }
}

fn whole(data: &[u8]) {
    let Ok(token) = Token::parse(data) else { return };
    let parts: Vec<&[u8]> = data.split(|byte| *byte == b'.').collect();
    let [header, claims, signature] = parts[..] else { panic!("not three parts") };
    assert_eq!(token.signed, [header, b".", claims].concat(), "something else is signed");
    assert_eq!(encode(&token.signature).as_bytes(), signature, "one signature, two spellings");
    let header = read(header);
    assert_eq!(header["alg"], token.algorithm.as_str());
    assert_eq!(header.get("kid").and_then(Value::as_str), token.kid.as_deref());
    for name in ["crit", "b64", "zip", "enc"] {
        assert!(header.get(name).is_none(), "{name} was overlooked");
    }
    let claims = read(claims);
    assert_eq!(claims, Value::Object(token.claims.clone()));
    let again = format!(
        "{}.{}.{}",
        encode(header.to_string()),
        encode(claims.to_string()),
        encode(&token.signature)
    );
    // Written anew it may have become too long.
    if let Ok(again) = Token::parse(again.as_bytes()) {
        assert_eq!((again.algorithm, &again.kid), (token.algorithm, &token.kid));
        assert_eq!(again.values, token.values);
        assert_eq!(exact(Value::Object(again.claims)), exact(claims));
    }
}

/// Without the numbers that are read as the nearest one only (serde_json takes the quicker way).
fn exact(value: Value) -> Value {
    match value {
        Value::Number(number) if number.is_f64() => Value::Null,
        Value::Array(items) => items.into_iter().map(exact).collect(),
        Value::Object(members) => {
            members.into_iter().map(|(name, value)| (name, exact(value))).collect()
        }
        other => other,
    }
}

/// A part of a token by a naive reader: there must be one way to spell it.
fn read(part: &[u8]) -> Value {
    let bytes = decode(part).expect("base64url");
    assert_eq!(encode(&bytes).as_bytes(), part, "two spellings");
    serde_json::from_slice(&bytes).expect("JSON")
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

fn encode(bytes: impl AsRef<[u8]>) -> String {
    let mut text = String::new();
    for chunk in bytes.as_ref().chunks(3) {
        let bits = (0..3).fold(0_u32, |bits, at| {
            bits << 8 | u32::from(chunk.get(at).copied().unwrap_or_default())
        });
        for at in 0..=chunk.len() {
            text.push(char::from(ALPHABET[(bits >> (18 - 6 * at) & 63) as usize]));
        }
    }
    text
}

fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for chunk in text.chunks(4) {
        let mut bits = 0_u32;
        for at in 0..4 {
            let value = match chunk.get(at) {
                Some(byte) => ALPHABET.iter().position(|known| known == byte)?,
                None => 0,
            };
            bits = bits << 6 | value as u32;
        }
        bytes.extend(&bits.to_be_bytes()[1..chunk.len().max(1)]);
    }
    Some(bytes)
}
