//! Tokens that must not be accepted: those of `hardening.md` 3.1, and one for each thing that
//! RFC 7515, 7518 and 7519 say a verifier must refuse. All are signed by the issuer's own keys
//! where that is possible, so that nothing else than what their names say is wrong with them.

use serde_json::{Value, json};

use super::{SigningKey, b64, jwks};

pub const ISSUER: &str = "https://issuer.test";
pub const AUDIENCE: &str = "api";

/// The keys of the issuer, and one that is not its.
pub struct Keys {
    pub rsa: SigningKey,
    /// Its JWK says RS256.
    pub rs256_only: SigningKey,
    pub p256: SigningKey,
    pub p384: SigningKey,
    pub p521: SigningKey,
    pub ed: SigningKey,
    pub mac: SigningKey,
    pub attacker: SigningKey,
}

impl Keys {
    pub fn new() -> Self {
        Keys {
            rsa: SigningKey::new("rsa", "RS256"),
            rs256_only: SigningKey::new("rs256-only", "RS256"),
            p256: SigningKey::new("p256", "ES256"),
            p384: SigningKey::new("p384", "ES384"),
            p521: SigningKey::new("p521", "ES512"),
            ed: SigningKey::new("ed", "EdDSA"),
            mac: SigningKey::new("mac", "HS256"),
            attacker: SigningKey::new("rsa", "RS256"),
        }
    }

    /// What the issuer publishes.
    pub fn public(&self) -> String {
        let keys = [&self.rsa, &self.p256, &self.p384, &self.p521, &self.ed];
        let mut set: Value = serde_json::from_str(&jwks(keys)).unwrap();
        let mut fixed = self.rs256_only.jwk();
        fixed["alg"] = json!("RS256");
        set["keys"].as_array_mut().unwrap().push(fixed);
        set.to_string()
    }

    /// The key that makes tokens of this algorithm.
    pub fn of(&self, algorithm: &str) -> &SigningKey {
        match algorithm {
            "ES256" => &self.p256,
            "ES384" => &self.p384,
            "ES512" => &self.p521,
            "EdDSA" => &self.ed,
            mac if mac.starts_with("HS") => &self.mac,
            _ => &self.rsa,
        }
    }
}

/// Claims that are right at `now`, in seconds.
pub fn claims(now: u64) -> Value {
    json!({"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "iat": now, "exp": now + 600})
}

/// The same with one of them changed, or, with null, taken away.
fn with(now: u64, name: &str, value: Value) -> Value {
    let mut claims = claims(now);
    match value {
        Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
        value => claims[name] = value,
    }
    claims
}

/// Every token with its name.
pub fn tokens(keys: &Keys, now: u64) -> Vec<(String, Vec<u8>)> {
    let mut list = List { keys, now, tokens: Vec::new() };
    list.algorithms();
    list.confusion();
    list.signatures();
    list.headers();
    list.key_names();
    list.payloads();
    list.times();
    list.names();
    list.shapes();
    list.tokens
}

struct List<'k> {
    keys: &'k Keys,
    now: u64,
    tokens: Vec<(String, Vec<u8>)>,
}

impl List<'_> {
    fn add(&mut self, name: impl Into<String>, token: impl Into<Vec<u8>>) {
        self.tokens.push((name.into(), token.into()));
    }

    fn good(&self) -> String {
        self.keys.rsa.token("RS256", &claims(self.now))
    }

    /// Signed by the issuer, with this header.
    fn header(&mut self, name: &str, header: impl AsRef<[u8]>) {
        let token = self.keys.rsa.token_of("RS256", header, claims(self.now).to_string());
        self.add(name, token);
    }

    /// Signed by the issuer, with this payload.
    fn payload(&mut self, name: impl Into<String>, payload: impl AsRef<[u8]>) {
        let header = json!({"alg": "RS256", "kid": "rsa"}).to_string();
        let token = self.keys.rsa.token_of("RS256", header, payload);
        self.add(name, token);
    }

    fn claim(&mut self, name: &str, value: Value) {
        let text = format!("{name} {value}");
        self.payload(text, with(self.now, name, value).to_string());
    }

    /// RFC 7515, 4.1.1; RFC 7518, 3.6; RFC 8725, 2.1.
    fn algorithms(&mut self) {
        let payload = b64(claims(self.now).to_string());
        for alg in ["none", "None", "nOnE", "NONE", "", "null", "HS256", "rs256", "RS256 ", "RSA"] {
            for kid in [json!("rsa"), Value::Null] {
                let mut header = json!({"alg": alg, "typ": "JWT"});
                if !kid.is_null() {
                    header["kid"] = kid;
                }
                let header = b64(header.to_string());
                self.add(format!("alg {alg:?} unsigned"), format!("{header}.{payload}."));
                self.add(format!("alg {alg:?} no part"), format!("{header}.{payload}"));
                self.add(format!("alg {alg:?} zero"), format!("{header}.{payload}.AA"));
            }
            let header = json!({"alg": alg, "kid": "rsa"}).to_string();
            self.header(&format!("alg {alg:?} with a signature of the key"), header);
        }
        self.header("no alg", r#"{"kid":"rsa"}"#);
        self.header("alg null", r#"{"alg":null,"kid":"rsa"}"#);
        self.header("alg a number", r#"{"alg":256,"kid":"rsa"}"#);
        self.header("alg a list", r#"{"alg":["RS256"],"kid":"rsa"}"#);
        self.header("alg twice", r#"{"alg":"RS256","alg":"RS256","kid":"rsa"}"#);
        self.header("alg twice by escape", r#"{"alg":"none","\u0061lg":"RS256","kid":"rsa"}"#);
        let keys = self.keys;
        for alg in ["RS384", "RS512", "PS256", "PS384", "PS512"] {
            let token = keys.rs256_only.token(alg, &claims(self.now));
            self.add(format!("{alg} by a key for RS256 alone"), token);
        }
        for (signed, said) in [("RS256", "PS256"), ("PS256", "RS256"), ("RS256", "RS512")] {
            let header = json!({"alg": said, "kid": "rsa"}).to_string();
            let token = keys.rsa.token_of(signed, header, claims(self.now).to_string());
            self.add(format!("{signed} that says {said}"), token);
        }
        for (key, alg) in [(&keys.p384, "ES256"), (&keys.p256, "ES384"), (&keys.ed, "ES256")] {
            self.add(format!("{alg} by {}", key.kid), key.token(alg, &claims(self.now)));
        }
        for alg in ["RS256", "HS256", "ES512", "EdDSA"] {
            self.add(format!("{alg} by p256"), keys.p256.token(alg, &claims(self.now)));
        }
    }

    /// A public key as a shared secret (RFC 8725, 2.1).
    fn confusion(&mut self) {
        let keys = self.keys;
        for key in [&keys.rsa, &keys.p256, &keys.ed] {
            let jwk = key.jwk().to_string();
            let mut secrets: Vec<(&str, Vec<u8>)> = vec![
                ("PEM", key.pem().into_bytes()),
                ("PEM without its last line end", key.pem().trim_end().as_bytes().to_vec()),
                ("DER", key.spki()),
                ("JWK", jwk.into_bytes()),
                ("set", keys.public().into_bytes()),
                ("nothing", Vec::new()),
            ];
            if key.kid == "rsa" {
                secrets.push(("modulus", key.components().0));
            }
            for (what, secret) in secrets {
                for alg in ["HS256", "HS384", "HS512"] {
                    let mac = SigningKey::mac(&key.kid, &secret);
                    let token = mac.token(alg, &claims(self.now));
                    self.add(format!("{alg} with the {what} of {}", key.kid), token);
                    let header = json!({"alg": alg}).to_string();
                    let token = mac.token_of(alg, header, claims(self.now).to_string());
                    self.add(format!("{alg} with the {what} of {}, no kid", key.kid), token);
                }
            }
        }
    }

    /// RFC 7515, 5.2; RFC 7518, 3.4: the form of signatures.
    fn signatures(&mut self) {
        let keys = self.keys;
        for alg in ["RS256", "PS256", "ES256", "ES384", "ES512", "EdDSA"] {
            let key = keys.of(alg);
            let token = key.token(alg, &claims(self.now));
            let (signed, signature) = token.rsplit_once('.').unwrap();
            let bytes = key.sign(alg, signed.as_bytes());
            let mut forms: Vec<(&str, Vec<u8>)> = vec![
                ("zeros", vec![0; bytes.len()]),
                ("ones", vec![0xff; bytes.len()]),
                ("cut", bytes[..bytes.len() - 1].to_vec()),
                ("longer", [&bytes[..], &[0]].concat()),
                ("with a zero before", [&[0], &bytes[..]].concat()),
                ("twice", [&bytes[..], &bytes[..]].concat()),
                ("one byte", vec![1]),
                ("of something else", key.sign(alg, b"something else")),
            ];
            if alg.starts_with("ES") {
                let half = bytes.len() / 2;
                let zeros = vec![0; half];
                forms.push(("r zero", [&zeros[..], &bytes[half..]].concat()));
                forms.push(("s zero", [&bytes[..half], &zeros[..]].concat()));
                forms.push(("swapped", [&bytes[half..], &bytes[..half]].concat()));
                forms.push(("in DER", der(&bytes)));
            }
            for (name, form) in forms {
                self.add(format!("{alg} {name}"), format!("{signed}.{}", b64(form)));
            }
            self.add(format!("{alg} empty"), format!("{signed}."));
            self.add(format!("{alg} padded"), format!("{signed}.{signature}=="));
            let other = key.token(alg, &with(self.now, "sub", json!("mallory")));
            let (other, _) = other.rsplit_once('.').unwrap();
            self.add(format!("{alg} with other claims"), format!("{other}.{signature}"));
        }
        let token = self.keys.attacker.token("RS256", &claims(self.now));
        self.add("signed by somebody else", token);
    }

    /// RFC 7515, 4.1 and RFC 7797; RFC 7519, 5.
    fn headers(&mut self) {
        for (name, more) in [
            ("crit exp", r#""crit":["exp"]"#),
            ("crit unknown", r#""crit":["x"],"x":1"#),
            ("crit empty", r#""crit":[]"#),
            ("crit text", r#""crit":"exp""#),
            ("crit null", r#""crit":null"#),
            ("b64 false", r#""b64":false,"crit":["b64"]"#),
            ("b64 false, not critical", r#""b64":false"#),
            ("zip", r#""zip":"DEF""#),
            ("enc", r#""enc":"A128GCM""#),
            ("nested", r#""cty":"JWT""#),
            ("nested, lower case", r#""cty":"jwt""#),
            ("typ a number", r#""typ":1"#),
            ("typ twice", r#""typ":"JWT","typ":"JWT""#),
            ("kid twice", r#""kid":"rsa""#),
            ("member twice inside", r#""x":{"a":1,"a":1}"#),
            ("trailing comma", r#""x":1,"#),
        ] {
            self.header(name, format!(r#"{{"alg":"RS256","kid":"rsa",{more}}}"#));
        }
        self.header("header a list", r#"["alg","RS256"]"#);
        self.header("header text", r#""RS256""#);
        self.header("header null", "null");
        self.header("header empty", "");
        self.header("header with more after it", r#"{"alg":"RS256","kid":"rsa"}{}"#);
        self.header("header with a BOM", "\u{feff}{\"alg\":\"RS256\",\"kid\":\"rsa\"}");
        self.header("header with a NUL", "{\"alg\":\"RS256\",\"kid\":\"rsa\"}\0");
        self.header("header not UTF-8", b"{\"alg\":\"RS256\",\"kid\":\"rsa\",\"x\":\"\xff\"}");
        let wide = "\"x\":".to_owned() + &"[".repeat(40) + &"]".repeat(40);
        self.header("header deep", format!(r#"{{"alg":"RS256","kid":"rsa",{wide}}}"#));
        let long = "a".repeat(5000);
        self.header("header long", format!(r#"{{"alg":"RS256","kid":"rsa","x":"{long}"}}"#));
    }

    /// Keys that a token brings or points to, and names that are no names.
    fn key_names(&mut self) {
        let attacker = &self.keys.attacker;
        let claims = claims(self.now).to_string();
        let point = "http://127.0.0.1:1/jwks.json";
        for (name, more) in [
            ("jwk", json!({"jwk": attacker.jwk()})),
            ("jku", json!({"jku": point})),
            ("x5u", json!({"x5u": point})),
            ("x5c", json!({"x5c": [b64(attacker.spki())]})),
        ] {
            for kid in [json!("rsa"), json!("other"), Value::Null] {
                let mut header = more.clone();
                header["alg"] = json!("RS256");
                if !kid.is_null() {
                    header["kid"] = kid.clone();
                }
                let token = attacker.token_of("RS256", header.to_string(), &claims);
                self.add(format!("{name}, kid {kid}"), token);
            }
        }
        let long = "k".repeat(10_000);
        for kid in [
            "../../../../dev/null",
            "x' OR '1'='1",
            "https://169.254.169.254/latest/meta-data",
            "rsa\u{0}",
            " rsa",
            "RSA",
            "p256",
            "",
            &long,
        ] {
            self.header(
                &format!("kid {kid:.30?}"),
                json!({"alg": "RS256", "kid": kid}).to_string(),
            );
        }
        for kid in [json!(1), json!(null), json!(["rsa"]), json!({"a": 1}), json!(true)] {
            self.header(&format!("kid {kid}"), json!({"alg": "RS256", "kid": kid}).to_string());
        }
    }

    /// RFC 7519, 4 and 7.2.
    fn payloads(&mut self) {
        let good = claims(self.now).to_string();
        let inside = good.trim_end_matches('}').to_owned();
        for (name, payload) in [
            ("a list", format!("[{good}]")),
            ("text", json!(good).to_string()),
            ("a number", "1".to_owned()),
            ("null", "null".to_owned()),
            ("an empty object", "{}".to_owned()),
            ("no JSON", "exp=9999999999".to_owned()),
            ("more after it", format!("{good} {{}}")),
            ("twice", format!("{good}{good}")),
            ("BOM", format!("\u{feff}{good}")),
            ("NUL", format!("{good}\0")),
            ("comment", format!("{inside}/* */}}")),
            ("NaN", format!("{inside},\"x\":NaN}}")),
            ("half a surrogate", format!("{inside},\"x\":\"\\ud800\"}}")),
            ("exp twice", format!("{inside},\"exp\":9999999999}}")),
            ("sub twice", format!("{inside},\"sub\":\"admin\"}}")),
            ("sub twice by escape", format!("{inside},\"\\u0073ub\":\"admin\"}}")),
            ("twice inside", format!("{inside},\"x\":{{\"a\":1,\"a\":2}}}}")),
            ("deep", format!("{inside},\"x\":{}{}}}", "[".repeat(60), "]".repeat(60))),
            ("wide", format!("{inside},\"x\":[{}0]}}", "0,".repeat(4000))),
            ("a compressed one", String::from_utf8_lossy(&[0x1f, 0x8b, 8, 0]).into_owned()),
        ] {
            self.payload(format!("payload {name}"), payload);
        }
        self.payload("payload empty", "");
        let bytes = [inside.as_bytes(), b",\"x\":\"\xc3\x28\"}"].concat();
        self.payload("payload not UTF-8", bytes);
        let wide: Vec<u8> = good.encode_utf16().flat_map(u16::to_le_bytes).collect();
        self.payload("payload UTF-16", wide);
    }

    /// RFC 7519, 4.1.4 to 4.1.6; leeway is 60 seconds.
    fn times(&mut self) {
        let now = self.now;
        for value in [
            json!((now + 600).to_string()),
            json!(format!("{}", now + 600)),
            json!(-1),
            json!(-1.5),
            json!(true),
            json!([now + 600]),
            json!({"value": now + 600}),
            json!(1e20),
            json!("Infinity"),
            json!(""),
        ] {
            for name in ["exp", "nbf", "iat"] {
                self.claim(name, value.clone());
            }
        }
        let text = claims(now).to_string();
        for name in ["exp", "nbf", "iat"] {
            let taken = with(now, name, Value::Null).to_string();
            for value in ["1e400", "-1e400", "null", "1e", "0x7fffffff", "1_000", "+1"] {
                let inside = taken.trim_end_matches('}');
                self.payload(format!("{name} {value}"), format!("{inside},\"{name}\":{value}}}"));
            }
        }
        assert!(text.contains("\"exp\""));
        self.claim("exp", Value::Null);
        self.claim("exp", json!(0));
        self.claim("exp", json!(now - 61));
        self.claim("exp", json!(now - 60));
        self.claim("exp", json!(now as f64 - 60.5));
        self.claim("nbf", json!(now + 62));
        self.claim("nbf", json!(now as f64 + 61.5));
        self.claim("iat", json!(now + 62));
    }

    /// RFC 7519, 4.1.1 to 4.1.3.
    fn names(&mut self) {
        for value in [
            Value::Null,
            json!(""),
            json!("https://issuer.tes"),
            json!("https://issuer.test/"),
            json!("https://issuer.test.evil.example"),
            json!("HTTPS://ISSUER.TEST"),
            json!(" https://issuer.test"),
            json!("https://issuer.test\u{0}"),
            json!("https://\u{456}ssuer.test"),
            json!(["https://issuer.test"]),
            json!({"iss": "https://issuer.test"}),
            json!(1),
        ] {
            self.claim("iss", value);
        }
        for value in [
            Value::Null,
            json!(""),
            json!("ap"),
            json!("api2"),
            json!("API"),
            json!("api "),
            json!("web api"),
            json!([]),
            json!(["web"]),
            json!([["api"]]),
            json!(["api", 1]),
            json!({"api": true}),
            json!(1),
            json!(true),
        ] {
            self.claim("aud", value);
        }
        self.claim("sub", json!(1));
        self.claim("sub", json!(["alice"]));
    }

    /// RFC 7515, 7.1: the compact form.
    fn shapes(&mut self) {
        let good = self.good();
        let parts: Vec<&str> = good.split('.').collect();
        let [header, payload, signature] = parts[..] else { unreachable!("three parts") };
        for (name, token) in [
            ("nothing", String::new()),
            ("dots", "..".to_owned()),
            ("five dots", ".....".to_owned()),
            ("one part", header.to_owned()),
            ("two parts", format!("{header}.{payload}")),
            ("four parts", format!("{good}.{signature}")),
            ("JWE", format!("{good}.{signature}.{signature}")),
            ("six parts", format!("{good}.{good}")),
            ("dot first", format!(".{good}")),
            ("dot last", format!("{good}.")),
            ("no header", format!(".{payload}.{signature}")),
            ("no payload", format!("{header}..{signature}")),
            ("quoted", format!("\"{good}\"")),
            ("comma", format!("{good},{good}")),
            ("two", format!("{good} {good}")),
            ("semicolon", format!("{good};")),
            ("header padded", format!("{header}=.{payload}.{signature}")),
            ("payload padded", format!("{header}.{payload}=.{signature}")),
            ("space inside", format!("{header}. {payload}.{signature}")),
            ("tab inside", format!("{header}\t.{payload}.{signature}")),
            ("percent", good.replace('.', "%2e")),
            ("slash", format!("{header}.{payload}/.{signature}")),
            ("plus", format!("{header}.{payload}+.{signature}")),
            (
                "flattened",
                format!(
                    "{{\"payload\":\"{payload}\",\"protected\":\"{header}\",\"signature\":\"{signature}\"}}"
                ),
            ),
            ("long", format!("{header}.{}.{signature}", "e".repeat(16 * 1024))),
        ] {
            self.add(format!("shape {name}"), token);
        }
        self.add("shape not ASCII", [good.as_bytes(), "é".as_bytes()].concat());
        // Other bits at the end that decode to the same bytes.
        let last = good.chars().last().unwrap();
        for other in ('A'..='Z').chain('a'..='z').chain('0'..='9').chain(['-', '_']) {
            if other != last {
                self.add(
                    format!("last character {other}"),
                    format!("{}{other}", &good[..good.len() - 1]),
                );
            }
        }
    }
}

/// A signature of fixed length as ASN.1 (RFC 3279, 2.2.3), as other protocols have it.
fn der(fixed: &[u8]) -> Vec<u8> {
    let integer = |bytes: &[u8]| {
        let start = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len() - 1);
        let mut number = bytes[start..].to_vec();
        if number[0] & 0x80 != 0 {
            number.insert(0, 0);
        }
        [&[2, number.len() as u8][..], &number].concat()
    };
    let (r, s) = fixed.split_at(fixed.len() / 2);
    let body = [integer(r), integer(s)].concat();
    let length = match body.len() {
        short if short < 128 => vec![short as u8],
        long => vec![0x81, long as u8],
    };
    [&[0x30][..], &length, &body].concat()
}
