//! Consumers as policies know them: the people and programs that have credentials, groups and a
//! plan, and the index by which a request's credentials lead to one of them.
//!
//! Of an API key only its SHA-256 is kept, and it is found by that: what a lookup's time could
//! tell is about a digest, not about the key. The kind that users write is in `api::consumer`.

use std::collections::HashMap;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use rustc_hash::FxHashMap;

use super::authentication::basic::htpasswd::{Hash, Users};
use super::identity::{Claims, Identity, Method};

/// Fewest and most bytes of an API key.
pub const KEY_LENGTH: std::ops::RangeInclusive<usize> = 8..=512;

/// One Consumer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consumer {
    pub namespace: Box<str>,
    /// Unique in its namespace.
    pub name: Box<str>,
    pub groups: Box<[Box<str>]>,
    /// What limits go by, where they have numbers for this plan.
    pub plan: Option<Box<str>>,
}

/// The SHA-256 of an API key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyDigest([u8; 32]);

/// All Consumers of a namespace, by what they are known by. A credential is one Consumer's: who
/// has it first keeps it.
#[derive(Debug, Default)]
pub struct Consumers {
    by_name: HashMap<Box<str>, Arc<Consumer>>,
    keys: FxHashMap<KeyDigest, Key>,
    users: HashMap<Box<str>, User>,
    /// The hash among `users` that takes longest to check.
    decoy: Option<Arc<Hash>>,
    /// By the issuer, then by the claim's value.
    tokens: HashMap<Box<str>, HashMap<Box<str>, Arc<Consumer>>>,
    certificates: HashMap<Box<str>, Arc<Identity>>,
}

#[derive(Debug)]
struct Key {
    identity: Arc<Identity>,
    /// Milliseconds since the Unix epoch.
    expires: Option<u64>,
}

/// A user of HTTP Basic who is a Consumer.
#[derive(Debug)]
pub struct User {
    pub hash: Arc<Hash>,
    pub identity: Arc<Identity>,
}

/// The credential is another Consumer's already: that one's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken(pub Box<str>);

/// Whose an API key is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Holder<'a> {
    Somebody(&'a Arc<Identity>),
    /// Somebody's, but its time is over.
    Expired,
    Nobody,
}

impl KeyDigest {
    /// Of what a client sent.
    pub fn of(key: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, key).as_ref());
        KeyDigest(bytes)
    }

    /// Of a Secret's value: the key itself, or `sha256:` and its digest in hexadecimal digits.
    ///
    /// # Errors
    /// What is wrong with the value, without anything of it.
    pub fn parse(value: &[u8]) -> Result<Self, String> {
        let value = value.trim_ascii();
        if let Some(digits) = value.strip_prefix(b"sha256:") {
            return hexadecimal(digits).map(KeyDigest).ok_or_else(|| {
                "`sha256:` is not followed by 64 hexadecimal digits; make them by \
                 `printf %s KEY | sha256sum`"
                    .to_owned()
            });
        }
        if !value.iter().all(u8::is_ascii_graphic) {
            return Err("not of visible ASCII characters only; make another key".to_owned());
        }
        if !KEY_LENGTH.contains(&value.len()) {
            return Err(format!(
                "of {} characters; make a key of {} to {}",
                value.len(),
                KEY_LENGTH.start(),
                KEY_LENGTH.end()
            ));
        }
        Ok(KeyDigest::of(value))
    }
}

/// Not even a digest: it would tell a guess from a hit.
impl std::fmt::Debug for KeyDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyDigest")
    }
}

fn hexadecimal(digits: &[u8]) -> Option<[u8; 32]> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let mut bytes = [0; 32];
    if digits.len() != 2 * bytes.len() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

impl Consumers {
    /// Adds somebody, who has no credentials yet.
    pub fn add(&mut self, consumer: Consumer) -> Arc<Consumer> {
        let consumer = Arc::new(consumer);
        self.by_name.insert(consumer.name.clone(), Arc::clone(&consumer));
        consumer
    }

    /// # Errors
    /// It is another's.
    pub fn add_key(
        &mut self,
        of: &Arc<Consumer>,
        key: KeyDigest,
        expires: Option<u64>,
    ) -> Result<(), Taken> {
        match self.keys.get(&key) {
            Some(known) => same(of, &known.identity),
            None => {
                let identity = Arc::new(recognised(of, Method::ApiKey, &of.name));
                self.keys.insert(key, Key { identity, expires });
                Ok(())
            }
        }
    }

    /// All users of htpasswd lines. Those who are another's stay that one's.
    ///
    /// # Errors
    /// One of them is another's.
    pub fn add_users(&mut self, of: &Arc<Consumer>, users: &Users) -> Result<(), Taken> {
        let mut result = Ok(());
        for (name, hash) in users.iter() {
            if let Some(known) = self.users.get(name) {
                result = result.and(same(of, &known.identity));
                continue;
            }
            let identity = Arc::new(recognised(of, Method::Basic, name));
            self.users.insert(name.into(), User { hash: Arc::clone(hash), identity });
            if self.decoy.as_ref().is_none_or(|decoy| decoy.cost() < hash.cost()) {
                self.decoy = Some(Arc::clone(hash));
            }
        }
        result
    }

    /// # Errors
    /// It is another's.
    pub fn add_token(
        &mut self,
        of: &Arc<Consumer>,
        issuer: &str,
        value: &str,
    ) -> Result<(), Taken> {
        let tokens = self.tokens.entry(issuer.into()).or_default();
        let known = tokens.entry(value.into()).or_insert_with(|| Arc::clone(of));
        if Arc::ptr_eq(known, of) { Ok(()) } else { Err(Taken(known.name.clone())) }
    }

    /// # Errors
    /// It is another's.
    pub fn add_certificate(&mut self, of: &Arc<Consumer>, name: &str) -> Result<(), Taken> {
        let make = || Arc::new(recognised(of, Method::ClientCertificate, name));
        same(of, self.certificates.entry(name.into()).or_insert_with(make))
    }

    pub fn by_name(&self, name: &str) -> Option<&Arc<Consumer>> {
        self.by_name.get(name)
    }

    /// Whose key this is at a time in milliseconds since the Unix epoch.
    pub fn by_key(&self, key: KeyDigest, now_ms: u64) -> Holder<'_> {
        match self.keys.get(&key) {
            None => Holder::Nobody,
            Some(key) if key.expires.is_some_and(|end| end <= now_ms) => Holder::Expired,
            Some(key) => Holder::Somebody(&key.identity),
        }
    }

    pub fn by_user(&self, name: &str) -> Option<&User> {
        self.users.get(name)
    }

    /// The hash that takes longest to check, for users that do not exist.
    pub fn decoy(&self) -> Option<&Arc<Hash>> {
        self.decoy.as_ref()
    }

    /// Whom a token of this issuer speaks for, by the value of the claim that names Consumers.
    pub fn by_token(&self, issuer: &str, value: &str) -> Option<&Arc<Consumer>> {
        self.tokens.get(issuer)?.get(value)
    }

    pub fn by_certificate(&self, name: &str) -> Option<&Arc<Identity>> {
        self.certificates.get(name)
    }
}

fn same(of: &Arc<Consumer>, known: &Identity) -> Result<(), Taken> {
    match &known.consumer {
        Some(other) if !Arc::ptr_eq(other, of) => Err(Taken(other.name.clone())),
        _ => Ok(()),
    }
}

/// Somebody who is known by what says no more than who it is.
fn recognised(consumer: &Arc<Consumer>, method: Method, subject: &str) -> Identity {
    Identity {
        method,
        subject: subject.into(),
        consumer: Some(Arc::clone(consumer)),
        groups: Box::default(),
        scopes: Box::default(),
        claims: Claims::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn consumer(name: &str) -> Consumer {
        Consumer { namespace: "ns".into(), name: name.into(), groups: Box::default(), plan: None }
    }

    fn name_of(holder: Holder<'_>) -> Option<&str> {
        match holder {
            Holder::Somebody(identity) => Some(identity.name()),
            _ => None,
        }
    }

    #[test]
    fn a_key_and_its_digest_are_the_same_key() {
        // printf %s secret-key-1 | sha256sum
        let digits = "a6c1eaef9d5f23f4e13d9b574cbbe07ae877227d92be87d077005dc6776bcdcc";
        let parsed = KeyDigest::parse(format!("sha256:{digits}\n").as_bytes()).unwrap();
        assert!(parsed == KeyDigest::parse(b"secret-key-1\n").unwrap());
        assert!(parsed == KeyDigest::of(b"secret-key-1"));
    }

    #[test]
    fn what_is_no_key_is_refused_without_being_shown() {
        for (value, expected) in [
            (&b"short"[..], "of 5 characters"),
            (b"", "of 0 characters"),
            (b"with spaces in it", "visible ASCII"),
            (b"sha256:abc", "64 hexadecimal digits"),
            (&[b'x'; 513], "of 513 characters"),
        ] {
            let error = KeyDigest::parse(value).unwrap_err();
            assert!(error.contains(expected), "{error}");
            assert!(!error.contains("spaces") && !error.contains("abc"), "{error}");
        }
    }

    #[test]
    fn a_key_is_good_until_it_expires_and_several_are_at_once() {
        let mut all = Consumers::default();
        let who = all.add(consumer("app"));
        let [old, new] = [b"the-old-key", b"the-new-key"].map(|key| KeyDigest::of(key));
        all.add_key(&who, old, Some(1000)).unwrap();
        all.add_key(&who, new, None).unwrap();
        assert_eq!(name_of(all.by_key(old, 999)), Some("app"));
        assert_eq!(name_of(all.by_key(new, 999)), Some("app"));
        assert_eq!(all.by_key(old, 1000), Holder::Expired);
        assert_eq!(name_of(all.by_key(new, 1000)), Some("app"));
        assert_eq!(all.by_key(KeyDigest::of(b"the-wrong-key"), 0), Holder::Nobody);
    }

    #[test]
    fn who_has_a_credential_first_keeps_it() {
        let mut all = Consumers::default();
        let (first, second) = (all.add(consumer("first")), all.add(consumer("second")));
        let key = KeyDigest::of(b"one-key-for-two");
        let users = Users::parse(b"bob:{SHA}tiY7sUhYKUwI5L3866kDY+ENcrQ=").unwrap();
        let taken = Err(Taken("first".into()));
        for (of, expected) in [(&first, Ok(())), (&first, Ok(())), (&second, taken)] {
            assert_eq!(all.add_key(of, key, None), expected);
            assert_eq!(all.add_users(of, &users), expected);
            assert_eq!(all.add_token(of, "https://i.example", "a"), expected);
            assert_eq!(all.add_certificate(of, "a.example"), expected);
        }
        assert_eq!(name_of(all.by_key(key, 0)), Some("first"));
        assert_eq!(all.by_user("bob").unwrap().identity.name(), "first");
        assert_eq!(&*all.by_token("https://i.example", "a").unwrap().name, "first");
        assert!(all.by_token("https://other.example", "a").is_none());
        assert_eq!(all.by_certificate("a.example").unwrap().name(), "first");
        assert_eq!(&*all.by_name("second").unwrap().name, "second");
    }
}
